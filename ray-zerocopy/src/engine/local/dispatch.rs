//! What the pool's threads and its callers share: handing work to workers, and taking back what comes of it.
//!
//! No call and no program is dropped, and no call is answered, under a lock: both run code of others.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::lock;
use super::scheduler::{Assignment, Scheduler};
use super::worker_conn::{Job, SendError, WorkerConn};
use crate::engine::call::Call;
use crate::engine::program::{Attached, Program};
use crate::engine::settings::Settings;
use crate::error::call::{CallError, CallPart, CallPhase, StartError, Worker};

/// How many processes, for each worker of the pool, may end after a call was sent to them and before they have received it. More than
/// that costs the call an attempt.
const UNHEARD: u32 = 3;

pub(super) struct Dispatcher {
    pub(super) settings: Settings,
    /// What every worker loads when it starts: the pipeline of an actor.
    pub(super) program: Option<Arc<Program>>,
    pub(super) state: Mutex<Scheduler>,
    /// There is a place in the queue, or a worker has started, or the pool closes.
    pub(super) space: Condvar,
    /// There is a deadline before the next one that the keeper knows of, or the pool closes.
    pub(super) keeper: Condvar,
    /// The pool closes, or there is something for a worker that could not be started before.
    pub(super) start: Condvar,
}

impl Dispatcher {
    pub(super) fn new(settings: Settings, program: Option<Arc<Program>>) -> Self {
        let state = Mutex::new(Scheduler::new(settings.workers));
        let (space, keeper, start) = Default::default();
        Self { settings, program, state, space, keeper, start }
    }

    /// Gives a claimed worker its job, and whatever follows from jobs that cannot be given. Drivers read the answers.
    pub(super) fn give(&self, claimed: Assignment) {
        self.give_first(claimed, false);
    }

    /// The same. If `lone` is set, nobody reads the answer to the first job for now: gives its worker and its number.
    pub(super) fn give_first(&self, claimed: Assignment, mut lone: bool) -> Option<(Arc<WorkerConn>, u64)> {
        let mut next = Some(claimed);
        while let Some(Assignment { link, job, room }) = next {
            if room {
                self.space.notify_all();
            }
            next = match link.give(job, std::mem::take(&mut lone)).map_err(|refused| *refused) {
                Ok(Some(serial)) => return Some((link, serial)),
                Ok(None) => None,
                Err(SendError::Gone(job)) => {
                    // Its driver may sleep.
                    link.hang_up();
                    match job {
                        // It was not even sent, and there are at most as many such workers as are idle now.
                        Job::Call(mut call) => {
                            call.attempts -= 1;
                            self.put_back(call)
                        }
                        // A process that is gone has forgotten everything, and its driver does what else there is to do.
                        Job::Load(_) | Job::Forget(_) | Job::ShutDown => None,
                    }
                }
                Err(SendError::Late(job)) => {
                    let next = lock(&self.state).next(&link);
                    if let Job::Call(call) = job {
                        late(call, CallPhase::Queued);
                    }
                    next
                }
                Err(SendError::Unsendable(job, error)) => self.unsendable(&link, job, &error),
            };
        }
        None
    }

    fn unsendable(&self, link: &Arc<WorkerConn>, job: Job, error: &io::Error) -> Option<Assignment> {
        match job {
            Job::Call(call) => {
                let part = CallPart::Arguments;
                let reason = error.to_string();
                let next = lock(&self.state).next(link);
                let method = call.method.to_owned();
                call.answer(Err(CallError::Wire { method, part, reason }));
                next
            }
            Job::Load(program) => {
                let index = link.worker.index;
                let error = not_started(index, &format!("the arena could not be sent: {error}"));
                self.attached(index, program.key, Err(error));
                lock(&self.state).next(link)
            }
            // A worker that cannot even be told this much is replaced.
            Job::Forget(_) | Job::ShutDown => {
                link.hang_up();
                None
            }
        }
    }

    /// Gives idle workers whatever there is to do.
    pub(super) fn hand_out(&self) {
        let lone = lock(&self.state).lone.take();
        if let Some(lone) = lone {
            lone.adopt();
        }
        while let Some(claimed) = self.claim() {
            self.give(claimed);
        }
    }

    fn claim(&self) -> Option<Assignment> {
        lock(&self.state).claim()
    }

    /// Gives a worker the call for which it has just loaded a program.
    pub(super) fn give_on(&self, link: &Arc<WorkerConn>, call: Call) {
        if call.is_late() {
            self.go_on(link);
            return late(call, CallPhase::Loading(link.worker));
        }
        self.give(Assignment { link: Arc::clone(link), job: Job::Call(call), room: false });
    }

