//! Fast path: when only one call is in flight, the calling thread reads the reply directly.
//!
//! A call between two processes needs at least two wake-ups: the caller wakes the worker, and the
//! worker wakes the caller. A pool thread between them would add a third. On an idle machine the
//! kernel wakes that thread on another core, which takes longer than the call.
//!
//! So the reply to a call that finds an idle worker is left unread at first. It is read by the
//! first of
//! - its caller, when it waits for the reply, or when it polls the `Pending` for the first time and the
//!   reply arrives within some microseconds;
//! - the worker's supervisor, when another thread needs the reply or the worker: that poll finds no
//!   reply, the caller drops the `Pending`, there is another call, the pool shuts down, or the deadline
//!   passes; or at the next heartbeat.
//!
//! A reply that stays in the socket until then does not delay other calls.
//!
//! The items of a stream are replies too. Its caller reads them one by one, and the supervisor becomes
//! the reader if the caller reads none for a whole heartbeat.

use std::io;
use std::sync::Arc;

use super::dispatch::Dispatcher;
use super::protocol::Answer;
use super::transport::Event;
use super::worker_conn::WorkerConn;
use crate::engine::call::Receive;
use crate::engine::spin::spin_and_yield;

/// The caller's exclusive right to read the reply to its call. Dropping it passes the right to the
/// supervisor.
pub(crate) struct InlineReceiver {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) conn: Arc<WorkerConn>,
    pub(super) serial: u64,
    /// Whether the call returns a stream.
    pub(super) is_stream: bool,
}

impl Receive for InlineReceiver {
    /// Returns when the call is answered or an item has arrived, or when the supervisor reads. The
    /// caller of a stream keeps reading, as long as no other call needs the worker.
    fn receive(self: Box<Self>, _has_arrived: &dyn Fn() -> bool) -> Option<Box<dyn Receive>> {
        if !self.conn.read_by_caller(self.serial) {
            return None;
        }
        if self.is_stream {
            return self.receive_item();
        }
        // The reply to a small call arrives before this thread would be asleep.
        spin_and_yield(|| self.conn.is_readable());
        self.receive_packet(WorkerConn::receive);
        None
    }

    fn receive_soon(self: Box<Self>, _has_arrived: &dyn Fn() -> bool) {
        if !self.is_stream
            && self.conn.read_by_caller(self.serial)
            && self.dispatcher.polls.spin(|| self.conn.is_readable())
        {
            self.receive_packet(WorkerConn::receive_at_once);
        }
    }
}

impl InlineReceiver {
    /// Receives until there is an item for the caller, or the stream has ended.
    fn receive_item(self: Box<Self>) -> Option<Box<dyn Receive>> {
        loop {
            spin_and_yield(|| self.conn.has_item() || self.conn.is_readable());
            match self.conn.deliver_items() {
                Ok(0) => {}
                Ok(_) => break,
                Err(_) => {
                    self.conn.hang_up();
                    return None;
                }
            }
            if self.conn.is_about_to_wait() {
                continue;
            }
            if !self.receive_packet(WorkerConn::receive) {
                return None;
            }
            if self.conn.has_delivered() {
                break;
            }
        }
        if self.conn.pause(self.serial) { Some(self) } else { None }
    }

    /// Handles the next packet. Returns `true` if another one follows.
    fn receive_packet(&self, next: impl FnOnce(&WorkerConn) -> io::Result<Event<(u64, Answer)>>) -> bool {
        match next(&self.conn) {
            Ok(Event::Message(received)) => {
                let is_item = matches!(received.message, (_, Answer::Item(_) | Answer::Items));
                if self.dispatcher.handle_reply(&self.conn, received).is_some() {
                    // It was not a reply to the current job: the supervisor replaces the worker.
                    self.conn.hang_up();
                    return false;
                }
                return is_item;
            }
            Ok(Event::Gone(delivery)) => self.conn.leave_to_supervisor(self.serial, Some(delivery)),
            // The call takes longer than a heartbeat, or than a caller may spin: the supervisor has to
            // watch the process.
            Ok(Event::Quiet) => {}
            Ok(Event::Unreadable(error)) => {
                if self.dispatcher.handle_unreadable(&self.conn, "the result", &error.to_string()).is_some() {
                    self.conn.hang_up();
                }
            }
            Err(_) => self.conn.hang_up(),
        }
        false
    }
}

impl Drop for InlineReceiver {
    fn drop(&mut self) {
        self.conn.leave_to_supervisor(self.serial, None);
    }
}

impl std::fmt::Debug for InlineReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InlineReceiver").field("worker", &self.conn.worker).finish_non_exhaustive()
    }
}
