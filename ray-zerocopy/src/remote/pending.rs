//! Handles of calls in flight.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;

use super::canceller::Canceller;
use super::wire::{Reader, WireError};
use crate::arena::manifest::ArenaId;
use crate::engine::blocking::blocking;
use crate::engine::call::waiter::{Observed, Waiter};
use crate::engine::call::{CallResult, Receive};
use crate::engine::tally::Tally;
use crate::error::call::{CallError, CallPart};
use crate::error::{Error, Result};
use crate::os::sync::Mutex;
use crate::os::sys::process_id::process_id;

/// The result of a call in flight. Wait for it, or `.await` it on any executor. Tensors arrive on
/// the `cpu` device.
///
/// A call runs even if its `Pending` is dropped, unless it is [`cancel_on_drop`](Self::cancel_on_drop).
///
/// The first poll waits up to 100 µs for the result of a call that is alone, since an executor takes as long
/// to be woken. Later polls do not wait.
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
#[must_use = "the call runs, but its result or error is lost: `.wait()?` or `.await?` it"]
pub struct Pending<T> {
    answer: oneshot::Receiver<CallResult>,
    take: fn(&mut Reader) -> std::result::Result<T, WireError>,
    method: &'static str,
    taken: bool,
    /// The process that made the call. A fork of it has this value too, but never gets the reply.
    process: u32,
    /// The right to receive the reply on the caller's thread, until it is used or given up.
    lone: Mutex<Option<Box<dyn Receive>>>,
    /// `None` for a call that was not made.
    canceller: Option<Canceller>,
    cancels_on_drop: bool,
    /// `None` for a call that was not made.
    arena: Option<ArenaId>,
}

impl<T> Pending<T> {
    pub(super) fn new(
        answer: oneshot::Receiver<CallResult>,
        take: fn(&mut Reader) -> std::result::Result<T, WireError>,
        method: &'static str,
        arena: ArenaId,
        canceller: Canceller,
    ) -> Self {
        let mut pending = Self::of(answer, take, method);
        pending.canceller = Some(canceller);
        pending.arena = Some(arena);
        pending
    }

    /// The weights that the call runs on. A [swap](crate::TaskWrapper::swap) that happens meanwhile does
    /// not change them. `None` if the call was not made, because its arguments could not be sent.
    pub fn arena_id(&self) -> Option<ArenaId> {
        self.arena
    }

    fn of(
        answer: oneshot::Receiver<CallResult>,
        take: fn(&mut Reader) -> std::result::Result<T, WireError>,
        method: &'static str,
    ) -> Self {
        let (process, lone) = (process_id(), Mutex::new(None));
        let (canceller, arena) = (None, None);
        Self { answer, take, method, taken: false, process, lone, canceller, cancels_on_drop: false, arena }
    }

    /// Gives the caller the right to receive the reply.
    pub(super) fn receive_by(&mut self, lone: Option<Box<dyn Receive>>) {
        *self.lone.lock() = lone;
    }

    /// Cancels the call, unless its result has arrived. The result is then the error
    /// [`CallError::Cancelled`].
    ///
    /// A call that waits for a worker never runs. In a worker that runs it,
    /// [`cancelled()`](crate::cancelled) becomes `true`; if the wrapper has a
    /// [`cancel_grace`](crate::TaskWrapper::cancel_grace), a worker process that goes on for longer
    /// is killed and replaced. Other calls of the same batch go on.
    pub fn cancel(&self) {
        if self.process != process_id() {
            return;
        }
        // The reply is not read by this thread then.
        let lone = self.lone.lock().take();
        drop(lone);
        if let Some(canceller) = &self.canceller {
            canceller.cancel();
        }
    }

    /// Makes dropping this value [cancel](Self::cancel) the call.
    pub fn cancel_on_drop(mut self) -> Self {
        self.cancels_on_drop = true;
        self
    }

    pub(crate) fn failed(
        error: CallError,
        take: fn(&mut Reader) -> std::result::Result<T, WireError>,
        method: &'static str,
        tally: &Arc<Tally>,
        observed: Observed,
    ) -> Self {
        let (waiter, answer) = Waiter::new(method, None, None, None, tally, observed);
        waiter.answer(Err(error));
        Self::of(answer, take, method)
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// If the method panicked, its worker died, its deadline passed, or its result could not be
    /// sent.
    pub fn wait(mut self) -> Result<T> {
        self.check_process()?;
        let lone = self.lone.lock().take();
        if let Some(lone) = lone {
            drop(lone.receive(&|| self.answer.has_message()));
        }
        let answer = if self.taken { None } else { self.receive(None) };
        self.value(answer.unwrap_or_else(|| Err(self.lost())))
    }

    /// Waits for the result for at most `timeout`. Returns `None` if it has not arrived, and may be
    /// called again in that case only.
    ///
    /// The call goes on after a timeout. To end it after some time, give the wrapper a deadline.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<T>> {
        if let Err(error) = self.check_process() {
            return Some(Err(error));
        }
        if self.taken {
            return Some(Err(self.lost()));
        }
        self.give_up_right();
        let answer = self.receive(Instant::now().checked_add(timeout))?;
        self.taken = answer.is_ok();
        Some(self.value(answer))
    }

