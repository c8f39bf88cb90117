//! The engine behind `Threads`: starts and joins the threads.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::worker::WorkerThread;
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::engine::Engine;
use crate::engine::call::{Call, Receive, Submitted};
use crate::engine::program::{Attached, Program};
use crate::engine::queue::call_queue::CallQueue;
use crate::engine::queue::deadlines::run_deadline_timer;
use crate::engine::queue::failures::{discard, fail_shut_down, start_error};
use crate::engine::queue::report::PoolReport;
use crate::engine::queue::restart::on_own_thread;
use crate::engine::queue::scheduler::Startup;
use crate::engine::queue::worker_slot::ReadyWhen;
use crate::engine::settings::Settings;
use crate::engine::spin::{SpinningPolls, spin};
use crate::engine::timer;
use crate::engine::worker_nodes::WorkerNodes;
use crate::error::call::{CallError, StartError, Worker};
use crate::os::limits;
use crate::os::sync::Mutex;
use crate::os::sys::process_id::process_id;

/// Name of the engine in metrics.
const KIND: &str = "threads";

/// Threads that run calls, and the thread for their deadlines.
pub(super) struct ThreadEngine {
    shared: Arc<Shared>,
    workers: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The same threads, under a lock of their own: see `join`.
    thread_ids: Mutex<HashSet<ThreadId>>,
    /// Held by a thread that replaces the workers.
    restarting: Mutex<()>,
    /// Whether the threads end by themselves, and are not waited for.
    is_aborted: AtomicBool,
    /// The process that has the threads. A fork has a copy of this value, but not the threads.
    owner: u32,
}

impl ThreadEngine {
    /// Starts threads, which load `program` first. Returns when they are ready.
    pub(super) fn start(settings: &Settings, program: Option<Arc<Program>>) -> Result<Arc<Self>, CallError> {
        settings.check().map_err(|reason| StartError::Pool { reason })?;
        crate::panics::prepare();
        let workers = settings.workers.max;
        let ready_when = if program.is_some() { ReadyWhen::ProgramLoaded } else { ReadyWhen::ProcessStarted };
        let queue = CallQueue::new(settings, ready_when, KIND);
        let engine = Arc::new(Self {
            shared: Arc::new(Shared {
                queue,
                nodes: WorkerNodes::of(settings),
                program: program.map(Mutex::new),
                memory_reserve: settings.memory_reserve,
                polls: SpinningPolls::default(),
                largest: Mutex::new(0),
            }),
            workers,
            threads: Mutex::default(),
            thread_ids: Mutex::default(),
            restarting: Mutex::default(),
            is_aborted: AtomicBool::new(false),
            owner: process_id(),
        });
        if let Some(program) = engine.shared.program() {
            engine.shared.nodes.replicate(&program.arena, program.memory);
        }
        engine.start_threads(settings).inspect_err(|_| engine.abort())?;
        engine.wait_until_started(settings.start_timeout).inspect_err(|_| engine.abort())?;
        Ok(engine)
    }

