//! The engine behind a `LocalPool`: starts and joins its threads.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use super::dispatch::{Dispatcher, KIND};
use super::executable;
use super::supervisor::Supervisor;
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::engine::Engine;
use crate::engine::call::{Call, Submitted};
use crate::engine::program::{Attached, Program};
use crate::engine::queue::deadlines::run_deadline_timer;
use crate::engine::queue::failures::start_error;
use crate::engine::queue::report::PoolReport;
use crate::engine::queue::restart::on_own_thread;
use crate::engine::queue::scheduler::Startup;
use crate::engine::settings::Settings;
use crate::engine::timer;
use crate::error::call::{CallError, StartError, Worker};
use crate::os::limits;
use crate::os::sync::Mutex;
use crate::os::sys::process_id::process_id;

/// Worker processes of this machine, and the threads that supervise them.
pub(crate) struct LocalEngine {
    dispatcher: Arc<Dispatcher>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The same threads, under a lock of their own: see `join`.
    thread_ids: Mutex<HashSet<ThreadId>>,
    /// Held by a thread that replaces the workers.
    restarting: Mutex<()>,
    /// The process that has the threads. A fork has a copy of this value, but not the threads.
    owner: u32,
}

impl LocalEngine {
    /// Starts workers in parallel, which load `program` first. Returns when they are ready.
    pub(super) fn start(settings: Settings, program: Option<Arc<Program>>) -> Result<Arc<Self>, CallError> {
        if !cfg!(target_os = "linux") {
            let system = std::env::consts::OS;
            let reason = format!(
                "worker processes need Linux, and this system is {system}; run this program on Linux, or call the \
                 pipeline in this process"
            );
            return Err(StartError::Pool { reason }.into());
        }
        settings.check().map_err(|reason| StartError::Pool { reason })?;
        crate::os::sys::malloc::trim();
        if let (Some(other), Some(own)) = (&settings.program, &program)
            && !own.loader.is_named()
        {
            let pipeline = own.arena.pipeline().to_owned();
            return Err(StartError::Pipeline { pipeline, reason: lacks_code(other) }.into());
        }
        if settings.program.is_none() {
            executable::check().map_err(|reason| StartError::Pool { reason })?;
        }
        let engine = Self::start_threads(settings, program)?;
        engine.wait_until_started().inspect_err(|_| engine.abort())?;
        Ok(engine)
    }

    fn start_threads(settings: Settings, program: Option<Arc<Program>>) -> Result<Arc<Self>, CallError> {
        let workers = settings.workers.max;
        // Before any thread can panic: setting a hook in a thread that panics is a second panic.
        crate::panics::prepare();
        let dispatcher = Arc::new(Dispatcher::new(settings, program));
        if let Some(program) = dispatcher.program() {
            dispatcher.nodes.replicate(&program.arena, program.memory);
        }
        let engine = Arc::new(Self {
            dispatcher: Arc::clone(&dispatcher),
            threads: Mutex::default(),
            thread_ids: Mutex::default(),
            restarting: Mutex::default(),
            owner: process_id(),
        });
        let timer = Arc::clone(&dispatcher);
        engine.spawn("ray-zerocopy deadlines".to_owned(), 0, move || {
            run_deadline_timer(&timer.queue, |assignment| timer.send(assignment));
        })?;
        for index in 0..workers {
            let dispatcher = Arc::clone(&dispatcher);
            // A supervisor is not expected to panic. If it does, its call fails, and its worker
            // gets a new supervisor.
            engine.spawn(format!("ray-zerocopy {index}"), index, move || {
                let supervise = || Supervisor::new(index, Arc::clone(&dispatcher)).run();
                while catch_unwind(AssertUnwindSafe(supervise)).is_err() {
                    dispatcher.process_ended(index);
                }
            })?;
        }
        Ok(engine)
    }

    /// Starts a thread. If that fails, the supervisors from `supervisors` on do not exist, and the
    /// others are ended.
    fn spawn(&self, name: String, supervisors: usize, run: impl FnOnce() + Send + 'static) -> Result<(), CallError> {
        let thread = std::thread::Builder::new().name(name).spawn(run).map_err(|error| {
            self.dispatcher.queue.lock().supervisors_missing(supervisors);
            self.end();
            let error = limits::named("a thread of the pool could not be started", &error);
            CallError::from(StartError::Pool { reason: error.to_string() })
        })?;
        self.thread_ids.lock().insert(thread.thread().id());
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Waits until every worker has started and loaded its program.
    ///
    /// # Errors
    /// The first failure of a worker, or that a worker is not ready within the start timeout.
    fn wait_until_started(&self) -> Result<(), CallError> {
        let timeout = self.dispatcher.settings.start_timeout;
        // A worker without a program has the same timeout for its own start, and a more precise
        // error.
        let until = self.dispatcher.program().and_then(|_| Instant::now().checked_add(timeout));
        let mut scheduler = self.dispatcher.queue.lock();
        loop {
            let (index, conn) = match scheduler.startup() {
                Startup::Ready => return Ok(()),
                Startup::Failed(error) => return Err(error),
                Startup::Pending(index, conn) => (index, conn),
            };
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                let what = match conn {
                    Some(conn) => format!("process {} did not load the pipeline", conn.worker.pid),
                    None => "it did not start".to_owned(),
                };
                let reason = format!("{what} within {timeout:?}; `.start_timeout(..)` allows more time");
                return Err(start_error(index, &reason));
            }
            scheduler = self.dispatcher.queue.progress.wait(scheduler, left);
        }
    }

