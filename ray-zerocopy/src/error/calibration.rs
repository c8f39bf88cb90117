//! Errors of calibration.

use super::graph::{GraphError, ReplayError};
use super::value::ValueError;

/// Error of [`TracedGraph::calibrate`](crate::jit::TracedGraph::calibrate).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// The bound on the error cannot be kept.
    #[error(
        "the outputs may change by {most} of their norm, which no choice of layers in {format} keeps; with all layers \
         in {format} they change by {found}: permit more, or give the weights scales for smaller blocks"
    )]
    Bound {
        /// The form of weights that was asked for.
        format: String,
        /// The bound.
        most: String,
        /// The error with all layers in that form.
        found: String,
    },
    /// There are no samples.
    #[error("there are no samples to measure the error on; pass some inputs that the graph will be called with")]
    NoSamples,
    /// No output has a number to compare.
    #[error(
        "the outputs have no floating-point number to compare on the samples; labels and empty outputs show no error"
    )]
    NothingToCompare,
    /// No layer has a choice.
    #[error(
        "there is no layer to choose weights for: the options have 32-bit weights, keep all layers in 32 bits, or the \
         graph has no linear layers"
    )]
    NothingToChoose,
    /// The graph is compiled already.
    #[error("the graph is compiled already; calibrate the graph that it was compiled from")]
    Compiled,
    /// The graph cannot be compiled.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A sample does not fit the graph, or the graph cannot be run.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// An output cannot be read.
    #[error(transparent)]
    Value(#[from] ValueError),
}
