//! Tickets: an arena for the processes that have its secret, such as one that received a serialised
//! `ActorWrapper`.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::client;
use super::endpoint::{self, Answer, Request, endpoint};
use crate::arena::arena::Arena;
use crate::error::ticket::TicketError;

/// The address of an arena's owner, and the arena's secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ticket {
    socket: PathBuf,
    owner: u32,
    secret: Secret,
}

pub(super) type Secret = [u8; 16];

/// Offers an arena to every process that has the ticket, until this process ends.
pub(crate) fn offer(arena: &Arena) -> Result<Ticket, TicketError> {
    let arena = &arena.clone().handed_over()?;
    let failed =
        |what: &str, reason: &dyn ToString| TicketError::Offer { what: what.to_owned(), reason: reason.to_string() };
    let endpoint = endpoint();
    let listening = endpoint.listening().map_err(|error| failed("the socket", &error))?;
    let mut arenas = endpoint.tickets.lock();
    let known = arenas.iter().find(|(_, known)| known.id() == arena.id()).map(|(secret, _)| *secret);
    let secret = match known {
        Some(secret) => secret,
        None => {
            let secret = random().map_err(|error| failed("a secret", &error))?;
            arenas.insert(secret, arena.clone());
            secret
        }
    };
    Ok(Ticket { socket: listening.folder.socket(&listening.name), owner: std::process::id(), secret })
}

/// Stops offering an arena.
pub(crate) fn withdraw(arena: &Arena) {
    if let Some(endpoint) = endpoint::existing() {
        endpoint.tickets.lock().retain(|_, known| known.id() != arena.id());
    }
}

/// Fetches the arena of a ticket from its owner.
pub(crate) fn fetch(ticket: &Ticket) -> Result<Arena, TicketError> {
    let owner = ticket.owner;
    let refused = |reason: String| TicketError::Refused { owner, reason };
    let received = client::ask(&ticket.socket, &Request::Ticket(ticket.secret)).map_err(|error| {
        let is_system = error.raw_os_error().is_some() || error.kind() == io::ErrorKind::TimedOut;
        if is_system { TicketError::Fetch { owner, reason: error.to_string() } } else { refused(error.to_string()) }
    })?;
    match received.message {
        Answer::Here(handle) => Ok(Arena::from_ticket(&handle, received.fds)?),
        Answer::Refused(reason) => Err(refused(reason)),
        other => Err(refused(format!("it answered {other:?}"))),
    }
}

/// Returns random bytes.
pub(super) fn random() -> io::Result<Secret> {
    let mut secret = Secret::default();
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut secret)?;
    Ok(secret)
}
