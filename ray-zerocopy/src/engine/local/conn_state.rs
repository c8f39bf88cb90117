//! State machine of the connection to one worker: the job in flight, and the thread that reads the
//! reply. Plain data under one lock.
//!
//! A worker has one job at a time, and one thread at a time is its reader. Only the reader takes
//! the job when the worker has replied. It is the worker's supervisor, or the caller of the call
//! (see `inline_wait`). When the process has ended, the supervisor takes the job. So each job has
//! one owner at any time, and each call is answered once.
//!
//! ```text
//!            start                        take (a reply)
//!   Idle ────────────▶ InFlight ────────────────────────▶ Idle
//!    │                  Unread ──▶ Caller ──▶ Supervisor
//!    │                     └──────────────────────▲
//!    └───────▶ Closed ◀────┘ close (the process has ended)
//! ```
//!
//! The methods do no I/O. They return the action that has to follow a transition as an [`Effect`].

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::transport::Delivery;
use crate::engine::queue::bundle::Bundle;
use crate::engine::queue::job::{InFlight, QueuedCall};

/// Action that a thread has to take after a transition, while it still holds the lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub(super) enum Effect {
    #[default]
    None,
    /// Wake the supervisor, which may wait for its turn.
    WakeSupervisor,
    /// Shut the socket down, and wake the supervisor.
    HangUp,
}

/// The thread that reads the reply of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// None yet. The first thread that needs the reply becomes the reader.
    Unread,
    /// The caller, which waits for it.
    Caller,
    Supervisor,
    /// The supervisor, after the caller has read EOF. The kernel reports the delivery only to the
    /// first reader of EOF.
    SupervisorAfterEof(Delivery),
}

impl Reader {
    fn is_supervisor(self) -> bool {
        matches!(self, Self::Supervisor | Self::SupervisorAfterEof(_))
    }
}

/// The reader of the next job's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextReader {
    /// Any thread.
    Any,
    /// The supervisor, even if the sender would leave the reply unread: another thread already
    /// needs the worker.
    Supervisor,
    /// The supervisor, which is already reading: the process has ended, or is about to.
    Reading,
}

enum Phase<C: QueuedCall> {
    Idle(NextReader),
    InFlight {
        job: InFlight<C>,
        reader: Reader,
        since: Instant,
    },
    /// The supervisor has taken the job that was in flight. No more jobs are sent.
    Closed,
}

/// This side of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    Open,
    HungUp,
    /// Hung up because the deadline of the call had passed.
    Expired,
}

/// Reader of the reply of a job that was just sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyTo {
    Supervisor,
    /// No thread yet. The caller may read it, with this serial number.
    Unread(u64),
}

/// Result of closing a connection.
pub(super) struct Closed<C: QueuedCall> {
    pub(super) in_flight: Option<InFlight<C>>,
    /// Whether this side had hung up because the deadline of the call had passed.
    pub(super) is_expired: bool,
}

/// A call in flight that has been cancelled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cancelled {
    pub(super) serial: u64,
    /// The end of its grace period.
    pub(super) until: Option<Instant>,
}

pub(super) struct ConnState<C: QueuedCall> {
    phase: Phase<C>,
    link: Link,
    /// Number of jobs so far. It identifies the current one, here and in the worker's replies. Each call
    /// of a bundle has a number: this one is that of the last call.
    serial: u64,
    /// The number of the first call of the current bundle, or of the current job.
    first: u64,
    /// The last job whose cancellation the worker was told.
    cancelled: u64,
    /// The programs that the process has loaded.
    loaded: HashSet<u64>,
    /// Number of replies of the process.
    replies: u64,
    /// Whether another thread needs the worker while a caller reads.
    is_needed: bool,
    /// Number of items after which a caller has paused, and that number at the last heartbeat.
    pauses: u64,
    pauses_before: u64,
    /// A panic that the process has reported since its last reply.
    panic: Option<String>,
}

