//! [`Pipeline`] implementation for graphs, so that engines, wrappers and reports work without
//! knowledge of graphs.

use std::any::Any;
use std::fmt;

use burn::tensor::Device;

use super::batch::{self, CallRows};
use super::executable::Executable;
use super::graph::code::METHOD;
use super::program::ProgramKind;
use crate::arena::arena::Arena;
use crate::engine::program::Program;
use crate::engine::served::Loader;
use crate::engine::sys::entry::FnToken;
use crate::error::call::CallError;
use crate::error::graph::{GraphError, ReplayError};
use crate::error::load::LoadError;
use crate::error::share::ShareError;
use crate::pipeline::Pipeline;
use crate::pipeline::attach::Attacher;
use crate::pipeline::collect::Collector;
use crate::pipeline::rebuild::{Root, Source};
use crate::remote::Remote;
use crate::remote::batch_method::BatchRequest;
use crate::remote::caller::{Caller, Method};
use crate::remote::hosted::{Handler, loader};
use crate::remote::method::MethodEntry;
use crate::remote::pending::Pending;
use crate::remote::swap::probe;
use crate::remote::wire::{Reader, WireError, Writer};
use crate::tensor::value::{Value, Values};

/// Pipeline type of a graph or a module in wrappers. Has no weights until it is loaded.
#[doc(hidden)]
pub struct Graph {
    kind: ProgramKind,
    replay: Option<Executable>,
}

impl Graph {
    /// Returns the executable, or `None` if the graph has not been loaded.
    pub(super) fn into_replay(self) -> Option<Executable> {
        self.replay
    }

    pub(super) fn kind(&self) -> &ProgramKind {
        &self.kind
    }

    /// Returns the executable of a worker.
    pub(super) fn loaded(&mut self) -> Result<&mut Executable, WireError> {
        self.replay.as_mut().ok_or_else(|| WireError::new("the graph has not been loaded".to_owned()))
    }
}

fn failed(error: impl ToString) -> LoadError {
    LoadError::Rebuild { pipeline: "the graph".to_owned(), reason: error.to_string() }
}

// Keeps these impls out of trait-error suggestions for user types.
#[diagnostic::do_not_recommend]
impl Pipeline for Graph {
    /// Collects no tensors: tracing has already created the graph's arena.
    fn collect(&self, _: &mut Collector) -> Result<(), ShareError> {
        Ok(())
    }

    fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError> {
        let (arena, device) = attacher.whole();
        let replay = self.kind.load(&arena, &device, &format!("{device:?}")).map_err(failed)?;
        attacher.note_copied(replay.copied().to_vec());
        self.replay = Some(replay);
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl Root for Graph {
    fn loader() -> Option<&'static str> {
        Some(LOADER)
    }

    fn rebuild(source: &Source<'_>, _: &Device) -> Result<Self, LoadError> {
        let arena = source.whole().ok_or_else(|| failed("graphs are loaded from an arena"))?;
        Ok(Self { kind: ProgramKind::of(arena).map_err(failed)?, replay: None })
    }
}

#[diagnostic::do_not_recommend]
impl Remote for Graph {
    type Tasks = GraphCaller;
    type Actors = GraphCaller;

    fn probe() -> Method {
        Method::named("swap", PROBE)
    }

    /// Compares the inputs and outputs: graphs with the same weights may have others.
    fn difference(current: &Arena, next: &Arena) -> Option<String> {
        match (ProgramKind::of(current), ProgramKind::of(next)) {
            (Ok(current), Ok(next)) => current.difference(&next),
            (_, Err(error)) | (Err(error), _) => Some(error.to_string()),
        }
    }

