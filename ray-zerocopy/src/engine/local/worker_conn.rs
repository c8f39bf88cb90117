//! The way to one worker process, and what that process is busy with: one thing at a time.
//!
//! Whoever has claimed the worker (see `state`) gives it a job, from whatever thread. One thread at a time is its reader, and
//! only the reader takes the job back when it is answered: the worker's driver, or the caller whose call it is (see
//! `lone`). What is left when the process is gone, the driver takes. So each job has one owner at any time, and each call is
//! answered once.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::lock;
use super::protocol::{Answer, Request};
use super::transport::{Connection, Event, Received, Wait};
use crate::engine::call::Call;
use crate::engine::frame::Packet;
use crate::engine::message::Outgoing;
use crate::engine::program::Program;
use crate::error::call::Worker;

/// Something for a worker to do.
pub(super) enum Job {
    /// Run a call, and load its program first if need be.
    Call(Call),
    /// Load what every worker of the pool has to have.
    Load(Arc<Program>),
    Forget(u64),
    ShutDown,
}

/// What a worker is doing.
pub(super) enum InFlight {
    /// Load a program, for a call that comes next or for none.
    Load(Arc<Program>, Option<Call>),
    Call(Call),
    Forget(u64),
    ShutDown,
}

/// Why a job was not given. It is given back.
pub(super) enum SendError {
    /// The process is gone, and has not heard of the job.
    Gone(Job),
    /// The deadline of the call has passed, and the process has not heard of it.
    Late(Job),
    /// The process is well, but the job cannot be sent.
    Unsendable(Job, io::Error),
}

/// Who receives the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reader {
    /// Nobody yet, or there is none to come.
    #[default]
    Nobody,
    /// The caller, who waits for it.
    Caller,
    Supervisor,
}

pub(super) struct WorkerConn {
    pub(super) worker: Worker,
    connection: Connection,
    state: Mutex<ConnState>,
    /// It is the driver's turn to read.
    turn: Condvar,
}

#[derive(Default)]
struct ConnState {
    doing: Option<InFlight>,
    reader: Reader,
    /// How many jobs there were: tells them apart, here and in the worker's answers.
    serial: u64,
    /// The next job is the driver's to read, whatever its giver thinks.
    hurry: bool,
    /// The driver sleeps until it is its turn.
    asleep: bool,
    /// The caller has seen the process go: whether it has heard of its last job.
    seen: Option<bool>,
    /// The programs that the process has loaded.
    loaded: HashSet<u64>,
    /// The driver has taken back what the process was doing, and gives it nothing more.
    gone: bool,
    /// We have hung up.
    cut: bool,
    /// That was because the deadline of its call had passed.
    late: bool,
    /// When the process was told to end.
    ending: Option<Instant>,
    /// Since when it does what it does.
    since: Option<Instant>,
    /// The process has answered something.
    answered: bool,
    /// A panic of which the process has told, and after which it has answered nothing yet.
    panic: Option<String>,
}

impl WorkerConn {
    pub(super) fn new(worker: Worker, connection: Connection) -> Self {
        Self { worker, connection, state: Mutex::default(), turn: Condvar::new() }
    }

    /// Gives the worker something to do. The caller has claimed it, so it is doing nothing.
    ///
    /// This never blocks: the worker has answered everything that it was asked, so that the socket has room.
    ///
    /// Its driver reads the answer, unless `lone` is set: then nobody does for now, and the number of the job is given.
    pub(super) fn give(&self, job: Job, lone: bool) -> Result<Option<u64>, Box<SendError>> {
        if matches!(&job, Job::Call(call) if call.is_late()) {
            return Err(Box::new(SendError::Late(job)));
        }
        let (packet, loads) = match self.packet(&job) {
            Ok(packet) => packet,
            Err(error) => return Err(Box::new(SendError::Unsendable(job, error))),
        };
        let mut state = lock(&self.state);
        if state.gone {
            return Err(Box::new(SendError::Gone(job)));
        }
        // Nobody else gives a job meanwhile, so this is the number that is in the packet.
        state.serial += 1;
        let fds = match &job {
            Job::Call(call) if loads => call.program.arena.fds(),
            Job::Load(program) => program.arena.fds(),
            _ => Vec::new(),
        };
        if let Err(error) = self.connection.send_packet(&packet, &fds) {
            let gone = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
            return Err(Box::new(match gone {
                true => SendError::Gone(job),
                false => SendError::Unsendable(job, error),
            }));
        }
        // No reader gets at an answer before it has the lock, and it finds the job then.
        let lone = lone && !state.hurry && matches!(job, Job::Call(_)) && !loads;
        state.hurry = false;
        state.since = Some(Instant::now());
        state.doing = Some(match job {
            Job::Call(call) if loads => InFlight::Load(Arc::clone(&call.program), Some(call)),
            Job::Call(call) => InFlight::Call(call),
            Job::Load(program) => InFlight::Load(program, None),
            Job::Forget(key) => InFlight::Forget(key),
            Job::ShutDown => {
                state.ending = Some(Instant::now());
                InFlight::ShutDown
            }
        });
        // The keeper may have looked before the call was there.
        self.cut_off(&mut state);
        if lone {
            return Ok(Some(state.serial));
        }
        self.read_by_driver(&mut state);
        Ok(None)
    }

