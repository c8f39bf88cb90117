//! Handles of streams: the items of a method that returns an iterator.

use std::fmt;
use std::iter::FusedIterator;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::canceller::Canceller;
use super::pending::Unpark;
use super::wire::{Reader, WireError};
use crate::arena::manifest::ArenaId;
use crate::engine::Engine;
use crate::engine::blocking::blocking;
use crate::engine::call::items::{Items, Next};
use crate::engine::call::{CallResult, Receive};
use crate::error::Result;
use crate::error::call::{CallError, CallPart};
use crate::os::sync::Mutex;
use crate::os::sys::process_id::process_id;

/// The items of a method that returns an iterator, which arrive while it runs. An iterator of
/// `Result<T>`, or an async [`Stream`] of them with [`into_stream`](Self::into_stream). Tensors arrive
/// on the `cpu` device.
///
/// The worker is at most [`stream_buffer`](crate::TaskWrapper::stream_buffer) items ahead of the
/// reader, and waits if it is. Dropping this value ends the stream: the worker drops its iterator
/// after the item that it computes. If the call fails, the error follows the last item.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::{Pipeline, TaskWrapper};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
/// #[ray_zerocopy::remote]
/// impl Model {
///     /// The words of a text, one after the other.
///     #[remote(stream)]
///     pub fn generate(&self, text: String) -> impl Iterator<Item = String> {
///         text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
///     }
/// }
/// # fn main() -> ray_zerocopy::Result<()> {
/// # ray_zerocopy::init();
/// let tasks = TaskWrapper::new(&Model::new(&Device::flex()))?;
/// for word in tasks.generate("one two three".to_owned()) {
///     println!("{}", word?);
/// }
/// let words: Vec<String> = tasks.generate("four five".to_owned()).collect::<ray_zerocopy::Result<_>>()?;
/// assert_eq!(words, ["four", "five"]);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a stream cancels it: read its items"]
pub struct Streaming<T> {
    items: Arc<Items>,
    answer: oneshot::Receiver<CallResult>,
    /// The result of the call, if it has arrived before the last items were read.
    result: Option<CallResult>,
    take: fn(&mut Reader) -> std::result::Result<T, WireError>,
    method: &'static str,
    is_finished: bool,
    /// The process that made the call. A fork of it has this value too, but never gets an item.
    process: u32,
    /// The right to receive on the reader's thread.
    lone: Mutex<Option<Box<dyn Receive>>>,
    canceller: Canceller,
    arena: ArenaId,
    /// Wakes the thread that has waited last.
    unpark: Option<(ThreadId, Waker)>,
    /// Kept as long as the stream is read.
    engine: Arc<dyn Engine>,
}

impl<T> Streaming<T> {
    pub(super) fn new(
        items: Arc<Items>,
        answer: oneshot::Receiver<CallResult>,
        take: fn(&mut Reader) -> std::result::Result<T, WireError>,
        method: &'static str,
        arena: ArenaId,
        canceller: Canceller,
        engine: Arc<dyn Engine>,
    ) -> Self {
        let (result, is_finished, unpark) = Default::default();
        let (process, lone) = (process_id(), Mutex::new(None));
        Self { items, answer, result, take, method, is_finished, process, lone, canceller, arena, unpark, engine }
    }

    /// Gives the reader the right to receive.
    pub(super) fn receive_by(&mut self, lone: Option<Box<dyn Receive>>) {
        *self.lone.lock() = lone;
    }

    /// The weights that the call runs on: see [`Pending::arena_id`](crate::Pending::arena_id).
    pub fn arena_id(&self) -> ArenaId {
        self.arena
    }

