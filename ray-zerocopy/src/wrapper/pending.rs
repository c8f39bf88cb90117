//! Results that are on their way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use burn::tensor::Device;

use super::wire::{Reader, WireError};
use crate::engine::CallError;
use crate::engine::message::Incoming;
use crate::{Error, Result};

type Answer = std::result::Result<Incoming, CallError>;

/// A result that is on its way. Wait for it, or `.await` it on any executor. Tensors arrive on the `cpu` device.
///
/// A call runs even if its `Pending` is dropped.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::{Pipeline, TaskWrapper, gather};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
/// #[ray_zerocopy::remote]
/// impl Model {
///     pub fn double(&self, x: u32) -> u32 { 2 * x }
/// }
/// # fn main() -> ray_zerocopy::Result<()> {
/// # ray_zerocopy::init();
/// let tasks = TaskWrapper::new(&Model::new(&Device::flex()))?;
/// assert_eq!(tasks.double(21).wait()?, 42);
/// assert_eq!(gather((0..3).map(|x| tasks.double(x))).wait()?, [0, 2, 4]);
/// # Ok(())
/// # }
/// ```
#[must_use = "the call runs, but nobody sees its result or its error: `.wait()?` or `.await?` it"]
pub struct Pending<T> {
    answer: oneshot::Receiver<Answer>,
    take: fn(&mut Reader) -> std::result::Result<T, WireError>,
    method: &'static str,
}

impl<T> Pending<T> {
    pub(super) fn new(
        answer: oneshot::Receiver<Answer>,
        take: fn(&mut Reader) -> std::result::Result<T, WireError>,
        method: &'static str,
    ) -> Self {
        Self { answer, take, method }
    }

    pub(super) fn failed(
        error: CallError,
        take: fn(&mut Reader) -> std::result::Result<T, WireError>,
        method: &'static str,
    ) -> Self {
        let (reply, answer) = oneshot::channel();
        drop(reply.send(Err(error)));
        Self { answer, take, method }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// If the method panicked, its worker died, its deadline passed, or its result could not travel.
    pub fn wait(self) -> Result<T> {
        let answer = self.answer.recv_ref();
        self.value(answer.map_err(|_| self.lost()))
    }

    /// Waits for the result, but not for long: `None` if it is not there yet. May be called again then.
    ///
    /// The call goes on. To end it after some time, give the wrapper a deadline.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<T>> {
        match self.answer.recv_timeout(timeout) {
            Ok(answer) => Some(self.value(Ok(answer))),
            Err(oneshot::RecvTimeoutError::Timeout) => None,
            Err(oneshot::RecvTimeoutError::Disconnected) => Some(Err(self.lost())),
        }
    }

    fn value(&self, answer: Result<Answer>) -> Result<T> {
        let message = answer?.map_err(Error::from)?;
        (self.take)(&mut Reader::new(message, Device::flex())).map_err(|error| {
            let what = "the result".to_owned();
            CallError::Wire { method: self.method.to_owned(), what, reason: error.to_string() }.into()
        })
    }

    /// Every call is answered as long as its engine lives; and a result can be taken only once.
    fn lost(&self) -> Error {
        CallError::ShutDown { method: self.method.to_owned() }.into()
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(self.value(answer.map_err(|_| self.lost())))
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Many results as one. See [`gather`].
#[must_use = "the calls run, but nobody sees their results: `.wait()?` or `.await?` them"]
pub struct Gather<T> {
    pending: Vec<Option<Pending<T>>>,
    done: Vec<Option<T>>,
}

/// Joins results that are on their way into one, in the order of the calls. The calls are made first, all of them.
///
/// There is an example at [`Pending`].
pub fn gather<T>(pending: impl IntoIterator<Item = Pending<T>>) -> Gather<T> {
    let pending: Vec<_> = pending.into_iter().map(Some).collect();
    let done = pending.iter().map(|_| None).collect();
    Gather { pending, done }
}

impl<T> Gather<T> {
    /// Waits for all results.
    ///
    /// # Errors
    /// The first error in the order of the calls. The other calls run all the same.
    pub fn wait(mut self) -> Result<Vec<T>> {
        self.step(|pending| pending.wait().map(Ok))?;
        Ok(self.done.into_iter().flatten().collect())
    }

    /// Waits for all results, but not for long: `None` if some are missing. May be called again then.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<Vec<T>>> {
        let until = Instant::now() + timeout;
        let step = self.step(|mut pending| {
            match pending.wait_timeout(until.saturating_duration_since(Instant::now())) {
                Some(result) => result.map(Ok),
                None => Ok(Err(pending)),
            }
        });
        match step {
            Err(error) => Some(Err(error)),
            Ok(()) if self.pending.iter().any(Option::is_some) => None,
            Ok(()) => Some(Ok(self.done.drain(..).flatten().collect())),
        }
    }

    /// Asks each result that is missing; one that is not there yet is given back.
    fn step(&mut self, mut ask: impl FnMut(Pending<T>) -> Result<std::result::Result<T, Pending<T>>>) -> Result<()> {
        for (slot, done) in self.pending.iter_mut().zip(&mut self.done) {
            if let Some(pending) = slot.take() {
                match ask(pending)? {
                    Ok(value) => *done = Some(value),
                    Err(pending) => *slot = Some(pending),
                }
            }
        }
        Ok(())
    }
}

impl<T: Unpin> Future for Gather<T> {
    type Output = Result<Vec<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let step = self.step(|mut pending| match Pin::new(&mut pending).poll(context) {
            Poll::Ready(result) => result.map(Ok),
            Poll::Pending => Ok(Err(pending)),
        });
        match step {
            Err(error) => Poll::Ready(Err(error)),
            Ok(()) if self.pending.iter().any(Option::is_some) => Poll::Pending,
            Ok(()) => Poll::Ready(Ok(self.done.drain(..).flatten().collect())),
        }
    }
}

impl<T> fmt::Debug for Gather<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").field("calls", &self.pending.len()).finish_non_exhaustive()
    }
}
