//! The owner's side of one worker: a thread that starts its process, receives its answers, and sees it die.
//!
//! It is not in the way of a single call: whoever calls sends to an idle worker, and may receive the answer, too (see `lone`).
//! Under load it receives the answers, and gives the worker its next call.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dispatch::{Dispatcher, died, late, not_started};
use super::lock;
use super::process::Process;
use super::protocol::Answer;
use super::replies::WorkerExit;
use super::scheduler::Assignment;
use super::transport::Event;
use super::worker_conn::{InFlight, Job, WorkerConn};
use crate::engine::call::Call;
use crate::engine::program::Program;
use crate::error::call::{CallPhase, Worker};

/// How often a quiet worker is looked after: whether its process is there, and not stopped.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a worker may take to end after it was told to.
const GRACE: Duration = Duration::from_secs(5);
/// How many heartbeats long a worker may be stopped (SIGSTOP), before it is replaced.
const STOPPED: u32 = 6;
/// A worker that cannot be started is not tried more often than this.
const BACK_OFF: Duration = Duration::from_millis(300);
/// How many processes of an actor may die while they load before the actor is given up.
const START_ATTEMPTS: u32 = 3;

pub(super) struct Supervisor {
    index: usize,
    shared: Arc<Dispatcher>,
    /// How many processes in a row have died while they loaded what every worker has to have.
    stillborn: u32,
}

impl Supervisor {
    pub(super) fn new(index: usize, shared: Arc<Dispatcher>) -> Self {
        Self { index, shared, stillborn: 0 }
    }

    /// Runs until the pool closes and nothing waits for this worker.
    pub(super) fn run(mut self) {
        loop {
            if lock(&self.shared.state).leave(self.index) {
                return self.shared.keeper.notify_one();
            }
            let settings = &self.shared.settings;
            let is_wanted = || !lock(&self.shared.state).aborting;
            match Process::start(self.index, settings, is_wanted) {
                Ok((process, connection)) => {
                    let worker = Worker { index: self.index, pid: process.pid() };
                    match connection.set_patience(HEARTBEAT) {
                        Ok(()) => self.serve(process, &Arc::new(WorkerConn::new(worker, connection))),
                        Err(error) => self.give_up(&format!("its socket takes no timeout: {error}")),
                    }
                }
                Err(reason) => self.give_up(&reason),
            }
        }
    }

    /// No process could be started. What needs one is told, and after a pause the next is tried.
    fn give_up(&self, reason: &str) {
        self.shared.started(self.index, Err(not_started(self.index, reason)));
        self.shared.charge_failed_start(self.index, reason, BACK_OFF);
        self.shared.pause(BACK_OFF);
    }

    /// One process, from its start to its end.
    fn serve(&mut self, mut process: Process, link: &Arc<WorkerConn>) {
        let begun = Instant::now();
        self.shared.started(self.index, Ok(Arc::clone(link)));
        match &self.shared.program {
            Some(program) => {
                let job = Job::Load(Arc::clone(program));
                self.shared.give(Assignment { link: Arc::clone(link), job, room: false });
            }
            None => self.shared.go_on(link),
        }
        let mut end = self.listen(&mut process, link);
        if let Some(panic) = link.panic() {
            end.how = format!("{}; before that, it panicked: {panic}", end.how);
        }
        if link.has_loaded() {
            self.stillborn = 0;
        }
        // Dead and reaped before anyone hears of it, if the kernel lets it die.
        process.leave();
        let (doing, was_late) = link.close();
        self.shared.ended(self.index);
        let worker = link.worker;
        match doing {
            Some(InFlight::Call(call) | InFlight::Load(_, Some(call))) => match was_late {
                true => late(call, CallPhase::Running(worker)),
                false => self.lost(worker, call, end),
            },
            Some(InFlight::Load(program, None)) => self.stillborn(&program, &end.how),
            Some(InFlight::Forget(_) | InFlight::ShutDown) | None => {}
        }
        // Whatever ends processes as soon as they are there, is not to do so as often as the machine can start them.
        if !link.has_answered() && begun.elapsed() < BACK_OFF {
            self.shared.pause(BACK_OFF);
        }
    }