    fn start_threads(&self, settings: &Settings) -> Result<(), CallError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Pool { reason: error.to_string() };
        let timer = Arc::clone(&self.shared);
        let timer = move || run_deadline_timer(&timer.queue, |assignment| timer.send(assignment));
        let started = self.spawn("ray-zerocopy deadlines".to_owned(), timer).map_err(|error| failed(&error));
        let mut started = started.map_err(CallError::from);
        for index in 0..self.workers {
            if started.is_ok() {
                let shared = Arc::clone(&self.shared);
                started = self.start_worker(index, settings, move || WorkerThread::new(shared, index).run());
            }
            if started.is_err() {
                self.shared.queue.lock().supervisors_missing(index);
                return started;
            }
        }
        started
    }

    /// Starts a thread with a rayon pool of its own. `run` is a job of that pool, so everything
    /// that it computes uses the pool's threads.
    fn start_worker(
        &self,
        index: usize,
        settings: &Settings,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), CallError> {
        let (placed, placements) = mpsc::channel();
        let placement = settings.placement(index);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(settings.threads_per_worker());
        let pool = pool.spawn_handler(|thread| {
            let name = match thread.index() {
                0 => format!("ray-zerocopy {index}"),
                helper => format!("ray-zerocopy {index}.{helper}"),
            };
            let (placed, placement) = (placed.clone(), placement.clone());
            self.spawn(name, move || {
                let result = placement.apply(None);
                let is_placed = result.is_ok();
                // The receiver is gone if another thread could not be started.
                let _ = placed.send(result);
                drop(placed);
                if is_placed {
                    thread.run();
                }
            })
        });
        let pool = pool.build().map_err(|error| start_error(index, &error.to_string()))?;
        drop(placed);
        for result in placements {
            result.map_err(|reason| start_error(index, &reason))?;
        }
        // The pool's threads end after this job, when the pool is dropped.
        pool.spawn(run);
        Ok(())
    }

    fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name).spawn(run);
        let thread = thread.map_err(|error| limits::named("a thread could not be started", &error))?;
        self.thread_ids.lock().insert(thread.thread().id());
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Waits until every thread has started and loaded its program.
    ///
    /// # Errors
    /// The first failure of a thread, or that one is not ready within the timeout.
    fn wait_until_started(&self, timeout: Duration) -> Result<(), CallError> {
        let until = Instant::now().checked_add(timeout);
        let mut scheduler = self.shared.queue.lock();
        loop {
            let index = match scheduler.startup() {
                Startup::Ready => return Ok(()),
                Startup::Failed(error) => return Err(error),
                Startup::Pending(index, _) => index,
            };
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                let reason = format!(
                    "the thread did not load the pipeline within {timeout:?}; `.start_timeout(..)` allows more time"
                );
                return Err(start_error(index, &reason));
            }
            scheduler = self.shared.queue.progress.wait(scheduler, left);
        }
    }

    /// Runs the queued calls, rejects new ones, and waits until the threads have ended.
    pub(super) fn end(&self) {
        if self.is_fork() {
            return;
        }
        self.shared.queue.lock().drain();
        self.notify_lifecycle();
        self.shared.assign_all();
        self.join();
    }

    /// Answers queued and running calls with errors. Threads that run a method end when it returns.
    pub(super) fn abort(&self) {
        if self.is_fork() {
            return;
        }
        let (calls, mailboxes) = self.shared.queue.lock().abort();
        for mailbox in mailboxes {
            mailbox.abort();
        }
        self.notify_lifecycle();
        for call in calls {
            fail_shut_down(call);
        }
        self.shared.assign_all();
        self.is_aborted.store(true, Ordering::Release);
    }

    /// Runs the queued calls, but not longer than `timeout`, and answers the others with errors then.
    /// Returns their number.
    pub(super) fn drain(&self, timeout: Duration) -> usize {
        if self.is_fork() {
            return 0;
        }
        self.shared.queue.lock().drain();
        self.notify_lifecycle();
        self.shared.assign_all();
        if self.is_own_thread() {
            // The threads end when this one goes on.
            return 0;
        }
        let left = self.shared.queue.wait_until_over(timeout);
        if left == 0 {
            self.join();
        } else {
            self.abort();
        }
        left
    }

    /// Makes each thread load its pipelines again, one after the other.
    pub(super) fn restart(&self) -> Result<(), CallError> {
        if self.is_fork() {
            return Err(CallError::forked("restart"));
        }
        if self.is_own_thread() {
            return Err(on_own_thread("restart"));
        }
        // One restart at a time: a second one begins when the first has ended.
        let _guard = self.restarting.lock();
        self.shared.queue.restart(|| self.shared.assign_all())
    }

    fn notify_lifecycle(&self) {
        self.shared.queue.progress.notify_all();
        self.shared.queue.wanted.notify_all();
        self.shared.queue.timer.notify_all();
    }

    /// Waits for the threads.
    fn join(&self) {
        // The engine may be dropped on one of its own threads, which cannot join itself: a result
        // wakes its receiver, and a call may hold the last handle of the pool. Then the threads end
        // without being joined.
        if self.is_own_thread() || self.is_aborted.load(Ordering::Acquire) {
            return;
        }
        // The lock is held while the threads end, so that a second caller waits for them too.
        for thread in self.threads.lock().drain(..) {
            // The threads catch the panics of methods.
            drop(thread.join());
        }
    }

    /// Returns `true` on a thread of this engine, or on that of the timer. Such a thread cannot wait for
    /// the workers.
    fn is_own_thread(&self) -> bool {
        timer::is_own_thread() || self.thread_ids.lock().contains(&std::thread::current().id())
    }

    /// Returns `true` in a fork of the process that has the threads.
    fn is_fork(&self) -> bool {
        self.owner != process_id()
    }
}

