//! The shared memory of a connection: what the simulated worker has begun and finished of a bundle.

use std::io;
use std::sync::Arc;

use super::item_ring::ItemReader;
use super::transport::SharedSocket;
use crate::engine::message::Incoming;
use crate::engine::queue::bundle::Bundle;
use crate::engine::served::MethodError;
use crate::os::sync::Mutex;

pub(super) type Failure = Option<MethodError>;

#[derive(Default)]
struct Progress {
    begun: usize,
    done: usize,
    end: usize,
}

#[derive(Clone)]
pub(crate) struct SharedArea(Arc<Mutex<Progress>>, Arc<SharedSocket>);

impl SharedArea {
    pub(super) fn new(socket: &Arc<SharedSocket>) -> Self {
        Self(Arc::new(Mutex::new(Progress::default())), Arc::clone(socket))
    }

    /// The worker replies at once, if it waits for this.
    pub(super) fn cancel(&self, serial: u64) -> bool {
        self.1.cancel(serial);
        false
    }

    pub(super) fn start_stream(&self, _serial: u64) -> ItemReader {
        ItemReader::default()
    }

    pub(super) fn take_item(&self, _reader: &mut ItemReader) -> io::Result<Option<Incoming>> {
        Ok(None)
    }

    pub(super) fn has_item(&self, _reader: &ItemReader) -> bool {
        false
    }

    pub(super) fn is_about_to_wait(&self, _reader: &ItemReader) -> bool {
        false
    }

    /// Workers of the models need no limit.
    pub(super) fn set_limit(&self, _items: u64) -> bool {
        false
    }

    pub(super) fn start_bundle(&self, _first: u64, calls: usize) {
        *self.0.lock() = Progress { begun: 0, done: 0, end: calls };
    }

    pub(super) fn withdraw_calls(&self) {
        let mut progress = self.0.lock();
        progress.end = progress.begun;
    }

    pub(super) fn update<C>(&self, bundle: &mut Bundle<C>) {
        let progress = self.0.lock();
        bundle.progress(progress.begun, progress.done);
    }

    pub(super) fn read_answer(&self, at: &mut usize, _serial: u64) -> io::Result<Option<(Failure, Incoming)>> {
        *at += 1;
        Ok(Some((None, Incoming)))
    }

    /// Begins the next call. Returns `false` if there is none left.
    pub(super) fn begin(&self) -> bool {
        let mut progress = self.0.lock();
        let has_next = progress.begun < progress.end;
        progress.begun += usize::from(has_next);
        has_next
    }

    /// Finishes the call that was begun last.
    pub(super) fn finish(&self) {
        self.0.lock().done += 1;
    }
}
