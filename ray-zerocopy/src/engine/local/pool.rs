//! The engine's face: calls come in here, a pool is started and shut down here.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use super::dispatch::{Dispatcher, not_started};
use super::inline_wait::InlineReceiver;
use super::supervisor::Supervisor;
use super::{deadlines, lock};
use crate::engine::Engine;
use crate::engine::call::{Call, Submitted};
use crate::engine::program::{Attached, Program};
use crate::engine::settings::Settings;
use crate::error::call::{CallError, CallPhase, StartError, Worker};

/// Worker processes and the queue in front of them.
pub(crate) struct Pool {
    shared: Arc<Dispatcher>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The same threads, under a lock of their own: see `shut_down`.
    own: Mutex<HashSet<ThreadId>>,
    /// The process that has the threads. A fork of it has this value too, and no threads.
    owner: u32,
}

impl Pool {
    pub(super) fn start(settings: Settings, program: Option<Arc<Program>>) -> Result<Arc<Self>, CallError> {
        let workers = settings.workers;
        // Before any thread can panic: to set a hook on one that does is a second panic.
        crate::panics::prepare();
        let shared = Arc::new(Dispatcher::new(settings, program));
        let pool = Arc::new(Self {
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
            own: Mutex::default(),
            owner: std::process::id(),
        });
        let keeper = Arc::clone(&shared);
        pool.thread("ray-zerocopy keeper".to_owned(), 0, move || deadlines::keep(&keeper))?;
        for index in 0..workers {
            let shared = Arc::clone(&shared);
            // A driver does not panic. If it does after all, its call is lost with an error, and its worker has a new one.
            pool.thread(format!("ray-zerocopy {index}"), index, move || {
                while catch_unwind(AssertUnwindSafe(|| Supervisor::new(index, Arc::clone(&shared)).run())).is_err() {
                    shared.ended(index);
                }
            })?;
        }
        Ok(pool)
    }

