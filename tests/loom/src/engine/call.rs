//! A call, and the place where its caller finds the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Incoming, Outgoing};
use super::program::Program;
use crate::error::call::{CallError, Worker};
use crate::os::sync::{Condvar, Mutex, now};

pub(crate) type CallResult = std::result::Result<Incoming, CallError>;
type Result = CallResult;

pub(crate) struct Call {
    pub(crate) program: Arc<Program>,
    pub(crate) method: &'static str,
    pub(crate) handler: (),
    pub(crate) args: Outgoing,
    pub(crate) reply: Sender,
    pub(crate) deadline: Option<(Instant, Duration)>,
    pub(crate) allowed: u32,
    pub(crate) attempts: u32,
    pub(crate) unheard: u32,
    pub(crate) actor: bool,
    pub(crate) pinned: Option<usize>,
    pub(crate) is_admitted: bool,
    pub(crate) state_of: Option<u64>,
}

impl Call {
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.deadline, Some((until, _)) if until <= now())
    }

    /// Calls of the models are not measured.
    pub(crate) fn begins(&self) {}

    // Nor are they traced.

    pub(crate) fn sent_to(&mut self, _worker: Option<Worker>) {}

    pub(crate) fn requeued(&mut self) {}

    pub(crate) fn is_traced(&self) -> bool {
        false
    }

    pub(crate) fn context(&self, _worker: Option<usize>) -> Option<()> {
        None
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.reply.is_cancelled()
    }

    /// Calls of the models have no grace period.
    pub(crate) fn limit_to_grace(&mut self, _now: Instant) -> Option<Instant> {
        None
    }

    pub(crate) fn has_items(&self) -> bool {
        self.reply.items().is_some_and(|items| items.has_begun())
    }

    // The models have no batches.

    pub(crate) fn is_ticket(&self) -> bool {
        false
    }

    pub(crate) fn is_batch(&self) -> bool {
        false
    }

    pub(crate) fn fill(&mut self) -> bool {
        true
    }

    pub(crate) fn into_singles(self) -> Vec<Self> {
        vec![self]
    }

    pub(crate) fn answer(mut self, result: Result) {
        self.reply.send(result);
    }
}

/// Where a call's answer goes. Every call is answered, so a sender that is dropped before is a
/// failure.
pub(crate) struct Sender {
    answer: Option<Answer>,
    /// Whether the call has been cancelled, if it can be.
    cancelled: Option<Arc<Mutex<bool>>>,
    /// The items of the call, if it returns a stream.
    items: Option<Arc<items::Items>>,
}

pub(crate) mod items {
    //! The items of a stream, which are only counted.

    use super::{Incoming, Mutex};

    pub(crate) struct Items(Mutex<usize>);

    impl Items {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(0))
        }

        pub(crate) fn count(&self) -> usize {
            *self.0.lock()
        }

        pub(crate) fn push(&self, items: impl IntoIterator<Item = Incoming>) -> bool {
            *self.0.lock() += items.into_iter().count();
            true
        }

        /// Each item counts, however many the reader has taken.
        pub(crate) fn has_item(&self) -> bool {
            self.count() > 0
        }

        // Workers of the models need no limit.

        pub(crate) fn begin(&self) -> u64 {
            u64::MAX
        }

        pub(crate) fn new_limit(&self) -> Option<u64> {
            None
        }

        pub(crate) fn has_begun(&self) -> bool {
            self.count() > 0
        }

        pub(crate) fn lift(&self) {}
    }
}

/// Cancels a call.
pub(crate) struct Canceller {
    answer: Answer,
    cancelled: Arc<Mutex<bool>>,
}

impl Canceller {
    /// Answers the call. The engine has to be told afterwards.
    pub(crate) fn cancel(&self) {
        *self.cancelled.lock() = true;
        self.answer.set(Err(CallError::Cancelled { method: "method".to_owned() }));
    }
}

/// The answer of a call, once it is there.
#[derive(Clone)]
pub(crate) struct Answer(Arc<(Mutex<Option<Result>>, Condvar)>);

impl Answer {
    pub(crate) fn channel() -> (Sender, Self) {
        let answer = Self(Arc::new((Mutex::new(None), Condvar::default())));
        (Sender { answer: Some(answer.clone()), cancelled: None, items: None }, answer)
    }

    /// The channel of a call that can be cancelled.
    pub(crate) fn cancellable() -> (Sender, Self, Canceller) {
        let (mut sender, answer) = Self::channel();
        let cancelled = Arc::new(Mutex::new(false));
        sender.cancelled = Some(Arc::clone(&cancelled));
        (sender, answer.clone(), Canceller { answer, cancelled })
    }

    /// The channel of a call that returns a stream.
    pub(crate) fn stream() -> (Sender, Self, Arc<items::Items>) {
        let (mut sender, answer) = Self::channel();
        let items = Arc::new(items::Items::new());
        sender.items = Some(Arc::clone(&items));
        (sender, answer, items)
    }

    /// Sets the answer, unless there is one.
    fn set(&self, result: Result) {
        self.0.0.lock().get_or_insert(result);
        self.0.1.notify_one();
    }

    /// Waits for the answer.
    pub(crate) fn wait(self) -> Result {
        let (result, arrived) = &*self.0;
        let mut guard = result.lock();
        loop {
            if let Some(result) = guard.take() {
                return result;
            }
            guard = arrived.wait(guard, None);
        }
    }
}

impl Sender {
    fn send(&mut self, result: Result) {
        self.answer.take().unwrap().set(result);
    }

    pub(crate) fn items(&self) -> Option<&Arc<items::Items>> {
        self.items.as_ref()
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| *cancelled.lock())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let is_answered = self.answer.is_none() || self.is_cancelled();
        assert!(is_answered || std::thread::panicking(), "a call was dropped without an answer");
    }
}

pub(crate) trait Receive: Send {
    fn receive(self: Box<Self>, has_arrived: &dyn Fn() -> bool) -> Option<Box<dyn Receive>>;

    fn receive_soon(self: Box<Self>, has_arrived: &dyn Fn() -> bool);
}

pub(crate) type Submitted = std::result::Result<Option<Box<dyn Receive>>, Box<(Call, CallError)>>;
