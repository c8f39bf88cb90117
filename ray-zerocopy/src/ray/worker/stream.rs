//! Streams in a worker: the items of a method, which Ray asks for one after the other.
//!
//! The method runs on the thread that serves tasks. Ray's thread takes the items from a channel
//! without a buffer, so the method is at most one item ahead of what Ray accepts.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::cancellation::{INTERVAL, Task};
use super::serve::{self, Report};
use crate::engine::message::Outgoing;
use crate::engine::served::ItemSink;
use crate::error::ray::RayError;
use crate::os::sync::Mutex;
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::Answer;

/// What the method's thread hands over.
enum Part {
    Item(Outgoing),
    /// The reply of the call, which comes last.
    Last(Box<(Report, Answer)>, Outgoing),
}

/// Iterator over the objects of a streaming generator.
#[pyclass(frozen, module = "_ray_zerocopy")]
pub(super) struct Items {
    /// `None` after the last part.
    parts: Mutex<Option<Receiver<Part>>>,
    task: Task,
}

impl Drop for Items {
    /// Ray has dropped the generator: the method may end.
    fn drop(&mut self) {
        self.task.cancel();
    }
}

/// Starts a call whose result is a stream.
///
/// # Errors
/// If the message cannot be decoded, or the thread cannot be started.
pub(super) fn start(py: Python<'_>, head: &Bound<'_, PyAny>, rest: &Bound<'_, PyTuple>) -> Result<Items, RayError> {
    let (request, inputs) = serve::inputs(head, rest)?;
    let (parts, receiver) = sync_channel(0);
    let task = Task::new();
    let items = Items { parts: Mutex::new(Some(receiver)), task: task.clone() };
    if let Some(refusal) = serve::refusal(&request) {
        // The channel has no buffer, so another thread hands the reply over.
        std::thread::spawn(move || {
            drop(parts.send(Part::Last(Box::new((Report::default(), refusal)), Outgoing::default())))
        });
        return Ok(items);
    }
    serve::start(request.threads, request.set_up);
    let order = request.order;
    let work = move |state: &mut serve::WorkerState| {
        task.begin();
        let sink = parts.clone();
        // A generator that Ray has dropped takes no more items.
        let sink: ItemSink = Box::new(move |item| Ok(!task.is_cancelled() && sink.send(Part::Item(item)).is_ok()));
        let (report, answer, payload) = state.answer(order, inputs, Some(sink));
        drop(parts.send(Part::Last(Box::new((report, answer)), payload)));
    };
    py.detach(|| serve::send_to_task_thread(Box::new(work)))?;
    Ok(items)
}

#[pymethods]
impl Items {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    /// The next object: an item, or the reply.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let part = py.detach(|| self.next());
        let Some(part) = part else { return Ok(None) };
        let (report, answer, payload) = match part {
            Part::Item(item) => (Report::default(), Answer::Item, item),
            Part::Last(last, payload) => (last.0, last.1, payload),
        };
        let message = EncodedMessage::new(&report.reply(answer), payload);
        message.map_err(|error| PyRuntimeError::new_err(error.to_string()))?.object(py).map(Some)
    }
}

impl Items {
    /// Waits for the next part. Asks Ray meanwhile whether the call is cancelled.
    fn next(&self) -> Option<Part> {
        let mut parts = self.parts.lock();
        let receiver = parts.as_ref()?;
        self.task.ask();
        let part = loop {
            match receiver.recv_timeout(INTERVAL) {
                Ok(part) => break Some(part),
                Err(RecvTimeoutError::Timeout) => self.task.ask(),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        if !matches!(part, Some(Part::Item(_))) {
            *parts = None;
        }
        part
    }
}