impl<C: QueuedCall> ConnState<C> {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Idle(NextReader::Any),
            link: Link::Open,
            serial: 0,
            first: 0,
            cancelled: 0,
            loaded: HashSet::new(),
            replies: 0,
            is_needed: false,
            pauses: 0,
            pauses_before: 0,
            panic: None,
        }
    }

    /// The serial number of the current job.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// The serial number of the next job.
    pub(super) fn next_serial(&self) -> u64 {
        self.serial + 1
    }

    pub(super) fn is_current(&self, serial: u64) -> bool {
        (self.first..=self.serial).contains(&serial)
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    pub(super) fn has_loaded(&self, program: u64) -> bool {
        self.loaded.contains(&program)
    }

    pub(super) fn has_loaded_any(&self) -> bool {
        !self.loaded.is_empty()
    }

    pub(super) fn program_loaded(&mut self, program: u64) {
        self.loaded.insert(program);
    }

    pub(super) fn program_forgotten(&mut self, program: u64) {
        self.loaded.remove(&program);
    }

    pub(super) fn has_replied(&self) -> bool {
        self.replies > 0
    }

    /// Records a job that has just been sent. Its reply may stay unread for now if `inline` is set
    /// and the job is a call.
    ///
    /// `is_readable` returns whether a reply has already arrived. The deadline thread may have
    /// checked before the job was recorded, so a deadline that has passed takes effect here.
    pub(super) fn start(
        &mut self,
        job: InFlight<C>,
        inline: bool,
        now: Instant,
        is_readable: impl FnOnce() -> bool,
    ) -> (ReplyTo, Effect) {
        let next_reader = match self.phase {
            Phase::Idle(next_reader) => next_reader,
            // A worker has one job at a time, and is not sent another one before it is idle.
            Phase::InFlight { .. } | Phase::Closed => NextReader::Any,
        };
        self.first = self.serial + 1;
        self.serial += match &job {
            InFlight::Bundle(bundle) => bundle.calls().len() as u64,
            InFlight::Load(..) | InFlight::Call(_) | InFlight::Forget(_) | InFlight::ShutDown => 1,
        };
        self.is_needed = false;
        let stays_unread = inline && next_reader == NextReader::Any && matches!(job, InFlight::Call(_));
        let reader = if next_reader == NextReader::Reading { Reader::Supervisor } else { Reader::Unread };
        self.phase = Phase::InFlight { job, reader, since: now };
        let effect = self.expire(now, is_readable);
        if stays_unread {
            return (ReplyTo::Unread(self.serial), effect);
        }
        (ReplyTo::Supervisor, effect.max(self.read_by_supervisor()))
    }

    /// Makes the supervisor the reader of the job in flight.
    fn read_by_supervisor(&mut self) -> Effect {
        match &mut self.phase {
            Phase::InFlight { reader, .. } if !reader.is_supervisor() => {
                *reader = Reader::Supervisor;
                Effect::WakeSupervisor
            }
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => Effect::None,
        }
    }

    /// Makes the supervisor the reader of a reply that no thread reads: that of the current job, or
    /// of the next one if that is just being sent.
    pub(super) fn hand_to_supervisor(&mut self) -> Effect {
        match &mut self.phase {
            Phase::InFlight { reader: Reader::Unread, .. } => self.read_by_supervisor(),
            Phase::InFlight { reader: Reader::Caller, .. } => {
                // If it reads a stream, it does not go on after the next item.
                self.is_needed = true;
                Effect::None
            }
            Phase::Idle(next_reader @ NextReader::Any) => {
                *next_reader = NextReader::Supervisor;
                Effect::None
            }
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => Effect::None,
        }
    }

    /// Makes the caller the reader of the reply to job `serial`. Returns `false` if another thread
    /// is.
    pub(super) fn read_by_caller(&mut self, serial: u64) -> bool {
        match &mut self.phase {
            Phase::InFlight { reader: reader @ Reader::Unread, .. } if self.serial == serial => {
                *reader = Reader::Caller;
                true
            }
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => false,
        }
    }

    /// Leaves what follows an item of job `serial` unread, which the caller has read. Makes the
    /// supervisor the reader if another thread needs the worker, or this side has hung up.
    pub(super) fn pause(&mut self, serial: u64) -> Effect {
        if self.is_needed || self.link != Link::Open || self.serial != serial {
            return self.read_by_supervisor().max(Effect::WakeSupervisor);
        }
        if let Phase::InFlight { reader: reader @ Reader::Caller, .. } = &mut self.phase {
            *reader = Reader::Unread;
            self.pauses += 1;
        }
        Effect::None
    }

    /// Makes the supervisor the reader of the reply to job `serial`, because its caller stops
    /// reading. If the caller has read EOF, `eof` is the delivery that the kernel reported.
    pub(super) fn leave_to_supervisor(&mut self, serial: u64, eof: Option<Delivery>) -> Effect {
        if self.serial != serial {
            return Effect::None;
        }
        let effect = self.read_by_supervisor();
        if let (Phase::InFlight { reader: reader @ Reader::Supervisor, .. }, Some(delivery)) = (&mut self.phase, eof) {
            *reader = Reader::SupervisorAfterEof(delivery);
        }
        effect
    }

    /// Returns `true` if it is the supervisor's turn to read, or no more replies are expected. A caller
    /// that reads stops soon after a hang-up.
    pub(super) fn is_supervisors_turn(&self) -> bool {
        let is_hung_up = self.link != Link::Open;
        match &self.phase {
            Phase::InFlight { reader: Reader::Caller, .. } => false,
            Phase::InFlight { reader, .. } => reader.is_supervisor() || is_hung_up,
            Phase::Idle(next_reader) => *next_reader == NextReader::Reading || is_hung_up,
            Phase::Closed => true,
        }
    }

    /// Makes the supervisor the reader of a reply that was left unread for a whole heartbeat. A caller
    /// that has read items meanwhile goes on.
    pub(super) fn heartbeat(&mut self) {
        if std::mem::replace(&mut self.pauses_before, self.pauses) != self.pauses {
            return;
        }
        if let Phase::InFlight { reader: reader @ Reader::Unread, .. } = &mut self.phase {
            *reader = Reader::Supervisor;
        }
    }

    /// Makes the supervisor the reader, now and of the next job, because the process has ended.
    /// Returns `false` if a caller is reading: the kernel reports only once that the last packet
    /// was not received, so a second reader could miss it.
    pub(super) fn process_has_ended(&mut self) -> bool {
        match &mut self.phase {
            Phase::InFlight { reader: Reader::Caller, .. } => return false,
            Phase::InFlight { reader: reader @ Reader::Unread, .. } => *reader = Reader::Supervisor,
            Phase::Idle(next_reader) => *next_reader = NextReader::Reading,
            Phase::InFlight { .. } | Phase::Closed => {}
        }
        true
    }

    /// Returns the delivery that a caller received with EOF, if a caller has read EOF.
    pub(super) fn eof(&self) -> Option<Delivery> {
        match self.phase {
            Phase::InFlight { reader: Reader::SupervisorAfterEof(delivery), .. } => Some(delivery),
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => None,
        }
    }

    /// Takes the job in flight, because the worker has replied. No more replies are expected.
    pub(super) fn take(&mut self) -> Option<InFlight<C>> {
        self.replies += 1;
        self.panic = None;
        match std::mem::replace(&mut self.phase, Phase::Idle(NextReader::Any)) {
            Phase::InFlight { job, .. } => Some(job),
            before @ Phase::Idle(NextReader::Supervisor) => {
                self.phase = before;
                None
            }
            Phase::Idle(_) => None,
            Phase::Closed => {
                self.phase = Phase::Closed;
                None
            }
        }
    }

    /// Puts back a job that was taken, because the reply did not belong to it. The supervisor
    /// continues from there.
    pub(super) fn restore(&mut self, job: InFlight<C>, now: Instant) -> Effect {
        self.phase = Phase::InFlight { job, reader: Reader::Supervisor, since: now };
        Effect::WakeSupervisor
    }

    /// The call that the worker runs.
    pub(super) fn running_call(&self) -> Option<&C> {
        match &self.phase {
            Phase::InFlight { job: InFlight::Call(call), .. } => Some(call),
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => None,
        }
    }

    /// Returns the call in flight if it has been cancelled, once. Its deadline becomes the end of its
    /// grace period.
    pub(super) fn cancel(&mut self, now: Instant) -> Option<Cancelled> {
        let (serial, call) = match &mut self.phase {
            Phase::InFlight { job: InFlight::Call(call), .. } => (self.serial, call),
            Phase::InFlight { job: InFlight::Bundle(bundle), .. } => {
                (self.first + bundle.running_number()? as u64, bundle.running_mut()?)
            }
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => return None,
        };
        if self.cancelled == serial || !call.is_cancelled() {
            return None;
        }
        self.cancelled = serial;
        Some(Cancelled { serial, until: call.limit_to_grace(now) })
    }

    /// The bundle that the worker runs.
    pub(super) fn bundle(&mut self) -> Option<&mut Bundle<C>> {
        match &mut self.phase {
            Phase::InFlight { job: InFlight::Bundle(bundle), .. } => Some(bundle),
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => None,
        }
    }

    /// Time since the bundle was sent.
    pub(super) fn bundle_age(&self, now: Instant) -> Option<Duration> {
        match &self.phase {
            Phase::InFlight { job: InFlight::Bundle(_), since, .. } => Some(now.saturating_duration_since(*since)),
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => None,
        }
    }

    /// Takes the next call of the bundle, because its answer has been read.
    pub(super) fn take_answered(&mut self) -> Option<C> {
        self.panic = None;
        self.bundle()?.take_answered()
    }

    /// The number of the next call of the bundle to be answered.
    pub(super) fn next_answer(&mut self) -> u64 {
        let first = self.first;
        first + self.bundle().map_or(0, |bundle| bundle.next_number()) as u64
    }

    /// Takes the job in flight, because the process has ended.
    pub(super) fn close(&mut self) -> Closed<C> {
        let in_flight = match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::InFlight { job, .. } => Some(job),
            Phase::Idle(_) | Phase::Closed => None,
        };
        Closed { in_flight, is_expired: self.is_expired() }
    }

    /// Time for which the process has been loading the program of the pool.
    pub(super) fn loading_for(&self, now: Instant) -> Option<Duration> {
        match &self.phase {
            Phase::InFlight { job: InFlight::Load(_, None), since, .. } => Some(now.saturating_duration_since(*since)),
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => None,
        }
    }

    /// Time since the process was requested to shut down.
    pub(super) fn shutting_down_for(&self, now: Instant) -> Option<Duration> {
        match &self.phase {
            Phase::InFlight { job: InFlight::ShutDown, since, .. } => Some(now.saturating_duration_since(*since)),
            Phase::InFlight { .. } | Phase::Idle(_) | Phase::Closed => None,
        }
    }

    /// Records a panic that the process has reported. The first one is the cause, and is not
    /// replaced by the panic with which Rust aborts after it.
    pub(super) fn note_panic(&mut self, panic: String) {
        if self.panic.is_none() || !panic.starts_with("panic in a ") {
            self.panic = Some(panic);
        }
    }

    /// Takes the panic that may have ended the process.
    pub(super) fn take_panic(&mut self) -> Option<String> {
        self.panic.take()
    }

    /// Returns `true` if this side has hung up because the deadline of the call had passed.
    pub(super) fn is_expired(&self) -> bool {
        self.link == Link::Expired
    }

    /// Hangs up if the deadline of the running call has passed. A reply that has arrived in time
    /// but was not read yet is kept: `is_readable` returns whether there is one.
    pub(super) fn expire(&mut self, now: Instant, is_readable: impl FnOnce() -> bool) -> Effect {
        let Phase::InFlight { job, reader, .. } = &self.phase else { return Effect::None };
        if !job.call().is_some_and(|call| call.is_expired(now)) {
            return Effect::None;
        }
        if *reader == Reader::Unread && is_readable() {
            return self.read_by_supervisor();
        }
        self.link = Link::Expired;
        Effect::HangUp
    }

    /// Hangs up. The supervisor detects that, and starts another process.
    pub(super) fn hang_up(&mut self) -> Effect {
        self.link = self.link.max(Link::HungUp);
        Effect::HangUp
    }
}
