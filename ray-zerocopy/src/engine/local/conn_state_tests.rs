//! Tests of the state of a connection without threads and sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::conn_state::{ConnState, Effect, ReplyTo};
use super::transport::Delivery;
use crate::engine::queue::job::{InFlight, Job};
use crate::engine::queue::test_call::TestCall;

type TestState = ConnState<TestCall>;

const NOTHING_ARRIVED: fn() -> bool = || false;

fn call(id: u32) -> InFlight<TestCall> {
    InFlight::Call(TestCall::new(id))
}

/// Starts a job whose reply the caller may read.
fn start_inline(state: &mut TestState, job: InFlight<TestCall>) -> (ReplyTo, Effect) {
    state.start(job, true, Instant::now(), NOTHING_ARRIVED)
}

fn call_of(job: Option<InFlight<TestCall>>) -> Option<u32> {
    job.and_then(|job| job.call().map(|call| call.id))
}

#[test]
fn caller_reads_the_reply_of_its_own_job() {
    let mut state = TestState::new();
    assert_eq!(start_inline(&mut state, call(1)), (ReplyTo::Unread(1), Effect::None));
    assert!(!state.is_supervisors_turn());
    assert!(!state.read_by_caller(2), "another job");
    assert!(state.read_by_caller(1));
    assert!(!state.read_by_caller(1), "the caller is already the reader");
    assert_eq!(state.hand_to_supervisor(), Effect::None, "the caller is not interrupted");
    assert_eq!(call_of(state.take()), Some(1));
    assert!(!state.read_by_caller(1), "the reply has been read");
    // The caller drops its right when the worker may already have its next job.
    assert_eq!(start_inline(&mut state, call(2)), (ReplyTo::Unread(2), Effect::None));
    assert_eq!(state.leave_to_supervisor(1, None), Effect::None);
    assert!(!state.is_supervisors_turn());
}

#[test]
fn unread_reply_goes_to_the_supervisor() {
    let give_up: [fn(&mut TestState) -> Effect; 2] =
        [TestState::hand_to_supervisor, |state| state.leave_to_supervisor(1, None)];
    for give_up in give_up {
        let mut state = TestState::new();
        let _ = start_inline(&mut state, call(1));
        assert_eq!(give_up(&mut state), Effect::WakeSupervisor);
        assert_eq!(give_up(&mut state), Effect::None, "the supervisor is awake");
        assert!(state.is_supervisors_turn());
        assert!(!state.read_by_caller(1));
    }
    let mut state = TestState::new();
    let _ = start_inline(&mut state, call(1));
    state.heartbeat();
    assert!(state.is_supervisors_turn());
}

#[test]
fn caller_of_a_stream_reads_item_by_item() {
    let mut state = TestState::new();
    let _ = start_inline(&mut state, call(1));
    for _ in 0..2 {
        assert!(state.read_by_caller(1));
        assert_eq!(state.pause(1), Effect::None);
    }
    state.heartbeat();
    assert!(!state.is_supervisors_turn(), "it has read items since the last heartbeat");
    state.heartbeat();
    assert!(state.is_supervisors_turn() && !state.read_by_caller(1));
}

#[test]
fn caller_of_a_stream_stops_when_the_worker_is_needed() {
    let mut state = TestState::new();
    let _ = start_inline(&mut state, call(1));
    assert!(state.read_by_caller(1));
    assert_eq!(state.hand_to_supervisor(), Effect::None);
    assert_eq!(state.pause(1), Effect::WakeSupervisor);
    assert!(state.is_supervisors_turn());

    let mut state = TestState::new();
    let _ = start_inline(&mut state, call(1));
    assert!(state.read_by_caller(1));
    assert_eq!(state.hang_up(), Effect::HangUp);
    assert!(!state.is_supervisors_turn(), "one thread at a time reads");
    assert_eq!(state.pause(1), Effect::WakeSupervisor);
    assert!(state.is_supervisors_turn());
}

#[test]
fn supervisor_reads_replies_to_other_jobs() {
    let program = Arc::new(1);
    let jobs = [
        InFlight::Load(Arc::clone(&program), Some(TestCall::new(1))),
        InFlight::Load(program, None),
        InFlight::Forget(1),
        InFlight::ShutDown,
    ];
    for job in jobs {
        let mut state = TestState::new();
        assert_eq!(start_inline(&mut state, job), (ReplyTo::Supervisor, Effect::WakeSupervisor));
    }
    let mut state = TestState::new();
    let started = state.start(call(1), false, Instant::now(), NOTHING_ARRIVED);
    assert_eq!(started, (ReplyTo::Supervisor, Effect::WakeSupervisor));
}

#[test]
fn early_hand_over_counts_for_one_job() {
    let mut state = TestState::new();
    assert_eq!(state.hand_to_supervisor(), Effect::None);
    assert!(!state.is_supervisors_turn(), "no job is in flight");
    assert_eq!(start_inline(&mut state, call(1)), (ReplyTo::Supervisor, Effect::WakeSupervisor));
    assert_eq!(call_of(state.take()), Some(1));
    assert_eq!(start_inline(&mut state, call(2)), (ReplyTo::Unread(2), Effect::None));
}

