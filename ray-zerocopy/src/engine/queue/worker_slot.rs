//! The scheduler's state of one worker.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::bundle::Pace;
use crate::engine::program::Attached;
use crate::error::call::CallError;

/// Condition under which a worker has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum ReadyWhen {
    ProcessStarted,
    ProgramLoaded,
}

/// The process of a worker, and the thread that supervises it.
pub(in crate::engine) enum Process<W> {
    /// Not started yet, or ended. The supervisor starts one.
    Down,
    Up(Arc<W>),
    /// No process is wanted. The supervisor waits until a call needs the worker.
    Dormant,
    /// The supervisor has exited.
    Retired,
}

impl<W> Process<W> {
    pub(in crate::engine) fn conn(&self) -> Option<&Arc<W>> {
        match self {
            Self::Up(conn) => Some(conn),
            Self::Down | Self::Dormant | Self::Retired => None,
        }
    }
}

/// The result of a worker's first start. Only the first one decides whether the pool has started;
/// later ones are recovery.
pub(in crate::engine) enum FirstStart {
    Pending,
    Finished(Result<(), CallError>),
}

impl FirstStart {
    /// Records a result. Returns `true` if it is the first.
    pub(in crate::engine) fn finish(&mut self, result: Result<(), CallError>) -> bool {
        let is_first = matches!(self, Self::Pending);
        if is_first {
            *self = Self::Finished(result);
        }
        is_first
    }
}

/// One worker of the pool.
pub(in crate::engine) struct WorkerSlot<C, W> {
    pub(in crate::engine) process: Process<W>,
    pub(in crate::engine) first_start: FirstStart,
    /// Calls that only this worker may run.
    pub(in crate::engine) pinned: VecDeque<C>,
    /// Programs that its process has to free.
    pub(in crate::engine) forget: Vec<u64>,
    /// Whether the process has been told to end.
    pub(in crate::engine) is_ending: bool,
    /// Deadline of the running call, until the timer has handled it.
    pub(in crate::engine) deadline: Option<Instant>,
    /// Time since when the worker has had no job, in a pool that shrinks.
    pub(in crate::engine) idle_since: Option<Instant>,
    /// Whether the process has to end when it is free, to be replaced.
    pub(in crate::engine) has_to_end: bool,
    /// Whether its process is being replaced. Until the new one is ready.
    pub(in crate::engine) is_restarting: bool,
    /// Why the process could not be replaced.
    pub(in crate::engine) start_error: Option<CallError>,
    /// Whether there was memory for its next process, which has not started yet.
    pub(in crate::engine) is_expected: bool,
    /// Whether it was dormant or has ended idle, so that its next start is one by which the pool grows.
    pub(in crate::engine) is_woken: bool,
    /// Whether it has had a process.
    pub(in crate::engine) has_run: bool,
    /// How long its calls take.
    pub(super) pace: Pace,
    /// The programs that its process has loaded.
    pub(in crate::engine) loaded: HashMap<u64, Attached>,
}

impl<C, W> WorkerSlot<C, W> {
    pub(in crate::engine) fn new() -> Self {
        Self::with(Process::Down, FirstStart::Pending)
    }

    /// Creates a worker that is not part of the pool's first start.
    pub(in crate::engine) fn dormant() -> Self {
        Self::with(Process::Dormant, FirstStart::Finished(Ok(())))
    }

    fn with(process: Process<W>, first_start: FirstStart) -> Self {
        Self {
            process,
            first_start,
            pinned: VecDeque::new(),
            forget: Vec::new(),
            is_ending: false,
            deadline: None,
            idle_since: None,
            has_to_end: false,
            is_restarting: false,
            start_error: None,
            is_expected: false,
            is_woken: false,
            has_run: false,
            pace: Pace::default(),
            loaded: HashMap::new(),
        }
    }

    /// Records the start of the process, or why it failed.
    pub(in crate::engine) fn process_started(&mut self, result: Result<Arc<W>, CallError>, ready_when: ReadyWhen) {
        if ready_when == ReadyWhen::ProcessStarted || result.is_err() {
            self.first_start.finish(result.as_ref().map(|_| ()).map_err(Clone::clone));
        }
        self.is_ending = false;
        if ready_when == ReadyWhen::ProcessStarted || result.is_err() {
            self.restarted(result.as_ref().err());
        }
        self.process = result.map_or(Process::Down, Process::Up);
    }

    /// Records that the process has been replaced, or why it could not.
    pub(in crate::engine) fn restarted(&mut self, error: Option<&CallError>) {
        match error {
            Some(error) if self.is_restarting => self.start_error = Some(error.clone()),
            Some(_) => {}
            None => self.is_restarting = false,
        }
    }

    /// Records that the process has ended. Returns its connection.
    pub(in crate::engine) fn process_ended(&mut self) -> Option<Arc<W>> {
        self.loaded.clear();
        self.forget.clear();
        self.pace = Pace::default();
        self.deadline = None;
        self.is_expected = false;
        self.is_ending = false;
        self.has_to_end = false;
        match &self.process {
            Process::Up(_) => match std::mem::replace(&mut self.process, Process::Down) {
                Process::Up(conn) => Some(conn),
                Process::Down | Process::Dormant | Process::Retired => None,
            },
            Process::Down | Process::Dormant | Process::Retired => None,
        }
    }

    /// Makes the supervisor of a dormant worker start a process.
    pub(in crate::engine) fn wake(&mut self) {
        self.process = Process::Down;
        self.is_woken = true;
    }

    /// Returns `true` if the worker has a process, or its supervisor starts one.
    pub(in crate::engine) fn is_live(&self) -> bool {
        matches!(self.process, Process::Down | Process::Up(_))
    }

    /// Returns `true` if the supervisor has exited.
    pub(in crate::engine) fn is_retired(&self) -> bool {
        matches!(self.process, Process::Retired)
    }

    /// Takes the deadline of the running call if it has passed. Returns the connection to the
    /// worker.
    pub(in crate::engine) fn take_overdue(&mut self, now: Instant) -> Option<Arc<W>> {
        self.deadline.take_if(|deadline| *deadline <= now)?;
        self.process.conn().cloned()
    }
}
