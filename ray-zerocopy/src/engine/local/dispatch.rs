//! State shared by the threads of a pool and its callers: sends assignments to workers, and
//! requeues calls that were not run.
//!
//! Calls and programs are dropped, and calls are answered, only while no lock is held, because both
//! run user code.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::conn_state::ReplyTo;
use super::worker_conn::{ReadBy, SendError, WorkerConn};
use super::worker_memory::WorkerMemory;
use crate::engine::call::Call;
use crate::engine::program::{Attached, Program};
use crate::engine::queue::call_queue::CallQueue;
use crate::engine::queue::failures::{discard, fail_expired, fail_lost, fail_shut_down, start_error};
use crate::engine::queue::job::{Job, QueuedCall};
use crate::engine::queue::scheduler::{self, Next};
use crate::engine::queue::worker_slot::ReadyWhen;
use crate::engine::settings::Settings;
use crate::engine::spin::SpinningPolls;
use crate::engine::worker_nodes::WorkerNodes;
use crate::error::call::{CallError, CallPart, CallPhase, StartError, Worker};
use crate::os::sync::{Condvar, Mutex, now};

pub(super) type Assignment = scheduler::Assignment<Call, WorkerConn>;

/// Number of processes, for each worker of the pool, that may end after a call was sent to them and
/// before they have received it. One more costs the call an attempt.
const UNDELIVERED: u32 = 3;

/// Name of the engine in metrics.
pub(super) const KIND: &str = "local";

pub(super) struct Dispatcher {
    pub(super) settings: Settings,
    pub(super) nodes: Arc<WorkerNodes>,
    /// The program that every worker loads when it starts: the pipeline of an actor.
    program: Option<Mutex<Arc<Program>>>,
    pub(super) queue: CallQueue<WorkerConn>,
    /// Notified when the pool closes, for a supervisor that waits before it starts another process.
    pub(super) restart: Condvar,
    /// Whether polls of calls spin.
    pub(super) polls: SpinningPolls,
    memory: WorkerMemory,
    /// Held while the memory for a worker is checked: two workers must not count on the same.
    checking: Mutex<()>,
}

impl Dispatcher {
    pub(super) fn new(settings: Settings, program: Option<Arc<Program>>) -> Self {
        let ready_when = if program.is_some() { ReadyWhen::ProgramLoaded } else { ReadyWhen::ProcessStarted };
        let queue = CallQueue::new(&settings, ready_when, KIND);
        Self {
            nodes: Arc::new(WorkerNodes::of(&settings)),
            settings,
            program: program.map(Mutex::new),
            queue,
            restart: Condvar::default(),
            polls: SpinningPolls::default(),
            memory: WorkerMemory::default(),
            checking: Mutex::new(()),
        }
    }

    /// The program that every worker loads when it starts.
    pub(super) fn program(&self) -> Option<Arc<Program>> {
        self.program.as_ref().map(|program| Arc::clone(&program.lock()))
    }

    /// Replaces the program that every worker loads when it starts, if there is one.
    pub(super) fn set_program(&self, next: &Arc<Program>) {
        if let Some(program) = &self.program {
            let before = std::mem::replace(&mut *program.lock(), Arc::clone(next));
            // Without the lock: it may be the last handle.
            drop(before);
        }
    }

    /// Checks that there is memory for a worker, beside those that are about to start. The error is the
    /// reason why there is not.
    pub(super) fn check_memory(&self, index: usize) -> Result<(), String> {
        let _one_at_a_time = self.checking.lock();
        let (pids, expected) = {
            let scheduler = self.queue.lock();
            (scheduler.connections().map(|conn| conn.worker.pid).collect::<Vec<_>>(), scheduler.expected())
        };
        self.memory.check(&pids, expected, self.settings.memory_reserve)?;
        self.queue.lock().expect_worker(index);
        Ok(())
    }

    /// Rejects new calls. Workers run the queued ones and then exit.
    pub(super) fn drain(&self) {
        self.queue.lock().drain();
        self.notify_lifecycle();
        self.assign_all();
    }

    /// Hangs up on all workers, so that their supervisors kill them. Queued calls fail.
    pub(super) fn abort(&self) {
        let (calls, connections) = self.queue.lock().abort();
        for conn in connections {
            conn.hang_up();
        }
        self.notify_lifecycle();
        for call in calls {
            fail_shut_down(call);
        }
    }

    fn notify_lifecycle(&self) {
        self.queue.progress.notify_all();
        self.restart.notify_all();
        self.queue.wanted.notify_all();
        self.queue.timer.notify_all();
    }

    /// Sends a job. If it cannot be sent, sends the assignments that follow from that. Supervisors
    /// read the replies.
    pub(super) fn send(&self, assignment: Assignment) {
        self.send_first(assignment, ReadBy::Supervisor);
    }

