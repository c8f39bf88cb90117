//! A traced graph or a TorchScript module, as run by wrappers.

use super::graph::{rows, runnable};
use std::sync::Arc;

use burn::tensor::Device;

use super::executable::Executable;
use super::graph::code::GraphCode;
use super::graph::code::METHOD;
use super::graph::info::GraphInfo;
use super::torchscript;
use super::torchscript::{FORWARD, TorchScript};
use super::traced_graph::TracedGraph;
use crate::arena::arena::Arena;
use crate::error::graph::{GraphError, ReplayError};
use crate::tensor::value::Values;

/// A [`TracedGraph`] or a [`TorchScript`] module, which
/// [`JitTaskWrapper`](super::wrapper::JitTaskWrapper) and
/// [`JitActorWrapper`](super::wrapper::JitActorWrapper) can run. Sealed.
pub trait Runnable: Sealed {
    /// The arena with the weights and everything else that a worker needs to run it.
    fn arena(&self) -> &Arena;
}

/// The kind of a program, with its graph or signature but without its weights.
#[derive(Clone)]
#[doc(hidden)]
pub struct ProgramKind(Inner);

#[derive(Clone)]
enum Inner {
    Graph(Arc<GraphCode>),
    Script(Arc<torchscript::signature::ModuleSignature>),
}

/// Seals [`Runnable`].
pub trait Sealed {
    #[doc(hidden)]
    fn kind(&self) -> ProgramKind;
}

impl Sealed for TracedGraph {
    fn kind(&self) -> ProgramKind {
        ProgramKind(Inner::Graph(Arc::clone(self.code())))
    }
}

impl Runnable for TracedGraph {
    fn arena(&self) -> &Arena {
        self.arena()
    }
}

impl Sealed for TorchScript {
    fn kind(&self) -> ProgramKind {
        ProgramKind(Inner::Script(Arc::clone(self.code())))
    }
}

impl Runnable for TorchScript {
    fn arena(&self) -> &Arena {
        self.arena()
    }
}

impl ProgramKind {
    /// Decodes the graph or the module in an arena.
    ///
    /// # Errors
    /// If the arena contains neither, or its content cannot be decoded.
    pub(super) fn of(arena: &Arena) -> Result<Self, ReplayError> {
        if arena.pipeline() == super::graph::code::PIPELINE
            && let Some(code) = torchscript::code_of(arena)
        {
            return Ok(Self(Inner::Script(Arc::new(code?))));
        }
        let graph: Result<TracedGraph, GraphError> = TracedGraph::from_arena(arena);
        Ok(graph?.kind())
    }

    /// Returns a difference between the inputs and outputs of this program and another one.
    pub(super) fn difference(&self, next: &Self) -> Option<String> {
        match (&self.0, &next.0) {
            (Inner::Graph(own), Inner::Graph(other)) => {
                let ports = |code: &Arc<GraphCode>| {
                    let info = GraphInfo(Arc::clone(code));
                    (info.inputs().collect::<Vec<_>>(), info.outputs().collect::<Vec<_>>())
                };
                let (own, other) = (ports(own), ports(other));
                (own != other).then(|| format!("its inputs and outputs are {other:?}, and this wrapper's are {own:?}"))
            }
            (Inner::Script(own), Inner::Script(other)) => {
                let (own, other) = (format!("{own:?}"), format!("{other:?}"));
                (own != other).then(|| format!("its methods are {other}, and this wrapper's are {own}"))
            }
            (Inner::Graph(_), Inner::Script(_)) => Some("it is a TorchScript module, and not a graph".to_owned()),
            (Inner::Script(_), Inner::Graph(_)) => Some("it is a graph, and not a TorchScript module".to_owned()),
        }
    }

    /// Name of the default method.
    pub(super) fn main(&self) -> &'static str {
        match &self.0 {
            Inner::Graph(_) => METHOD,
            Inner::Script(_) => FORWARD,
        }
    }

    /// Checks the inputs of a call.
    ///
    /// # Errors
    /// Names the input.
    pub(super) fn check(&self, method: &str, inputs: &Values) -> Result<(), ReplayError> {
        match &self.0 {
            Inner::Graph(code) => runnable::check(code, method, inputs),
            Inner::Script(code) => code.check(method, inputs),
        }
    }

    /// Returns whether an input of this shape has rows, so that calls can be put together.
    ///
    /// # Errors
    /// If calls cannot be put together, since an output does not have a row for each row of the
    /// inputs.
    pub(super) fn has_rows(&self, input: &str, shape: &[usize]) -> Result<bool, ReplayError> {
        match &self.0 {
            Inner::Graph(code) => rows::has_rows(code, input),
            Inner::Script(_) => Ok(!shape.is_empty()),
        }
    }

    /// Loads it in this process, on a device with the display name `name`.
    ///
    /// # Errors
    /// If the device does not support it.
    pub(super) fn load(&self, arena: &Arena, device: &Device, name: &str) -> Result<Executable, ReplayError> {
        match &self.0 {
            Inner::Graph(code) => runnable::load(Arc::clone(code), arena, device, name),
            Inner::Script(code) => torchscript::load(Arc::clone(code), arena, device, name),
        }
    }
}