    /// Takes the answers of a process, until it ends or is not to be trusted any more.
    fn listen(&self, process: &mut Process, link: &Arc<WorkerConn>) -> WorkerExit {
        let mut stopped = 0;
        loop {
            if link.turn(HEARTBEAT) {
                if let Some(heard) = link.seen() {
                    return self.gone(process, link, !heard);
                }
                match link.receive() {
                    Ok(Event::Quiet) => {}
                    event => match self.heed(process, link, event) {
                        Some(end) => return end,
                        None => continue,
                    },
                }
            }
            // A child that user code has forked, and that has not executed anything yet, holds the worker's end of the
            // socket too, so that the worker's death does not show there. What it said before it died does.
            if process.has_ended() {
                if !link.take_turn() {
                    // The caller sees the end, too, and says so: it is the driver's turn then.
                    continue;
                }
                match link.last_words() {
                    Ok(Event::Quiet) => return WorkerExit::new(process.end()),
                    event => match self.heed(process, link, event) {
                        Some(end) => return end,
                        None => continue,
                    },
                }
            }
            // Beats are counted, not seconds: a machine or an owner that is stopped itself is no fault of the worker's.
            stopped = if process.is_stopped() { stopped + 1 } else { 0 };
            if stopped >= STOPPED {
                return self.replace(process, link, "it had been stopped for some seconds (SIGSTOP), and was replaced");
            }
            let timeout = self.shared.settings.start_timeout;
            if link.loading().is_some_and(|taken| taken > timeout) {
                let why = format!("it did not load the pipeline within {timeout:?}, and was replaced");
                return self.replace(process, link, &why);
            }
            if link.ending().is_some_and(|since| since.elapsed() > GRACE) {
                return WorkerExit::new("it did not end when it was told to, and was killed");
            }
        }
    }

    /// The process has hung up, or was cut off. In the second case nobody waits for it to end by itself.
    fn gone(&self, process: &mut Process, link: &WorkerConn, unheard: bool) -> WorkerExit {
        if link.is_late() || self.is_aborting() {
            process.kill();
        }
        WorkerExit { how: process.end(), unheard }
    }

    /// Kills a process that does nothing, and finds out whether it ever heard of what it was asked.
    fn replace(&self, process: &mut Process, link: &Arc<WorkerConn>, why: &str) -> WorkerExit {
        process.kill();
        let unheard = matches!(link.last_words(), Ok(Event::Gone { unheard: true }));
        WorkerExit { how: why.to_owned(), unheard }
    }

    fn heed(
        &self,
        process: &mut Process,
        link: &Arc<WorkerConn>,
        event: io::Result<Event<(u64, Answer)>>,
    ) -> Option<WorkerExit> {
        match event {
            Ok(Event::Message(received)) => self.shared.answered(link, received),
            // A worker that does not speak our language is not used again. One whose words are lost on the way is well.
            Ok(Event::Unreadable(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Some(WorkerExit::new(format!("its answer could not be read, and it was replaced: {error}")))
            }
            Ok(Event::Unreadable(error)) => self.shared.unreadable(link, "the result", &error.to_string()),
            Ok(Event::Quiet) => None,
            Ok(Event::Gone { unheard }) => Some(self.gone(process, link, unheard)),
            Err(error) => Some(WorkerExit::new(format!("its socket failed: {error}"))),
        }
    }

    fn is_aborting(&self) -> bool {
        lock(&self.shared.state).aborting
    }

    /// The process is gone with a call: it is tried again, or its caller hears of it.
    fn lost(&self, worker: Worker, call: Call, end: WorkerExit) {
        if self.is_aborting() {
            return died(call, worker, "the engine was aborted".to_owned());
        }
        let claimed = match end.unheard {
            true => self.shared.unheard(worker, call),
            false if call.attempts < call.allowed => self.shared.put_back(call),
            false => {
                died(call, worker, end.how);
                None
            }
        };
        if let Some(claimed) = claimed {
            self.shared.give(claimed);
        }
    }

    /// A process died while it loaded what every worker has to have: it gets another chance, and not for ever.
    fn stillborn(&mut self, program: &Program, how: &str) {
        self.stillborn += 1;
        if self.stillborn < START_ATTEMPTS {
            return;
        }
        let reason = format!("{} processes died while they loaded the pipeline ({how})", self.stillborn);
        self.shared.attached(self.index, program.key, Err(not_started(self.index, &reason)));
        self.shared.charge_failed_start(self.index, &reason, BACK_OFF);
        self.shared.pause(BACK_OFF);
    }
}
