//! What wrappers run: a traced graph, or a TorchScript module.

use super::graph::runnable;
use std::sync::Arc;

use burn::tensor::Device;

use super::executable::Executable;
use super::graph::code::GraphCode;
use super::graph::code::METHOD;
use super::torchscript;
use super::torchscript::{FORWARD, TorchScript};
use super::traced_graph::TracedGraph;
use crate::arena::arena::Arena;
use crate::error::graph::{GraphError, ReplayError};
use crate::tensor::value::Values;

/// What [`JitTaskWrapper`](super::wrapper::JitTaskWrapper) and [`JitActorWrapper`](super::wrapper::JitActorWrapper) run: a [`TracedGraph`] or a
/// [`TorchScript`] module.
pub trait Runnable: Sealed {
    /// Its weights, with all that a worker needs to run it.
    fn arena(&self) -> &Arena;
}

/// Which of them it is, and what is known of it without its weights.
#[derive(Clone)]
#[doc(hidden)]
pub struct ProgramKind(Inner);

#[derive(Clone)]
enum Inner {
    Graph(Arc<GraphCode>),
    Script(Arc<torchscript::signature::ModuleSignature>),
}

/// Nobody else's types are programs.
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
    /// What an arena holds.
    ///
    /// # Errors
    /// If it holds neither, or what it holds cannot be read.
    pub(super) fn of(arena: &Arena) -> Result<Self, ReplayError> {
        if arena.pipeline() == super::graph::code::PIPELINE
            && let Some(code) = torchscript::code_of(arena)
        {
            return Ok(Self(Inner::Script(Arc::new(code?))));
        }
        let graph: Result<TracedGraph, GraphError> = TracedGraph::from_arena(arena);
        Ok(graph?.kind())
    }

    /// The method that is meant if none is named.
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

    /// Loads it in this process, on a device that is called `name`.
    ///
    /// # Errors
    /// If the device cannot run it.
    pub(super) fn load(&self, arena: &Arena, device: &Device, name: &str) -> Result<Executable, ReplayError> {
        match &self.0 {
            Inner::Graph(code) => runnable::load(Arc::clone(code), arena, device, name),
            Inner::Script(code) => torchscript::load(Arc::clone(code), arena, device, name),
        }
    }
}
