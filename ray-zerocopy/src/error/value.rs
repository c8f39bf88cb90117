//! Errors of named tensors: a value is missing, or has another kind or rank than was asked for.

use serde::{Deserialize, Serialize};

/// Why a named tensor cannot be returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ValueError {
    /// There is no tensor of this name.
    #[error("there is no tensor `{name}`; there is {found}")]
    Missing {
        /// The name.
        name: String,
        /// The names that exist.
        found: String,
    },
    /// The tensor has another rank or kind.
    #[error("`{name}` is {found}, and {expected} was asked for")]
    Differs {
        /// The name.
        name: String,
        /// What was asked for.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The tensor's elements cannot be read from its device.
    #[error("`{name}` cannot be read: {reason}")]
    Unreadable {
        /// The name.
        name: String,
        /// The backend's error.
        reason: String,
    },
}
