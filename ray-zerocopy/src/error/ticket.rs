//! Why a ticket could not be issued or redeemed.

use super::arena::ArenaError;
use super::device::DeviceError;
use super::graph::ReplayError;

/// Why a wrapper could not be exported to another process, or opened there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The process that shared the arena cannot serve it.
    #[error("the arena cannot be offered to other processes: {what}: {reason}")]
    Offer {
        /// What failed: the socket, or the secret.
        what: String,
        /// The operating system's error.
        reason: String,
    },
    /// The process that shared the arena cannot be reached.
    #[error(
        "the arena cannot be fetched from process {owner}, which shared it: {reason}; is it still running, on this \
         machine, as this user? A serialised wrapper is valid as long as the process that shared the pipeline runs"
    )]
    Fetch {
        /// The process that shared the arena.
        owner: u32,
        /// The operating system's error.
        reason: String,
    },
    /// The process that shared the arena did not send it.
    #[error("process {owner}, which shared the arena, did not send it: {reason}")]
    Refused {
        /// The process that shared the arena.
        owner: u32,
        /// The reason.
        reason: String,
    },
    /// Another arena was received than the ticket names.
    #[error("the ticket is for arena {expected}, but arena {found} was received; export the wrapper again")]
    OtherArena {
        /// The arena of the ticket.
        expected: String,
        /// The arena that was received.
        found: String,
    },
    /// The arena cannot be sent, or is not valid.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The ticket does not name a device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The arena does not hold a graph.
    #[error(transparent)]
    Graph(#[from] ReplayError),
}
