//! The calls of one method that wait for a batch, and the tickets that bring them to workers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::batching::Batching;
use super::choice::{choose, is_full};
use super::member::Member;
use super::reply::BatchReply;
use super::stats::BatchReport;
use crate::engine::Engine;
use crate::engine::blocking::blocking;
use crate::engine::call::waiter::Waiter;
use crate::engine::call::{Call, Receive, Reply};
use crate::engine::deadline::time_to_enter;
use crate::engine::message::Outgoing;
use crate::engine::program::Program;
use crate::engine::sys::entry::FnToken;
use crate::engine::timer::{self, TimerThread};
use crate::error::call::{CallError, StartError};
use crate::os::sync::{Condvar, Mutex, MutexGuard, now};

/// Least number of deadlines at which those of answered calls are removed.
const PRUNE_AT: usize = 1024;

/// A call that may not enter, and why.
type Refused = Box<(Member, CallError)>;

/// Properties of all batches of a method.
pub(crate) struct Template {
    pub(crate) program: Arc<Program>,
    pub(crate) method: &'static str,
    /// The function that runs a batch.
    pub(crate) handler: FnToken,
    pub(crate) attempts: u32,
    pub(crate) actor: bool,
    pub(crate) pinned: Option<usize>,
    /// Whether a call may run again after its batch has failed: if the method takes `&self`.
    pub(crate) is_repeatable: bool,
}

/// The calls of one method that wait for a batch.
pub(crate) struct Batcher {
    pub(super) template: Template,
    limits: Batching,
    pub(super) engine: Arc<dyn Engine>,
    /// Number of batches that run at the same time, if the engine passes each call on at once.
    at_once: Option<usize>,
    state: Mutex<State>,
    /// Notified when the queue has space.
    room: Condvar,
    report: Mutex<BatchReport>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Member>,
    /// Whether a ticket is in the engine's queue. One is enough: filling it sends the next one if
    /// calls are left.
    has_ticket: bool,
    /// Number of tickets so far.
    tickets: u64,
    /// Number of batches that an engine without a queue of its own runs.
    running: usize,
    /// Number of callers that wait for space.
    blocked: usize,
    /// Number of deadlines so far.
    numbers: u64,
    /// Number of entries at which those of answered calls are removed from `deadlines`.
    prune_at: usize,
    /// Number of calls that were cancelled since cancelled calls were last removed.
    cancelled: usize,
    /// Deadlines of calls that have not been answered, or only recently.
    deadlines: BTreeMap<(Instant, u64), Weak<Waiter>>,
    /// The instants for which the timer is set, for a deadline and for a call that waits for others.
    timer: Option<Instant>,
    has_wait_timer: bool,
}

impl Batcher {
    pub(crate) fn new(template: Template, limits: Batching, engine: Arc<dyn Engine>) -> Self {
        let report = BatchReport { method: template.method.to_owned(), ..BatchReport::default() };
        let at_once = engine.batches_at_once();
        let (state, room) = Default::default();
        Self { template, limits, engine, at_once, state, room, report: Mutex::new(report) }
    }

