//! Streams: calls whose results are Ray's streaming generators.
//!
//! Each open stream has a thread, which waits for one item after the other. The last object of the
//! generator is the reply of the call.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::in_flight::InFlightCall;
use super::inline_wait::OnResult;
use crate::engine::call::items::Items;
use crate::engine::message::Incoming;
use crate::engine::timer;
use crate::error::ray::RayError;
use crate::os::sync::Mutex;
use crate::ray::api::cluster::Cluster;
use crate::ray::api::object;
use crate::ray::wire::protocol::{Answer, Reply};

/// Adds Ray's options of a method that returns a stream. Ray pauses the worker that is so many items
/// ahead.
pub(super) fn options(keywords: &Bound<'_, PyDict>, items: &Items) -> PyResult<()> {
    keywords.set_item("num_returns", "streaming")?;
    // The largest number that Ray takes.
    let window = i64::try_from(items.window()).unwrap_or(i64::MAX);
    keywords.set_item("_generator_backpressure_num_objects", window)
}

/// Reads a stream on a thread of its own. Calls `on_result` with the reply of the call. `is_open` returns
/// whether the engine is: one that closes waits for the call, whose reader may wait for the engine.
///
/// # Errors
/// If the thread cannot be started.
pub(super) fn read_on_thread(
    cluster: &Cluster,
    generator: Py<PyAny>,
    flight: &InFlightCall,
    items: &Arc<Items>,
    is_open: impl Fn() -> bool + Send + 'static,
    on_result: OnResult,
) -> Result<(), RayError> {
    let on_result = Arc::new(Mutex::new(Some(on_result)));
    let stream = OpenStream {
        cluster: cluster.clone(),
        generator,
        method: flight.method(),
        items: Arc::clone(items),
        on_result: Arc::clone(&on_result),
        is_on_actor: flight.assigned().is_some(),
    };
    let thread = std::thread::Builder::new().name("ray-zerocopy stream".to_owned());
    let spawned = thread.spawn(move || {
        timer::mark_own_thread();
        stream.run(is_open);
    });
    spawned
        .map(drop)
        .map_err(|error| RayError::Other { what: "the thread of a stream".to_owned(), cause: error.to_string() })
}

struct OpenStream {
    cluster: Cluster,
    generator: Py<PyAny>,
    method: &'static str,
    items: Arc<Items>,
    /// Taken by the first of the last object and Ray's shutdown.
    on_result: Arc<Mutex<Option<OnResult>>>,
    /// Whether an actor runs it, which finds out itself that a call is cancelled that it has not begun.
    is_on_actor: bool,
}

impl OpenStream {
    fn run(self, is_open: impl Fn() -> bool) {
        let on_shutdown = Arc::clone(&self.on_result);
        let pending = self.cluster.0.owe(move || deliver(&on_shutdown, Err(RayError::ShutDown)));
        // It may have been cancelled before Ray's reference was known.
        let mut has_reader = !self.items.is_closed();
        if !has_reader && !self.is_on_actor {
            self.cancel();
        }
        let result = loop {
            match self.next() {
                Ok((Reply { answer: Answer::Item, .. }, item)) => {
                    // Without a reader, the items are dropped until the method ends.
                    if !self.items.push_in_turn(item, &is_open) && std::mem::take(&mut has_reader) {
                        self.cancel();
                    }
                }
                last => break last,
            }
        };
        self.cluster.0.settle(pending);
        // Dropping the generator is Python's work.
        let Self { cluster, generator, on_result, method, .. } = self;
        // An error means that Ray has been shut down, which drops it.
        drop(cluster.ask(method, move |_| {
            drop(generator);
            Ok(())
        }));
        deliver(&on_result, result);
    }

    fn cancel(&self) {
        // An error means that it has ended.
        drop(self.cluster.ask("cancel", |py| py.import("ray")?.call_method1("cancel", (&self.generator,)).map(drop)));
    }

    /// Waits for the next object.
    fn next(&self) -> Result<(Reply, Incoming), RayError> {
        self.cluster.ask(self.method, |py| {
            let next = self.cluster.0.glue.bind(py).getattr("next_item")?;
            Ok(object::result(&next.call1((&self.generator,))?, self.method))
        })?
    }
}

fn deliver(on_result: &Mutex<Option<OnResult>>, result: Result<(Reply, Incoming), RayError>) {
    let on_result = on_result.lock().take();
    if let Some(on_result) = on_result {
        on_result(result);
    }
}
