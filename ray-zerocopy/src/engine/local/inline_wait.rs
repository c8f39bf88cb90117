//! A call that is alone: its caller receives the answer itself.
//!
//! A caller that waits for one call wakes the worker, and the worker wakes the caller: that is all there is between two
//! processes. A thread of the pool in between would be woken for nothing, and on a machine that is idle the kernel
//! wakes it on another core, which takes longer than the call.
//!
//! So the answer to a call that finds an idle worker is read by nobody at first. It is read by the first of
//! - its caller, when they wait for it;
//! - the worker's driver, when anybody needs that: the caller polls or drops the `Pending`, somebody else makes a call or
//!   shuts the pool down, the deadline passes; or the next heartbeat.
//!
//! An answer that lies in the socket meanwhile keeps nobody waiting.

use std::sync::Arc;

use super::dispatch::Dispatcher;
use super::transport::Event;
use super::worker_conn::WorkerConn;
use crate::engine::call::Receive;

/// The right of a caller to read the answer to its call. Dropped, the right is the driver's.
pub(crate) struct InlineReceiver {
    pub(super) shared: Arc<Dispatcher>,
    pub(super) link: Arc<WorkerConn>,
    pub(super) serial: u64,
}

impl Receive for InlineReceiver {
    /// Returns when there is nothing left to do for the caller but to wait as everybody does: the answer is there, or the
    /// driver looks after it.
    fn receive(self: Box<Self>) {
        if !self.link.read_by_caller(self.serial) {
            return;
        }
        match self.link.receive() {
            Ok(Event::Message(received)) => {
                if self.shared.answered(&self.link, received).is_some() {
                    // It said what it was not asked: the driver replaces it.
                    self.link.hang_up();
                }
            }
            Ok(Event::Gone { unheard }) => self.link.leave_to_driver(self.serial, Some(!unheard)),
            // It takes longer than a heartbeat, and has to be looked after.
            Ok(Event::Quiet) => {}
            Ok(Event::Unreadable(error)) => {
                if self.shared.unreadable(&self.link, "the result", &error.to_string()).is_some() {
                    self.link.hang_up();
                }
            }
            Err(_) => self.link.hang_up(),
        }
    }
}

impl Drop for InlineReceiver {
    fn drop(&mut self) {
        self.link.leave_to_driver(self.serial, None);
    }
}

impl std::fmt::Debug for InlineReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InlineReceiver").field("worker", &self.link.worker).finish_non_exhaustive()
    }
}