    /// Blocks until the reply arrives. Returns `None` if it does not arrive in time.
    ///
    /// It polls, because oneshot's own blocking calls panic once a receiver has been polled, and a
    /// caller may poll first and wait afterwards.
    fn receive(&mut self, until: Option<Instant>) -> Option<Result<CallResult>> {
        if self.answer.has_message()
            && let Ok(answer) = self.answer.try_recv()
        {
            return Some(Ok(answer));
        }
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

    /// Returns an error if this process is not the one that made the call.
    fn check_process(&self) -> Result<()> {
        if self.process == process_id() {
            return Ok(());
        }
        Err(CallError::forked(self.method).into())
    }

    /// Leaves the reply to the engine's threads, since other calls may need the worker.
    fn give_up_right(&mut self) {
        let lone = self.lone.lock().take();
        if let Some(lone) = lone {
            if self.process == process_id() {
                drop(lone);
            } else {
                // The engine's locks may be held by threads that do not exist in the fork.
                std::mem::forget(lone);
            }
        }
    }

    fn value(&self, answer: Result<CallResult>) -> Result<T> {
        let message = answer?.map_err(Error::from)?;
        (self.take)(&mut Reader::new(message, Device::flex())).map_err(|error| {
            let part = CallPart::Result;
            CallError::Wire { method: self.method.to_owned(), part, reason: error.to_string() }.into()
        })
    }

    /// The error of a call without a reply. An engine replies to every call as long as it runs, and
    /// a result can be taken only once.
    fn lost(&self) -> Error {
        let method = self.method.to_owned();
        if self.taken { CallError::Taken { method }.into() } else { CallError::ShutDown { method }.into() }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        self.check_process()?;
        if self.taken {
            return Poll::Ready(Err(self.lost()));
        }
        let lone = self.lone.lock().take();
        if let Some(lone) = lone {
            lone.receive_soon(&|| self.answer.has_message());
        }
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        self.taken = true;
        Poll::Ready(self.value(answer.map_err(|_| self.lost())))
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.give_up_right();
        if self.cancels_on_drop && !self.taken {
            self.cancel();
        }
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Wakes a thread that waits for a result.
pub(super) struct Unpark(pub(super) Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The results of several calls in flight. See [`gather`].
#[must_use = "the calls run, but their results and errors are lost: `.wait()?` or `.await?` them"]
pub struct Gather<T> {
    slots: Vec<Slot<T>>,
    /// Number of leading results that have arrived. The slot after them is polled next.
    here: usize,
}

enum Slot<T> {
    OnItsWay(Pending<T>),
    Here(T),
    Taken,
}

/// Joins the results of calls in flight into one, in the order of the calls. All calls are made
/// first.
///
/// There is an example at [`Pending`].
pub fn gather<T>(pending: impl IntoIterator<Item = Pending<T>>) -> Gather<T> {
    Gather { slots: pending.into_iter().map(Slot::OnItsWay).collect(), here: 0 }
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

    /// Waits for all results for at most `timeout`. Returns `None` if one is missing, and may be
    /// called again in that case only.
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

    /// Asks for the missing results, in order. Returns `None` as long as one is missing.
    fn collect(&mut self, mut ask: impl FnMut(&mut Pending<T>) -> Option<Result<T>>) -> Option<Result<Vec<T>>> {
        if self.here == 0 {
            // All results are needed, so the engine receives every reply.
            self.slots.iter_mut().for_each(|slot| {
                if let Slot::OnItsWay(pending) = slot {
                    pending.give_up_right();
                }
            });
        }
        // Polls only the first missing result, since all are needed: polling each of 1000 whenever
        // one arrives would be a million polls.
        while let Some(slot) = self.slots.get_mut(self.here) {
            if let Slot::OnItsWay(pending) = slot {
                match ask(pending)? {
                    Ok(value) => *slot = Slot::Here(value),
                    Err(error) => return Some(Err(error)),
                }
            }
            self.here += 1;
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
