//! Execution of graphs.
//!
//! | file | what |
//! | --- | --- |
//! | `backend` | the interface that a backend needs, and the backends that implement it |
//! | `buffers` | memory of results that is used again |
//! | `executor` | executes a graph on one backend |
//! | `plan` | the operations with concrete sizes |
//! | `plan_cache` | an LRU cache of plans |
//! | `recording` | kernels of a run that the device starts again |
//! | `fused` | the operations of compiled graphs |
//! | `kernels` | direct kernels for frequent operations |

pub(crate) mod backend;
mod buffers;
pub(crate) mod executor;
mod fused;
pub(crate) mod kernels;
pub(crate) mod plan;
pub(crate) mod plan_cache;
mod recording;

use burn::tensor::DType;

use crate::error::graph::ReplayError;
use crate::jit::executable::Recorded;
use crate::jit::graph::profile::Profile;
use crate::tensor::value::Value;

/// An executor of a graph, independent of the backend.
pub(crate) trait Execute: Send {
    /// Runs the graph once. Inputs are in the graph's order and have been checked.
    fn execute(&mut self, sizes: &[usize], inputs: Vec<Value>) -> Result<Vec<Value>, ReplayError>;

    /// Bytes that are kept for the results of the next run.
    fn kept_bytes(&self) -> u64;

    /// What the device has recorded.
    fn recorded(&self) -> Recorded;

    /// Measures the operations of runs with these inputs.
    fn profile(&mut self, sizes: &[usize], inputs: &[Value], runs: usize) -> Result<Profile, ReplayError>;

    /// Creates outputs without elements, of these types and shapes.
    fn empty(&self, outputs: Vec<(DType, Vec<usize>)>) -> Result<Vec<Value>, ReplayError>;
}
