//! Connection to one worker process: its socket, and the lock around the state of the connection.
//!
//! It is shared by the callers, the supervisor and the deadline thread. `conn_state` contains the
//! transitions. This file adds the lock, the supervisor's wait for its turn, and the socket.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bundle_conn::bundle_packet;
use super::conn_state::{Closed, ConnState, Effect, ReplyTo};
use super::item_ring::ItemReader;
use super::protocol::{Answer, Request};
use super::transport::{Connection, Delivery, Event, Received};
use crate::engine::call::{Call, CallResult};
use crate::engine::frame::Packet;
use crate::engine::message::Outgoing;
use crate::engine::program::Program;
use crate::engine::queue::job::{InFlight, Job};
use crate::engine::queue::scheduler::PoolWorker;
use crate::engine::worker_nodes::{Copy, WorkerNodes};
use crate::error::call::Worker;
use crate::os::sync::{Condvar, Mutex, MutexGuard, Waited, now};

/// Why a job was not sent. Contains the job.
pub(super) enum SendError {
    /// The process has ended without receiving the job.
    Gone(Job<Call>),
    /// The deadline of the call has passed before it was sent.
    Expired(Job<Call>),
    /// The call has been cancelled.
    Cancelled(Job<Call>),
    /// The process is running, but the job cannot be sent.
    Unsendable(Job<Call>, io::Error),
}

/// The reader of a reply, as chosen by the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadBy {
    Supervisor,
    /// The caller, if no other thread needs the reply first.
    Caller,
}

pub(super) struct WorkerConn {
    pub(super) worker: Worker,
    pub(super) connection: Connection,
    pub(super) state: Mutex<Shared>,
    /// Notified when it is the supervisor's turn to read.
    turn: Condvar,
    nodes: Arc<WorkerNodes>,
}

pub(super) struct Shared {
    pub(super) conn: ConnState<Call>,
    /// Whether the supervisor waits for its turn. Avoids the system call of a notification if it
    /// does not.
    supervisor_waits: bool,
    /// The word of the shared memory at which the next answer of the bundle is.
    pub(super) next_answer: usize,
    /// The place in the stream that the worker runs.
    pub(super) stream: ItemReader,
}

/// Calls of a bundle whose answers have been read, and their results.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) answered: Vec<(Call, CallResult)>,
    /// Why the next answer cannot be read.
    pub(super) broken: Option<io::Error>,
}

impl PoolWorker for WorkerConn {
    fn index(&self) -> usize {
        self.worker.index
    }

    /// Hangs up. The supervisor detects that, and does the rest.
    fn expire(&self) {
        self.transition(|conn| {
            self.stop_expired_bundle(conn);
            conn.expire(now(), || self.is_readable())
        });
    }

    fn calls(&self) -> usize {
        let mut state = self.state.lock();
        state.conn.bundle().map_or(1, |bundle| bundle.calls().len())
    }

    const TAKES_BUNDLES: bool = true;
}

impl WorkerConn {
    pub(super) fn new(worker: Worker, connection: Connection, nodes: Arc<WorkerNodes>) -> Self {
        let state = Mutex::new(Shared {
            conn: ConnState::new(),
            supervisor_waits: false,
            next_answer: 0,
            stream: ItemReader::default(),
        });
        Self { worker, connection, state, turn: Condvar::default(), nodes }
    }