    /// Empty: the methods are those of the graph or module at hand. See [`GraphCaller::run`].
    const METHODS: &'static [MethodEntry<Self>] = &[];
}

/// Calls of a traced graph or a TorchScript module. [`JitActors`](super::JitActors) and
/// [`JitActor`](super::JitActor) dereference to it.
pub struct GraphCaller(Caller);

impl From<Caller> for GraphCaller {
    fn from(caller: Caller) -> Self {
        Self(caller)
    }
}

/// Name of the loader function. Because it is identified by name, workers may run another program
/// than the one that created the graph.
pub(crate) const LOADER: &str = "jit.load";
const PROBE: &str = "jit.probe";
const RUN: &str = "jit.run";
const RUN_BATCH: &str = "jit.run_batch";

/// Returns the function that workers look up by this name, or `None` if there is no such function.
pub(crate) fn own_function(name: &str) -> Option<Box<dyn Any>> {
    match name {
        LOADER => Some(Box::new(loader::<Graph> as Loader)),
        PROBE => Some(Box::new(probe as Handler<Graph>)),
        RUN => Some(Box::new(serve as Handler<Graph>)),
        RUN_BATCH => Some(Box::new(batch::serve as Handler<Graph>)),
        _ => None,
    }
}

impl GraphCaller {
    /// Runs a graph, or the method `forward` of a TorchScript module, in a worker.
    ///
    /// Inputs that do not match are not sent. The result is an error.
    pub fn run(&self, inputs: impl Into<Values>) -> Pending<Values> {
        self.checked(None, &inputs.into())
    }

    /// Calls a method of a TorchScript module in a worker. A graph has a single method, `run`.
    ///
    /// Inputs that do not match are not sent. The result is an error.
    pub fn call(&self, method: &str, inputs: impl Into<Values>) -> Pending<Values> {
        self.checked(Some(method), &inputs.into())
    }

    fn checked(&self, method: Option<&str>, inputs: &Values) -> Pending<Values> {
        let program = self.0.program();
        let kind = kind(&program);
        let method = method.unwrap_or_else(|| kind.as_ref().map_or(METHOD, |kind| kind.main()));
        let write = |writer: &mut Writer| {
            writer.value(method)?;
            put(inputs, writer)
        };
        let checked = kind.and_then(|kind| {
            kind.check(method, inputs)?;
            self.0.batchers.as_ref().map(|_| batch::rows_of(kind, method, inputs)).transpose()
        });
        match checked {
            Ok(None) => self.0.call(Method::named(METHOD, RUN), write, take),
            Ok(Some(CallRows { rows, key })) => {
                let request = BatchRequest {
                    method: METHOD,
                    alone: FnToken::named(RUN),
                    batch: FnToken::named(RUN_BATCH),
                    is_repeatable: true,
                    rows,
                    row_cost: 1,
                    key,
                };
                self.0.call_in_batch(request, write, take)
            }
            Err(error) => self.0.failed(CallError::Graph { method: method.to_owned(), error }, take, METHOD),
        }
    }
}

/// Decodes the graph or module in the arena, once for each program.
fn kind(program: &Program) -> Result<&ProgramKind, ReplayError> {
    let cached = program.cache.get_or_init(|| Box::new(ProgramKind::of(&program.arena)));
    match cached.downcast_ref::<Result<ProgramKind, ReplayError>>() {
        Some(kind) => kind.as_ref().map_err(Clone::clone),
        None => Err(GraphError::Corrupted { reason: "its program belongs to another pipeline".to_owned() }.into()),
    }
}

impl fmt::Debug for GraphCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphCaller").field("arena", &self.0.program().arena).finish_non_exhaustive()
    }
}

fn put(values: &Values, writer: &mut Writer) -> Result<(), WireError> {
    writer.value(&values.names().collect::<Vec<_>>())?;
    values.iter().try_for_each(|(_, value)| writer.data(value.data().map_err(WireError::new)?))
}

fn take(reader: &mut Reader) -> Result<Values, WireError> {
    take_on(reader, &Device::flex())
}

fn take_on(reader: &mut Reader, device: &Device) -> Result<Values, WireError> {
    let names: Vec<String> = reader.value()?;
    let value = |name| Ok((name, Value::from_data(reader.data()?, device).map_err(WireError::new)?));
    names.into_iter().map(value).collect::<Result<Vec<(String, Value)>, _>>().map(Values::from_iter)
}

/// Runs a call. Called in the worker.
fn serve(graph: &mut Graph, reader: &mut Reader, writer: &mut Writer) -> Result<(), WireError> {
    let replay = graph.loaded()?;
    let method: String = reader.value()?;
    let inputs = take_on(reader, &replay.device().clone())?;
    put(&replay.call(&method, inputs)?, writer)
}