    /// Makes the driver the reader.
    fn read_by_driver(&self, state: &mut ConnState) {
        if state.reader != Reader::Supervisor {
            state.reader = Reader::Supervisor;
            self.wake_driver(state);
        }
    }

    fn wake_driver(&self, state: &ConnState) {
        if state.asleep {
            self.turn.notify_one();
        }
    }

    /// Makes the driver the reader of an answer that nobody reads; of the next one, if the job is just being given.
    pub(super) fn adopt(&self) {
        let mut state = lock(&self.state);
        match (&state.doing, state.reader) {
            (Some(_), Reader::Nobody) => self.read_by_driver(&mut state),
            (Some(_), Reader::Caller | Reader::Supervisor) => {}
            (None, _) => state.hurry = true,
        }
    }

    /// Makes the caller the reader of the answer to job `serial`, unless somebody else is.
    pub(super) fn read_by_caller(&self, serial: u64) -> bool {
        let mut state = lock(&self.state);
        let free = state.serial == serial && state.doing.is_some() && state.reader == Reader::Nobody;
        if free {
            state.reader = Reader::Caller;
        }
        free
    }

    /// The caller reads no more: it has seen the process go, or something that is not for it to decide.
    pub(super) fn leave_to_driver(&self, serial: u64, seen: Option<bool>) {
        let mut state = lock(&self.state);
        if state.serial == serial && state.doing.is_some() {
            // Dropping the right to read, which comes last, does not take back what was seen before.
            state.seen = state.seen.or(seen);
            self.read_by_driver(&mut state);
        }
    }