    /// Sends a job. The sender holds the assignment of this worker, so the worker has no other job.
    ///
    /// This never blocks: the worker has replied to all previous requests, so the socket's buffer
    /// has space.
    ///
    /// # Errors
    /// Returns the job if it was not sent.
    pub(super) fn send(&self, job: Job<Call>, read_by: ReadBy) -> Result<ReplyTo, Box<SendError>> {
        if matches!(&job, Job::Call(call) if call.is_late()) {
            return Err(Box::new(SendError::Expired(job)));
        }
        // No other thread sends or takes a job meanwhile, so this number is still the next one when
        // the packet is sent.
        let (mut job, serial) = {
            let state = self.state.lock();
            (job.into_in_flight(|program| state.conn.has_loaded(program)), state.conn.next_serial())
        };
        let copy = match &job {
            InFlight::Load(program, _) => Some(self.nodes.copy_for(program, self.worker.index)),
            InFlight::Call(_) | InFlight::Bundle(_) | InFlight::Forget(_) | InFlight::ShutDown => None,
        };
        // Before the packet, which names the span.
        match &mut job {
            InFlight::Call(call) => call.sent_to(Some(self.worker)),
            InFlight::Bundle(bundle) => bundle.calls_mut().for_each(|call| call.sent_to(Some(self.worker))),
            InFlight::Load(..) | InFlight::Forget(_) | InFlight::ShutDown => {}
        }
        let packet = match packet(&self.connection, serial, &job, copy.as_ref(), self.worker.index) {
            Ok(packet) => packet,
            Err(error) => return Err(Box::new(SendError::Unsendable(job.into(), error))),
        };
        let mut state = self.state.lock();
        if state.conn.is_closed() {
            return Err(Box::new(SendError::Gone(job.into())));
        }
        // Checked under the lock, so that a thread that cancels the call afterwards finds it in
        // flight.
        let is_cancelled = match &job {
            InFlight::Bundle(bundle) => bundle.calls().any(Call::is_cancelled),
            job => job.call().is_some_and(Call::is_cancelled),
        };
        if is_cancelled {
            return Err(Box::new(SendError::Cancelled(job.into())));
        }
        if let (InFlight::Bundle(bundle), Some(area)) = (&job, self.connection.shared()) {
            area.start_bundle(serial, bundle.calls().len());
            state.next_answer = 0;
        }
        if let (Some(items), Some(area)) = (job.call().and_then(|call| call.reply.items()), self.connection.shared()) {
            // The worker is idle, and waits for nothing else.
            let _waits = area.set_limit(items.begin());
            state.stream = area.start_stream(serial);
        }
        let fds = copy.as_ref().map(|copy| copy.arena.fds()).unwrap_or_default();
        if let Err(error) = self.connection.send_packet(&packet, &fds) {
            let is_gone = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
            let error = if is_gone { SendError::Gone(job.into()) } else { SendError::Unsendable(job.into(), error) };
            return Err(Box::new(error));
        }
        // The lock has been held since before the packet was sent, so the reader of the reply finds
        // the job.
        let inline = read_by == ReadBy::Caller;
        match &job {
            InFlight::Call(call) => call.begins(),
            InFlight::Bundle(bundle) => bundle.calls().for_each(Call::begins),
            InFlight::Load(..) | InFlight::Forget(_) | InFlight::ShutDown => {}
        }
        let (reply_to, effect) = state.conn.start(job, inline, now(), || self.is_readable());
        self.apply(state, effect);
        Ok(reply_to)
    }

    /// Returns `true` if a packet, or EOF, has arrived and was not received yet.
    pub(super) fn is_readable(&self) -> bool {
        self.connection.is_readable()
    }

    /// Applies the effect of a change of the state, whose lock is released before the supervisor is woken: it would only
    /// wait for the lock.
    fn apply(&self, state: MutexGuard<'_, Shared>, effect: Effect) {
        if effect == Effect::HangUp {
            // The worker begins no further call until it has ended.
            if let Some(area) = self.connection.shared() {
                area.withdraw_calls();
            }
            self.connection.hang_up();
        }
        let wakes = effect != Effect::None && state.supervisor_waits;
        drop(state);
        if wakes {
            self.turn.notify_one();
        }
    }

    /// Changes the state, and applies the resulting effect.
    pub(super) fn transition(&self, change: impl FnOnce(&mut ConnState<Call>) -> Effect) {
        let mut state = self.state.lock();
        let effect = change(&mut state.conn);
        self.apply(state, effect);
    }

