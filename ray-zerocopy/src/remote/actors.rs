//! Actors that run: all of them, and one.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use super::Remote;
use super::caller::Caller;
use crate::error::Result;
use crate::error::call::Worker;
use crate::report::processes::report;
use crate::report::table::Report;

/// Processes that have loaded a pipeline and serve its methods. A call goes to whichever is free.
///
/// Methods that take `&mut self` change the state of the one actor that runs them: address it with
/// [`actor`](Self::actor). A call whose actor dies is an error that names it, and is not repeated; the actor is
/// started again from the arena, with its state as `init` makes it.
///
/// Cheap to clone: clones are the same processes. Dropping the last one runs the calls that wait and ends them.
pub struct Actors<P: Remote> {
    caller: Caller,
    methods: P::Actors,
}

impl<P: Remote> Actors<P> {
    pub(super) fn new(caller: Caller) -> Self {
        Self { methods: P::Actors::from(caller.clone()), caller }
    }

    /// Number of actors, with those that are being started.
    pub fn actor_count(&self) -> usize {
        self.caller.engine.size()
    }

    /// One of the actors, with its state.
    ///
    /// # Panics
    /// If there is no actor of this number; there are [`actor_count`](Self::actor_count).
    #[track_caller]
    pub fn actor(&self, index: usize) -> Actor<P> {
        assert!(index < self.actor_count(), "there is no actor {index}: there are {}", self.actor_count());
        let caller = Caller { pinned: Some(index), ..self.caller.clone() };
        Actor { methods: P::Actors::from(caller.clone()), caller, index }
    }

    /// How long a call through this handle may take, with its time in the queue; `actors.clone().deadline(..)` for one
    /// call. An actor that is still busy then is killed and replaced.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.caller.options.deadline = Some(deadline);
        self.methods = P::Actors::from(self.caller.clone());
        self
    }

    /// All actors, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Actor<P>> {
        (0..self.actor_count()).map(|index| self.actor(index))
    }

    /// The processes that are up now.
    pub fn workers(&self) -> Vec<Worker> {
        self.caller.engine.workers()
    }

    /// What each process maps and what it costs, from the kernel's figures. Prints as a table.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn report(&self) -> Result<Report> {
        report(&self.caller.program, &*self.caller.engine).map_err(Into::into)
    }

    /// Runs the calls that wait, takes no new ones, and ends the actors. Returns when they are gone.
    pub fn shut_down(&self) {
        self.caller.engine.shut_down();
    }

    /// Kills the actors at once, whatever they do. Calls that wait or run are errors.
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

/// One actor of several. Its calls run in the order in which they were made.
pub struct Actor<P: Remote> {
    caller: Caller,
    methods: P::Actors,
    index: usize,
}

impl<P: Remote> Actor<P> {
    /// How long a call through this handle may take, with its time in the queue.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.caller.options.deadline = Some(deadline);
        self.methods = P::Actors::from(self.caller.clone());
        self
    }

    /// The actor's process, if it is up.
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
