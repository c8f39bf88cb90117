//! Why a wrapper keeps its weights.

use super::arena::ArenaError;
use super::call::CallError;

/// Why the weights of a wrapper were not swapped. Nothing has changed then: its calls run on the old
/// weights, on all workers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwapError {
    /// The new arena is that of another pipeline.
    #[error(
        "arena {found} does not fit this wrapper: {difference}; share a pipeline of the same type and shapes, or make a \
         new wrapper"
    )]
    OtherPipeline {
        /// The id of the new arena.
        found: String,
        /// The first difference.
        difference: String,
    },
    /// The actors have state, which the new pipeline does not have.
    #[error(
        "actors of `{pipeline}` have state, which a swap would lose, because it has methods that take `&mut self`; say \
         how it is kept, with `#[remote(on_swap)] fn on_swap(&mut self, old: &mut Self)`, or call \
         `swap_discarding_state`: the state is then that which `init` makes"
    )]
    State {
        /// The Rust type of the pipeline.
        pipeline: String,
    },
    /// A worker could not load the new weights.
    #[error("a worker could not load the new weights, so all go on with the old ones: {error}")]
    Worker {
        /// The worker's error.
        error: CallError,
    },
    /// The check of the new weights has failed.
    #[error("the check of the new weights has failed, so all calls go on with the old ones: {reason}")]
    Check {
        /// The error of the check.
        reason: String,
    },
    /// The actors have state, of which each of two generations would have its own.
    #[error(
        "actors of `{pipeline}` have state, and a canary would have a state of its own; call `swap_if` with a check, or \
         make other actors for the new weights"
    )]
    CanaryState {
        /// The Rust type of the pipeline.
        pipeline: String,
    },
    /// The check of a swap has begun another swap of the same wrapper.
    #[error(
        "the check of a swap cannot swap the same wrapper, because a swap waits for the one that runs; return from the check first"
    )]
    Nested,
    /// Another generation already gets a share of the calls.
    #[error("another canary gets a share of the calls; promote or drop it first")]
    TwoCanaries,
    /// The share of a canary is not between 0 and 1.
    #[error("the share of a canary is from 0 to 1, and not {share}")]
    Share {
        /// The share.
        share: String,
    },
    /// The new arena is corrupted, or cannot be passed to the workers.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}
