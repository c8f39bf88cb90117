//! Calls: from a method and its arguments to a [`Pending`].

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch_method::Batchers;
use super::canceller::{Canceller, Queue};
use super::generations::{Entering, Generations};
use super::hosted::{Handler, loader};
use super::pending::Pending;
use super::streaming::Streaming;
use super::wire::{Reader, WireError, Writer};
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::engine::Engine;
use crate::engine::call::items::Items;
use crate::engine::call::waiter::{Observed, Waiter};
use crate::engine::call::{Call, Receive, Reply};
use crate::engine::figures::now_if_on;
use crate::engine::message::Outgoing;
use crate::engine::program::Program;
use crate::engine::served::Prewarm;
use crate::engine::sys::entry::{Change, FnToken};
use crate::error::call::{CallError, CallPart, StartError};
use crate::pipeline::rebuild::Root;
use crate::report::processes::report;
use crate::report::table::Report;

/// Options of calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub deadline: Option<Duration>,
    pub attempts: u32,
    /// Whether a call waits for a place in a full queue.
    pub wait: bool,
    /// Whether the workers are actors.
    pub actor: bool,
    /// Time for which a worker may go on with a cancelled call, before it is killed.
    pub grace: Option<Duration>,
    /// Number of items of a stream that may wait for their reader.
    pub stream_buffer: usize,
    /// Whether the calls are those of a swap itself, which are not measured.
    pub is_probe: bool,
}

/// Default of [`Options::stream_buffer`].
pub(super) const STREAM_BUFFER: usize = 64;

impl Options {
    /// How a call that is made now is observed.
    pub(super) fn observed(&self) -> Observed {
        Observed { made: if self.is_probe { None } else { now_if_on() }, is_traced: !self.is_probe }
    }

    /// The deadline of a call that is made now. A deadline beyond the clock's range is no deadline.
    pub(super) fn deadline(&self) -> Option<(Instant, Duration)> {
        self.deadline.and_then(|after| Some((Instant::now().checked_add(after)?, after)))
    }
}

/// A program on an engine. The code that `#[ray_zerocopy::remote]` writes calls it.
#[derive(Clone)]
pub struct Caller {
    pub(crate) generations: Arc<Generations>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) options: Options,
    pub(crate) pinned: Option<usize>,
    /// How calls are put together, if they are.
    pub(crate) batchers: Option<Arc<Batchers>>,
    /// The program whose state the calls move to theirs.
    pub(crate) state_of: Option<u64>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("Caller");
        text.field("options", &self.options).field("pinned", &self.pinned).finish_non_exhaustive()
    }
}

/// A remote method of a pipeline.
pub struct Method {
    pub(super) name: &'static str,
    pub(super) handler: Result<FnToken, String>,
}

impl Method {
    /// Names a method by the function that runs it.
    pub fn new<P: 'static>(name: &'static str, handler: Handler<P>) -> Self {
        Self { name, handler: FnToken::of(handler).map_err(|error| error.to_string()) }
    }

    /// A method whose function is part of this crate, by the function's name.
    pub(crate) fn named(name: &'static str, function: &str) -> Self {
        Self { name, handler: Ok(FnToken::named(function)) }
    }
}

/// Makes what a worker runs when it has loaded a pipeline of type `P`.
pub(super) fn prewarm<P: 'static>(function: fn(&mut P), place: &Location<'_>) -> Result<Prewarm, CallError> {
    let function = FnToken::of(Change(function)).map_err(|error| StartError::Pipeline {
        pipeline: crate::error::type_name::<P>(),
        reason: error.to_string(),
    })?;
    Ok(Prewarm { function, place: format!("{}:{}", place.file(), place.line()) })
}

/// Makes the program of a pipeline of type `P`.
pub(super) fn program<P: Root>(
    arena: Arena,
    device: String,
    strict: bool,
    memory: MemoryPolicy,
    prewarm: Option<Prewarm>,
) -> Result<Arc<Program>, CallError> {
    let load: crate::engine::served::Loader = loader::<P>;
    let named = P::loader().map(|name| Ok(FnToken::named(name)));
    let loader = named.unwrap_or_else(|| FnToken::of(load)).map_err(|error| StartError::Pipeline {
        pipeline: crate::error::type_name::<P>(),
        reason: error.to_string(),
    })?;
    Ok(Arc::new(Program::new(arena, loader, device, strict, memory).with_prewarm(prewarm)))
}

impl Caller {
    /// The generation that calls run on.
    pub(crate) fn program(&self) -> Arc<Program> {
        self.generations.current()
    }

