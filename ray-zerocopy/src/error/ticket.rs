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
        /// What the operating system said.
        reason: String,
    },
    /// The process that shared the arena cannot be reached.
    #[error(
        "process {owner}, which shared the arena, cannot be asked for it: {reason}; is it still running, on this \
         machine, as this user? A serialised wrapper is good as long as the process that shared the pipeline lives"
    )]
    Fetch {
        /// The process that shared the arena.
        owner: u32,
        /// What the operating system said.
        reason: String,
    },
    /// The process that shared the arena does not hand it out.
    #[error("process {owner} did not give the arena: {reason}")]
    Refused {
        /// The process that shared the arena.
        owner: u32,
        /// Why not.
        reason: String,
    },
    /// Another arena arrived.
    #[error("arena {found} arrived for arena {expected}")]
    OtherArena {
        /// The arena of the ticket.
        expected: String,
        /// The arena that arrived.
        found: String,
    },
    /// The arena cannot be handed over or trusted.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The ticket does not name a device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The arena does not hold a graph.
    #[error(transparent)]
    Graph(#[from] ReplayError),
}