    /// Like [`send`](Self::send), with `read_by` as the reader of the first job's reply. Returns
    /// the connection and the job's serial number if the caller may read the reply.
    pub(super) fn send_first(&self, assignment: Assignment, mut read_by: ReadBy) -> Option<(Arc<WorkerConn>, u64)> {
        let mut next = Some(assignment);
        while let Some(Assignment { conn, job, wakes_callers }) = next {
            if wakes_callers {
                self.queue.progress.notify_all();
            }
            let Some(mut job) = self.without_void_calls(job) else {
                next = self.queue.lock().next_job(&conn);
                continue;
            };
            if let Job::Call(call) = &mut job {
                if !self.fill(&conn, call) {
                    next = self.queue.lock().next_job(&conn);
                    continue;
                }
                if call.is_batch() || (call.reply.items().is_some() && call.deadline.is_some()) {
                    // Other callers wait for the reply too. And an item that has arrived does not mean
                    // that a stream has met its deadline.
                    read_by = ReadBy::Supervisor;
                }
            }
            let sent = conn.send(job, std::mem::replace(&mut read_by, ReadBy::Supervisor));
            next = match sent.map_err(|error| *error) {
                Ok(ReplyTo::Unread(serial)) => return Some((conn, serial)),
                Ok(ReplyTo::Supervisor) => None,
                Err(SendError::Gone(job)) => {
                    // The supervisor may wait for its turn.
                    conn.hang_up();
                    match job {
                        // The call was not sent, so no attempt is counted. This repeats at most
                        // once for each idle worker whose end was not detected yet.
                        Job::Call(mut call) => {
                            call.attempts().refund();
                            self.requeue(call)
                        }
                        // A process that has ended has no programs, and its supervisor does the
                        // rest.
                        Job::Load(_) | Job::Forget(_) | Job::ShutDown => None,
                        Job::Bundle(calls) => {
                            self.put_back(calls, conn.worker.index);
                            None
                        }
                    }
                }
                Err(SendError::Expired(job)) => {
                    let next = self.queue.lock().next_job(&conn);
                    if let Job::Call(call) = job {
                        fail_expired(call, CallPhase::Queued);
                    }
                    next
                }
                // The others are sent.
                Err(SendError::Cancelled(job @ Job::Bundle(_))) => Some(Assignment { conn, job, wakes_callers: false }),
                Err(SendError::Cancelled(job)) => {
                    let next = self.queue.lock().next_job(&conn);
                    discard(job);
                    next
                }
                Err(SendError::Unsendable(job, error)) => self.fail_unsendable(&conn, job, &error),
            };
        }
        None
    }

    /// Fills the ticket of a batch, for which `conn` is free now. Returns `false` if it is void.
    fn fill(&self, conn: &WorkerConn, call: &mut Call) -> bool {
        if !call.is_ticket() {
            return true;
        }
        let is_filled = call.fill();
        if let Some((deadline, _)) = call.deadline {
            self.queue.running_until(conn.worker.index, deadline);
        }
        is_filled
    }

    fn fail_unsendable(&self, conn: &Arc<WorkerConn>, job: Job<Call>, error: &io::Error) -> Option<Assignment> {
        match job {
            Job::Call(call) => {
                let part = CallPart::Arguments;
                let reason = error.to_string();
                let next = self.queue.lock().next_job(conn);
                let method = call.method.to_owned();
                call.answer(Err(CallError::Wire { method, part, reason }));
                next
            }
            Job::Load(program) => {
                let index = conn.worker.index;
                let error = start_error(index, &format!("the arena could not be sent: {error}"));
                self.load_finished(index, program.key, Err(error));
                self.queue.lock().next_job(conn)
            }
            Job::Bundle(calls) => {
                let next = self.queue.lock().next_job(conn);
                for call in calls {
                    let (method, part) = (call.method.to_owned(), CallPart::Arguments);
                    call.answer(Err(CallError::Wire { method, part, reason: error.to_string() }));
                }
                next
            }
            // A worker that cannot receive such a small message is replaced.
            Job::Forget(_) | Job::ShutDown => {
                conn.hang_up();
                None
            }
        }
    }

    /// Assigns jobs to idle workers until none is left.
    pub(super) fn assign_all(&self) {
        let unread = self.queue.lock().take_unread();
        if let Some(conn) = unread {
            conn.hand_to_supervisor();
        }
        while let Some(assignment) = self.assign() {
            self.send(assignment);
        }
    }

    /// Assigns one job. A separate function, so that the lock is released before the assignment is
    /// sent.
    fn assign(&self) -> Option<Assignment> {
        self.queue.lock().assign()
    }