    /// Starts a thread. If it cannot be, the drivers from `drivers` on do not exist, and the others are ended.
    fn thread(&self, name: String, drivers: usize, run: impl FnOnce() + Send + 'static) -> Result<(), CallError> {
        let thread = std::thread::Builder::new().name(name).spawn(run).map_err(|error| {
            lock(&self.shared.state).never_started(drivers);
            self.end();
            let error = crate::os::errno_hint::named("no thread could be started", &error);
            CallError::from(StartError::Pool { reason: error.to_string() })
        })?;
        lock(&self.own).insert(thread.thread().id());
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// Waits until every worker is up and has loaded what it has to; the first failure is the result.
    ///
    /// # Errors
    /// If a worker fails to, or is not ready within the time that the settings give all of them.
    pub(super) fn wait_until_started(&self) -> Result<(), CallError> {
        let timeout = self.shared.settings.start_timeout;
        // What is not to load anything has the same limit for itself, and says more about it.
        let until = self.shared.program.as_ref().and_then(|_| Instant::now().checked_add(timeout));
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(Err(error)) = state.seats.iter().find_map(|seat| seat.started.as_ref().filter(|s| s.is_err())) {
                return Err(error.clone());
            }
            let Some(index) = state.seats.iter().position(|seat| seat.started.is_none()) else { return Ok(()) };
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                let what = match &state.seats[index].link {
                    Some(link) => format!("process {} did not load the pipeline", link.worker.pid),
                    None => "it did not come up".to_owned(),
                };
                let reason = format!("{what} within {timeout:?}; `.start_timeout(..)` gives it longer");
                return Err(not_started(index, &reason));
            }
            let space = &self.shared.space;
            state = match left {
                Some(left) => space.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => space.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Runs what waits, takes nothing new, ends the workers, and waits for them.
    pub(crate) fn end(&self) {
        if self.is_a_fork() {
            return;
        }
        lock(&self.shared.state).closing = true;
        self.shared.space.notify_all();
        self.shared.start.notify_all();
        self.shared.keeper.notify_all();
        self.shared.hand_out();
        self.join();
    }

    /// Kills the workers, whatever they do, and answers the calls that wait or run with an error.
    pub(crate) fn abort(&self) {
        if self.is_a_fork() {
            return;
        }
        let (calls, links) = lock(&self.shared.state).abort();
        links.iter().for_each(|link| link.hang_up());
        self.shared.space.notify_all();
        self.shared.start.notify_all();
        self.shared.keeper.notify_all();
        for call in calls {
            let method = call.method.to_owned();
            call.answer(Err(CallError::ShutDown { method }));
        }
        self.join();
    }

    /// Waits for the threads of the pool.
    fn join(&self) {
        // The pool may end on a thread of its own, which cannot wait for itself: an answer wakes whoever waits for it,
        // and with it may go the last handle of the pool. The threads end without being waited for then.
        if lock(&self.own).contains(&std::thread::current().id()) {
            return;
        }
        // The lock is held while the threads end, so that whoever comes second waits for them too.
        for thread in lock(&self.threads).drain(..) {
            // A driver does not panic; if it does, its process is gone with it.
            drop(thread.join());
        }
    }

    /// Whether this is a fork of the process that has the threads and the workers. Nothing that it does may touch them.
    fn is_a_fork(&self) -> bool {
        self.owner != std::process::id()
    }

    /// Puts a call into the queue; gives it back if there is no place, or waits for one.
    fn accept(&self, call: Call, wait: bool) -> Submitted {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        loop {
            if state.closing {
                let error = CallError::ShutDown { method: call.method.to_owned() };
                return Err(Box::new((call, error)));
            }
            if state.taken_at_once(&call) || state.waiting() < shared.settings.queue {
                break;
            }
            if !wait {
                let error = CallError::QueueFull { waiting: state.waiting(), workers: state.seats.len() };
                return Err(Box::new((call, error)));
            }
            let left = match call.deadline {
                Some((until, after)) => match until.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => {
                        let phase = CallPhase::BeforeQueue;
                        let error = CallError::Deadline { method: call.method.to_owned(), after, phase };
                        return Err(Box::new((call, error)));
                    }
                    left => Some(left),
                },
                None => None,
            };
            state.callers += 1;
            state = match left {
                Some(left) => shared.space.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => shared.space.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.callers -= 1;
        }
        let deadline = call.deadline;
        state.push(call);
        let claimed = state.claim();
        if let Some((until, _)) = deadline {
            shared.wake_keeper(&state, until);
        }
        // Whoever left an answer unread is not alone any more, unless it was on this very worker, which is free now.
        let before = std::mem::replace(&mut state.lone, claimed.as_ref().map(|claimed| Arc::clone(&claimed.link)));
        drop(state);
        if let Some(before) = before
            && claimed.as_ref().is_none_or(|claimed| !Arc::ptr_eq(&claimed.link, &before))
        {
            before.adopt();
        }
        let lone = claimed.and_then(|claimed| shared.give_first(claimed, true));
        let lone = lone.map(|(link, serial)| InlineReceiver { shared: Arc::clone(shared), link, serial });
        Ok(lone.map(|lone| Box::new(lone) as _))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A program that fails is not held up by what its workers have still to do.
        if std::thread::panicking() {
            self.abort();
        } else {
            self.end();
        }
    }
}

impl Engine for Pool {
    fn size(&self) -> usize {
        self.shared.settings.workers
    }

    fn shut_down(&self) {
        self.end();
    }

    fn abort(&self) {
        Self::abort(self);
    }

    fn submit(&self, call: Call, wait: bool) -> Submitted {
        if self.is_a_fork() {
            let error = CallError::forked(call.method);
            return Err(Box::new((call, error)));
        }
        if let Some(program) = &self.shared.settings.program
            && !(call.program.loader.is_named() && call.handler.is_named())
        {
            let error = StartError::call(call.method, super::foreign(program));
            return Err(Box::new((call, error.into())));
        }
        self.accept(call, wait)
    }

    fn forget(&self, key: u64) {
        if !self.is_a_fork() {
            lock(&self.shared.state).forget(key);
            self.shared.hand_out();
        }
    }

    fn workers(&self) -> Vec<Worker> {
        if self.is_a_fork() {
            return Vec::new();
        }
        lock(&self.shared.state).seats.iter().filter_map(|seat| Some(seat.link.as_ref()?.worker)).collect()
    }

    fn attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        if self.is_a_fork() {
            return Vec::new();
        }
        let state = lock(&self.shared.state);
        let seats = state.seats.iter();
        seats.filter_map(|seat| Some((seat.link.as_ref()?.worker, seat.attached.get(&key)?.clone()))).collect()
    }
}