    /// Memory of the processes, and sizes of batches.
    pub(super) fn report(&self) -> crate::error::Result<Report> {
        let report = report(&self.program(), &*self.engine)?;
        let batches = self.batchers.as_ref().map(|batchers| batchers.reports());
        Ok(Report { batches: batches.unwrap_or_default(), generations: self.generations.reports(), ..report })
    }

    /// Puts a call into the engine's queue. If the queue is full, waits for a place, or fails, as
    /// the options say.
    pub fn call<T>(
        &self,
        method: Method,
        put: impl FnOnce(&mut Writer) -> Result<(), WireError>,
        take: fn(&mut Reader) -> Result<T, WireError>,
    ) -> Pending<T> {
        let name = method.name;
        let (handler, args) = match encoded(method, put) {
            Ok(encoded) => encoded,
            Err(error) => return self.failed(error, take, name),
        };
        let (deadline, observed) = (self.options.deadline(), self.options.observed());
        let entering = self.generations.of_call();
        let (waiter, answer) = Waiter::new(name, deadline, self.options.grace, None, &entering.program.tally, observed);
        let mut pending = Pending::new(answer, take, name, entering.program.arena.id(), self.canceller(&waiter));
        pending.receive_by(self.submit(&waiter, &entering, handler, args));
        pending
    }

    /// Like [`call`](Self::call), for a method that returns a stream.
    pub(super) fn call_for_stream<T>(
        &self,
        method: Method,
        put: impl FnOnce(&mut Writer) -> Result<(), WireError>,
        take: fn(&mut Reader) -> Result<T, WireError>,
    ) -> Streaming<T> {
        let name = method.name;
        let items = Arc::new(Items::new(self.options.stream_buffer));
        let (deadline, grace, observed) = (self.options.deadline(), self.options.grace, self.options.observed());
        let entering = self.generations.of_call();
        let Program { arena, tally, .. } = &*entering.program;
        let (waiter, answer) = Waiter::new(name, deadline, grace, Some(Arc::clone(&items)), tally, observed);
        let (canceller, arena) = (self.canceller(&waiter), arena.id());
        let lone = match encoded(method, put) {
            Ok((handler, args)) => self.submit(&waiter, &entering, handler, args),
            Err(error) => {
                waiter.answer(Err(error));
                None
            }
        };
        let mut streaming = Streaming::new(items, answer, take, name, arena, canceller, Arc::clone(&self.engine));
        streaming.receive_by(lone);
        streaming
    }

    /// A call that could not be made.
    pub(crate) fn failed<T>(
        &self,
        error: CallError,
        take: fn(&mut Reader) -> Result<T, WireError>,
        method: &'static str,
    ) -> Pending<T> {
        Pending::failed(error, take, method, &self.program().tally, self.options.observed())
    }

    fn canceller(&self, waiter: &Arc<Waiter>) -> Canceller {
        Canceller { waiter: Arc::downgrade(waiter), queue: Queue::Engine(Arc::downgrade(&self.engine)) }
    }

    /// Submits a call to the engine. Returns the caller's right to receive the result, if it has it.
    fn submit(
        &self,
        waiter: &Arc<Waiter>,
        entering: &Entering<'_>,
        handler: FnToken,
        args: Outgoing,
    ) -> Option<Box<dyn Receive>> {
        let call = Call {
            program: Arc::clone(&entering.program),
            method: waiter.method,
            handler,
            args,
            reply: Reply::Waiter(Arc::clone(waiter), None),
            deadline: waiter.deadline,
            allowed: self.options.attempts,
            attempts: 0,
            unheard: 0,
            actor: self.options.actor,
            pinned: self.pinned,
            is_admitted: false,
            state_of: self.state_of,
        };
        self.engine.submit(call, self.options.wait).unwrap_or_else(|refused| {
            let (call, error) = *refused;
            call.answer(Err(error));
            None
        })
    }
}

/// The function of a method, and the message with its arguments.
fn encoded(
    method: Method,
    put: impl FnOnce(&mut Writer) -> Result<(), WireError>,
) -> Result<(FnToken, Outgoing), CallError> {
    let mut writer = Writer::default();
    put(&mut writer).map_err(|error| CallError::Wire {
        method: method.name.to_owned(),
        part: CallPart::Arguments,
        reason: error.to_string(),
    })?;
    let handler = method.handler.map_err(|reason| StartError::call(method.name, reason))?;
    Ok((handler, writer.finish()))
}