impl Drop for ThreadEngine {
    fn drop(&mut self) {
        // A panicking program does not wait for queued calls.
        if std::thread::panicking() {
            self.abort();
        } else {
            self.end();
        }
    }
}

/// The caller's part in receiving a result: it spins for a short time before it sleeps.
struct SpinFirst {
    /// Whether a thread has begun the call at once.
    has_begun: bool,
    shared: Arc<Shared>,
}

impl Receive for SpinFirst {
    fn receive(self: Box<Self>, has_arrived: &dyn Fn() -> bool) -> Option<Box<dyn Receive>> {
        spin(has_arrived);
        Some(self)
    }

    fn receive_soon(self: Box<Self>, has_arrived: &dyn Fn() -> bool) {
        if self.has_begun {
            self.shared.polls.spin(has_arrived);
        }
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}

impl Engine for ThreadEngine {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn size(&self) -> usize {
        self.workers
    }

    fn is_open(&self) -> bool {
        // A fork gets its error when it submits.
        self.is_fork() || self.shared.queue.lock().is_open()
    }

    fn capacity(&self) -> usize {
        self.shared.queue.capacity()
    }

    fn shut_down(&self) {
        self.end();
    }

    fn abort(&self) {
        Self::abort(self);
    }

    fn drain(&self, timeout: Duration) -> usize {
        Self::drain(self, timeout)
    }

    fn restart(&self) -> Result<(), CallError> {
        Self::restart(self)
    }

    fn submit(&self, call: Call, wait: bool) -> Submitted {
        if self.is_fork() {
            let error = CallError::forked(call.method);
            return Err(Box::new((call, error)));
        }
        let deadline = call.deadline.map(|(deadline, _)| deadline);
        let mut scheduler = match self.shared.queue.admit(&call, wait) {
            Ok(scheduler) => scheduler,
            Err(error) => return Err(Box::new((call, error))),
        };
        let next = scheduler.submit(call);
        self.shared.queue.wake_timer(&scheduler, deadline);
        drop(scheduler);
        self.shared.queue.wake_supervisors(&next);
        let has_begun = next.assignment.is_some();
        if let Some(assignment) = next.assignment {
            self.shared.send(assignment);
        }
        Ok(Some(Box::new(SpinFirst { has_begun, shared: Arc::clone(&self.shared) })))
    }

    /// A thread that runs a cancelled call finds out by itself, and cannot be stopped otherwise.
    fn cancel(&self) {
        if !self.is_fork() {
            let calls = self.shared.queue.lock().take_cancelled();
            if !calls.is_empty() {
                self.shared.queue.progress.notify_all();
            }
            for call in calls {
                discard(call);
            }
        }
    }

    fn forget(&self, key: u64) {
        if !self.is_fork() {
            self.shared.queue.lock().forget(key);
            self.shared.assign_all();
        }
    }

    fn workers(&self) -> Vec<Worker> {
        if self.is_fork() {
            return Vec::new();
        }
        self.shared.queue.lock().connections().map(|mailbox| mailbox.worker).collect()
    }

    fn pool(&self) -> Option<PoolReport> {
        (!self.is_fork()).then(|| self.shared.queue.lock().pool_report())
    }

    fn live_workers(&self) -> Result<Vec<usize>, CallError> {
        if self.is_fork() {
            return Err(CallError::forked("swap"));
        }
        if self.is_own_thread() {
            return Err(on_own_thread("swap"));
        }
        Ok(self.shared.queue.lock().live_workers())
    }

    fn replicate(&self, arena: &Arena, memory: MemoryPolicy) {
        if !self.is_fork() {
            self.shared.nodes.replicate(arena, memory);
        }
    }

    fn set_program(&self, program: &Arc<Program>) {
        if !self.is_fork() {
            self.shared.set_program(program);
        }
    }

    fn attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        if self.is_fork() {
            return Vec::new();
        }
        let scheduler = self.shared.queue.lock();
        scheduler.reports(key).map(|(mailbox, report)| (mailbox.worker, report.clone())).collect()
    }
}
