//! A graph or a module that is loaded on a device and runs there.
//!
//! Knows tensors and errors; what runs is behind the trait [`Callable`], which the rooms of graphs and of TorchScript implement.

use std::fmt;

use burn::tensor::Device;

use crate::error::graph::ReplayError;
use crate::os::fork;
use crate::tensor::copied::CopiedTensor;
use crate::tensor::value::Values;

/// A graph that is loaded on a device, with its weights: see [`TracedGraph::load`](super::traced_graph::TracedGraph::load) and
/// [`TorchScript::load`](super::torchscript::TorchScript::load).
pub struct Executable {
    device: Device,
    run: Box<dyn Callable>,
    copied: Vec<CopiedTensor>,
}

/// What is loaded: a graph, or a module of LibTorch.
pub(super) trait Callable: Send {
    /// The method that is meant if none is named.
    fn main(&self) -> &str;

    /// What it was made of.
    fn origin(&self) -> &str;

    /// Calls a method.
    fn run(&mut self, method: &str, inputs: Values) -> Result<Values, ReplayError>;
}

impl Executable {
    /// Wraps what was loaded. Inputs are taken from any device, and outputs are on `device`.
    pub(super) fn new(run: Box<dyn Callable>, device: Device, copied: Vec<CopiedTensor>) -> Self {
        Self { device, run, copied }
    }

    /// The weights that are copies, because the device or the backend cannot borrow them. Empty is the rule on `cpu`.
    pub fn copied(&self) -> &[CopiedTensor] {
        &self.copied
    }

    /// Where outputs are: where a graph computes, and host memory for a TorchScript module.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the graph, or the method `forward` of a TorchScript module. Inputs may be on any device.
    ///
    /// After an error, the next run is as good as the first.
    ///
    /// # Errors
    /// If an input is missing or is not what the graph takes: names it. Or if the backend fails in an operation.
    pub fn run(&mut self, inputs: impl Into<Values>) -> Result<Values, ReplayError> {
        fork::adopt();
        let method = self.run.main().to_owned();
        self.run.run(&method, inputs.into())
    }

    /// Calls a method of a TorchScript module. A graph has one, `run`.
    ///
    /// # Errors
    /// As [`run`](Self::run); and if there is no such method.
    pub fn call(&mut self, method: &str, inputs: impl Into<Values>) -> Result<Values, ReplayError> {
        fork::adopt();
        self.run.run(method, inputs.into())
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Executable");
        text.field("origin", &self.run.origin()).field("device", &self.device).finish_non_exhaustive()
    }
}