    /// Waits for the next item for at most `timeout`. Returns `None` if it has not arrived, and
    /// `Some(None)` after the last item.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Option<Result<T>>> {
        self.wait(Instant::now().checked_add(timeout))
    }

    /// Converts to an async [`Stream`], for any executor.
    ///
    /// It is a type of its own, so that `next` is never ambiguous.
    pub fn into_stream(self) -> StreamingAsync<T> {
        StreamingAsync(self)
    }

    /// Cancels the call. Items that have arrived can still be read. The error
    /// [`CallError::Cancelled`] follows them.
    pub fn cancel(&self) {
        if self.process != process_id() {
            return;
        }
        let lone = self.lone.lock().take();
        drop(lone);
        self.canceller.cancel();
    }

    fn wait(&mut self, until: Option<Instant>) -> Option<Option<Result<T>>> {
        let mut lone = self.lone.lock().take();
        if let Some(right) = lone.take_if(|_| until.is_some() || self.process != process_id()) {
            self.give_up(right);
        }
        if self.items.has_item() {
            *self.lone.lock() = lone;
        } else if let Some(right) = lone {
            let right = right.receive(&|| self.items.has_item() || self.answer.has_message());
            *self.lone.lock() = right;
        }
        let waker = self.unpark();
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(item) = self.poll(&mut context) {
                return Some(item);
            }
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => blocking(std::thread::park),
                Some(Duration::ZERO) => return None,
                Some(left) => blocking(|| std::thread::park_timeout(left)),
            }
        }
    }

    /// Returns a waker for this thread.
    fn unpark(&mut self) -> Waker {
        let thread = std::thread::current();
        match &self.unpark {
            Some((known, waker)) if *known == thread.id() => waker.clone(),
            _ => {
                let id = thread.id();
                let waker = Waker::from(Arc::new(Unpark(thread)));
                self.unpark = Some((id, waker.clone()));
                waker
            }
        }
    }

    /// Leaves the replies to the engine's threads.
    fn give_up(&self, lone: Box<dyn Receive>) {
        if self.process == process_id() {
            drop(lone);
        } else {
            // The engine's locks may be held by threads that do not exist in the fork.
            std::mem::forget(lone);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        if self.is_finished {
            return Poll::Ready(None);
        }
        if self.process != process_id() {
            self.is_finished = true;
            return Poll::Ready(Some(Err(CallError::forked(self.method).into())));
        }
        if let Some(item) = self.next_item(context) {
            return Poll::Ready(Some(item));
        }
        if self.result.is_none() {
            let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
            let shut_down = |_| CallError::ShutDown { method: self.method.to_owned() };
            self.result = Some(answer.map_err(shut_down).and_then(|result| result));
        }
        // The last items arrived before the result, and perhaps after the look above.
        if let Some(item) = self.next_item(context) {
            return Poll::Ready(Some(item));
        }
        self.is_finished = true;
        Poll::Ready(match self.result.take() {
            Some(Err(error)) => Some(Err(error.into())),
            Some(Ok(_)) | None => None,
        })
    }

    fn next_item(&mut self, context: &Context<'_>) -> Option<Result<T>> {
        let Next::Item(item, has_room) = self.items.next(context.waker()) else { return None };
        if has_room && self.result.is_none() {
            self.engine.raise_limits();
        }
        Some((self.take)(&mut Reader::new(item, Device::flex())).map_err(|error| {
            // An error is the last that a stream has.
            self.cancel();
            self.is_finished = true;
            let part = CallPart::Result;
            CallError::Wire { method: self.method.to_owned(), part, reason: error.to_string() }.into()
        }))
    }
}

impl<T> Iterator for Streaming<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        // Only a timeout ends the wait without a result.
        self.wait(None).flatten()
    }
}

impl<T> FusedIterator for Streaming<T> {}

/// A [`Streaming`] as an async [`Stream`]. Dropping it ends the stream.
#[derive(Debug)]
#[must_use = "dropping a stream cancels it: read its items"]
pub struct StreamingAsync<T>(Streaming<T>);

impl<T> Stream for StreamingAsync<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let stream = &mut self.0;
        let lone = stream.lone.lock().take();
        if let Some(lone) = lone {
            stream.give_up(lone);
        }
        stream.poll(context)
    }
}

impl<T> FusedStream for StreamingAsync<T> {
    fn is_terminated(&self) -> bool {
        self.0.is_finished
    }
}

impl<T> Drop for Streaming<T> {
    fn drop(&mut self) {
        let lone = self.lone.lock().take();
        if let Some(lone) = lone {
            self.give_up(lone);
        }
        if !self.is_finished && self.result.is_none() {
            self.cancel();
        }
    }
}

impl<T> fmt::Debug for Streaming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").field("method", &self.method).finish_non_exhaustive()
    }
}
