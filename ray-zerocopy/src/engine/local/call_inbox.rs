//! What the owner tells a worker about the call that it runs: that the call is cancelled, and how many
//! items of a stream it may send.
//!
//! These are packets that wait in the socket. The main loop receives nothing while a call runs, so
//! the call itself looks for them.

use std::io;
use std::sync::Arc;

use super::protocol::{Answer, Request};
use super::transport::Connection;
use crate::engine::cancellation;
use crate::engine::message::Outgoing;
use crate::engine::served::ItemSink;
use crate::os::sync::Mutex;

/// The packets for the running call.
pub(super) struct CallInbox {
    connection: Arc<Connection>,
    /// Locked while a packet is received, so that a thread that looks late does not take the packet of
    /// the next request.
    running: Mutex<Running>,
}

/// The call that runs.
#[derive(Default)]
struct Running {
    /// Its number, or 0 if none runs.
    serial: u64,
    is_cancelled: bool,
    /// Number of items that it may send in all.
    limit: u64,
    /// Number of items that it has sent.
    sent: u64,
}

impl CallInbox {
    /// Creates the inbox, and makes [`cancelled`](crate::cancelled) look into it.
    pub(super) fn install(connection: &Arc<Connection>) -> Arc<Self> {
        let inbox = Arc::new(Self { connection: Arc::clone(connection), running: Mutex::default() });
        let of_process = Arc::clone(&inbox);
        cancellation::install_for_process(move || of_process.is_cancelled());
        inbox
    }

    /// Records that a call begins. Returns what takes its items, if it returns a stream.
    pub(super) fn begin(self: &Arc<Self>, serial: u64, items: Option<u64>) -> Option<ItemSink> {
        *self.running.lock() = Running { serial, limit: items.unwrap_or(0), ..Running::default() };
        items?;
        let inbox = Arc::clone(self);
        Some(Box::new(move |item| inbox.send(serial, &item).map_err(|error| error.to_string())))
    }

    /// Records that the call has ended.
    pub(super) fn end(&self) {
        *self.running.lock() = Running::default();
    }

    fn is_cancelled(&self) -> bool {
        let mut running = self.running.lock();
        self.look(&mut running);
        running.is_cancelled
    }

    /// Receives what has arrived for the running call.
    fn look(&self, running: &mut Running) {
        while running.serial != 0 && !running.is_cancelled {
            match self.connection.peek::<(u64, Request)>() {
                Ok(None) => return,
                Ok(Some((serial, request))) if serial == running.serial => match request {
                    Request::Cancel => running.is_cancelled = true,
                    Request::Limit { items } => running.limit = running.limit.max(items),
                    // The owner sends no other request before this call has its answer.
                    _ => {}
                },
                // A broken packet. The owner does not wait for an answer to it.
                Ok(Some(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                // The owner has ended, and this process is about to.
                Err(_) => running.is_cancelled = true,
            }
            self.connection.discard();
        }
    }

    /// Sends an item when the owner takes one. Returns `false` if the call is cancelled.
    fn send(&self, serial: u64, item: &Outgoing) -> io::Result<bool> {
        loop {
            let mut running = self.running.lock();
            self.look(&mut running);
            // A sink that has outlived its call sends nothing.
            if running.is_cancelled || running.serial != serial {
                return Ok(false);
            }
            if running.sent < running.limit {
                running.sent += 1;
                break;
            }
            drop(running);
            self.connection.wait(None)?;
        }
        self.connection.send(&(serial, Answer::Item), item, &[])?;
        Ok(true)
    }
}
