//! Holders' part: keeps the copies that other processes make of an arena on GPUs.
//!
//! A descriptor keeps the memory, also in a process that does not use a GPU. So a holder needs no
//! driver and no context: the processes that make a copy of its arena give it the descriptor, and it
//! passes the copy on as they do.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::exchange::{CopyKey, DIGITS, Server, accept, claim, receive, wait};

/// The number of holders that can keep one arena's copies.
pub(super) const KEEPERS: usize = 8;

/// How long the thread of a keeper that was dropped may go on.
const PAUSE: Duration = Duration::from_millis(200);

/// The name on which holders of an arena listen.
pub(super) fn keeper_key(arena: &[u8]) -> CopyKey {
    CopyKey::of(&[b"keepers", arena])
}

/// Keeps the copies of an arena until it is dropped.
#[derive(Debug)]
pub(crate) struct CopyKeeper {
    is_over: Arc<AtomicBool>,
}

impl CopyKeeper {
    /// Starts a thread that takes copies of an arena and passes them on.
    ///
    /// # Errors
    /// If the kernel refuses a socket or a thread, or enough holders keep the arena.
    pub(crate) fn start(arena: &[u8]) -> io::Result<Self> {
        let key = keeper_key(arena);
        let mut listener = None;
        for number in 0..KEEPERS {
            listener = claim(&key.address(&number.to_string())?)?;
            if listener.is_some() {
                break;
            }
        }
        let listener = listener.ok_or_else(|| io::Error::other(format!("{KEEPERS} holders keep it already")))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("ray-zerocopy gpu".to_owned());
        let ended = Arc::clone(&is_over);
        thread.spawn(move || keep(&listener, &ended))?;
        Ok(Self { is_over })
    }
}

impl Drop for CopyKeeper {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
    }
}

fn keep(listener: &OwnedFd, is_over: &AtomicBool) {
    let mut copies: Vec<(CopyKey, Server)> = Vec::new();
    while !is_over.load(Ordering::Acquire) {
        let sockets: Vec<&OwnedFd> =
            [listener].into_iter().chain(copies.iter().map(|(_, copy)| copy.listener())).collect();
        let ready = wait(&sockets, PAUSE);
        for ((_, copy), _) in copies.iter().zip(&ready[1..]).filter(|(_, is_ready)| **is_ready) {
            copy.serve_one();
        }
        if ready[0]
            && let Ok(Some((key, copy))) = take(listener)
            && copies.iter().all(|(known, _)| *known != key)
        {
            copies.push((key, copy));
        }
    }
}

/// Takes a copy from a process that gives it. `None` if the process is of another user, or sends
/// something else.
fn take(listener: &OwnedFd) -> io::Result<Option<(CopyKey, Server)>> {
    let Some(connection) = accept(listener)? else { return Ok(None) };
    let Some((memory, message)) = receive::<{ 8 + DIGITS }>(&connection)? else { return Ok(None) };
    let (len, key) = message.split_at(8);
    let (Ok(len), Some(key)) = (len.try_into(), CopyKey::sent(key)) else { return Ok(None) };
    let server = Server::new(&key, memory, u64::from_le_bytes(len))?;
    Ok(Some((key, server)))
}
