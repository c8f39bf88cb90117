//! Handles of running actors: [`Actors`] for all of them, and [`Actor`] for one.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use super::Remote;
use super::batch_method::Batchers;
use super::caller::Caller;
use super::swap::{Canary, Checked, State, Swapped, canary_error, state_error};
use crate::arena::arena::Arena;
use crate::engine::call::batch::batching::Batching;
use crate::engine::queue::report::Drained;
use crate::error::Result;
use crate::error::call::Worker;
use crate::holder::Following;
use crate::report::table::Report;

/// Processes that have loaded a pipeline and serve its methods. A call runs on any free one.
///
/// Methods that take `&mut self` change the state of the one actor that runs them: address it with
/// [`actor`](Self::actor). If an actor dies, its call is not retried and returns an error that
/// names the actor. The actor is restarted from the arena, with the state that `init` makes.
///
/// Cheap to clone: clones refer to the same processes. Dropping the last clone runs the queued
/// calls and ends the processes.
pub struct Actors<P: Remote> {
    caller: Caller,
    methods: P::Actors,
}

impl<P: Remote> Actors<P> {
    pub(super) fn new(caller: Caller) -> Self {
        Self { methods: P::Actors::from(caller.clone()), caller }
    }

    /// Number of actors, including those that are being started.
    pub fn actor_count(&self) -> usize {
        self.caller.engine.size()
    }

    /// One of the actors, to call it with its state.
    ///
    /// # Panics
    /// If `index` is not less than [`actor_count`](Self::actor_count).
    #[track_caller]
    pub fn actor(&self, index: usize) -> Actor<P> {
        assert!(index < self.actor_count(), "there is no actor {index}: there are {}", self.actor_count());
        let caller = Caller { pinned: Some(index), ..self.caller.clone() };
        Actor { methods: P::Actors::from(caller.clone()), caller, index }
    }

    /// Deadline of calls through this handle, which includes their time in the queue. Use
    /// `actors.clone().deadline(..)` for a single call. An actor that still runs the call then is
    /// killed and replaced.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.caller.options.deadline = Some(deadline);
        self.methods = P::Actors::from(self.caller.clone());
        self
    }

    /// Time for which an actor may go on with a call through this handle that has been
    /// [cancelled](crate::Pending::cancel), before it is killed and replaced. By default it is not
    /// killed. A thread cannot be killed.
    #[must_use]
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.caller.options.grace = Some(grace);
        self.methods = P::Actors::from(self.caller.clone());
        self
    }

    /// Sets the number of items of a [stream](crate::Streaming) that may wait for their reader, at
    /// least one. An actor that is so far ahead waits. Default: 64.
    #[must_use]
    pub fn stream_buffer(mut self, items: usize) -> Self {
        self.caller.options.stream_buffer = items;
        self.methods = P::Actors::from(self.caller.clone());
        self
    }

    /// Puts calls together, as [`TaskWrapper::batch`](crate::TaskWrapper::batch) does. Each batch runs
    /// on one actor. If a batch of a method that takes `&mut self` fails, each of its calls gets the
    /// error: an actor's state may have changed. Calls that are put together may overtake calls of other
    /// methods, or with other arguments.
    #[must_use]
    pub fn batch(mut self, batching: Batching) -> Self {
        self.caller.batchers = Some(Batchers::new(batching));
        self.methods = P::Actors::from(self.caller.clone());
        self
    }

    /// Iterates over all actors.
    pub fn iter(&self) -> impl Iterator<Item = Actor<P>> {
        (0..self.actor_count()).map(|index| self.actor(index))
    }

    /// The processes that are running now.
    pub fn workers(&self) -> Vec<Worker> {
        self.caller.engine.workers()
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Mappings and memory use of each process, by the kernel's figures. Prints as a table.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn report(&self) -> Result<Report> {
        self.caller.report()
    }

    /// Refuses new calls, runs the queued ones, and ends the actors. Returns when they have exited.
    pub fn shut_down(&self) {
        self.caller.engine.shut_down();
    }

    /// Runs the queued calls and refuses new ones, as [`shut_down`](Self::shut_down) does, but not longer
    /// than `timeout`: the calls that are left then return errors. Returns how many those are.
    pub fn drain(&self, timeout: Duration) -> Drained {
        Drained::new(self.caller.engine.drain(timeout))
    }

    /// Replaces each actor's process, one after the other: an actor finishes its call, gets no further
    /// one, and ends. The next actor is replaced when the new process has loaded the pipeline. No call
    /// fails: calls of the one actor wait for its new process, and other calls go to other actors.
    ///
    /// The state of the actors is lost, as it is when one dies. An actor that is a thread loads its
    /// pipeline again.
    ///
    /// # Errors
    /// If a new process cannot be started or cannot load the pipeline: the other actors then keep their
    /// processes. Also if the actors are shut down meanwhile, and always on a Ray cluster, where calls
    /// are already on their way to an actor.
    pub fn restart(&self) -> Result<()> {
        Ok(self.caller.engine.restart()?)
    }

    /// Moves the actors to other weights while they serve calls, as
    /// [`TaskWrapper::swap`](crate::TaskWrapper::swap) does.
    ///
    /// Their state is kept if the method block says how: with a function under `#[remote(on_swap)]`, which
    /// gets the pipeline with the new weights and the one with the old weights. An actor runs it after its
    /// last call on the old weights, and before its first one on the new weights. So new calls wait until
    /// each actor has ended the call that it runs.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
    /// use ray_zerocopy::{ActorWrapper, Pipeline, Threads, share};
    ///
    /// #[derive(Pipeline)]
    /// #[pipeline(init = Chat::new)]
    /// struct Chat {
    ///     head: Linear,
    ///     #[pipeline(skip)]
    ///     turns: Vec<String>,
    /// }
    ///
    /// #[ray_zerocopy::remote]
    /// impl Chat {
    /// #   #[remote(skip)]
    /// #   pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device), turns: vec![] } }
    ///     pub fn say(&mut self, turn: String) -> usize {
    ///         self.turns.push(turn);
    ///         self.turns.len()
    ///     }
    ///
    ///     #[remote(on_swap)]
    ///     fn keep_turns(&mut self, old: &mut Self) {
    ///         self.turns = std::mem::take(&mut old.turns);
    ///     }
    /// }
    ///
    /// # fn main() -> ray_zerocopy::Result<()> {
    /// # let device = Device::flex();
    /// let actors = ActorWrapper::on(&Threads::new(1), &Chat::new(&device))?.spawn(1)?;
    /// actors.actor(0).say("hello".to_owned()).wait()?;
    /// actors.swap(share(&Chat::new(&device))?)?;
    /// assert_eq!(actors.actor(0).say("again".to_owned()).wait()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TaskWrapper::swap`](crate::TaskWrapper::swap), and if the pipeline has methods that take
    /// `&mut self`, but no function that moves the state: see
    /// [`swap_discarding_state`](Self::swap_discarding_state).
    pub fn swap(&self, arena: Arena) -> Result<Swapped> {
        self.swap_if(arena, |_| Ok(()))
    }

    /// Does the same as [`swap`](Self::swap) if `check` succeeds, which gets a handle for calls on the new
    /// weights alone. When it is called, every actor has loaded them. It cannot swap these actors.
    ///
    /// # Errors
    /// As [`swap`](Self::swap), or the error of `check`.
    pub fn swap_if(&self, arena: Arena, check: impl FnOnce(&Self) -> Checked) -> Result<Swapped> {
        state_error::<P>()?;
        self.caller.swap::<P>(arena, State::Moves, |caller| check(&Self::new(caller)))
    }

    /// Does the same as [`swap`](Self::swap), also if the actors have state: it is lost, as it is when an
    /// actor dies. Each actor then has the state that `init` makes.
    ///
    /// # Errors
    /// As [`TaskWrapper::swap`](crate::TaskWrapper::swap).
    pub fn swap_discarding_state(&self, arena: Arena) -> Result<Swapped> {
        self.caller.swap::<P>(arena, State::Discarded, |_| Ok(()))
    }

    /// Gives other weights a share of the calls, as [`TaskWrapper::canary`](crate::TaskWrapper::canary)
    /// does.
    ///
    /// # Errors
    /// As [`TaskWrapper::canary`](crate::TaskWrapper::canary), and if the actors have state: there would be
    /// two of it.
    pub fn canary(&self, arena: Arena, share: f64) -> Result<Canary<P>> {
        canary_error::<P>()?;
        self.caller.canary(arena, share)
    }

    /// Swaps the weights when another program of this user sends new ones to a name, as
    /// [`TaskWrapper::follow`](crate::TaskWrapper::follow) does.
    ///
    /// # Errors
    /// As [`TaskWrapper::follow`](crate::TaskWrapper::follow), and if the actors have state that a swap would lose,
    /// as [`swap`](Self::swap).
    pub fn follow(&self, name: &str) -> Result<Following> {
        state_error::<P>()?;
        self.caller.follow::<P>(name, State::Moves)
    }

    /// The weights: those of the last [`swap`](Self::swap).
    pub fn arena(&self) -> Arena {
        self.caller.program().arena.clone()
    }

    /// Kills the actors at once. Queued and running calls return errors.
    pub fn shut_down_now(&self) {
        self.caller.engine.abort();
    }
}