    /// Makes the supervisor the reader of a reply that no thread reads.
    pub(super) fn hand_to_supervisor(&self) {
        self.transition(ConnState::hand_to_supervisor);
    }

    /// Makes the caller the reader of the reply to job `serial`. Returns `false` if another thread
    /// is.
    pub(super) fn read_by_caller(&self, serial: u64) -> bool {
        self.state.lock().conn.read_by_caller(serial)
    }

    /// Leaves what follows an item of job `serial` unread, since the caller reads it later. Returns
    /// `false` if the supervisor has become the reader.
    pub(super) fn pause(&self, serial: u64) -> bool {
        let mut state = self.state.lock();
        let effect = state.conn.pause(serial);
        self.apply(state, effect);
        effect == Effect::None
    }

    /// Makes the supervisor the reader of the reply to job `serial`, because its caller stops
    /// reading.
    pub(super) fn leave_to_supervisor(&self, serial: u64, eof: Option<Delivery>) {
        self.transition(|conn| conn.leave_to_supervisor(serial, eof));
    }

    /// Waits until it is the supervisor's turn to read, for at most `heartbeat`. After that, the
    /// supervisor becomes the reader of a reply that no thread reads. Returns `true` if it is the
    /// supervisor's turn.
    pub(super) fn wait_for_turn(&self, heartbeat: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.conn.is_supervisors_turn() {
            state.supervisor_waits = true;
            let is_not_yet = |state: &mut Shared| !state.conn.is_supervisors_turn();
            let (guard, waited) = self.turn.wait_while(state, heartbeat, is_not_yet);
            state = guard;
            state.supervisor_waits = false;
            if waited == Waited::TimedOut {
                state.conn.heartbeat();
            }
        }
        state.conn.is_supervisors_turn()
    }

    /// Makes the supervisor the reader, because the process has ended. Returns `false` if a caller
    /// is reading.
    pub(super) fn process_has_ended(&self) -> bool {
        self.state.lock().conn.process_has_ended()
    }

    /// Returns the delivery that a caller received with EOF, if a caller has read EOF.
    pub(super) fn eof(&self) -> Option<Delivery> {
        self.state.lock().conn.eof()
    }

    /// Waits for a reply, for at most the heartbeat.
    pub(super) fn receive(&self) -> io::Result<Event<(u64, Answer)>> {
        self.noting_panics(|| self.connection.next())
    }

    /// Receives a reply that has already arrived. Does not wait.
    pub(super) fn receive_at_once(&self) -> io::Result<Event<(u64, Answer)>> {
        self.noting_panics(|| self.connection.next_at_once())
    }

    /// Receives the next event that is not a report of a panic. While a bundle is in flight, does not wait
    /// after such a report.
    fn noting_panics(&self, next: impl Fn() -> io::Result<Event<(u64, Answer)>>) -> io::Result<Event<(u64, Answer)>> {
        let mut event = next()?;
        while let Event::Message(Received { message: (_, Answer::Panics(panic)), .. }) = event {
            let runs_bundle = {
                let mut state = self.state.lock();
                state.conn.note_panic(panic);
                state.conn.bundle().is_some()
            };
            event = if runs_bundle { self.connection.next_at_once()? } else { next()? };
        }
        Ok(event)
    }

    /// Takes the panic that the process has reported, which may have ended it.
    pub(super) fn take_panic(&self) -> Option<String> {
        self.state.lock().conn.take_panic()
    }

    /// Returns `true` if a reply belongs to the current job.
    pub(super) fn is_current(&self, serial: u64) -> bool {
        self.state.lock().conn.is_current(serial)
    }

