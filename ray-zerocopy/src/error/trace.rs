//! Why a forward pass could not be recorded.

use super::arena::ArenaError;
use super::graph::ReplayError;
use super::load::LoadError;
use super::share::ShareError;
use super::value::ValueError;

/// Why a forward pass could not be recorded as a graph.
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
    /// An example input is not usable.
    #[error("example input `{name}`: {reason}")]
    Input {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A symbol does not fit the example inputs.
    #[error("symbol `{name}`: {reason}")]
    Symbol {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such method, or not one that can be recorded.
    #[error("method `{name}`: {reason}")]
    Method {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The code did something that cannot be recorded.
    #[error(
        "the forward pass cannot be recorded: {reason}; it happened {}. What depends on the values of a tensor, and not only \
         on its shape, has no place in a graph: compute it with tensor operations, or pass it as an input",
        place(.after)
    )]
    Untraceable {
        /// What the code said, and where.
        reason: String,
        /// The operation before.
        after: Option<String>,
    },
    /// What the forward pass asked of its inputs is not there.
    #[error("the forward pass took its inputs wrongly: {0}")]
    Value(#[from] ValueError),
    /// An output cannot be one of a graph.
    #[error("output `{name}`: {reason}")]
    Output {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The forward pass does other things at other sizes.
    #[error(
        "the forward pass is another one at other sizes of {symbols}: {reason}; record a graph for each case, without that symbol"
    )]
    Structure {
        /// The symbols.
        symbols: String,
        /// Where the two part.
        reason: String,
    },
    /// A number in an operation depends on the sizes in a way that is not known.
    #[error(
        "a number of {operation} depends on {symbols} and is no sum of products of them: it is {found}; compute it with tensor \
         operations, or record a graph for each size"
    )]
    Number {
        /// The operation.
        operation: String,
        /// The symbols.
        symbols: String,
        /// The number at each of the sizes.
        found: String,
    },
    /// A tensor that the forward pass makes depends on the sizes in a way that is not known.
    #[error(
        "the forward pass makes a tensor of shape {shape} for {operation} whose elements depend on {symbols}, and they are \
         neither equal nor evenly spaced; make it in the constructor, or with tensor operations"
    )]
    Constant {
        /// The first operation that reads it.
        operation: String,
        /// Its shape, at the traced sizes.
        shape: String,
        /// The symbols.
        symbols: String,
    },
    /// The graph does not give what the pipeline does.
    #[error(
        "the graph gives another `{output}` than the pipeline for {which}: {how}; does the forward pass read the values of its \
         inputs, draw random numbers, or change state?"
    )]
    Differs {
        /// The output.
        output: String,
        /// For which inputs.
        which: String,
        /// The first difference.
        how: String,
    },
    /// The graph cannot be run.
    #[error("the recorded graph does not run: {0}")]
    Replay(#[from] ReplayError),
}

fn place(after: &Option<String>) -> String {
    match after {
        Some(operation) => format!("after {operation}"),
        None => "before the first operation".to_owned(),
    }
}
