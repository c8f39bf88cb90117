//! Results that are on their way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;

use super::wire::{Reader, WireError};
use crate::engine::message::Incoming;
use crate::engine::{CallError, Receive, blocking};
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
    taken: bool,
    /// The right to receive the answer, for as long as nobody has asked for it.
    pub(super) lone: Option<Box<dyn Receive>>,
    /// The process that has made the call. A fork of it would wait for ever, or take its parent's answer.
    owner: u32,
}

impl<T> Pending<T> {
    pub(super) fn new(
        answer: oneshot::Receiver<Answer>,
        take: fn(&mut Reader) -> std::result::Result<T, WireError>,
        method: &'static str,
    ) -> Self {
        Self { answer, take, method, taken: false, lone: None, owner: std::process::id() }
    }

    pub(crate) fn failed(
        error: CallError,
        take: fn(&mut Reader) -> std::result::Result<T, WireError>,
        method: &'static str,
    ) -> Self {
        let (reply, answer) = oneshot::channel();
        drop(reply.send(Err(error)));
        Self { answer, take, method, taken: false, lone: None, owner: std::process::id() }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// If the method panicked, its worker died, its deadline passed, or its result could not travel.
    pub fn wait(mut self) -> Result<T> {
        self.here()?;
        if let Some(lone) = self.lone.take() {
            lone.receive();
        }
        let answer = match self.taken {
            true => None,
            false => self.receive(None),
        };
        self.value(answer.unwrap_or_else(|| Err(self.lost())))
    }

    /// Waits for the result, but not for long: `None` if it is not there yet. May be called again then, and only then.
    ///
    /// The call goes on. To end it after some time, give the wrapper a deadline.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<T>> {
        if self.taken {
            return Some(Err(self.lost()));
        }
        if let Err(error) = self.here() {
            return Some(Err(error));
        }
        drop(self.lone.take());
        let answer = self.receive(Instant::now().checked_add(timeout))?;
        self.taken = answer.is_ok();
        Some(self.value(answer))
    }

    /// Blocks until the answer is there; `None` if it is not there in time. By polling, because oneshot's own blocking
    /// calls panic once a receiver has been polled, and whoever has polled may well wait afterwards.
    fn receive(&mut self, until: Option<Instant>) -> Option<Result<Answer>> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(&mut context) {
                return Some(answer.map_err(|_| self.lost()));
            }
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => blocking(std::thread::park),
                Some(Duration::ZERO) => return None,
                Some(left) => blocking(|| std::thread::park_timeout(left)),
            }
        }
    }

    fn value(&self, answer: Result<Answer>) -> Result<T> {
        let message = answer?.map_err(Error::from)?;
        (self.take)(&mut Reader::new(message, Device::flex())).map_err(|error| {
            let what = "the result".to_owned();
            CallError::Wire { method: self.method.to_owned(), what, reason: error.to_string() }.into()
        })
    }

    /// Whether this is the process that has made the call.
    fn here(&self) -> Result<()> {
        if self.owner == std::process::id() { Ok(()) } else { Err(CallError::forked(self.method).into()) }
    }

    /// Every call is answered as long as its engine lives; and a result can be taken only once.
    fn lost(&self) -> Error {
        let method = self.method.to_owned();
        match self.taken {
            true => CallError::Taken { method }.into(),
            false => CallError::ShutDown { method }.into(),
        }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            // The right is the parent's, and to give it up would need threads that are not here.
            std::mem::forget(self.lone.take());
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        if self.taken {
            return Poll::Ready(Err(self.lost()));
        }
        if let Err(error) = self.here() {
            return Poll::Ready(Err(error));
        }
        drop(self.lone.take());
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        self.taken = true;
        Poll::Ready(self.value(answer.map_err(|_| self.lost())))
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Wakes a thread that waits for a result.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Many results as one. See [`gather`].
#[must_use = "the calls run, but nobody sees their results: `.wait()?` or `.await?` them"]
pub struct Gather<T> {
    slots: Vec<Slot<T>>,
}

enum Slot<T> {
    OnItsWay(Pending<T>),
    Here(T),
    Taken,
}

/// Joins results that are on their way into one, in the order of the calls. The calls are made first, all of them.
///
/// There is an example at [`Pending`].
pub fn gather<T>(pending: impl IntoIterator<Item = Pending<T>>) -> Gather<T> {
    Gather { slots: pending.into_iter().map(Slot::OnItsWay).collect() }
}

impl<T> Gather<T> {
    /// Waits for all results.
    ///
    /// # Errors
    /// The first error in the order of the calls. The other calls run all the same.
    pub fn wait(self) -> Result<Vec<T>> {
        let values = self.slots.into_iter().map(|slot| match slot {
            Slot::OnItsWay(pending) => pending.wait(),
            Slot::Here(value) => Ok(value),
            Slot::Taken => Err(taken()),
        });
        values.collect()
    }

    /// Waits for all results, but not for long: `None` if some are missing. May be called again then, and only then.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<Vec<T>>> {
        let until = Instant::now().checked_add(timeout);
        self.collect(|pending| {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            pending.wait_timeout(left)
        })
    }

    /// Asks for each result that is missing. Says nothing as long as one is.
    fn collect(&mut self, mut ask: impl FnMut(&mut Pending<T>) -> Option<Result<T>>) -> Option<Result<Vec<T>>> {
        let mut missing = false;
        for slot in &mut self.slots {
            if let Slot::OnItsWay(pending) = slot {
                match ask(pending) {
                    Some(Ok(value)) => *slot = Slot::Here(value),
                    Some(Err(error)) => return Some(Err(error)),
                    None => missing = true,
                }
            }
        }
        if missing {
            return None;
        }
        let values = self.slots.iter_mut().map(|slot| match std::mem::replace(slot, Slot::Taken) {
            Slot::Here(value) => Ok(value),
            Slot::OnItsWay(_) | Slot::Taken => Err(taken()),
        });
        Some(values.collect())
    }
}

fn taken() -> Error {
    CallError::Taken { method: "gather".to_owned() }.into()
}

impl<T: Unpin> Future for Gather<T> {
    type Output = Result<Vec<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let all = self.collect(|pending| match Pin::new(pending).poll(context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        });
        all.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> fmt::Debug for Gather<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").field("calls", &self.slots.len()).finish_non_exhaustive()
    }
}
