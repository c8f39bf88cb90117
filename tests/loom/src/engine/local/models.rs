//! The models. In each, the threads of the engine and one or two callers run the code of the engine
//! itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loom::thread::{self, JoinHandle};

use super::dispatch::Dispatcher;
use super::supervisor::Supervisor;
use super::transport::{Connection, Delivery, Reaction};
use crate::engine::call::{Answer, Call, Receive, Sender};
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::pool_size::PoolSize;
use crate::engine::program::{Arena, Program};
use crate::engine::queue::deadlines::run_deadline_timer;
use crate::engine::settings::Settings;
use crate::error::call::CallError;
use crate::os::sync::{self, Mutex, now};

/// Almost all errors of this kind need two of them.
const PREEMPTIONS: usize = 2;
/// The deadline of a call. The clock of a model stands still until the deadline thread waits for
/// it.
const DEADLINE: Duration = Duration::from_secs(1);

/// How a caller waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// As `Pending::wait` does: reads the reply itself if it may.
    Waits,
    /// As `.await` does: reads the reply itself if it may, and the reply is there. Otherwise leaves it to
    /// the supervisor.
    Polls,
}

/// Runs every interleaving with at most [`PREEMPTIONS`] switches at which the thread could have
/// gone on, or as many as `LOOM_MAX_PREEMPTIONS` allows.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.max_branches = 20_000;
    let runs = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&runs);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        sync::reset();
        model();
    });
    println!("{} interleavings", runs.load(Ordering::Relaxed));
}

/// A pool whose processes follow the scripts, one after the other.
fn dispatcher(workers: impl Into<PoolSize>, scripts: &[&[Reaction]]) -> Arc<Dispatcher> {
    let processes = scripts.iter().rev().map(|script| Connection::new(script)).collect();
    let start_timeout = Duration::from_secs(60);
    let (workers, idle) = (workers.into(), Duration::from_secs(30));
    let settings =
        Settings { workers, idle, memory_reserve: 0, queue: 16, start_timeout, processes: Mutex::new(processes) };
    Arc::new(Dispatcher::new(settings, None))
}

/// Starts the supervisor of a worker.
fn supervise(dispatcher: &Arc<Dispatcher>, index: usize) -> JoinHandle<()> {
    let supervisor = Supervisor::new(index, Arc::clone(dispatcher));
    thread::spawn(move || supervisor.run())
}

/// Starts the deadline thread.
fn keep_deadlines(dispatcher: &Arc<Dispatcher>) -> JoinHandle<()> {
    let dispatcher = Arc::clone(dispatcher);
    thread::spawn(move || run_deadline_timer(&dispatcher.queue, |assignment| dispatcher.send(assignment)))
}

fn call(allowed: u32, deadline: Option<Duration>) -> (Call, Answer) {
    let (reply, answer) = Answer::channel();
    (call_with(reply, allowed, deadline), answer)
}

fn call_with(reply: Sender, allowed: u32, deadline: Option<Duration>) -> Call {
    let program =
        Arc::new(Program { key: 1, arena: Arena, loader: (), device: (), strict: (), memory: (), prewarm: () });
    Call {
        program,
        method: "method",
        handler: (),
        args: Outgoing::default(),
        reply,
        deadline: deadline.map(|after| (now() + after, after)),
        allowed,
        attempts: 0,
        unheard: 0,
        actor: false,
        pinned: None,
        is_admitted: false,
        state_of: None,
    }
}

/// Hands a call to the engine. Returns the right to read its reply if the caller has it.
fn submit(dispatcher: &Arc<Dispatcher>, call: Call) -> Option<Box<dyn Receive>> {
    dispatcher.submit(call, true).unwrap_or_else(|refused| {
        let (call, error) = *refused;
        call.answer(Err(error));
        None
    })
}

/// Makes a call, and waits for its answer.
fn run(dispatcher: &Arc<Dispatcher>, (call, answer): (Call, Answer), caller: Caller) -> Result<Incoming, CallError> {
    let mut receiver = submit(dispatcher, call);
    if caller == Caller::Waits {
        // As long as it gets items.
        while let Some(receives) = receiver.take() {
            receiver = receives.receive(&|| false);
        }
    } else if let Some(receives) = receiver.take() {
        receives.receive_soon(&|| false);
    }
    drop(receiver);
    answer.wait()
}

/// Makes the first call of a pool, for which a worker loads the program. A caller may read only the
/// replies after that.
fn warm_up(dispatcher: &Arc<Dispatcher>) {
    assert_eq!(run(dispatcher, call(1, None), Caller::Waits), Ok(Incoming));
}

