//! Entry of calls into the pool: waits for space in the queue, assigns the call, and sends it if a
//! worker is idle.

use std::sync::Arc;

use super::dispatch::Dispatcher;
use super::inline_wait::InlineReceiver;
use super::worker_conn::ReadBy;
use crate::engine::call::{Call, Submitted};
use crate::engine::queue::scheduler::Next;

impl Dispatcher {
    /// Queues a call, and sends it immediately if a worker is idle. If the queue is full and `wait`
    /// is set, waits for space.
    pub(super) fn submit(self: &Arc<Self>, call: Call, wait: bool) -> Submitted {
        let deadline = call.deadline.map(|(deadline, _)| deadline);
        let is_stream = call.reply.items().is_some();
        let mut scheduler = match self.queue.admit(&call, wait) {
            Ok(scheduler) => scheduler,
            Err(error) => return Err(Box::new((call, error))),
        };
        let next = scheduler.submit(call);
        self.queue.wake_timer(&scheduler, deadline);
        drop(scheduler);
        self.queue.wake_supervisors(&next);
        let Next { assignment, unread, .. } = next;
        if let Some(conn) = unread {
            conn.hand_to_supervisor();
        }
        let inline = assignment.and_then(|assignment| self.send_first(assignment, ReadBy::Caller));
        let dispatcher = Arc::clone(self);
        let receiver = inline.map(|(conn, serial)| InlineReceiver { dispatcher, conn, serial, is_stream });
        Ok(receiver.map(|receiver| Box::new(receiver) as _))
    }
}
