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
    /// Whether the thread that sends items waits for a packet. Other threads must not receive it then.
    is_waiting: bool,
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
        if !running.is_waiting {
            self.look(&mut running);
        }
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
            running.is_waiting = false;
            self.look(&mut running);
            // A sink that has outlived its call sends nothing.
            if running.is_cancelled || running.serial != serial {
                return Ok(false);
            }
            if running.sent < running.limit {
                running.sent += 1;
                break;
            }
            running.is_waiting = true;
            drop(running);
            self.connection.wait(None)?;
        }
        self.connection.send(&(serial, Answer::Item), item, &[])?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::super::protocol::{Answer, Request};
    use super::super::transport::Connection;
    use super::CallInbox;
    use crate::engine::message::Outgoing;
    use crate::os::sync::Mutex;

    #[test]
    #[cfg_attr(miri, ignore = "needs sockets")]
    fn limit_reaches_the_sender_while_another_thread_asks() {
        const ITEMS: u64 = 200;
        let (owner, worker) = Connection::pair().unwrap();
        owner.set_patience(Duration::from_secs(60)).unwrap();
        let inbox = Arc::new(CallInbox { connection: Arc::new(worker), running: Mutex::default() });
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // At the end it may be.
                    std::hint::black_box(inbox.is_cancelled());
                }
            });
            let sender = scope.spawn(|| {
                let mut sink = inbox.begin(1, Some(0)).unwrap();
                assert!((0..ITEMS).all(|_| sink(Outgoing::default()) == Ok(true)));
                // The next one waits until the call is cancelled.
                assert_eq!(sink(Outgoing::default()), Ok(false));
                inbox.end();
                assert_eq!(sink(Outgoing::default()), Ok(false));
                is_over.store(true, Ordering::Relaxed);
            });
            let send = |request: Request| owner.send(&(1_u64, request), &Outgoing::default(), &[]).unwrap();
            for items in 1..=ITEMS {
                send(Request::Limit { items });
                let item = owner.receive::<(u64, Answer)>().unwrap().unwrap();
                assert!(matches!(item.message, (1, Answer::Item)));
            }
            is_over.store(true, Ordering::Relaxed);
            send(Request::Cancel);
            sender.join().unwrap();
        });
    }
}
