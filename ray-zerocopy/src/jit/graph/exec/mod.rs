//! TODO.

pub(crate) mod backend;
pub(crate) mod executor;
pub(crate) mod kernels;
pub(crate) mod plan;
pub(crate) mod plan_cache;

use burn::tensor::DType;

use crate::error::graph::ReplayError;
use crate::tensor::value::Value;

/// Runs a graph, on whatever backend.
pub(crate) trait Execute: Send {
    /// Runs it once. Inputs are those of the graph, in its order, and they fit.
    fn play(&mut self, sizes: &[usize], inputs: Vec<Value>) -> Result<Vec<Value>, ReplayError>;

    /// Outputs without elements, of these types and shapes.
    fn empty(&self, outputs: Vec<(DType, Vec<usize>)>) -> Result<Vec<Value>, ReplayError>;
}
