//! Errors of tracing.

use super::arena::ArenaError;
use super::graph::ReplayError;
use super::load::LoadError;
use super::share::ShareError;
use super::value::ValueError;

/// Error of recording a forward pass as a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The pipeline cannot be shared.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The pipeline cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The graph's arena cannot be built.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// An example input cannot be used.
    #[error("example input `{name}`: {reason}")]
    Input {
        /// Name of the input.
        name: String,
        /// The reason.
        reason: String,
    },
    /// A symbol does not match the example inputs.
    #[error("symbol `{name}`: {reason}")]
    Symbol {
        /// Name of the symbol.
        name: String,
        /// The reason.
        reason: String,
    },
    /// There is no such method, or it cannot be recorded.
    #[error("method `{name}`: {reason}")]
    Method {
        /// Name of the method.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The forward pass did something that cannot be recorded.
    #[error(
        "the forward pass cannot be recorded: it failed {}: {reason}. A graph may depend on the shapes of tensors but \
         not on their values: compute what depends on a value with tensor operations, or pass it as an input",
        place(.after)
    )]
    Untraceable {
        /// The panic message or error, with its place in the code.
        reason: String,
        /// Name of the preceding operation.
        after: Option<String>,
    },
    /// The forward pass requested an input under another name, rank or kind.
    #[error("invalid use of the inputs in the forward pass: {0}")]
    Value(#[from] ValueError),
    /// An output cannot be an output of a graph.
    #[error("output `{name}`: {reason}")]
    Output {
        /// Name of the output.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The forward pass runs other operations at other sizes.
    #[error(
        "the forward pass is not the same at all sizes of {symbols}: {reason}; record a graph for each case, without \
         that symbol"
    )]
    Structure {
        /// The symbols.
        symbols: String,
        /// The first difference.
        reason: String,
    },
    /// A number in an operation depends on the sizes in an unsupported way.
    #[error(
        "a number in {operation} depends on {symbols}, but is not a sum of products of them: its values are {found}; \
         compute it with tensor operations, or record a graph for each size"
    )]
    Number {
        /// The operation.
        operation: String,
        /// The symbols.
        symbols: String,
        /// Values of the number at the recorded sizes.
        found: String,
    },
    /// A tensor that the forward pass creates from numbers depends on the sizes in an unsupported
    /// way.
    #[error(
        "the forward pass creates a tensor of shape {shape} for {operation}, whose elements depend on {symbols} but \
         are neither equal nor evenly spaced; create it in the constructor, or with tensor operations"
    )]
    Constant {
        /// The first operation that reads it.
        operation: String,
        /// Shape of the tensor, at the traced sizes.
        shape: String,
        /// The symbols.
        symbols: String,
    },
    /// An output of the graph differs from the pipeline's.
    #[error(
        "output `{output}` of the graph differs from that of the pipeline for {which}: {how}; does the forward pass \
         read the values of its inputs, draw random numbers, or change state?"
    )]
    Differs {
        /// The output.
        output: String,
        /// The inputs for which it differs.
        which: String,
        /// The first difference.
        how: String,
    },
    /// The recorded graph does not run.
    #[error("the recorded graph does not run: {0}")]
    Replay(#[from] ReplayError),
}

fn place(after: &Option<String>) -> String {
    match after {
        Some(operation) => format!("after {operation}"),
        None => "before the first operation".to_owned(),
    }
}
