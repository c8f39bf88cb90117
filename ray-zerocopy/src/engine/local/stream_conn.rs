//! The owner's side of a stream that a worker runs.

use std::io;
use std::sync::Arc;

use super::protocol::Request;
use super::worker_conn::{Shared, WorkerConn};
use crate::engine::call::items::Items;
use crate::engine::message::Incoming;

impl WorkerConn {
    /// Passes the items in the shared memory on to the reader of the stream that the worker runs. Returns
    /// their number.
    ///
    /// # Errors
    /// If an item cannot be read.
    pub(super) fn deliver_items(&self) -> io::Result<usize> {
        let mut arrived = Vec::new();
        let (items, result) = {
            let mut state = self.state.lock();
            let Some(items) = running_items(&state) else { return Ok(0) };
            (items, self.take_items(&mut state, &mut arrived))
        };
        let count = arrived.len();
        // A reader that is gone has cancelled the call.
        let _is_read = items.push(arrived);
        result.map(|()| count)
    }

    /// Passes an item of a packet on, and those before it. Returns `false` if the worker runs no stream.
    ///
    /// # Errors
    /// If it is not the next item.
    pub(super) fn deliver_item(&self, number: u64, item: Incoming) -> io::Result<bool> {
        let mut arrived = Vec::new();
        let items = {
            let mut state = self.state.lock();
            let Some(items) = running_items(&state) else { return Ok(false) };
            self.take_items(&mut state, &mut arrived)?;
            if state.stream.next != number {
                let reason = format!("item {number} was sent, and item {} is the next one", state.stream.next);
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            state.stream.next += 1;
            arrived.push(item);
            items
        };
        let _is_read = items.push(arrived);
        Ok(true)
    }

    fn take_items(&self, state: &mut Shared, arrived: &mut Vec<Incoming>) -> io::Result<()> {
        let Some(area) = self.connection.shared() else { return Ok(()) };
        while let Some(item) = area.take_item(&mut state.stream)? {
            arrived.push(item);
        }
        Ok(())
    }

    /// Returns `true` if an item is in the shared memory.
    pub(super) fn has_item(&self) -> bool {
        let state = self.state.lock();
        self.connection.shared().is_some_and(|area| area.has_item(&state.stream))
    }

    /// Says that this thread is about to wait for a packet. Returns `true` if there is an item, so that it
    /// need not wait.
    pub(super) fn is_about_to_wait(&self) -> bool {
        let state = self.state.lock();
        let area = self.connection.shared().filter(|_| running_items(&state).is_some());
        area.is_some_and(|area| area.is_about_to_wait(&state.stream))
    }

    /// Returns `true` if an item waits for the reader.
    pub(super) fn has_delivered(&self) -> bool {
        let items = running_items(&self.state.lock());
        items.is_some_and(|items| items.has_item())
    }

    /// Tells the worker how many items of its stream it may send, if that has changed enough.
    pub(super) fn raise_limit(&self) {
        let state = self.state.lock();
        let Some(limit) = running_items(&state).and_then(|items| items.new_limit()) else { return };
        if self.connection.shared().is_some_and(|area| area.set_limit(limit)) {
            self.wake(state.conn.serial());
        }
    }

    /// Lets the worker send the rest of its stream, because another thread waits for the worker.
    pub(super) fn lift_limit(&self) {
        let items = running_items(&self.state.lock());
        if let Some(items) = items {
            items.lift();
            self.raise_limit();
        }
    }

    /// Wakes a worker that waits for its reader.
    pub(super) fn wake(&self, serial: u64) {
        // The socket has room, since the worker has received all packets before. A worker that has ended
        // does not wait.
        drop(self.connection.try_send(&(serial, Request::Wake)));
    }
}

/// The items of the stream that the worker runs.
fn running_items(state: &Shared) -> Option<Arc<Items>> {
    state.conn.running_call()?.reply.items().cloned()
}