    /// Runs the queued calls, rejects new ones, ends the workers, and waits for them.
    pub(super) fn end(&self) {
        if self.is_fork() {
            return;
        }
        self.dispatcher.drain();
        self.join();
    }

    /// Kills the workers. Queued and running calls fail.
    pub(super) fn abort(&self) {
        if self.is_fork() {
            return;
        }
        self.dispatcher.abort();
        self.join();
    }

    /// Runs the queued calls, but not longer than `timeout`, and kills the workers then. Returns the
    /// number of calls that have failed.
    pub(super) fn drain(&self, timeout: Duration) -> usize {
        if self.is_fork() {
            return 0;
        }
        self.dispatcher.drain();
        if self.is_own_thread() {
            // The workers end when this thread goes on.
            return 0;
        }
        let left = self.dispatcher.queue.wait_until_over(timeout);
        self.dispatcher.abort();
        self.join();
        left
    }

    /// Replaces each worker process, one after the other.
    pub(super) fn restart(&self) -> Result<(), CallError> {
        if self.is_fork() {
            return Err(CallError::forked("restart"));
        }
        if self.is_own_thread() {
            return Err(on_own_thread("restart"));
        }
        // One restart at a time: a second one begins when the first has ended.
        let _guard = self.restarting.lock();
        self.dispatcher.queue.restart(|| self.dispatcher.assign_all())
    }

    /// Waits for the threads.
    fn join(&self) {
        // The engine may be dropped on one of its own threads, which cannot join itself: an answer
        // wakes its receiver, which may drop the last handle of the pool. Then the threads end
        // without being joined.
        if self.is_own_thread() {
            return;
        }
        // The lock is held while the threads end, so that a second caller waits for them too.
        for thread in self.threads.lock().drain(..) {
            // A supervisor is not expected to panic. If it does, its process is killed when it
            // unwinds.
            drop(thread.join());
        }
    }

    /// How the pool has grown and shrunk.
    pub(super) fn report(&self) -> PoolReport {
        if self.is_fork() {
            return PoolReport::empty(self.dispatcher.settings.workers);
        }
        self.dispatcher.queue.lock().pool_report()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.dispatcher.settings
    }

    /// Returns `true` on a thread of this engine, or on that of the timer, which drops the batches of a
    /// wrapper. Such a thread cannot wait for the workers.
    fn is_own_thread(&self) -> bool {
        timer::is_own_thread() || self.thread_ids.lock().contains(&std::thread::current().id())
    }

    /// Returns `true` in a fork of the process that has the threads and the workers. A fork must
    /// not use them.
    fn is_fork(&self) -> bool {
        self.owner != process_id()
    }
}

/// Error text for a pipeline that workers of another program cannot run.
fn lacks_code(program: &Path) -> String {
    format!(
        "its workers are `{}`, which does not have the code of this program; they only run graphs of `jit::trace`",
        program.display()
    )
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        // A panicking program does not wait for queued calls.
        if std::thread::panicking() {
            self.abort();
        } else {
            self.end();
        }
    }
}

impl Engine for LocalEngine {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn size(&self) -> usize {
        self.dispatcher.settings.workers.max
    }

    fn is_open(&self) -> bool {
        // A fork gets its error when it submits.
        self.is_fork() || self.dispatcher.queue.lock().is_open()
    }

    fn capacity(&self) -> usize {
        self.dispatcher.queue.capacity()
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
        if let Some(program) = &self.dispatcher.settings.program
            && !(call.program.loader.is_named() && call.handler.is_named())
        {
            let error = StartError::call(call.method, lacks_code(program));
            return Err(Box::new((call, error.into())));
        }
        self.dispatcher.submit(call, wait)
    }

    fn cancel(&self) {
        if !self.is_fork() {
            self.dispatcher.cancel();
        }
    }

    fn raise_limits(&self) {
        if !self.is_fork() {
            self.dispatcher.raise_limits();
        }
    }

    fn forget(&self, key: u64) {
        if !self.is_fork() {
            self.dispatcher.queue.lock().forget(key);
            self.dispatcher.assign_all();
        }
    }

    fn workers(&self) -> Vec<Worker> {
        if self.is_fork() {
            return Vec::new();
        }
        self.dispatcher.queue.lock().connections().map(|conn| conn.worker).collect()
    }

    fn pool(&self) -> Option<PoolReport> {
        (!self.is_fork()).then(|| self.report())
    }

    fn live_workers(&self) -> Result<Vec<usize>, CallError> {
        if self.is_fork() {
            return Err(CallError::forked("swap"));
        }
        if self.is_own_thread() {
            return Err(on_own_thread("swap"));
        }
        Ok(self.dispatcher.queue.lock().live_workers())
    }

    fn replicate(&self, arena: &Arena, memory: MemoryPolicy) {
        if !self.is_fork() {
            self.dispatcher.nodes.replicate(arena, memory);
        }
    }

    fn set_program(&self, program: &Arc<Program>) {
        if !self.is_fork() {
            self.dispatcher.set_program(program);
        }
    }

    fn attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        if self.is_fork() {
            return Vec::new();
        }
        let scheduler = self.dispatcher.queue.lock();
        scheduler.reports(key).map(|(conn, report)| (conn.worker, report.clone())).collect()
    }
}