#[test]
fn eof_read_by_caller_reaches_the_supervisor() {
    let mut state = TestState::new();
    let _ = start_inline(&mut state, call(1));
    assert!(state.read_by_caller(1));
    assert!(!state.process_has_ended(), "the caller is reading");
    assert_eq!(state.leave_to_supervisor(1, Some(Delivery::NotReceived)), Effect::WakeSupervisor);
    // The caller's right is dropped last, which has no effect.
    assert_eq!(state.leave_to_supervisor(1, None), Effect::None);
    assert!(state.is_supervisors_turn() && state.process_has_ended());
    assert_eq!(state.eof(), Some(Delivery::NotReceived));
    assert_eq!(call_of(state.close().in_flight), Some(1));
}

#[test]
fn supervisor_reads_after_the_process_ended() {
    let mut state = TestState::new();
    assert!(state.process_has_ended());
    assert!(state.is_supervisors_turn());
    assert_eq!(start_inline(&mut state, call(1)), (ReplyTo::Supervisor, Effect::None));
    assert!(!state.read_by_caller(1));
}

#[test]
fn each_job_has_one_owner() {
    let mut state = TestState::new();
    let _ = start_inline(&mut state, call(1));
    assert_eq!(call_of(state.close().in_flight), Some(1));
    assert!(state.is_closed());
    assert!(state.take().is_none() && state.close().in_flight.is_none());
    assert_eq!(state.leave_to_supervisor(1, Some(Delivery::Received)), Effect::None);
    assert!(state.is_closed());
}

#[test]
fn job_is_restored_after_a_reply_to_another_one() {
    let mut state = TestState::new();
    let _ = start_inline(&mut state, call(1));
    let job = state.take();
    assert!(state.has_replied());
    assert_eq!(state.restore(job.unwrap(), Instant::now()), Effect::WakeSupervisor);
    assert!(state.is_supervisors_turn());
    assert_eq!(call_of(state.close().in_flight), Some(1));
}

#[test]
fn passed_deadline_hangs_up_on_a_running_call() {
    let now = Instant::now();
    let deadline = now + Duration::from_secs(1);
    let late = || InFlight::Call(TestCall::new(1).until(deadline));
    let mut state = TestState::new();
    let _ = state.start(late(), true, now, NOTHING_ARRIVED);
    assert_eq!(state.expire(now, NOTHING_ARRIVED), Effect::None);
    assert_eq!(state.expire(deadline, NOTHING_ARRIVED), Effect::HangUp);
    assert!(state.is_supervisors_turn());
    assert!(state.close().is_expired);

    // A reply that has arrived in time is kept if no thread has read it.
    let mut state = TestState::new();
    let _ = state.start(late(), true, now, NOTHING_ARRIVED);
    assert_eq!(state.expire(deadline, || true), Effect::WakeSupervisor);
    assert!(!state.is_expired());

    // A deadline may pass before the call is recorded.
    let mut state = TestState::new();
    assert_eq!(state.start(late(), true, deadline, NOTHING_ARRIVED).1, Effect::HangUp);
    let _ = state.hang_up();
    assert!(state.is_expired(), "the first reason is kept");
}

#[test]
fn idle_worker_has_no_deadline() {
    let mut state = TestState::new();
    assert_eq!(state.expire(Instant::now(), || true), Effect::None);
    assert_eq!(state.hang_up(), Effect::HangUp);
    assert!(state.is_supervisors_turn() && !state.is_expired());
}

#[test]
fn durations_belong_to_the_job_in_flight() {
    let now = Instant::now();
    let later = now + Duration::from_secs(3);
    let mut state = TestState::new();
    let _ = state.start(InFlight::Load(Arc::new(1), None), false, now, NOTHING_ARRIVED);
    assert_eq!(state.loading_for(later), Some(Duration::from_secs(3)));
    assert_eq!(state.shutting_down_for(later), None);
    drop(state.take());
    assert_eq!(state.loading_for(later), None);
    let _ = state.start(InFlight::ShutDown, false, now, NOTHING_ARRIVED);
    assert_eq!(state.shutting_down_for(later), Some(Duration::from_secs(3)));
}

#[test]
fn first_panic_is_kept_until_a_reply() {
    let mut state = TestState::new();
    state.note_panic("index out of bounds".to_owned());
    state.note_panic("panic in a function that cannot unwind".to_owned());
    assert_eq!(state.take_panic().as_deref(), Some("index out of bounds"));
    state.note_panic("caught".to_owned());
    drop(state.take());
    assert_eq!(state.take_panic(), None);
}

#[test]
fn call_is_sent_after_its_program() {
    let mut state = TestState::new();
    let job = Job::Call(TestCall::new(1).of_program(7)).into_in_flight(|key| state.has_loaded(key));
    assert!(matches!(job, InFlight::Load(_, Some(_))));
    state.program_loaded(7);
    let Job::Call(call) = Job::from(job) else { panic!("the call was not returned") };
    assert!(matches!(Job::Call(call).into_in_flight(|key| state.has_loaded(key)), InFlight::Call(_)));
    state.program_forgotten(7);
    assert!(!state.has_loaded_any());
}
