//! The supervisor of one worker: a thread that starts its process, reads its replies, and detects
//! its end.
//!
//! It is not involved in a call that is the only one in flight: the caller sends to an idle worker,
//! and may read the reply as well (see `inline_wait`). Under load the supervisor reads the replies,
//! and sends the worker its next job.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::bundle_replies::LastLook;
use super::dispatch::{Assignment, Dispatcher};
use super::process::Process;
use super::protocol::Answer;
use super::replies::WorkerExit;
use super::transport::{Delivery, Event, Received};
use super::worker_conn::WorkerConn;
use crate::engine::program::Program;
use crate::engine::queue::failures::{fail_expired, start_error};
use crate::engine::queue::job::{InFlight, Job};
use crate::error::call::{CallPhase, Worker};
use crate::os::sync::now;

/// Interval at which a silent worker is checked: whether its process exists and is not stopped.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Time for a worker to exit after a shutdown request.
const GRACE: Duration = Duration::from_secs(5);
/// Number of heartbeats for which a worker may be stopped (SIGSTOP) before it is replaced.
const STOPPED: u32 = 6;
/// Pause between two failed attempts to start a process.
const BACK_OFF: Duration = Duration::from_millis(300);
/// Number of processes of an actor that may die while they load its program before the start has
/// failed.
const START_ATTEMPTS: u32 = 3;

pub(super) struct Supervisor {
    index: usize,
    dispatcher: Arc<Dispatcher>,
    /// Number of successive processes that died while they loaded the program of the pool.
    failed_loads: u32,
}

impl Supervisor {
    pub(super) fn new(index: usize, dispatcher: Arc<Dispatcher>) -> Self {
        Self { index, dispatcher, failed_loads: 0 }
    }

    /// Runs until the pool closes and no queued call needs this worker.
    pub(super) fn run(mut self) {
        loop {
            let Some(is_additional) = self.dispatcher.queue.wait_until_wanted(self.index) else {
                return self.dispatcher.queue.timer.notify_one();
            };
            let settings = &self.dispatcher.settings;
            if is_additional && let Err(reason) = self.dispatcher.check_memory(self.index) {
                self.start_failed(&reason, is_additional);
                continue;
            }
            match Process::start(self.index, settings, || !self.is_aborting()) {
                Ok((process, connection)) => {
                    let worker = Worker { index: self.index, pid: process.pid() };
                    match connection.set_patience(HEARTBEAT) {
                        Ok(()) => {
                            let nodes = Arc::clone(&self.dispatcher.nodes);
                            self.run_process(process, &Arc::new(WorkerConn::new(worker, connection, nodes)));
                        }
                        Err(error) => {
                            let reason = format!("its socket timeout could not be set: {error}");
                            self.start_failed(&reason, is_additional);
                        }
                    }
                }
                Err(reason) => self.start_failed(&reason, is_additional),
            }
        }
    }

    /// Records that no process could be started, and pauses before the next attempt. An additional
    /// worker becomes dormant instead, if there is another one.
    fn start_failed(&self, reason: &str, is_additional: bool) {
        if is_additional && self.dispatcher.queue.growth_failed(self.index, reason) {
            return;
        }
        self.dispatcher.process_started(self.index, Err(start_error(self.index, reason)));
        self.dispatcher.charge_failed_start(self.index, reason, BACK_OFF);
        self.dispatcher.wait_before_restart(BACK_OFF);
    }

    /// Supervises one process, from its start to its end.
    fn run_process(&mut self, mut process: Process, conn: &Arc<WorkerConn>) {
        let started = now();
        self.dispatcher.process_started(self.index, Ok(Arc::clone(conn)));
        match self.dispatcher.program() {
            Some(program) => {
                let job = Job::Load(program);
                self.dispatcher.send(Assignment { conn: Arc::clone(conn), job, wakes_callers: false });
            }
            None => self.dispatcher.send_next(conn),
        }
        let mut exit = self.read_replies(&mut process, conn);
        if let Some(panic) = conn.take_panic() {
            exit.how = format!("{}; before that, it panicked: {panic}", exit.how);
        }
        if conn.has_loaded_any() {
            self.failed_loads = 0;
        }
        // The process is killed and reaped before its call is answered, unless it is blocked in the
        // kernel.
        process.leave();
        let (closed, collected) = conn.close();
        self.dispatcher.process_ended(self.index);
        // An answer that cannot be read is that of a call which the worker had begun.
        drop(self.dispatcher.deliver(collected));
        let worker = conn.worker;
        match closed.in_flight {
            Some(InFlight::Bundle(bundle)) => self.dispatcher.bundle_lost(conn, bundle, &exit, closed.is_expired),
            Some(InFlight::Call(call) | InFlight::Load(_, Some(call))) => {
                if closed.is_expired {
                    fail_expired(call, CallPhase::Running(worker));
                } else {
                    self.dispatcher.retry_or_fail(worker, call, exit);
                }
            }
            Some(InFlight::Load(program, None)) => self.load_failed(&program, &exit.how),
            Some(InFlight::Forget(_) | InFlight::ShutDown) | None => {}
        }
        // Limits the restart rate if every process ends right after its start.
        if !conn.has_replied() && now().saturating_duration_since(started) < BACK_OFF {
            self.dispatcher.wait_before_restart(BACK_OFF);
        }
    }