/// Two callers share the workers, with `allowed` attempts each. Either may find that the other's
/// reply is unread.
fn two_callers(allowed: u32, workers: usize, first: Caller, second: Caller, scripts: &'static [&'static [Reaction]]) {
    check(move || {
        let dispatcher = dispatcher(workers, scripts);
        let supervisors: Vec<_> = (0..workers).map(|index| supervise(&dispatcher, index)).collect();
        if workers == 1 {
            warm_up(&dispatcher);
        }
        let other = Arc::clone(&dispatcher);
        let other = thread::spawn(move || run(&other, call(allowed, None), second));
        assert_eq!(run(&dispatcher, call(allowed, None), first), Ok(Incoming));
        assert_eq!(other.join().unwrap(), Ok(Incoming));
        dispatcher.drain();
        supervisors.into_iter().for_each(|supervisor| supervisor.join().unwrap());
    });
}

#[test]
fn two_callers_wait() {
    two_callers(2, 1, Caller::Waits, Caller::Waits, &[&[]]);
}

#[test]
fn one_caller_waits_and_one_polls() {
    two_callers(2, 1, Caller::Waits, Caller::Polls, &[&[]]);
}

#[test]
fn two_callers_have_two_workers() {
    two_callers(2, 2, Caller::Waits, Caller::Waits, &[&[], &[]]);
}

#[test]
fn call_is_repeated_when_its_worker_dies() {
    two_callers(2, 1, Caller::Waits, Caller::Waits, &[&[Reaction::Reply, Reaction::Die(Delivery::Received)], &[]]);
}

/// That costs no attempt, whether the caller or the supervisor reads the end of the stream.
#[test]
fn call_that_was_not_delivered_is_sent_again() {
    two_callers(1, 1, Caller::Waits, Caller::Waits, &[&[Reaction::Reply, Reaction::Die(Delivery::NotReceived)], &[]]);
}

#[test]
fn worker_death_after_a_reply_loses_no_call() {
    two_callers(2, 1, Caller::Waits, Caller::Waits, &[&[Reaction::Reply, Reaction::ReplyAndDie], &[]]);
}

/// A caller keeps the right to a reply and does not use it. Another caller needs the same worker.
#[test]
fn unread_reply_does_not_delay_another_call() {
    check(|| {
        let dispatcher = dispatcher(1, &[&[]]);
        let supervisor = supervise(&dispatcher, 0);
        warm_up(&dispatcher);
        let other = Arc::clone(&dispatcher);
        let other = thread::spawn(move || run(&other, call(1, None), Caller::Waits));
        let (call, answer) = call(1, None);
        let receiver = submit(&dispatcher, call);
        assert_eq!(other.join().unwrap(), Ok(Incoming));
        drop(receiver);
        assert_eq!(answer.wait(), Ok(Incoming));
        dispatcher.drain();
        supervisor.join().unwrap();
    });
}

/// The same, and the pool shuts down.
#[test]
fn unread_reply_does_not_delay_the_end() {
    check(|| {
        let dispatcher = dispatcher(1, &[&[]]);
        let supervisor = supervise(&dispatcher, 0);
        warm_up(&dispatcher);
        let (call, answer) = call(1, None);
        let receiver = submit(&dispatcher, call);
        dispatcher.drain();
        supervisor.join().unwrap();
        drop(receiver);
        assert_eq!(answer.wait(), Ok(Incoming));
    });
}

/// A program is freed in every worker, whether its reply is unread or its caller reads.
#[test]
fn program_is_forgotten_between_calls() {
    check(|| {
        let dispatcher = dispatcher(1, &[&[]]);
        let supervisor = supervise(&dispatcher, 0);
        warm_up(&dispatcher);
        let other = Arc::clone(&dispatcher);
        let other = thread::spawn(move || {
            other.queue.lock().forget(1);
            other.assign_all();
        });
        assert_eq!(run(&dispatcher, call(1, None), Caller::Waits), Ok(Incoming));
        other.join().unwrap();
        dispatcher.drain();
        supervisor.join().unwrap();
    });
}

/// The caller waits for the reply of a call that hangs, until the deadline thread cuts the worker
/// off.
#[test]
fn call_that_hangs_is_cut_off_at_its_deadline() {
    check(|| {
        let dispatcher = dispatcher(1, &[&[Reaction::Reply, Reaction::Hang], &[]]);
        let (supervisor, timer) = (supervise(&dispatcher, 0), keep_deadlines(&dispatcher));
        warm_up(&dispatcher);
        let result = run(&dispatcher, call(2, Some(DEADLINE)), Caller::Waits);
        assert!(matches!(result, Err(CallError::Deadline { .. })), "{result:?}");
        dispatcher.drain();
        supervisor.join().unwrap();
        timer.join().unwrap();
    });
}