    /// A worker is free: it gets something to do, or is idle.
    pub(super) fn go_on(&self, link: &Arc<WorkerConn>) {
        let next = lock(&self.state).next(link);
        if let Some(claimed) = next {
            self.give(claimed);
        }
    }

    /// Puts a call back whose worker was gone before it heard of it. That was no attempt; but it does not go on for ever.
    pub(super) fn unheard(&self, worker: Worker, mut call: Call) -> Option<Assignment> {
        call.unheard += 1;
        let workers = if call.pinned.is_some() { 1 } else { self.settings.workers };
        if call.unheard <= UNHEARD.saturating_mul(u32::try_from(workers).unwrap_or(u32::MAX)) {
            call.attempts -= 1;
            return self.put_back(call);
        }
        call.unheard = 0;
        if call.attempts < call.allowed {
            return self.put_back(call);
        }
        died(call, worker, "it was gone before it got the call, and so were others before".to_owned());
        None
    }

    /// Puts a call back to where it was taken from, and claims a worker for it.
    pub(super) fn put_back(&self, call: Call) -> Option<Assignment> {
        let timed = call.deadline;
        let mut state = lock(&self.state);
        if state.abandoned(&call) {
            drop(state);
            let method = call.method.to_owned();
            call.answer(Err(CallError::ShutDown { method }));
            return None;
        }
        state.push_front(call);
        let claimed = state.claim();
        if let Some((until, _)) = timed {
            self.wake_keeper(&state, until);
        }
        let lone = state.lone.take();
        drop(state);
        // Somebody waits for a worker: an answer that nobody reads is in the way.
        if let Some(lone) = lone {
            lone.adopt();
        }
        claimed
    }

    /// Fails, or tries again, a call that needs a process that cannot be started.
    pub(super) fn charge_failed_start(&self, index: usize, reason: &str, round: Duration) {
        let call = lock(&self.state).charge_failed_start(index, round);
        match call {
            Some(call) if call.attempts < call.allowed => {
                if let Some(claimed) = self.put_back(call) {
                    self.give(claimed);
                }
            }
            Some(call) => {
                let error = StartError::call(call.method, reason);
                call.answer(Err(error.into()));
            }
            None => {}
        }
    }

    /// Wakes the keeper if it would sleep over this deadline.
    pub(super) fn wake_keeper(&self, state: &Scheduler, until: Instant) {
        if state.keeper.is_none_or(|at| until < at) {
            self.keeper.notify_one();
        }
    }

    /// Notes that a worker's process is up, or how it failed.
    pub(super) fn started(&self, index: usize, result: Result<Arc<WorkerConn>, CallError>) {
        let mut state = lock(&self.state);
        let seat = &mut state.seats[index];
        // Only the first start decides whether the pool came up; later ones are healing.
        if seat.started.is_none() && (self.program.is_none() || result.is_err()) {
            seat.started = Some(result.as_ref().map(|_| ()).map_err(Clone::clone));
        }
        seat.link = result.ok();
        drop(state);
        self.space.notify_all();
    }

    pub(super) fn attached(&self, index: usize, key: u64, result: Result<Attached, CallError>) {
        let mut state = lock(&self.state);
        let seat = &mut state.seats[index];
        let result = result.map(|attached| drop(seat.attached.insert(key, attached)));
        if seat.started.is_none() {
            seat.started = Some(result);
            drop(state);
            self.space.notify_all();
        }
    }

    /// Notes that a worker's process is gone.
    pub(super) fn ended(&self, index: usize) {
        let links = lock(&self.state).ended(index);
        // What a driver has left behind that panicked goes with the link: whoever waits for it hears that it is lost.
        drop(links.map(|link| link.map(|link| link.close())));
    }

    /// Waits before a process that could not be started is tried again.
    pub(super) fn pause(&self, pause: Duration) {
        let state = lock(&self.state);
        if !state.closing {
            drop(self.start.wait_timeout(state, pause));
        }
    }
}

/// Answers a call that is late.
pub(super) fn late(call: Call, phase: CallPhase) {
    let after = call.deadline.map_or(Duration::ZERO, |(_, after)| after);
    let error = CallError::Deadline { method: call.method.to_owned(), after, phase };
    call.answer(Err(error));
}

/// Answers a call whose worker died, for the last time.
pub(super) fn died(call: Call, worker: Worker, how: String) {
    let error = CallError::WorkerDied {
        method: call.method.to_owned(),
        worker,
        how,
        attempts: call.attempts,
        allowed: call.allowed,
        is_actor: call.actor,
    };
    call.answer(Err(error));
}

/// No process for a worker.
pub(super) fn not_started(index: usize, reason: &str) -> CallError {
    StartError::Worker { index, reason: reason.to_owned() }.into()
}
