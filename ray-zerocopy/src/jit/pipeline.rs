//! A graph as a pipeline, so that engines, wrappers and reports need to know nothing of graphs.

use std::any::Any;
use std::fmt;

use burn::tensor::Device;

use super::executable::Executable;
use super::graph::code::METHOD;
use super::program::ProgramKind;
use crate::engine::served::Loader;
use crate::error::call::CallError;
use crate::error::graph::{GraphError, ReplayError};
use crate::error::load::LoadError;
use crate::error::share::ShareError;
use crate::pipeline::Pipeline;
use crate::pipeline::attach::Attacher;
use crate::pipeline::collect::Collector;
use crate::pipeline::rebuild::{Root, Source};
use crate::remote::Remote;
use crate::remote::caller::{Caller, Method};
use crate::remote::hosted::{Handler, loader};
use crate::remote::method::MethodEntry;
use crate::remote::pending::Pending;
use crate::remote::wire::{Reader, WireError, Writer};
use crate::tensor::value::{Value, Values};

/// A graph, as wrappers keep it: without its weights before it is loaded.
#[doc(hidden)]
pub struct Graph {
    kind: ProgramKind,
    replay: Option<Executable>,
}

impl Graph {
    /// The replay of a graph that was loaded.
    pub(super) fn into_replay(self) -> Option<Executable> {
        self.replay
    }
}

fn failed(error: impl ToString) -> LoadError {
    LoadError::Rebuild { pipeline: "the graph".to_owned(), reason: error.to_string() }
}

// An error of a user's type is not about this one.
#[diagnostic::do_not_recommend]
impl Pipeline for Graph {
    /// Gives nothing: the arena of a graph is made by the trace.
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
        let arena = source.whole().ok_or_else(|| failed("a graph comes out of an arena"))?;
        Ok(Self { kind: ProgramKind::of(arena).map_err(failed)?, replay: None })
    }
}

#[diagnostic::do_not_recommend]
impl Remote for Graph {
    type Tasks = GraphCaller;
    type Actors = GraphCaller;

    /// None that could be called without a graph at hand: see [`GraphCaller::run`].
    const METHODS: &'static [MethodEntry<Self>] = &[];
}

/// Calls of a traced graph or a TorchScript module: what [`JitActors`](super::JitActors) and
/// [`JitActor`](super::JitActor) dereference to.
pub struct GraphCaller(Caller);

impl From<Caller> for GraphCaller {
    fn from(caller: Caller) -> Self {
        Self(caller)
    }
}

/// What graphs are loaded with, by name: so that workers need not be the program that made the graph.
pub(crate) const LOADER: &str = "jit.load";
const RUN: &str = "jit.run";

/// The functions that workers know by name.
pub(crate) fn own_function(name: &str) -> Option<Box<dyn Any>> {
    match name {
        LOADER => Some(Box::new(loader::<Graph> as Loader)),
        RUN => Some(Box::new(serve as Handler<Graph>)),
        _ => None,
    }
}

impl GraphCaller {
    /// Runs a graph, or the method `forward` of a TorchScript module, in a worker.
    ///
    /// Inputs that are not what it takes are an error of the result, and are not sent.
    pub fn run(&self, inputs: impl Into<Values>) -> Pending<Values> {
        self.checked(None, &inputs.into())
    }

    /// Calls a method of a TorchScript module in a worker. A graph has one, `run`.
    ///
    /// Inputs that are not what it takes are an error of the result, and are not sent.
    pub fn call(&self, method: &str, inputs: impl Into<Values>) -> Pending<Values> {
        self.checked(Some(method), &inputs.into())
    }

    fn checked(&self, method: Option<&str>, inputs: &Values) -> Pending<Values> {
        let kind = self.kind();
        let method = method.unwrap_or_else(|| kind.as_ref().map_or(METHOD, |kind| kind.main()));
        if let Err(error) = kind.and_then(|kind| kind.check(method, inputs)) {
            return Pending::failed(CallError::Graph { method: method.to_owned(), error }, take, METHOD);
        }
        let write = |writer: &mut Writer| {
            writer.value(method)?;
            put(inputs, writer)
        };
        self.0.call(Method::named(METHOD, RUN), write, take)
    }

    /// The graph or module of the arena, which is read once for each program.
    fn kind(&self) -> Result<&ProgramKind, ReplayError> {
        let program = &self.0.program;
        let cached = program.cache.get_or_init(|| Box::new(ProgramKind::of(&program.arena)));
        match cached.downcast_ref::<Result<ProgramKind, ReplayError>>() {
            Some(kind) => kind.as_ref().map_err(Clone::clone),
            None => Err(GraphError::Corrupted { reason: "its program is another pipeline's".to_owned() }.into()),
        }
    }
}

impl fmt::Debug for GraphCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphCaller").field("arena", &self.0.program.arena).finish_non_exhaustive()
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

/// In the worker.
fn serve(graph: &mut Graph, reader: &mut Reader, writer: &mut Writer) -> Result<(), WireError> {
    let replay = graph.replay.as_mut().ok_or_else(|| WireError::new("the graph has not been loaded".to_owned()))?;
    let method: String = reader.value()?;
    let inputs = take_on(reader, &replay.device().clone())?;
    put(&replay.call(&method, inputs)?, writer)
}
