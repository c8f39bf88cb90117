//! Hot swap: moves a wrapper from one generation of weights to the next while it serves calls.
//!
//! Each worker loads the new weights between two calls, by a call that only this worker may run. New calls
//! run on them when every worker has them. If a worker cannot load them, nothing has changed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Remote;
use super::caller::{Caller, Method};
use super::generations::Generations;
use super::pending::Pending;
use super::wire::{Reader, WireError, Writer};
use crate::arena::arena::Arena;
use crate::arena::manifest::ArenaId;
use crate::engine::live_programs::run_on;
use crate::engine::program::Program;
use crate::engine::sys::entry::{ChangeBoth, FnToken};
use crate::engine::tally::Generation;
use crate::error::call::{CallError, CallPart, Worker};
use crate::error::swap::SwapError;
use crate::error::{Error, Result};
use crate::holder::{Following, register};
use crate::os::byte_size::mib;
use crate::report::GenerationReport;

/// Interval at which a swap looks whether the last batches of the old weights have been sent.
const LOOK: Duration = Duration::from_millis(1);
/// Number of processes that may die while they load the new weights, for each worker.
const ATTEMPTS: u32 = 3;

/// What happens to the state of actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It moves to the new weights, if the pipeline has a function for that.
    Moves,
    Discarded,
}

/// The result of a check of new weights. Any error, or text, is the reason why they are refused:
/// `Err("worse".into())`.
pub type Checked = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a swap has done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swapped {
    /// The weights before.
    pub from: ArenaId,
    /// The weights since.
    pub to: ArenaId,
    /// The time from the begin of the swap until new calls ran on the new weights.
    pub took: Duration,
    /// The size of the new arena in bytes.
    pub bytes: u64,
    /// The workers that have loaded them, and how long each of them took for it.
    pub workers: Vec<(Worker, Duration)>,
    /// The actors whose state was lost, because the function that moves it panicked or the actor died. Each
    /// has the state that `init` makes.
    pub lost_state: Vec<CallError>,
}

impl fmt::Display for Swapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (workers, took, mib) = (self.workers.len(), self.took, mib(self.bytes));
        write!(f, "{} to {} ({mib} MiB) on {workers} workers in {took:.1?}", self.from, self.to)
    }
}

/// A generation of weights that gets a share of the calls of a wrapper. Dropping it ends that: calls that
/// have been made run, and new ones go to the other generation alone.
#[must_use = "dropping it ends the share"]
pub struct Canary<P: Remote> {
    caller: Caller,
    program: Arc<Program>,
    pipeline: std::marker::PhantomData<fn() -> P>,
}

impl<P: Remote> Canary<P> {
    /// The weights that get a share.
    pub fn arena_id(&self) -> ArenaId {
        self.program.arena.id()
    }

    /// How the calls on these weights have ended. [`Report::generations`](crate::report::Report) has the
    /// same for the other weights.
    pub fn report(&self) -> GenerationReport {
        GenerationReport::of(&self.program)
    }

    /// Gives all new calls to these weights.
    ///
    /// # Errors
    /// If it is called by the check of a swap of the same wrapper. The share of these weights ends then.
    pub fn promote(self) -> Result<Swapped> {
        let begun = Instant::now();
        let _one_at_a_time = self.caller.generations.begin_swap()?;
        self.program.tally.swap_ended(true);
        Ok(self.caller.commit(Arc::clone(&self.program), begun))
    }

    /// Ends the share, as dropping it does. Returns how the calls have ended that were answered before.
    pub fn cancel(self) -> GenerationReport {
        self.report()
    }
}

impl<P: Remote> Drop for Canary<P> {
    fn drop(&mut self) {
        // Not if it has been promoted.
        if self.caller.generations.end_canary(&self.program) {
            self.caller.generations.forget_batches(&self.program);
        }
    }
}

impl<P: Remote> fmt::Debug for Canary<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canary").field("arena", &self.program.arena).finish_non_exhaustive()
    }
}

/// The function that a worker runs when it has loaded the new weights: nothing.
pub(crate) fn probe<P>(_: &mut P, _: &mut Reader, _: &mut Writer) -> Result<(), WireError> {
    Ok(())
}