    /// Reads the replies of a process until it ends, or has to be replaced.
    fn read_replies(&self, process: &mut Process, conn: &Arc<WorkerConn>) -> WorkerExit {
        let mut stopped = 0;
        let mut last_look = LastLook::none();
        loop {
            if conn.wait_for_turn(HEARTBEAT) {
                if let Some(delivery) = conn.eof() {
                    return self.exit_after_eof(process, conn, delivery);
                }
                if last_look.pause < HEARTBEAT && conn.runs_bundle() && !conn.is_readable_within(last_look.pause) {
                    match self.dispatcher.look_at_bundle(conn, &mut last_look) {
                        Some(exit) => return exit,
                        None => continue,
                    }
                }
                match conn.deliver_items() {
                    Ok(_) if conn.is_about_to_wait() => continue,
                    Ok(_) => {}
                    Err(error) => return WorkerExit::new(format!("its item could not be read: {error}")),
                }
                match conn.receive() {
                    Ok(Event::Quiet) => {
                        if conn.runs_bundle()
                            && let Some(exit) = self.dispatcher.look_at_bundle(conn, &mut last_look)
                        {
                            return exit;
                        }
                    }
                    event => {
                        let is_over =
                            !matches!(&event, Ok(Event::Message(Received { message: (_, Answer::Answered), .. })));
                        if let Some(exit) = self.handle(process, conn, event) {
                            return exit;
                        }
                        last_look = LastLook::none();
                        // There are answers, and the bundle goes on.
                        if !is_over && let Some(exit) = self.dispatcher.look_at_bundle(conn, &mut last_look) {
                            return exit;
                        }
                        continue;
                    }
                }
            }
            if self.dispatcher.queue.lock().is_awaited(self.index) {
                conn.lift_limit();
            }
            // A child that user code has forked, and that has not executed another program yet,
            // holds the worker's end of the socket too. Then there is no EOF when the worker dies.
            // What it sent before can still be received.
            if process.has_ended() {
                if !conn.process_has_ended() {
                    // The caller reads EOF as well, and leaves the rest to this thread.
                    continue;
                }
                match conn.receive_at_once() {
                    Ok(Event::Quiet) => return WorkerExit::new(process.end()),
                    event => match self.handle(process, conn, event) {
                        Some(exit) => return exit,
                        None => continue,
                    },
                }
            }
            // Heartbeats are counted, not seconds, so that time during which the whole machine or
            // the owner is stopped does not count.
            stopped = if process.is_stopped() { stopped + 1 } else { 0 };
            if stopped >= STOPPED {
                return self.replace(process, conn, "it was stopped (SIGSTOP) for several seconds, and was replaced");
            }
            let timeout = self.dispatcher.settings.start_timeout;
            if conn.loading_for().is_some_and(|taken| taken > timeout) {
                let why = format!("it did not load the pipeline within {timeout:?}, and was replaced");
                return self.replace(process, conn, &why);
            }
            if conn.shutting_down_for().is_some_and(|taken| taken > GRACE) {
                return WorkerExit::new("it did not exit when requested, and was killed");
            }
        }
    }

    /// Ends a process after EOF, and describes its end. If this side has hung up, the process gets
    /// no time to exit by itself.
    fn exit_after_eof(&self, process: &mut Process, conn: &WorkerConn, delivery: Delivery) -> WorkerExit {
        if conn.is_expired() || self.is_aborting() {
            process.kill();
        }
        WorkerExit { how: process.end(), delivery }
    }

    /// Kills a process that makes no progress, and determines whether it received its last job.
    fn replace(&self, process: &mut Process, conn: &Arc<WorkerConn>, why: &str) -> WorkerExit {
        process.kill();
        let delivery = match conn.receive_at_once() {
            Ok(Event::Gone(delivery)) => delivery,
            Ok(Event::Message(_) | Event::Unreadable(_) | Event::Quiet) | Err(_) => Delivery::Received,
        };
        WorkerExit { how: why.to_owned(), delivery }
    }

    /// Handles an event of the socket. Returns how the process ended, or why it must be ended.
    fn handle(
        &self,
        process: &mut Process,
        conn: &Arc<WorkerConn>,
        event: io::Result<Event<(u64, Answer)>>,
    ) -> Option<WorkerExit> {
        match event {
            Ok(Event::Message(received)) => self.dispatcher.handle_reply(conn, received),
            // A worker that violates the protocol is replaced. Other errors, such as a lost file
            // descriptor, are not its fault.
            Ok(Event::Unreadable(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Some(WorkerExit::new(format!("its answer could not be read, and it was replaced: {error}")))
            }
            Ok(Event::Unreadable(error)) => self.dispatcher.handle_unreadable(conn, "the result", &error.to_string()),
            Ok(Event::Quiet) => None,
            Ok(Event::Gone(delivery)) => Some(self.exit_after_eof(process, conn, delivery)),
            Err(error) => Some(WorkerExit::new(format!("its socket failed: {error}"))),
        }
    }

    fn is_aborting(&self) -> bool {
        self.dispatcher.is_aborting()
    }

    /// Counts a process that died while it loaded the program of the pool. After `START_ATTEMPTS`
    /// in a row, the start has failed.
    fn load_failed(&mut self, program: &Program, how: &str) {
        self.failed_loads += 1;
        if self.failed_loads < START_ATTEMPTS {
            return;
        }
        let reason = format!("{} processes died while they loaded the pipeline ({how})", self.failed_loads);
        self.dispatcher.load_finished(self.index, program.key, Err(start_error(self.index, &reason)));
        self.dispatcher.charge_failed_start(self.index, &reason, BACK_OFF);
        self.dispatcher.wait_before_restart(BACK_OFF);
    }
}
