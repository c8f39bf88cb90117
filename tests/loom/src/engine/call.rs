//! A call, and the place where its caller finds the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Incoming, Outgoing};
use super::program::Program;
use crate::error::call::CallError;
use crate::os::sync::{Condvar, Mutex, now};

type Result = std::result::Result<Incoming, CallError>;

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
}

impl Call {
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.deadline, Some((until, _)) if until <= now())
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
pub(crate) struct Sender(Option<Answer>);

/// The answer of a call, once it is there.
#[derive(Clone)]
pub(crate) struct Answer(Arc<(Mutex<Option<Result>>, Condvar)>);

impl Answer {
    pub(crate) fn channel() -> (Sender, Self) {
        let answer = Self(Arc::new((Mutex::new(None), Condvar::default())));
        (Sender(Some(answer.clone())), answer)
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
        let answer = self.0.take().unwrap();
        *answer.0.0.lock() = Some(result);
        answer.0.1.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        assert!(self.0.is_none() || std::thread::panicking(), "a call was dropped without an answer");
    }
}

pub(crate) trait Receive: Send {
    fn receive(self: Box<Self>, has_arrived: &dyn Fn() -> bool);
}

pub(crate) type Submitted = std::result::Result<Option<Box<dyn Receive>>, Box<(Call, CallError)>>;
