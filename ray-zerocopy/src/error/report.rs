//! Errors of reports, which read `/proc`.

use serde::{Deserialize, Serialize};

/// Why a report could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReportError {
    /// A file of `/proc` cannot be read.
    #[error("{path} cannot be read: {reason}; reports need Linux's /proc, and processes of the same user")]
    Proc {
        /// The file.
        path: String,
        /// The kernel's error.
        reason: String,
    },
}
