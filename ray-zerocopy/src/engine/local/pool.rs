//! The pool: one bounded queue for all workers and one for each, deadlines, start-up and shutdown.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use super::Settings;
use super::driver::Driver;
use crate::engine::{Attached, Call, CallError, Engine, Program, Worker};

/// How often an idle driver looks whether its process is still there.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);

/// Worker processes and the queue in front of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The same threads, under a lock of their own: see `shut_down`.
    own: Mutex<HashSet<ThreadId>>,
}

/// What the pool and its drivers share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    /// What every worker loads when it starts: the pipeline of an actor.
    pub(super) program: Option<Arc<Program>>,
    state: Mutex<State>,
    /// There is work, or the pool is closing.
    work: Condvar,
    /// There is a place in the queue, or a worker has started.
    space: Condvar,
    /// The list of deadlines in the queue has changed.
    keeper: Condvar,
}

struct State {
    queue: VecDeque<Call>,
    workers: Vec<Seat>,
    closing: bool,
}

/// What is known of one worker.
#[derive(Default)]
struct Seat {
    pinned: VecDeque<Call>,
    forget: Vec<u64>,
    worker: Option<Worker>,
    attached: HashMap<u64, Attached>,
    started: Option<Result<(), CallError>>,
}

/// What a driver is to do next.
pub(super) enum Next {
    Run(Box<Call>),
    Forget(u64),
    /// Nothing: look after the process.
    Look,
    Close,
}

impl State {
    fn waiting(&self) -> usize {
        self.queue.len() + self.workers.iter().map(|seat| seat.pinned.len()).sum::<usize>()
    }

    fn queues(&mut self) -> impl Iterator<Item = &mut VecDeque<Call>> {
        std::iter::once(&mut self.queue).chain(self.workers.iter_mut().map(|seat| &mut seat.pinned))
    }
}

impl Pool {
    pub(super) fn start(settings: Settings, program: Option<Arc<Program>>) -> Result<Arc<Self>, CallError> {
        let workers = (0..settings.workers).map(|_| Seat::default()).collect();
        let shared = Arc::new(Shared {
            settings,
            program,
            state: Mutex::new(State { queue: VecDeque::new(), workers, closing: false }),
            work: Condvar::new(),
            space: Condvar::new(),
            keeper: Condvar::new(),
        });
        let pool = Arc::new(Self { shared: Arc::clone(&shared), threads: Mutex::default(), own: Mutex::default() });
        for index in 0..shared.settings.workers {
            let shared = Arc::clone(&shared);
            // A driver does not panic. If it does after all, its call is lost with an error, and its worker has a new one.
            pool.thread(format!("ray-zerocopy {index}"), move || {
                while catch_unwind(AssertUnwindSafe(|| Driver::new(index, Arc::clone(&shared)).run())).is_err() {
                    shared.ended(index);
                }
            })?;
        }
        pool.thread("ray-zerocopy keeper".to_owned(), move || shared.keep_deadlines())?;
        Ok(pool)
    }

