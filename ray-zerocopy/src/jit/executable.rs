//! A traced graph or a TorchScript module, loaded on a device.
//!
//! The implementation is behind the trait [`Callable`], which `graph` and `torchscript` implement.

use std::fmt;

use burn::tensor::Device;

use crate::error::graph::ReplayError;
use crate::os::fork;
use crate::tensor::copied::CopiedTensor;
use crate::tensor::value::Values;

/// A graph or a module that is loaded on a device, with its weights. Created by
/// [`TracedGraph::load`](super::traced_graph::TracedGraph::load) and
/// [`TorchScript::load`](super::torchscript::TorchScript::load).
pub struct Executable {
    device: Device,
    run: Box<dyn Callable>,
    copied: Vec<CopiedTensor>,
}

/// A loaded graph, or a loaded LibTorch module.
pub(super) trait Callable: Send {
    /// Name of the default method.
    fn main(&self) -> &str;

    /// What it was created from: the traced pipeline, or the module's file.
    fn origin(&self) -> &str;

    /// Calls a method.
    fn run(&mut self, method: &str, inputs: Values) -> Result<Values, ReplayError>;

    /// Bytes that are kept for the results of the next call.
    fn kept_bytes(&self) -> u64 {
        0
    }

    /// What the device has recorded.
    fn recorded(&self) -> Recorded {
        Recorded::default()
    }
}

/// The kernels of a graph that a device has recorded. From [`Executable::recorded`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// The number of shapes of the inputs for which the kernels are recorded. The eight that were used last are kept.
    pub shapes: usize,
    /// Why kernels are not recorded for other shapes. `None` if nothing has failed.
    pub refused: Option<String>,
}

impl Executable {
    /// Wraps a loaded graph or module. Inputs may be on any device; outputs are on `device`.
    pub(super) fn new(run: Box<dyn Callable>, device: Device, copied: Vec<CopiedTensor>) -> Self {
        Self { device, run, copied }
    }

    /// The weights that were copied, because the device or the backend cannot borrow them. Usually
    /// empty on `cpu`.
    pub fn copied(&self) -> &[CopiedTensor] {
        &self.copied
    }

    /// Bytes of memory that the graph keeps between calls, for the results of its operations: after some calls of one
    /// size, all that a call needs at a time. A [compiled](super::TracedGraph::compile) graph computes in the same memory
    /// in each call; memory that no call has used for a while is freed. 0 for other graphs.
    pub fn kept_bytes(&self) -> u64 {
        self.run.kept_bytes()
    }

    /// What the device has recorded: on `cuda` and `wgpu`, the kernels of a graph are recorded in the third run with inputs of
    /// the same shapes, and started in one step from the fifth on.
    ///
    /// A recording is only used if its results were those of ordinary runs, bit for bit. Other devices record nothing.
    pub fn recorded(&self) -> Recorded {
        self.run.recorded()
    }

    /// Device of the outputs: the device of a graph, and host memory for a TorchScript module.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the graph, or the method `forward` of a TorchScript module. Inputs may be on any
    /// device.
    ///
    /// It can be run again after an error.
    ///
    /// # Errors
    /// If an input is missing or does not match the graph; the error names it. Or if an operation
    /// fails in the backend.
    pub fn run(&mut self, inputs: impl Into<Values>) -> Result<Values, ReplayError> {
        fork::adopt();
        let method = self.run.main().to_owned();
        self.run.run(&method, inputs.into())
    }

    /// Calls a method of a TorchScript module. A graph has a single method, `run`.
    ///
    /// # Errors
    /// As [`run`](Self::run), or if there is no such method.
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