impl<P: Remote> Deref for Actors<P> {
    type Target = P::Actors;

    fn deref(&self) -> &P::Actors {
        &self.methods
    }
}

impl<P: Remote> Clone for Actors<P> {
    fn clone(&self) -> Self {
        let caller = self.caller.clone();
        Self { methods: P::Actors::from(caller.clone()), caller }
    }
}

impl<P: Remote> fmt::Debug for Actors<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actors").field("workers", &self.workers()).finish_non_exhaustive()
    }
}

/// A single actor. Its calls run in the order in which they were made.
pub struct Actor<P: Remote> {
    caller: Caller,
    methods: P::Actors,
    index: usize,
}

impl<P: Remote> Actor<P> {
    /// Time for which the actor may go on with a call through this handle that has been cancelled,
    /// before it is killed and replaced. See [`Actors::cancel_grace`].
    #[must_use]
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.caller.options.grace = Some(grace);
        self.methods = P::Actors::from(self.caller.clone());
        self
    }

    /// Sets the number of items of a [stream](crate::Streaming) that may wait for their reader, at
    /// least one. An actor that is so far ahead waits. Default: 64.
    #[must_use]
    pub fn stream_buffer(mut self, items: usize) -> Self {
        self.caller.options.stream_buffer = items;
        self.methods = P::Actors::from(self.caller.clone());
        self
    }

    /// Deadline of calls through this handle, which includes their time in the queue.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.caller.options.deadline = Some(deadline);
        self.methods = P::Actors::from(self.caller.clone());
        self
    }

    /// The actor's process. Returns `None` if it is not running.
    pub fn worker(&self) -> Option<Worker> {
        self.caller.engine.workers().into_iter().find(|worker| worker.index == self.index)
    }
}

impl<P: Remote> Deref for Actor<P> {
    type Target = P::Actors;

    fn deref(&self) -> &P::Actors {
        &self.methods
    }
}

impl<P: Remote> fmt::Debug for Actor<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actor").field("index", &self.index).finish_non_exhaustive()
    }
}