    /// Waits until it is the driver's turn to read, and not longer than `pause`. An answer that nobody reads becomes its own
    /// then.
    pub(super) fn turn(&self, pause: Duration) -> bool {
        let mut state = lock(&self.state);
        if state.reader != Reader::Supervisor && !state.cut {
            state.asleep = true;
            let wait =
                self.turn.wait_timeout_while(state, pause, |state| state.reader != Reader::Supervisor && !state.cut);
            let (guard, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.asleep = false;
            if timeout.timed_out() && state.doing.is_some() && state.reader == Reader::Nobody {
                state.reader = Reader::Supervisor;
            }
        }
        state.reader == Reader::Supervisor || state.cut
    }

    /// Makes the driver the reader, unless a caller reads at the moment. Two who read could each learn half of what there is: the kernel
    /// says only once that the last packet was not received.
    pub(super) fn take_turn(&self) -> bool {
        let mut state = lock(&self.state);
        if state.reader != Reader::Caller {
            state.reader = Reader::Supervisor;
        }
        state.reader == Reader::Supervisor
    }

    /// Whether a caller has seen the process go, and if so whether the process has heard of its last job.
    pub(super) fn seen(&self) -> Option<bool> {
        lock(&self.state).seen
    }

    /// The job as a packet, and whether it is to load a program first.
    fn packet(&self, job: &Job) -> io::Result<(Packet, bool)> {
        let nothing = Outgoing::default();
        let serial = lock(&self.state).serial + 1;
        let load = |program: &Program| {
            let request = Request::Load {
                key: program.key,
                loader: program.loader.clone(),
                device: program.device.clone(),
                strict: program.strict,
                memory: program.memory,
                arena: program.arena.handle(),
            };
            Ok((Packet::new(&(serial, request), &nothing)?, true))
        };
        match job {
            Job::Call(call) if lock(&self.state).loaded.contains(&call.program.key) => {
                let request = Request::Call { key: call.program.key, handler: call.handler.clone() };
                Ok((Packet::new(&(serial, request), &call.args)?, false))
            }
            Job::Call(call) => load(&call.program),
            Job::Load(program) => load(program),
            Job::Forget(key) => Ok((Packet::new(&(serial, Request::Forget { key: *key }), &nothing)?, false)),
            Job::ShutDown => Ok((Packet::new(&(serial, Request::ShutDown), &nothing)?, false)),
        }
    }

    /// Waits for an answer, and not longer than the heartbeat.
    pub(super) fn receive(&self) -> io::Result<Event<(u64, Answer)>> {
        self.noting_panics(|| self.connection.next())
    }

    /// What has arrived already.
    pub(super) fn last_words(&self) -> io::Result<Event<(u64, Answer)>> {
        self.noting_panics(|| self.connection.next_at_once())
    }

    /// What arrives next that is more than word of a panic.
    fn noting_panics(&self, next: impl Fn() -> io::Result<Event<(u64, Answer)>>) -> io::Result<Event<(u64, Answer)>> {
        loop {
            match next()? {
                Event::Message(Received { message: (_, Answer::Panics(panic)), .. }) => {
                    let mut state = lock(&self.state);
                    // What Rust says when it gives up, after a panic that says why.
                    if state.panic.is_none() || !panic.starts_with("panic in a ") {
                        state.panic = Some(panic);
                    }
                }
                event => return Ok(event),
            }
        }
    }

    /// What the process said of a panic that may have been its end.
    pub(super) fn panic(&self) -> Option<String> {
        lock(&self.state).panic.take()
    }

    /// Takes back what the worker was doing, because it has answered. There is nothing more to read.
    pub(super) fn take(&self) -> Option<InFlight> {
        let mut state = lock(&self.state);
        state.reader = Reader::Nobody;
        state.answered = true;
        state.panic = None;
        state.doing.take()
    }

    /// Whether an answer is one to what the worker is doing.
    pub(super) fn is_current(&self, serial: u64) -> bool {
        lock(&self.state).serial == serial
    }

    /// Puts back what was taken: the worker has not answered it after all. The driver goes on from there.
    pub(super) fn put_back(&self, doing: InFlight) {
        let mut state = lock(&self.state);
        state.doing = Some(doing);
        self.read_by_driver(&mut state);
    }

    /// Takes back what the worker was doing, because it is gone; and whether it was cut off.
    pub(super) fn close(&self) -> (Option<InFlight>, bool) {
        let mut state = lock(&self.state);
        state.gone = true;
        (state.doing.take(), state.late)
    }

    /// Notes that a program is loaded, or is not any more.
    pub(super) fn loaded(&self, key: u64, loaded: bool) {
        let mut state = lock(&self.state);
        match loaded {
            true => state.loaded.insert(key),
            false => state.loaded.remove(&key),
        };
    }

    /// Whether the process has loaded anything.
    pub(super) fn has_loaded(&self) -> bool {
        !lock(&self.state).loaded.is_empty()
    }

    /// When the process was told to end, if it was.
    pub(super) fn ending(&self) -> Option<Instant> {
        lock(&self.state).ending
    }

    /// Whether the process has answered anything.
    pub(super) fn has_answered(&self) -> bool {
        lock(&self.state).answered
    }

    /// For how long the process has been loading what every worker has to have.
    pub(super) fn loading(&self) -> Option<Duration> {
        let state = lock(&self.state);
        let since = state.since.filter(|_| matches!(state.doing, Some(InFlight::Load(_, None))));
        since.map(|since| since.elapsed())
    }

    /// Whether the process was cut off, because the deadline of its call had passed.
    pub(super) fn is_late(&self) -> bool {
        lock(&self.state).late
    }

    /// Hangs up if the deadline of the call that runs has passed. The driver sees that, and does the rest.
    pub(super) fn cut_off_if_late(&self) {
        self.cut_off(&mut lock(&self.state));
    }

    fn cut_off(&self, state: &mut ConnState) {
        let (Some(InFlight::Call(call)) | Some(InFlight::Load(_, Some(call)))) = &state.doing else { return };
        if !call.is_late() {
            return;
        }
        // It may have answered in time, and nobody has looked.
        if state.reader == Reader::Nobody && matches!(self.connection.wait(Some(Instant::now())), Ok(Wait::Ready)) {
            return self.read_by_driver(state);
        }
        state.late = true;
        self.cut(state);
    }

    /// Hangs up. The driver sees that, and starts another process.
    pub(super) fn hang_up(&self) {
        self.cut(&mut lock(&self.state));
    }

    fn cut(&self, state: &mut ConnState) {
        state.cut = true;
        self.connection.hang_up();
        self.wake_driver(state);
    }
}
