//! What the owner tells a worker about the call that it runs: that the call is cancelled, and how many
//! items of a stream it may send.
//!
//! Both are in the shared memory, so the owner need not send a packet, and the worker need not look for
//! one. Only a worker that waits for its reader gets a packet, which wakes it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::item_ring::ItemWriter;
use super::protocol::Answer;
use super::transport::Connection;
use crate::engine::cancellation;
use crate::engine::message::Outgoing;
use crate::engine::served::ItemSink;

/// The running call, as seen by the threads of a worker.
pub(super) struct CallInbox {
    connection: Arc<Connection>,
    /// The number of the call, or 0 if none runs.
    running: AtomicU64,
}

impl CallInbox {
    /// Creates the inbox, and makes [`cancelled`](crate::cancelled) look into it.
    pub(super) fn install(connection: &Arc<Connection>) -> Arc<Self> {
        let inbox = Arc::new(Self { connection: Arc::clone(connection), running: AtomicU64::new(0) });
        let of_process = Arc::clone(&inbox);
        cancellation::install_for_process(move || of_process.is_cancelled());
        inbox
    }

    /// Records that a call begins. Returns what takes its items, if it returns a stream.
    pub(super) fn begin(self: &Arc<Self>, serial: u64, has_items: bool) -> Option<ItemSink> {
        self.running.store(serial, Ordering::Release);
        if !has_items {
            return None;
        }
        let inbox = Arc::clone(self);
        let mut writer = ItemWriter::new(serial);
        Some(Box::new(move |item| inbox.send(serial, &mut writer, &item).map_err(|error| error.to_string())))
    }

    /// Records that the call has ended.
    pub(super) fn end(&self) {
        self.running.store(0, Ordering::Release);
    }

    fn is_cancelled(&self) -> bool {
        let serial = self.running.load(Ordering::Acquire);
        serial != 0 && self.connection.shared().is_some_and(|area| area.is_cancelled(serial))
    }

    /// Sends an item when the owner takes one. Returns `false` if the call is cancelled.
    fn send(&self, serial: u64, writer: &mut ItemWriter, item: &Outgoing) -> io::Result<bool> {
        let no_memory = || io::Error::other("there is no memory that is shared with the owner");
        let area = self.connection.shared().ok_or_else(no_memory)?;
        loop {
            // A sink that has outlived its call sends nothing.
            if self.running.load(Ordering::Acquire) != serial || area.is_cancelled(serial) {
                return Ok(false);
            }
            if writer.sent < area.limit() {
                let number = writer.sent;
                if !area.append_item(writer, item)? {
                    self.connection.send(&(serial, Answer::Item(number)), item, &[])?;
                } else if area.take_waiting_reader() {
                    self.connection.send(&(serial, Answer::Items), &Outgoing::default(), &[])?;
                }
                return Ok(true);
            }
            area.set_waiting(true);
            if writer.sent >= area.limit() && !area.is_cancelled(serial) {
                self.connection.wait(None)?;
                if !self.connection.discard() {
                    // The owner has ended, and this process is about to.
                    return Ok(false);
                }
                if writer.sent >= area.limit() && !area.is_cancelled(serial) {
                    // The packet was another one. If it was a request, owner and worker disagree about which
                    // call runs, and the owner finds out by this number.
                    self.connection.send(&(serial, Answer::Items), &Outgoing::default(), &[])?;
                }
            }
            area.set_waiting(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    use super::super::protocol::{Answer, Request};
    use super::super::shared_area::SharedArea;
    use super::super::transport::Connection;
    use super::CallInbox;
    use crate::engine::message::Outgoing;

    #[test]
    #[cfg_attr(miri, ignore = "needs sockets and memfds")]
    fn limit_reaches_the_sender_while_another_thread_asks() {
        const ITEMS: u64 = 200;
        let (owner, worker) = Connection::pair().unwrap();
        let (area, descriptor) = SharedArea::create().unwrap();
        let worker = worker.with_shared(SharedArea::open(descriptor).unwrap());
        owner.set_patience(Duration::from_secs(60)).unwrap();
        let inbox = Arc::new(CallInbox { connection: Arc::new(worker), running: AtomicU64::new(0) });
        let is_over = AtomicBool::new(false);
        let wake = |is_needed: bool| {
            if is_needed {
                owner.send(&(1_u64, Request::Wake), &Outgoing::default(), &[]).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // At the end it may be.
                    std::hint::black_box(inbox.is_cancelled());
                }
            });
            let sender = scope.spawn(|| {
                let mut sink = inbox.begin(1, true).unwrap();
                assert!((0..ITEMS).all(|_| sink(Outgoing::default()) == Ok(true)));
                // The next one waits until the call is cancelled.
                assert_eq!(sink(Outgoing::default()), Ok(false));
                inbox.end();
                assert_eq!(sink(Outgoing::default()), Ok(false));
                is_over.store(true, Ordering::Relaxed);
            });
            let mut reader = area.start_stream(1);
            for items in 1..=ITEMS {
                wake(area.set_limit(items));
                while area.take_item(&mut reader).unwrap().is_none() {
                    if !area.is_about_to_wait(&reader) {
                        let packet = owner.receive::<(u64, Answer)>().unwrap().unwrap();
                        assert!(matches!(packet.message, (1, Answer::Items)));
                    }
                }
            }
            is_over.store(true, Ordering::Relaxed);
            wake(area.cancel(1));
            sender.join().unwrap();
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs sockets and memfds")]
    fn only_the_running_call_is_cancelled() {
        let (_owner, worker) = Connection::pair().unwrap();
        let (area, descriptor) = SharedArea::create().unwrap();
        let worker = worker.with_shared(SharedArea::open(descriptor).unwrap());
        let inbox = Arc::new(CallInbox { connection: Arc::new(worker), running: AtomicU64::new(0) });
        assert!(!inbox.is_cancelled(), "no call runs");
        inbox.begin(1, false);
        assert!(!area.cancel(1) && inbox.is_cancelled());
        inbox.begin(2, false);
        assert!(!inbox.is_cancelled());
        inbox.end();
        assert!(!inbox.is_cancelled());
    }
}
