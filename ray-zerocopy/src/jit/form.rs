//! What wrappers run: a traced graph, or a TorchScript module.

use std::sync::Arc;

use burn::tensor::Device;

use super::graph::Code;
use super::replay::{self, METHOD, Replay};
use super::script::{self, FORWARD, TorchScript};
use super::traced::TracedGraph;
use super::value::Values;
use super::{GraphError, ReplayError};
use crate::arena::Arena;

/// What [`JitTaskWrapper`](super::JitTaskWrapper) and [`JitActorWrapper`](super::JitActorWrapper) run: a [`TracedGraph`] or a
/// [`TorchScript`] module.
pub trait Program: Sealed {
    /// Its weights, with all that a worker needs to run it.
    fn arena(&self) -> &Arena;
}

/// Which of them it is, and what is known of it without its weights.
#[derive(Clone)]
#[doc(hidden)]
pub struct Form(Known);

#[derive(Clone)]
enum Known {
    Graph(Arc<Code>),
    Script(Arc<script::Code>),
}

/// Nobody else's types are programs.
pub trait Sealed {
    #[doc(hidden)]
    fn form(&self) -> Form;
}

impl Sealed for TracedGraph {
    fn form(&self) -> Form {
        Form(Known::Graph(Arc::clone(self.code())))
    }
}

impl Program for TracedGraph {
    fn arena(&self) -> &Arena {
        self.arena()
    }
}

impl Sealed for TorchScript {
    fn form(&self) -> Form {
        Form(Known::Script(Arc::clone(self.code())))
    }
}

impl Program for TorchScript {
    fn arena(&self) -> &Arena {
        self.arena()
    }
}

impl Form {
    /// What an arena holds.
    ///
    /// # Errors
    /// If it holds neither, or what it holds cannot be read.
    pub(super) fn of(arena: &Arena) -> Result<Self, ReplayError> {
        if arena.pipeline() == super::traced::name()
            && let Some(code) = script::code_of(arena)
        {
            return Ok(Self(Known::Script(Arc::new(code?))));
        }
        let graph: Result<TracedGraph, GraphError> = TracedGraph::from_arena(arena);
        Ok(graph?.form())
    }

    /// The method that is meant if none is named.
    pub(super) fn main(&self) -> &'static str {
        match &self.0 {
            Known::Graph(_) => METHOD,
            Known::Script(_) => FORWARD,
        }
    }

    /// Checks the inputs of a call.
    ///
    /// # Errors
    /// Names the input.
    pub(super) fn check(&self, method: &str, inputs: &Values) -> Result<(), ReplayError> {
        match &self.0 {
            Known::Graph(code) => replay::check(code, method, inputs),
            Known::Script(code) => code.check(method, inputs),
        }
    }

    /// Loads it in this process, on a device that is called `name`.
    ///
    /// # Errors
    /// If the device cannot run it.
    pub(super) fn load(&self, arena: &Arena, device: &Device, name: &str) -> Result<Replay, ReplayError> {
        match &self.0 {
            Known::Graph(code) => Replay::new(Arc::clone(code), arena, device, name),
            Known::Script(code) => Replay::of_script(Arc::clone(code), arena, device, name),
        }
    }
}
