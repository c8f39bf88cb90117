//! Entry of calls into the pool: waits for space in the queue, assigns the call, and sends it if a
//! worker is idle.

use std::sync::Arc;

use super::dispatch::Dispatcher;
use super::inline_wait::InlineReceiver;
use super::scheduler::{Admission, Next};
use super::worker_conn::ReadBy;
use crate::engine::call::{Call, Submitted};
use crate::engine::deadline::time_to_enter;
use crate::error::call::CallError;

impl Dispatcher {
    /// Queues a call, and sends it immediately if a worker is idle. If the queue is full and `wait`
    /// is set, waits for space.
    pub(super) fn submit(self: &Arc<Self>, call: Call, wait: bool) -> Submitted {
        let deadline = call.deadline.map(|(deadline, _)| deadline);
        let mut scheduler = self.scheduler.lock();
        loop {
            let error = match scheduler.admission(&call, self.settings.queue) {
                Admission::Accepted => break,
                Admission::ShutDown => CallError::ShutDown { method: call.method.to_owned() },
                Admission::QueueFull if !wait => {
                    CallError::QueueFull { waiting: scheduler.queued(), workers: scheduler.workers() }
                }
                Admission::QueueFull => match time_to_enter(call.method, call.deadline) {
                    Ok(left) => {
                        scheduler.waiting_callers += 1;
                        scheduler = self.progress.wait(scheduler, left);
                        scheduler.waiting_callers -= 1;
                        continue;
                    }
                    Err(error) => error,
                },
            };
            drop(scheduler);
            return Err(Box::new((call, error)));
        }
        let Next { assignment, unread } = scheduler.submit(call);
        self.wake_timer(&scheduler, deadline);
        drop(scheduler);
        if let Some(conn) = unread {
            conn.hand_to_supervisor();
        }
        let inline = assignment.and_then(|assignment| self.send_first(assignment, ReadBy::Caller));
        let receiver = inline.map(|(conn, serial)| InlineReceiver { dispatcher: Arc::clone(self), conn, serial });
        Ok(receiver.map(|receiver| Box::new(receiver) as _))
    }
}