    fn thread(&self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), CallError> {
        let thread = std::thread::Builder::new().name(name).spawn(run).map_err(|error| {
            self.shut_down();
            CallError::Start { method: "start".to_owned(), reason: format!("no thread could be started: {error}") }
        })?;
        lock(&self.own).insert(thread.thread().id());
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// Waits until every worker is up and has loaded what it has to; the first failure is the result.
    pub(super) fn wait_until_started(&self) -> Result<(), CallError> {
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(Err(error)) = state.workers.iter().find_map(|seat| seat.started.as_ref().filter(|s| s.is_err()))
            {
                return Err(error.clone());
            }
            if state.workers.iter().all(|seat| seat.started.is_some()) {
                return Ok(());
            }
            state = self.shared.space.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs what waits, takes nothing new, ends the workers, and waits for them.
    pub(crate) fn shut_down(&self) {
        lock(&self.shared.state).closing = true;
        self.shared.work.notify_all();
        self.shared.space.notify_all();
        self.shared.keeper.notify_all();
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

    /// How many workers the pool has, up or not.
    pub(crate) fn size(&self) -> usize {
        self.shared.settings.workers
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Engine for Pool {
    fn submit(&self, call: Call, wait: bool) -> Result<(), Box<(Call, CallError)>> {
        let shared = &*self.shared;
        let mut state = lock(&shared.state);
        loop {
            if state.closing {
                let error = CallError::ShutDown { method: call.method.to_owned() };
                return Err(Box::new((call, error)));
            }
            if state.waiting() < shared.settings.queue {
                break;
            }
            if !wait {
                let error = CallError::QueueFull { waiting: state.waiting(), workers: state.workers.len() };
                return Err(Box::new((call, error)));
            }
            let timeout = match call.deadline {
                Some((until, after)) if until <= Instant::now() => {
                    let place = "while it waited for a place in the queue".to_owned();
                    let error = CallError::Deadline { method: call.method.to_owned(), after, place };
                    return Err(Box::new((call, error)));
                }
                Some((until, _)) => until.saturating_duration_since(Instant::now()),
                None => HEARTBEAT,
            };
            state = shared.space.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0;
        }
        let timed = call.deadline.is_some();
        match call.pinned.filter(|&index| index < state.workers.len()) {
            Some(index) => state.workers[index].pinned.push_back(call),
            None => state.queue.push_back(call),
        }
        drop(state);
        shared.work.notify_all();
        if timed {
            shared.keeper.notify_one();
        }
        Ok(())
    }

    fn forget(&self, key: u64) {
        let mut state = lock(&self.shared.state);
        state.workers.iter_mut().for_each(|seat| seat.forget.push(key));
        drop(state);
        self.shared.work.notify_all();
    }

    fn workers(&self) -> Vec<Worker> {
        lock(&self.shared.state).workers.iter().filter_map(|seat| seat.worker).collect()
    }

    fn attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        let state = lock(&self.shared.state);
        let seats = state.workers.iter();
        seats.filter_map(|seat| Some((seat.worker?, seat.attached.get(&key)?.clone()))).collect()
    }
}

impl Shared {
    /// Waits for something to do.
    pub(super) fn next(&self, index: usize) -> Next {
        let mut state = lock(&self.state);
        let mut waited = false;
        loop {
            let seat = &mut state.workers[index];
            if let Some(key) = seat.forget.pop() {
                return Next::Forget(key);
            }
            if let Some(call) = seat.pinned.pop_front() {
                self.space.notify_one();
                return Next::Run(Box::new(call));
            }
            if let Some(call) = state.queue.pop_front() {
                self.space.notify_one();
                return Next::Run(Box::new(call));
            }
            if state.closing {
                return Next::Close;
            }
            if waited {
                return Next::Look;
            }
            let (guard, timeout) = self.work.wait_timeout(state, HEARTBEAT).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            waited = timeout.timed_out();
        }
    }

    /// Puts a call whose worker died where the next free worker takes it.
    pub(super) fn retry(&self, call: Call) {
        let mut state = lock(&self.state);
        match call.pinned {
            Some(index) => state.workers[index].pinned.push_front(call),
            None => state.queue.push_front(call),
        }
        drop(state);
        self.work.notify_all();
        // Its deadline was not in the queue while it ran.
        self.keeper.notify_one();
    }

    /// Notes that a worker's process is up, or how it failed.
    pub(super) fn started(&self, index: usize, result: Result<Worker, CallError>) {
        let mut state = lock(&self.state);
        let seat = &mut state.workers[index];
        seat.attached.clear();
        seat.worker = result.as_ref().ok().copied();
        // Only the first start decides whether the pool came up; later ones are healing.
        if seat.started.is_none() && (self.program.is_none() || result.is_err()) {
            seat.started = Some(result.map(drop));
        }
        drop(state);
        self.space.notify_all();
    }

    pub(super) fn attached(&self, index: usize, key: u64, result: Result<Attached, CallError>) {
        let mut state = lock(&self.state);
        let seat = &mut state.workers[index];
        let result = result.map(|attached| drop(seat.attached.insert(key, attached)));
        seat.started.get_or_insert(result);
        drop(state);
        self.space.notify_all();
    }

    pub(super) fn detached(&self, index: usize, key: u64) {
        lock(&self.state).workers[index].attached.remove(&key);
    }

    /// Notes that a worker's process is gone.
    pub(super) fn ended(&self, index: usize) {
        let mut state = lock(&self.state);
        state.workers[index].worker = None;
        state.workers[index].attached.clear();
    }

    /// Answers calls whose deadline passes while they wait, even if every worker is busy.
    fn keep_deadlines(&self) {
        let mut state = lock(&self.state);
        while !(state.closing && state.waiting() == 0) {
            let now = Instant::now();
            let mut late = Vec::new();
            for queue in state.queues() {
                while let Some(at) =
                    queue.iter().position(|call| matches!(call.deadline, Some((until, _)) if until <= now))
                {
                    late.extend(queue.remove(at));
                }
            }
            let next = state
                .queues()
                .flat_map(|queue| queue.iter())
                .filter_map(|call| call.deadline)
                .map(|(until, _)| until)
                .min();
            if !late.is_empty() {
                drop(state);
                self.space.notify_all();
                late.into_iter().for_each(|call| late_answer(call, "while it waited in the queue".to_owned()));
                state = lock(&self.state);
                continue;
            }
            let pause = match (next, state.closing) {
                (Some(next), _) => next.saturating_duration_since(now),
                (None, true) => HEARTBEAT,
                (None, false) => {
                    state = self.keeper.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            state = self.keeper.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Answers a call that is late.
pub(super) fn late_answer(call: Call, place: String) {
    let after = call.deadline.map_or(Duration::ZERO, |(_, after)| after);
    let error = CallError::Deadline { method: call.method.to_owned(), after, place };
    call.answer(Err(error));
}

/// No user code runs under these locks, and no state is left half-written: a poisoned one is as good as new.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
