//! Errors of named tensors: a value is missing, or has another kind, rank or shape than was asked for.

use serde::{Deserialize, Serialize};

/// Why a tensor is not there, or not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ValueError {
    /// There is no tensor of the name.
    #[error("there is no tensor `{name}`; there is {found}")]
    Missing {
        /// The name.
        name: String,
        /// The names that there are.
        found: String,
    },
    /// The tensor has another rank or kind.
    #[error("`{name}` is {found}, and {expected} was asked for")]
    Differs {
        /// The name.
        name: String,
        /// What was asked for.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The tensor cannot be moved to another device.
    #[error("`{name}` cannot be read: {reason}")]
    Unreadable {
        /// The name.
        name: String,
        /// What its backend said.
        reason: String,
    },
}