    /// Returns `true` if no call waits for its batch.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && !state.has_ticket
    }

    pub(crate) fn report(&self) -> BatchReport {
        self.report.lock().clone()
    }

    /// Queues a call. If the queue is full and `wait` is set, waits for space. Returns the caller's
    /// right to receive the result, if it has it.
    ///
    /// # Errors
    /// Returns why the call may not enter.
    pub(crate) fn submit(self: &Arc<Self>, member: Member, wait: bool) -> Result<Option<Box<dyn Receive>>, Refused> {
        let caller = Arc::clone(&member.caller);
        let mut state = match self.admit(&caller, wait) {
            Ok(state) => state,
            Err(error) => return Err(Box::new((member, error))),
        };
        state.waiting.push_back(member);
        let timed = self.watch_deadline(&mut state, &caller);
        let ticket = self.next_ticket(&mut state);
        drop(state);
        if let Err(error) = timed {
            caller.answer(Err(error));
        }
        let Some(ticket) = ticket else { return Ok(None) };
        let receiver = self.send_ticket(ticket);
        // A right to receive the result of another call, or of several, is given back. So is one on an
        // engine that runs the next batch when this result has been received: the caller may not wait
        // for it.
        let is_own = || caller.is_alone_in(ticket) && self.at_once.is_none();
        Ok(receiver.filter(|receiver| !receiver.is_exclusive() || is_own()))
    }

    /// Returns the lock when the queue has space, and waits for that if `wait` is set.
    fn admit(&self, caller: &Waiter, wait: bool) -> Result<MutexGuard<'_, State>, CallError> {
        loop {
            // A pool that closes runs the calls that wait, and no new ones.
            if !self.engine.is_open() {
                return Err(CallError::ShutDown { method: self.template.method.to_owned() });
            }
            let state = self.state.lock();
            if state.waiting.len() < self.engine.capacity() {
                return Ok(state);
            }
            if !wait {
                let (waiting, workers) = (state.waiting.len(), self.engine.size());
                return Err(CallError::QueueFull { waiting, workers });
            }
            drop(state);
            let left = time_to_enter(self.template.method, caller.deadline)?;
            // On Ray, space is made by a thread that needs Python's lock.
            blocking(|| self.wait_for_space(left));
        }
    }

    fn wait_for_space(&self, left: Option<Duration>) {
        let mut state = self.state.lock();
        if state.waiting.len() >= self.engine.capacity() {
            state.blocked += 1;
            state = self.room.wait(state, left);
            state.blocked -= 1;
        }
    }

    /// Returns the number of a ticket that has to be sent now, if calls wait and no ticket is under
    /// way.
    fn next_ticket(self: &Arc<Self>, state: &mut State) -> Option<u64> {
        let oldest = state.waiting.front()?;
        let is_busy = self.at_once.is_some_and(|limit| state.running >= limit);
        if state.has_ticket || is_busy {
            return None;
        }
        let due = oldest.since.checked_add(self.limits.wait);
        if let Some(due) = due.filter(|due| *due > now() && !is_full(&state.waiting, &self.limits)) {
            if !std::mem::replace(&mut state.has_wait_timer, true) && self.wait_until(due).is_err() {
                // Without a timer, the call does not wait for others.
                state.has_wait_timer = false;
            } else {
                return None;
            }
        }
        state.has_ticket = true;
        state.tickets += 1;
        if self.at_once.is_some() {
            state.running += 1;
        }
        Some(state.tickets)
    }

    /// Puts a ticket into the queue of the engine.
    fn send_ticket(self: &Arc<Self>, ticket: u64) -> Option<Box<dyn Receive>> {
        let is_counted = self.at_once.is_some();
        let reply = BatchReply::ticket(Arc::clone(self), ticket, is_counted);
        let mut call = self.call(self.template.handler.clone(), Outgoing::default(), Reply::Batch(Box::new(reply)));
        // An engine without a queue of its own gets the batch itself.
        if is_counted && !call.fill() {
            return None;
        }
        self.submit_admitted(call)
    }

    /// Submits a call that has been admitted to this queue before.
    pub(super) fn submit_admitted(&self, call: Call) -> Option<Box<dyn Receive>> {
        self.engine.submit(call, false).unwrap_or_else(|refused| {
            let (call, error) = *refused;
            call.answer(Err(error));
            None
        })
    }

    pub(super) fn call(&self, handler: FnToken, args: Outgoing, reply: Reply) -> Call {
        let Template { program, method, attempts, actor, pinned, .. } = &self.template;
        Call {
            program: Arc::clone(program),
            method,
            handler,
            args,
            reply,
            deadline: None,
            allowed: *attempts,
            attempts: 0,
            unheard: 0,
            actor: *actor,
            pinned: *pinned,
            is_admitted: true,
            state_of: None,
        }
    }

    /// Takes the calls of the next batch, for a ticket that has reached a worker. Sends another
    /// ticket if calls are left.
    pub(super) fn take(self: &Arc<Self>, taken_by: u64) -> Vec<Member> {
        let mut state = self.state.lock();
        state.has_ticket = false;
        let waiting = std::mem::take(&mut state.waiting);
        let (answered, waiting) = waiting.into_iter().partition::<VecDeque<_>, _>(|call| call.caller.is_answered());
        state.waiting = waiting;
        let members = choose(&mut state.waiting, &self.limits);
        // Under the lock, so that a thread that cancels a call finds it in one place or the other.
        match &members[..] {
            [member] => member.caller.sent_alone(taken_by),
            members => members.iter().for_each(|member| member.caller.entered_batch()),
        }
        let ticket = self.next_ticket(&mut state);
        let wakes_callers = state.blocked > 0;
        drop(state);
        drop(answered);
        if wakes_callers {
            self.room.notify_all();
        }
        if let Some(ticket) = ticket {
            // Drops the right to receive its result.
            drop(self.send_ticket(ticket));
        }
        if !members.is_empty() {
            self.report.lock().add(&members);
            let rows: usize = members.iter().map(|member| member.size.rows).sum();
            let row_cost = members.iter().map(|member| member.size.row_cost).max().unwrap_or_default();
            let Template { program, method, .. } = &self.template;
            program.tally.batch(method, members.len(), rows, rows.saturating_mul(row_cost));
        }
        members
    }

    /// Answers all calls that wait, because their ticket cannot run.
    pub(super) fn fail_waiting(&self, error: &CallError) {
        let waiting = {
            let mut state = self.state.lock();
            state.has_ticket = false;
            std::mem::take(&mut state.waiting)
        };
        self.room.notify_all();
        for member in waiting {
            member.caller.answer(Err(error.clone()));
        }
    }

    /// Handles the cancellation of a call: removes it if it waits, and tells the engine otherwise.
    pub(crate) fn cancel(&self, caller: &Waiter) {
        let mut state = self.state.lock();
        if caller.has_left_queue() {
            drop(state);
            return self.engine.cancel();
        }
        state.cancelled += 1;
        // A cancelled call that stays never runs either. So cancelling each of many calls does not
        // search the whole queue each time.
        if state.blocked == 0 && 2 * state.cancelled < state.waiting.len() {
            return;
        }
        state.cancelled = 0;
        let waiting = std::mem::take(&mut state.waiting);
        let (answered, waiting) = waiting.into_iter().partition::<VecDeque<_>, _>(|call| call.caller.is_answered());
        state.waiting = waiting;
        drop(state);
        drop(answered);
        self.room.notify_all();
    }

    /// Records that a batch has ended, on an engine without a queue of its own, and sends the next.
    pub(super) fn batch_ended(self: &Arc<Self>) {
        let ticket = {
            let mut state = self.state.lock();
            state.running -= 1;
            self.next_ticket(&mut state)
        };
        if let Some(ticket) = ticket {
            drop(self.send_ticket(ticket));
        }
    }

    /// Makes the timer end the wait of calls for others. It keeps the calls: their wrapper may be
    /// dropped meanwhile.
    fn wait_until(self: &Arc<Self>, due: Instant) -> Result<(), CallError> {
        let batcher = Arc::clone(self);
        self.timer()?.run_at(due, move || batcher.wait_is_over());
        Ok(())
    }

    /// Sends a ticket for calls that have waited long enough for others.
    fn wait_is_over(self: &Arc<Self>) {
        let ticket = {
            let mut state = self.state.lock();
            state.has_wait_timer = false;
            self.next_ticket(&mut state)
        };
        if let Some(ticket) = ticket {
            drop(self.send_ticket(ticket));
        }
    }

    /// Makes the timer answer the call when its deadline passes.
    fn watch_deadline(self: &Arc<Self>, state: &mut State, caller: &Arc<Waiter>) -> Result<(), CallError> {
        let Some((deadline, _)) = caller.deadline else { return Ok(()) };
        state.numbers += 1;
        state.deadlines.insert((deadline, state.numbers), Arc::downgrade(caller));
        if state.deadlines.len() > state.prune_at {
            state.deadlines.retain(|_, caller| caller.upgrade().is_some_and(|caller| !caller.is_answered()));
            state.prune_at = (2 * state.deadlines.len()).max(PRUNE_AT);
        }
        self.set_timer(state, deadline)
    }

    fn set_timer(self: &Arc<Self>, state: &mut State, deadline: Instant) -> Result<(), CallError> {
        if state.timer.is_some_and(|timer| timer <= deadline) {
            return Ok(());
        }
        let batcher = Arc::downgrade(self);
        self.timer()?.run_at(deadline, move || {
            if let Some(batcher) = batcher.upgrade() {
                batcher.expire(deadline);
            }
        });
        state.timer = Some(deadline);
        Ok(())
    }

    /// Answers the calls whose deadlines have passed, and sets the timer for the next deadline.
    fn expire(self: &Arc<Self>, timer: Instant) {
        let mut state = self.state.lock();
        if state.timer != Some(timer) {
            // It was set for an earlier deadline since.
            return;
        }
        let now = now();
        state.timer = None;
        let mut expired = Vec::new();
        while let Some(first) = state.deadlines.first_entry() {
            let caller = first.get().upgrade().filter(|caller| !caller.is_answered());
            match caller {
                Some(_) if first.key().0 > now => break,
                caller => expired.extend(caller),
            }
            first.remove();
        }
        let next = state.deadlines.first_key_value().map(|((deadline, _), _)| *deadline);
        // The timer runs already, so it can be set.
        let set = next.map_or(Ok(()), |deadline| self.set_timer(&mut state, deadline));
        drop(state);
        for caller in expired {
            caller.expire();
        }
        if let Err(error) = set {
            self.fail_waiting(&error);
        }
    }

    fn timer(&self) -> Result<Arc<TimerThread>, CallError> {
        timer::shared().map_err(|error| {
            let error = crate::os::limits::named("the timer thread could not be started", &error);
            StartError::call(self.template.method, error.to_string()).into()
        })
    }
}

impl std::fmt::Debug for Batcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").field("method", &self.template.method).finish_non_exhaustive()
    }
}
