//! The owner's side of one worker: a thread that gives it one call at a time, and a new process when it dies.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pool::{HEARTBEAT, Next, Shared, late_answer};
use super::process::Process;
use super::protocol::{Answer, Failure, Request};
use super::transport::{Received, Wait};
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::{Attached, Call, CallError, Program, Worker};

/// How long a worker may take to end after it was told to.
const GRACE: Duration = Duration::from_secs(5);
/// A worker that keeps dying at its start is not started more often than this.
const BACK_OFF: Duration = Duration::from_millis(200);
/// How many processes of an actor may die while they load before the actor is given up, and how many may be gone before
/// they get a call.
const START_ATTEMPTS: u32 = 3;

pub(super) struct Driver {
    index: usize,
    shared: Arc<Shared>,
    process: Option<Process>,
    /// The programs that the process has loaded.
    loaded: HashSet<u64>,
}

/// Why a worker gave no answer.
enum Trouble {
    /// The process is gone: how it ended.
    Died(String),
    /// The process was gone before it got the request.
    Unheard(String),
    /// No process could be started: why.
    NotStarted(String),
    /// The deadline passed.
    Late,
    /// The worker is well, and the call is answered with this.
    Answer(CallError),
}

impl Driver {
    pub(super) fn new(index: usize, shared: Arc<Shared>) -> Self {
        Self { index, shared, process: None, loaded: HashSet::new() }
    }

    pub(super) fn run(mut self) {
        self.bring_up();
        loop {
            match self.shared.next(self.index) {
                Next::Run(call) => {
                    self.handle(*call);
                    self.bring_up();
                }
                Next::Forget(key) => self.forget(key),
                Next::Look => {
                    if self.process.as_mut().is_some_and(Process::has_ended) {
                        self.lose();
                    }
                    self.bring_up();
                }
                Next::Close => return self.close(),
            }
        }
    }

    fn worker(&self) -> Worker {
        Worker { index: self.index, pid: self.process.as_ref().map_or(0, Process::pid) }
    }

    /// Starts the process if there is none, and loads what an actor has to have.
    fn bring_up(&mut self) {
        for attempt in 1.. {
            if self.process.is_some() {
                return;
            }
            if self.start().is_err() {
                std::thread::sleep(BACK_OFF);
                return;
            }
            let Some(program) = self.shared.program.clone() else { return };
            let how = match self.load(&program, None) {
                Ok(()) => return,
                // A process that died meanwhile gets another chance.
                Err(Trouble::Died(how) | Trouble::Unheard(how)) => how,
                // Whoever waits for the start has to hear of every other end, too; a refusal has been noted already.
                Err(Trouble::Answer(error)) => return self.shared.attached(self.index, program.key, Err(error)),
                Err(Trouble::NotStarted(reason)) => {
                    let error = self.not_started(&reason);
                    return self.shared.attached(self.index, program.key, Err(error));
                }
                Err(Trouble::Late) => "it was late".to_owned(),
            };
            self.lose();
            if attempt == START_ATTEMPTS {
                let error =
                    self.not_started(&format!("{attempt} processes died while they loaded the pipeline ({how})"));
                self.shared.attached(self.index, program.key, Err(error));
                return;
            }
        }
    }

    fn not_started(&self, reason: &str) -> CallError {
        CallError::Start { method: format!("worker {}", self.index), reason: reason.to_owned() }
    }

    fn start(&mut self) -> Result<(), Trouble> {
        let settings = &self.shared.settings;
        match Process::start(self.index, settings.threads_per_worker(), settings.start_timeout) {
            Ok(process) => {
                self.process = Some(process);
                self.loaded.clear();
                self.shared.started(self.index, Ok(self.worker()));
                Ok(())
            }
            Err(reason) => {
                self.shared.started(self.index, Err(self.not_started(&reason)));
                Err(Trouble::NotStarted(reason))
            }
        }
    }

    fn handle(&mut self, mut call: Call) {
        if matches!(call.deadline, Some((until, _)) if until <= Instant::now()) {
            return late_answer(call, "while it waited in the queue".to_owned());
        }
        // A process that died while it was idle has not tried this call.
        if self.process.as_mut().is_some_and(Process::has_ended) {
            self.lose();
        }
        call.attempts += 1;
        let mut outcome = self.attempt(&call);
        for _ in 1..START_ATTEMPTS {
            // Nor has one that was gone before the call was sent.
            let Err(Trouble::Unheard(_)) = outcome else { break };
            self.lose();
            outcome = self.attempt(&call);
        }
        match outcome {
            Ok(result) => call.answer(Ok(result)),
            Err(Trouble::Answer(error)) => call.answer(Err(error)),
            Err(Trouble::Late) => {
                let place = format!("while {} ran it, which was replaced", self.worker());
                if let Some(process) = &mut self.process {
                    process.kill();
                }
                self.lose();
                late_answer(call, place);
            }
            Err(Trouble::Died(how) | Trouble::Unheard(how)) => {
                let worker = self.worker();
                self.lose();
                if call.attempts < call.allowed {
                    return self.shared.retry(call);
                }
                let error = CallError::WorkerDied {
                    method: call.method.to_owned(),
                    worker,
                    how,
                    attempts: call.attempts,
                    allowed: call.allowed,
                    actor: call.actor,
                };
                call.answer(Err(error));
            }
            Err(Trouble::NotStarted(reason)) => {
                if call.attempts < call.allowed {
                    return self.shared.retry(call);
                }
                let error = CallError::Start { method: call.method.to_owned(), reason };
                call.answer(Err(error));
            }
        }
    }