    /// Takes the job in flight, because the worker has replied.
    pub(super) fn take(&self) -> Option<InFlight<Call>> {
        let mut state = self.state.lock();
        let job = state.conn.take();
        // After a hang-up, the supervisor has waited for the caller to stop reading.
        let wakes = state.supervisor_waits && state.conn.is_supervisors_turn();
        drop(state);
        if wakes {
            self.turn.notify_one();
        }
        job
    }

    /// Puts back a job that was taken, because the reply did not belong to it.
    pub(super) fn restore(&self, job: InFlight<Call>) {
        self.transition(|conn| conn.restore(job, now()));
    }

    /// Takes the job in flight, because the process has ended. What it has left in the shared memory is
    /// collected first.
    pub(super) fn close(&self) -> (Closed<Call>, Collected) {
        // An item that cannot be read is the last one.
        let _error = self.deliver_items();
        let mut state = self.state.lock();
        let collected = self.collect_answers(&mut state);
        (state.conn.close(), collected)
    }

    pub(super) fn program_loaded(&self, key: u64) {
        self.state.lock().conn.program_loaded(key);
    }

    pub(super) fn program_forgotten(&self, key: u64) {
        self.state.lock().conn.program_forgotten(key);
    }

    /// Returns `true` if the process has loaded any program.
    pub(super) fn has_loaded_any(&self) -> bool {
        self.state.lock().conn.has_loaded_any()
    }

    /// Returns `true` if the process has replied to any job.
    pub(super) fn has_replied(&self) -> bool {
        self.state.lock().conn.has_replied()
    }

    /// Time for which the process has been loading the program of the pool.
    pub(super) fn loading_for(&self) -> Option<Duration> {
        self.state.lock().conn.loading_for(now())
    }

    /// Time since the process was requested to shut down.
    pub(super) fn shutting_down_for(&self) -> Option<Duration> {
        self.state.lock().conn.shutting_down_for(now())
    }

    /// Returns `true` if this side has hung up because the deadline of the call had passed.
    pub(super) fn is_expired(&self) -> bool {
        self.state.lock().conn.is_expired()
    }

    /// Tells the worker that its call has been cancelled, if it has. Returns the end of the call's
    /// grace period.
    pub(super) fn cancel(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        self.update_bundle(&mut state.conn);
        let cancelled = state.conn.cancel(now())?;
        if self.connection.shared().is_some_and(|area| area.cancel(cancelled.serial)) {
            self.wake(cancelled.serial);
        }
        cancelled.until
    }

    /// Hangs up. The supervisor detects that, and starts another process.
    pub(super) fn hang_up(&self) {
        self.transition(ConnState::hang_up);
    }
}

/// Encodes the packet of a job.
fn packet(
    connection: &Connection,
    serial: u64,
    job: &InFlight<Call>,
    copy: Option<&Copy>,
    worker: usize,
) -> io::Result<Packet> {
    let nothing = Outgoing::default();
    let load = |program: &Program| Request::Load {
        key: program.key,
        loader: program.loader.clone(),
        device: program.device.clone(),
        strict: program.strict,
        memory: program.memory,
        prewarm: program.prewarm.clone(),
        arena: copy.map_or(&program.arena, |copy| &copy.arena).handle(),
        seat: copy.and_then(|copy| copy.seat.clone()),
    };
    match job {
        InFlight::Call(call) => {
            let has_items = call.reply.items().is_some();
            let (key, handler, state_of) = (call.program.key, call.handler.clone(), call.state_of);
            let request = Request::Call { key, handler, has_items, state_of, trace: call.context(Some(worker)) };
            connection.packet(&(serial, request), &call.args)
        }
        InFlight::Bundle(bundle) => bundle_packet(serial, bundle, worker),
        InFlight::Load(program, _) => Packet::new(&(serial, load(program)), &nothing),
        InFlight::Forget(key) => Packet::new(&(serial, Request::Forget { key: *key }), &nothing),
        InFlight::ShutDown => Packet::new(&(serial, Request::ShutDown), &nothing),
    }
}