    /// Removes cancelled calls from the queue, and tells the workers that run such calls.
    pub(super) fn cancel(&self) {
        let mut put_back = Vec::new();
        let calls = {
            let mut scheduler = self.queue.lock();
            let connections: Vec<_> = scheduler.connections().cloned().collect();
            for conn in connections {
                // Under the lock, so that no later call of an actor overtakes them.
                put_back.push(scheduler.put_back(conn.withdraw_cancelled(), conn.worker.index));
                // Under the lock, so that the worker has no other call when the deadline is set.
                if let Some(until) = conn.cancel() {
                    scheduler.running_until(conn.worker.index, until);
                    self.queue.wake_timer(&scheduler, Some(until));
                }
            }
            scheduler.take_cancelled()
        };
        if !calls.is_empty() {
            self.queue.progress.notify_all();
        }
        for call in calls {
            discard(call);
        }
        put_back.into_iter().for_each(|put_back| self.finish_put_back(put_back));
    }

    /// Tells the workers that run streams how many items they may send.
    pub(super) fn raise_limits(&self) {
        let connections: Vec<_> = self.queue.lock().connections().cloned().collect();
        for conn in connections {
            conn.raise_limit();
        }
    }

    /// Sends the call for which a worker has just loaded the program.
    pub(super) fn send_after_load(&self, conn: &Arc<WorkerConn>, call: Call) {
        if call.is_late() {
            self.send_next(conn);
            return fail_expired(call, CallPhase::Loading(conn.worker));
        }
        self.send(Assignment { conn: Arc::clone(conn), job: Job::Call(call), wakes_callers: false });
    }

    /// Sends the next job to a free worker. Without a job, the worker becomes idle.
    pub(super) fn send_next(&self, conn: &Arc<WorkerConn>) {
        let next = self.queue.lock().next_job(conn);
        if let Some(assignment) = next {
            self.send(assignment);
        }
    }

    /// Requeues a call whose worker ended before it received the call. That costs no attempt for a
    /// limited number of times.
    pub(super) fn requeue_undelivered(&self, worker: Worker, mut call: Call) -> Option<Assignment> {
        let workers = if call.pinned.is_some() { 1 } else { self.settings.workers.max };
        let limit = UNDELIVERED.saturating_mul(u32::try_from(workers).unwrap_or(u32::MAX));
        if call.attempts().count_undelivered(limit) {
            return self.requeue(call);
        }
        fail_lost(call, worker, "it ended before it received the call, as did several others".to_owned());
        None
    }

    /// Requeues a call at the front of its queue, and assigns a job to an idle worker.
    pub(super) fn requeue(&self, call: Call) -> Option<Assignment> {
        let deadline = QueuedCall::deadline(&call);
        let mut scheduler = self.queue.lock();
        match scheduler.requeue(call) {
            Ok(next) => {
                self.queue.wake_timer(&scheduler, deadline);
                drop(scheduler);
                self.queue.wake_supervisors(&next);
                let Next { assignment, unread, .. } = next;
                if let Some(conn) = unread {
                    conn.hand_to_supervisor();
                }
                assignment
            }
            Err(call) => {
                drop(scheduler);
                fail_shut_down(call);
                None
            }
        }
    }

    /// Counts an attempt of a queued call, because the process that it needs cannot be started. A
    /// call without attempts left fails.
    pub(super) fn charge_failed_start(&self, index: usize, reason: &str, round: Duration) {
        let charged = self.queue.lock().charge_failed_start(index, now(), round);
        let Some(call) = charged else { return };
        if call.has_attempts_left() {
            if let Some(assignment) = self.requeue(call) {
                self.send(assignment);
            }
        } else {
            let error: CallError = StartError::call(call.method, reason).into();
            call.answer(Err(error));
        }
    }

    /// Records the start of a worker's process, or why it failed.
    pub(super) fn process_started(&self, index: usize, result: Result<Arc<WorkerConn>, CallError>) {
        self.queue.process_started(index, result);
    }

    /// Records that a worker has loaded a program, or why it could not.
    pub(super) fn load_finished(&self, index: usize, key: u64, result: Result<Attached, CallError>) {
        let is_first_start = self.queue.lock().load_finished(index, key, result);
        if is_first_start {
            self.queue.progress.notify_all();
        }
    }

    /// Records that a worker's process has ended.
    pub(super) fn process_ended(&self, index: usize) {
        let connections = self.queue.process_ended(index);
        // After a panic of the supervisor, a job may still be in flight. It is dropped here, which
        // fails its call.
        for conn in connections.into_iter().flatten() {
            drop(self.deliver(conn.close().1));
        }
    }

    /// Waits before another start of a process that could not be started.
    pub(super) fn wait_before_restart(&self, pause: Duration) {
        let scheduler = self.queue.lock();
        // A pool that closes still runs what is queued.
        if scheduler.is_open() || (!scheduler.is_aborting() && scheduler.queued() > 0) {
            drop(self.restart.wait(scheduler, Some(pause)));
        }
    }
}