/// The reply and the deadline race. Whichever is first, the call is answered once, and the worker
/// or a new one takes the next call.
#[test]
fn reply_may_race_with_the_deadline() {
    check(|| {
        let dispatcher = dispatcher(1, &[&[], &[]]);
        let (supervisor, timer) = (supervise(&dispatcher, 0), keep_deadlines(&dispatcher));
        warm_up(&dispatcher);
        let result = run(&dispatcher, call(2, Some(DEADLINE)), Caller::Waits);
        assert!(matches!(result, Ok(_) | Err(CallError::Deadline { .. })), "{result:?}");
        assert_eq!(run(&dispatcher, call(1, None), Caller::Waits), Ok(Incoming));
        dispatcher.drain();
        supervisor.join().unwrap();
        timer.join().unwrap();
    });
}

/// A pool is aborted while its caller waits for a reply that does not come.
#[test]
fn abort_ends_a_call_that_hangs() {
    check(|| {
        let dispatcher = dispatcher(1, &[&[Reaction::Reply, Reaction::Hang], &[]]);
        let supervisor = supervise(&dispatcher, 0);
        warm_up(&dispatcher);
        let other = Arc::clone(&dispatcher);
        let other = thread::spawn(move || other.abort());
        let result = run(&dispatcher, call(2, None), Caller::Waits);
        let is_expected = matches!(result, Err(CallError::WorkerDied { .. } | CallError::ShutDown { .. }));
        assert!(is_expected, "{result:?}");
        other.join().unwrap();
        supervisor.join().unwrap();
    });
}

/// No process can be started: each queued call fails after its attempts, and none waits without
/// end.
#[test]
fn call_fails_without_processes() {
    check(|| {
        let dispatcher = dispatcher(1, &[]);
        let supervisor = supervise(&dispatcher, 0);
        let result = run(&dispatcher, call(2, None), Caller::Waits);
        assert!(matches!(result, Err(CallError::Start { .. })), "{result:?}");
        dispatcher.drain();
        supervisor.join().unwrap();
    });
}

/// A call is cancelled while it is queued, sent or running. The worker replies only when it is told,
/// so the pool would not end if the cancellation were lost.
#[test]
fn cancellation_reaches_the_call_wherever_it_is() {
    check(|| {
        let dispatcher = dispatcher(1, &[&[Reaction::Reply, Reaction::ReplyWhenCancelled]]);
        let supervisor = supervise(&dispatcher, 0);
        warm_up(&dispatcher);
        let (reply, answer, canceller) = Answer::cancellable();
        let other = Arc::clone(&dispatcher);
        let other = thread::spawn(move || {
            canceller.cancel();
            other.cancel();
        });
        // The caller leaves the reply to the supervisor, as `Pending::cancel` does.
        drop(submit(&dispatcher, call_with(reply, 2, None)));
        assert!(matches!(answer.wait(), Err(CallError::Cancelled { .. })));
        other.join().unwrap();
        dispatcher.drain();
        supervisor.join().unwrap();
    });
}

/// The caller reads the items itself, or the supervisor does. The reply comes last.
#[test]
fn items_arrive_before_the_reply() {
    for caller in [Caller::Waits, Caller::Polls] {
        check(move || {
            let dispatcher = dispatcher(1, &[&[Reaction::Reply, Reaction::ItemsThenReply]]);
            let supervisor = supervise(&dispatcher, 0);
            warm_up(&dispatcher);
            let (reply, answer, items) = Answer::stream();
            assert_eq!(run(&dispatcher, (call_with(reply, 2, None), answer), caller), Ok(Incoming));
            assert_eq!(items.count(), 2);
            dispatcher.drain();
            supervisor.join().unwrap();
        });
    }
}

/// Another call needs the worker while the caller reads items: the supervisor reads the rest.
#[test]
fn reader_of_items_does_not_delay_another_call() {
    check(|| {
        let dispatcher = dispatcher(1, &[&[Reaction::Reply, Reaction::ItemsThenReply]]);
        let supervisor = supervise(&dispatcher, 0);
        warm_up(&dispatcher);
        let (reply, answer, items) = Answer::stream();
        let receiver = submit(&dispatcher, call_with(reply, 2, None)).expect("the worker is idle");
        let other = Arc::clone(&dispatcher);
        let other = thread::spawn(move || run(&other, call(1, None), Caller::Polls));
        // The caller reads one item, and no more until the other call has its answer.
        let receiver = receiver.receive(&|| false);
        assert_eq!(other.join().unwrap(), Ok(Incoming));
        assert_eq!(answer.wait(), Ok(Incoming));
        assert_eq!(items.count(), 2);
        drop(receiver);
        dispatcher.drain();
        supervisor.join().unwrap();
    });
}