impl Caller {
    /// Swaps the weights, if `check` accepts them.
    pub(super) fn swap<P: Remote>(
        &self,
        arena: Arena,
        state: State,
        check: impl FnOnce(Self) -> Checked,
    ) -> Result<Swapped> {
        let before = self.program();
        let swapped = self.try_swap::<P>(arena, state, check);
        before.tally.swap_ended(swapped.is_ok());
        swapped
    }

    fn try_swap<P: Remote>(&self, arena: Arena, state: State, check: impl FnOnce(Self) -> Checked) -> Result<Swapped> {
        let begun = Instant::now();
        let _one_at_a_time = self.generations.begin_swap()?;
        let program = self.prepare::<P>(arena)?;
        check(self.of_generation(&program)).map_err(|error| SwapError::Check { reason: error.to_string() })?;
        match (state, P::on_swap()) {
            (State::Moves, Some(function)) => self.commit_with_state::<P>(program, function, begun),
            _ => Ok(self.commit(program, begun)),
        }
    }

    /// Makes a program the current generation when each actor has moved its state to it. New calls wait for
    /// that: an actor moves its state after the last call on the old weights, and before the first one on
    /// the new ones.
    fn commit_with_state<P: Remote>(
        &self,
        program: Arc<Program>,
        function: fn(&mut P, &mut P),
        begun: Instant,
    ) -> Result<Swapped> {
        let handler = FnToken::of(ChangeBoth(function)).map_err(|error| error.to_string());
        let workers = self.engine.live_workers().map_err(|error| SwapError::Worker { error })?;
        let old = self.program();
        let _paused = self.generations.pause();
        // Behind all calls that any actor may run: when it runs, each of them has its actor. An error is
        // that of an engine that is being closed, which the calls below have as well.
        let _closed = self.probing(&old, None).call(P::probe(), |_| Ok(()), |_| Ok(())).wait();
        while !self.generations.batches_are_sent(&old) {
            std::thread::sleep(LOOK);
        }
        // All of them are made before the first one is waited for.
        let mut moves = Vec::new();
        for index in workers {
            let mut caller = self.probing(&program, Some(index));
            caller.state_of = Some(old.key);
            let method = Method { name: "on_swap", handler: handler.clone() };
            moves.push(caller.call(method, |_| Ok(()), |_| Ok(())));
        }
        let lost_state = moves.into_iter().filter_map(|moved| moved.wait().err().map(call_error)).collect();
        Ok(Swapped { lost_state, ..self.commit(program, begun) })
    }

    /// Swaps the weights when another program sends new ones to a name.
    pub(super) fn follow<P: Remote>(&self, name: &str, state: State) -> Result<Following> {
        let (swapping, asked) = (self.clone(), self.clone());
        let swap = move |arena| Ok(swapping.swap::<P>(arena, state, |_| Ok(()))?.to_string());
        Ok(register(name, Box::new(move || Some(asked.program().arena.id())), Box::new(swap))?)
    }

    /// Gives weights a share of the calls.
    pub(super) fn canary<P: Remote>(&self, arena: Arena, share: f64) -> Result<Canary<P>> {
        if !(0.0..=1.0).contains(&share) {
            return Err(SwapError::Share { share: share.to_string() }.into());
        }
        let _one_at_a_time = self.generations.begin_swap()?;
        let program = self.prepare::<P>(arena)?;
        if !self.generations.begin_canary(&program, share) {
            return Err(SwapError::TwoCanaries.into());
        }
        Ok(Canary { caller: self.clone(), program, pipeline: std::marker::PhantomData })
    }

    /// A caller of one generation, which a swap does not replace.
    fn of_generation(&self, program: &Arc<Program>) -> Self {
        Self { generations: Generations::new(Arc::clone(program)), batchers: None, ..self.clone() }
    }