    /// One try: a process, the program in it, the call.
    fn attempt(&mut self, call: &Call) -> Result<Incoming, Trouble> {
        if self.process.is_none() {
            self.start()?;
        }
        let until = call.deadline.map(|(until, _)| until);
        if !self.loaded.contains(&call.program.key) {
            self.load(&call.program, until)?;
        }
        let request = Request::Call { key: call.program.key, handler: call.handler.clone() };
        let worker = self.worker();
        let failed = |failure| match failure {
            Failure::Panicked(message) => CallError::Panicked { method: call.method.to_owned(), worker, message },
            Failure::Wire { what, reason } => CallError::Wire { method: call.method.to_owned(), what, reason },
        };
        // A request that cannot be sent although the worker is there is too large for the machine.
        let sent = |error: &std::io::Error| CallError::Wire {
            method: call.method.to_owned(),
            what: "the arguments".to_owned(),
            reason: error.to_string(),
        };
        self.send(&request, &call.args, &[], sent)?;
        let received = self.receive(until)?;
        match received.message {
            Answer::Done => Ok(received.payload),
            Answer::Failed(failure) => Err(Trouble::Answer(failed(failure))),
            other => Err(self.confused(&other)),
        }
    }

    fn load(&mut self, program: &Program, until: Option<Instant>) -> Result<(), Trouble> {
        let request = Request::Load {
            key: program.key,
            loader: program.loader.clone(),
            device: program.device.clone(),
            strict: program.strict,
            memory: program.memory,
            arena: program.arena.handle(),
        };
        let not_sent = |error: &std::io::Error| self.not_started(&format!("the arena could not be sent: {error}"));
        self.send(&request, &Outgoing::default(), &program.arena.fds(), not_sent)?;
        let received = self.receive(until)?;
        match received.message {
            Answer::Loaded { copied, took, decoding, memory } => {
                self.loaded.insert(program.key);
                self.shared.attached(self.index, program.key, Ok(Attached { copied, took, decoding, memory }));
                Ok(())
            }
            Answer::NotLoaded(error) => {
                let error = CallError::Load { worker: self.worker(), error };
                self.shared.attached(self.index, program.key, Err(error.clone()));
                Err(Trouble::Answer(error))
            }
            other => Err(self.confused(&other)),
        }
    }

    fn send(
        &self,
        request: &Request,
        payload: &Outgoing,
        fds: &[BorrowedFd<'_>],
        not_sent: impl FnOnce(&std::io::Error) -> CallError,
    ) -> Result<(), Trouble> {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};

        let Some(process) = &self.process else { return Err(Trouble::NotStarted("there is no process".to_owned())) };
        let sent = process.connection.send(request, payload, fds);
        sent.map_err(|error| match error.kind() {
            BrokenPipe | ConnectionReset => Trouble::Unheard("it was gone before it got the call".to_owned()),
            _ => Trouble::Answer(not_sent(&error)),
        })
    }

    fn receive(&mut self, until: Option<Instant>) -> Result<Received<Answer>, Trouble> {
        let Some(process) = &mut self.process else {
            return Err(Trouble::NotStarted("there is no process".to_owned()));
        };
        let mut last_look = false;
        loop {
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                return Err(Trouble::Late);
            }
            let pause = if last_look { Duration::ZERO } else { HEARTBEAT };
            let look = now + pause;
            match process.connection.wait(Some(until.map_or(look, |until| until.min(look)))) {
                Ok(Wait::Ready) => break,
                Ok(Wait::TimedOut) if last_look => return Err(Trouble::Died(process.end())),
                // A child that user code has forked, and that has not executed anything yet, holds the worker's end of
                // the socket too, so that the worker's death does not show there. What it said before it died does.
                Ok(Wait::TimedOut) => last_look = process.has_ended(),
                Err(error) => return Err(Trouble::Died(format!("waiting for it failed: {error}"))),
            }
        }
        match process.connection.receive() {
            Ok(Some(received)) => Ok(received),
            Ok(None) => Err(Trouble::Died(process.end())),
            Err(error) => Err(Trouble::Died(format!("its answer could not be read: {error}"))),
        }
    }

    /// A worker that says what it was not asked is not used again.
    fn confused(&self, answer: &Answer) -> Trouble {
        Trouble::Died(format!("it gave an answer to another question, {answer:?}, and was replaced"))
    }

    fn forget(&mut self, key: u64) {
        self.shared.detached(self.index, key);
        if self.loaded.remove(&key) {
            // A worker that is gone has forgotten everything.
            drop(self.send(&Request::Forget { key }, &Outgoing::default(), &[], |error| {
                self.not_started(&error.to_string())
            }));
        }
    }

    /// The process is gone, or is to be.
    fn lose(&mut self) {
        self.process = None;
        self.loaded.clear();
        self.shared.ended(self.index);
    }

    fn close(mut self) {
        let told =
            self.send(&Request::ShutDown, &Outgoing::default(), &[], |error| self.not_started(&error.to_string()));
        if let (Ok(()), Some(process)) = (told, &mut self.process) {
            process.wait(GRACE);
        }
        self.lose();
    }
}