/// A worker dies after the first item. The call is not repeated, even if a packet was not received:
/// that was not the call.
#[test]
fn stream_that_has_begun_is_not_repeated() {
    for delivery in [Delivery::Received, Delivery::NotReceived] {
        check(move || {
            let dispatcher = dispatcher(1, &[&[Reaction::Reply, Reaction::ItemThenDie(delivery)], &[]]);
            let supervisor = supervise(&dispatcher, 0);
            warm_up(&dispatcher);
            let (reply, answer, items) = Answer::stream();
            let result = run(&dispatcher, (call_with(reply, 2, None), answer), Caller::Waits);
            assert!(matches!(result, Err(CallError::WorkerDied { .. })), "{result:?}");
            assert_eq!(items.count(), 1);
            dispatcher.drain();
            supervisor.join().unwrap();
        });
    }
}

/// The only worker has been idle, and is told to end, while a call arrives. The call is run by the
/// process or by the next one, at its only attempt.
#[test]
fn call_meets_a_worker_that_ends_idle() {
    check(|| {
        let dispatcher = dispatcher(0..=1, &[&[], &[], &[]]);
        let (supervisor, timer) = (supervise(&dispatcher, 0), keep_deadlines(&dispatcher));
        warm_up(&dispatcher);
        assert_eq!(run(&dispatcher, call(1, None), Caller::Waits), Ok(Incoming));
        dispatcher.drain();
        supervisor.join().unwrap();
        timer.join().unwrap();
    });
}

/// Makes three calls on one worker that has loaded the program. The last two wait, and are sent together.
/// Returns the results of all. Each call has one attempt, except the last one.
fn bundle(
    script: &'static [&'static [Reaction]],
    meanwhile: fn(&Arc<Dispatcher>),
    check_results: fn([Result<Incoming, CallError>; 3]),
) {
    check(move || {
        let dispatcher = dispatcher(1, script);
        let supervisor = supervise(&dispatcher, 0);
        warm_up(&dispatcher);
        let other = Arc::clone(&dispatcher);
        let other = thread::spawn(move || meanwhile(&other));
        let answers = [1, 1, 2].map(|allowed| {
            let (call, answer) = call(allowed, None);
            drop(submit(&dispatcher, call));
            answer
        });
        check_results(answers.map(Answer::wait));
        other.join().unwrap();
        dispatcher.drain();
        supervisor.join().unwrap();
    });
}

fn all_succeed(results: [Result<Incoming, CallError>; 3]) {
    assert_eq!(results, [const { Ok(Incoming) }; 3]);
}

#[test]
fn calls_that_wait_are_sent_together() {
    bundle(&[&[]], |_| (), all_succeed);
}

/// What the worker has finished is answered, and the call that it ran is repeated.
#[test]
fn worker_dies_in_a_bundle() {
    bundle(
        &[&[Reaction::Reply, Reaction::Reply, Reaction::Reply, Reaction::Die(Delivery::Received)], &[]],
        |_| (),
        all_succeed,
    );
}

/// No attempt is counted.
#[test]
fn bundle_that_was_not_delivered_is_sent_again() {
    bundle(&[&[Reaction::Reply, Reaction::Reply, Reaction::Die(Delivery::NotReceived)], &[]], |_| (), all_succeed);
}

#[test]
fn abort_ends_a_bundle_that_hangs() {
    bundle(
        &[&[Reaction::Reply, Reaction::Reply, Reaction::Hang], &[]],
        |dispatcher| dispatcher.abort(),
        |results| {
            let is_ended = |result: &_| {
                matches!(result, Ok(Incoming) | Err(CallError::WorkerDied { .. } | CallError::ShutDown { .. }))
            };
            assert!(results.iter().all(is_ended), "{results:?}");
        },
    );
}

/// One of the calls that wait is cancelled. The others are answered.
#[test]
fn call_of_a_bundle_is_cancelled() {
    check(|| {
        let dispatcher = dispatcher(1, &[&[]]);
        let supervisor = supervise(&dispatcher, 0);
        warm_up(&dispatcher);
        let (reply, cancelled, canceller) = Answer::cancellable();
        let calls = [call(1, None), (call_with(reply, 1, None), cancelled), call(1, None)];
        let answers = calls.map(|(call, answer)| {
            drop(submit(&dispatcher, call));
            answer
        });
        canceller.cancel();
        dispatcher.cancel();
        let [first, cancelled, last] = answers.map(Answer::wait);
        assert_eq!((first, last), (Ok(Incoming), Ok(Incoming)));
        assert!(matches!(cancelled, Ok(Incoming) | Err(CallError::Cancelled { .. })));
        dispatcher.drain();
        supervisor.join().unwrap();
    });
}