    /// Makes every worker load an arena.
    fn prepare<P: Remote>(&self, arena: Arena) -> Result<Arc<Program>> {
        let current = self.program();
        if let Some(difference) = difference(&current.arena, &arena).or_else(|| P::difference(&current.arena, &arena)) {
            return Err(SwapError::OtherPipeline { found: arena.id().to_string(), difference }.into());
        }
        arena.ensure_verified().map_err(SwapError::from)?;
        let arena = self.engine.adopt(arena).map_err(|error| match error {
            Error::Arena(error) => SwapError::from(error).into(),
            other => other,
        })?;
        let worker_error = |error| SwapError::Worker { error };
        let workers = self.engine.live_workers().map_err(worker_error)?;
        let Program { loader, device, strict, memory, prewarm, .. } = &*current;
        self.engine.replicate(&arena, *memory);
        arena.apply_policy(memory.once());
        let program = Program::new(arena, loader.clone(), device.clone(), *strict, *memory);
        let program = Arc::new(program.with_prewarm(prewarm.clone()));
        program.tally.set_generation(Generation::Candidate);
        run_on(&program, &self.engine);
        // A pool that is empty starts a worker, so that weights which cannot be loaded are refused. One that is
        // closed refuses the call.
        let pins = if workers.is_empty() { vec![None] } else { workers.into_iter().map(Some).collect() };
        let loads: Vec<_> = pins.into_iter().map(|pinned| self.probe::<P>(&program, pinned)).collect();
        // All of them have ended before the program may be dropped.
        let mut failed = None;
        for load in loads {
            if let Err(error) = load.wait() {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(program), |error| Err(worker_error(call_error(error)).into()))
    }

    /// Makes one worker, or any, load a program.
    fn probe<P: Remote>(&self, program: &Arc<Program>, pinned: Option<usize>) -> Pending<()> {
        self.probing(program, pinned).call(P::probe(), |_| Ok(()), |_| Ok(()))
    }

    /// A caller for calls of the swap itself, of one worker or of any.
    fn probing(&self, program: &Arc<Program>, pinned: Option<usize>) -> Self {
        let mut caller = Self { pinned, ..self.of_generation(program) };
        caller.options.deadline = None;
        caller.options.grace = None;
        caller.options.attempts = ATTEMPTS;
        caller.options.wait = true;
        caller.options.is_probe = true;
        caller
    }

    /// Makes a program the current generation.
    fn commit(&self, program: Arc<Program>, begun: Instant) -> Swapped {
        let (to, bytes) = (program.arena.id(), program.arena.size_bytes());
        let workers = self.engine.attached(program.key);
        let workers = workers.into_iter().map(|(worker, attached)| (worker, attached.took)).collect();
        self.engine.set_program(&program);
        let before = self.generations.replace(program);
        let took = begun.elapsed();
        self.generations.forget_batches(&before);
        Swapped { from: before.arena.id(), to, took, bytes, workers, lost_state: Vec::new() }
    }
}

/// Returns the first difference between the pipelines of two arenas, without their weights.
fn difference(current: &Arena, next: &Arena) -> Option<String> {
    if current.fingerprint() == next.fingerprint() {
        return None;
    }
    let (was, is) = (current.pipeline(), next.pipeline());
    if was != is {
        return Some(format!("it is that of a `{is}`, and this wrapper's is that of a `{was}`"));
    }
    let mut theirs = next.tensors();
    for own in current.tensors() {
        let Some(other) = theirs.next() else {
            return Some(format!("it does not have the tensor `{}`", own.path));
        };
        if own.path != other.path {
            return Some(format!("it has the tensor `{}` where this wrapper has `{}`", other.path, own.path));
        }
        if (own.dtype, own.shape) != (other.dtype, other.shape) {
            return Some(format!(
                "it has `{}` as {:?} {:?}, and this wrapper as {:?} {:?}",
                own.path, other.dtype, other.shape, own.dtype, own.shape
            ));
        }
    }
    theirs.next().map(|more| format!("it has the tensor `{}`, which this wrapper does not have", more.path))
}

/// The error of a call, which only calls have.
fn call_error(error: Error) -> CallError {
    match error {
        Error::Call(error) => error,
        other => {
            let (method, reason) = ("swap".to_owned(), other.to_string());
            CallError::Wire { method, part: CallPart::ArgumentsOrResult, reason }
        }
    }
}

/// The error of a swap that would lose the state of actors.
pub(super) fn state_error<P: Remote>() -> Result<(), SwapError> {
    if P::STATEFUL && P::on_swap().is_none() {
        return Err(SwapError::State { pipeline: crate::error::type_name::<P>() });
    }
    Ok(())
}

/// The error of a canary of actors with state: each generation would have a state of its own.
pub(super) fn canary_error<P: Remote>() -> Result<(), SwapError> {
    if P::STATEFUL || P::on_swap().is_some() {
        return Err(SwapError::CanaryState { pipeline: crate::error::type_name::<P>() });
    }
    Ok(())
}

/// The method with which a worker loads a generation.
pub(crate) fn probe_of<P: 'static>() -> Method {
    Method::new::<P>("swap", probe::<P>)
}
