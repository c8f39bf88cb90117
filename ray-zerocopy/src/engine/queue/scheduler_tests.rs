//! Tests of the scheduler without threads and processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Job, QueuedCall};
use super::scheduler::{Admission, Assignment, Scheduler, Startup};
use super::test_call::{TestCall, TestConn};
use super::worker_slot::ReadyWhen;
use crate::engine::pool_size::PoolSize;
use crate::engine::program::Attached;
use crate::error::call::{CallError, StartError};

type TestScheduler = Scheduler<TestCall, TestConn>;

/// Creates a scheduler whose workers are all idle, in the order of their indices.
fn idle(workers: usize) -> (TestScheduler, Vec<Arc<TestConn>>) {
    let mut scheduler = Scheduler::new(PoolSize::fixed(workers), Duration::ZERO, ReadyWhen::ProcessStarted);
    let conns: Vec<_> = (0..workers).map(|index| start(&mut scheduler, index)).collect();
    for conn in &conns {
        assert!(scheduler.next_job(conn).is_none());
    }
    (scheduler, conns)
}

/// Starts a process for a worker.
fn start(scheduler: &mut TestScheduler, index: usize) -> Arc<TestConn> {
    let conn = Arc::new(TestConn(index));
    scheduler.process_started(index, Ok(Arc::clone(&conn)));
    conn
}

fn report() -> Attached {
    let (copied, memory) = Default::default();
    Attached { copied, device: None, took: Duration::ZERO, decoding: Duration::ZERO, memory, instructions: None }
}

fn failed_start() -> CallError {
    StartError::Worker { index: 0, reason: "no memory".to_owned() }.into()
}

/// Returns the worker of an assignment, and the id of the call if the job is one.
fn worker_and_call(assignment: Option<Assignment<TestCall, TestConn>>) -> Option<(usize, Option<u32>)> {
    assignment.map(|Assignment { conn, job, .. }| match job {
        Job::Call(call) => (conn.0, Some(call.id)),
        Job::Bundle(_) | Job::Load(_) | Job::Forget(_) | Job::ShutDown => (conn.0, None),
    })
}

fn submit(scheduler: &mut TestScheduler, call: TestCall) -> Option<(usize, Option<u32>)> {
    worker_and_call(scheduler.submit(call).assignment)
}

#[test]
fn calls_wait_in_order_for_a_free_worker() {
    let (mut scheduler, conns) = idle(1);
    assert_eq!(submit(&mut scheduler, TestCall::new(1)), Some((0, Some(1))));
    assert_eq!(submit(&mut scheduler, TestCall::new(2)), None);
    assert_eq!(submit(&mut scheduler, TestCall::new(3)), None);
    assert_eq!(scheduler.queued(), 2);
    assert_eq!(worker_and_call(scheduler.next_job(&conns[0])), Some((0, Some(2))));
    assert_eq!(worker_and_call(scheduler.next_job(&conns[0])), Some((0, Some(3))));
    assert_eq!(worker_and_call(scheduler.next_job(&conns[0])), None);
}

#[test]
fn last_idle_worker_gets_the_next_call() {
    let (mut scheduler, _conns) = idle(3);
    assert_eq!(submit(&mut scheduler, TestCall::new(1)), Some((2, Some(1))));
    assert_eq!(submit(&mut scheduler, TestCall::new(2)), Some((1, Some(2))));
}

#[test]
fn worker_with_the_program_is_preferred() {
    let (mut scheduler, _conns) = idle(3);
    scheduler.load_finished(0, 7, Ok(report()));
    assert_eq!(submit(&mut scheduler, TestCall::new(1).of_program(7)), Some((0, Some(1))));
    assert_eq!(submit(&mut scheduler, TestCall::new(2).of_program(7)), Some((2, Some(2))));
}

#[test]
fn pinned_call_waits_for_its_worker() {
    let (mut scheduler, conns) = idle(2);
    assert_eq!(submit(&mut scheduler, TestCall::new(1).pinned_to(0)), Some((0, Some(1))));
    assert_eq!(submit(&mut scheduler, TestCall::new(2).pinned_to(0)), None);
    // The other worker is idle, and free for other calls.
    assert_eq!(submit(&mut scheduler, TestCall::new(3)), Some((1, Some(3))));
    assert_eq!(worker_and_call(scheduler.next_job(&conns[0])), Some((0, Some(2))));
}

#[test]
fn full_queue_admits_only_assigned_calls() {
    let (mut scheduler, conns) = idle(1);
    assert_eq!(scheduler.admission(&TestCall::new(1), 0), Admission::Accepted);
    submit(&mut scheduler, TestCall::new(1));
    assert_eq!(scheduler.admission(&TestCall::new(2), 1), Admission::Accepted);
    submit(&mut scheduler, TestCall::new(2));
    assert_eq!(scheduler.admission(&TestCall::new(3), 1), Admission::QueueFull);
    scheduler.waiting_callers = 1;
    assert!(scheduler.next_job(&conns[0]).is_some_and(|assignment| assignment.wakes_callers));
    assert_eq!(scheduler.admission(&TestCall::new(3), 1), Admission::Accepted);
    scheduler.drain();
    assert_eq!(scheduler.admission(&TestCall::new(3), 1), Admission::ShutDown);
}

#[test]
fn reply_is_unread_until_the_worker_is_needed() {
    let (mut scheduler, conns) = idle(2);
    assert!(scheduler.submit(TestCall::new(1)).unread.is_none());
    // The second call returns the first one's unread reply, and leaves its own unread.
    assert_eq!(scheduler.submit(TestCall::new(2)).unread.as_deref(), Some(&TestConn(1)));
    // A worker that has replied has no unread reply.
    assert!(scheduler.next_job(&conns[0]).is_none());
    assert!(scheduler.take_unread().is_none());
    assert!(scheduler.submit(TestCall::new(3)).unread.is_none());
    assert_eq!(scheduler.requeue(TestCall::new(1)).ok().and_then(|next| next.unread).as_deref(), Some(&TestConn(0)));
}

#[test]
fn requeued_call_is_the_next() {
    let (mut scheduler, conns) = idle(1);
    submit(&mut scheduler, TestCall::new(1));
    submit(&mut scheduler, TestCall::new(2));
    assert!(scheduler.requeue(TestCall::new(1)).is_ok_and(|next| next.assignment.is_none()));
    assert_eq!(worker_and_call(scheduler.next_job(&conns[0])), Some((0, Some(1))));
}

#[test]
fn ended_process_gets_no_job() {
    let (mut scheduler, conns) = idle(1);
    submit(&mut scheduler, TestCall::new(1));
    let [conn, unread] = scheduler.process_ended(0);
    assert!(conn.is_some() && unread.is_some());
    submit(&mut scheduler, TestCall::new(2));
    assert!(scheduler.next_job(&conns[0]).is_none());
    let next = start(&mut scheduler, 0);
    assert!(scheduler.next_job(&conns[0]).is_none());
    assert_eq!(worker_and_call(scheduler.next_job(&next)), Some((0, Some(2))));
}

#[test]
fn forgotten_program_is_freed_by_its_workers() {
    let (mut scheduler, _conns) = idle(2);
    scheduler.load_finished(1, 7, Ok(report()));
    assert_eq!(scheduler.reports(7).count(), 1);
    scheduler.forget(7);
    let freed = scheduler.assign();
    assert!(freed.is_some_and(|freed| freed.conn.0 == 1 && matches!(freed.job, Job::Forget(7))));
    assert!(scheduler.assign().is_none());
    assert_eq!(scheduler.reports(7).count(), 0);
}

#[test]
fn draining_runs_the_queue_and_then_shuts_down() {
    let (mut scheduler, conns) = idle(1);
    submit(&mut scheduler, TestCall::new(1));
    submit(&mut scheduler, TestCall::new(2));
    scheduler.drain();
    assert!(!scheduler.retire(0));
    assert_eq!(worker_and_call(scheduler.next_job(&conns[0])), Some((0, Some(2))));
    assert!(scheduler.next_job(&conns[0]).is_some_and(|next| matches!(next.job, Job::ShutDown)));
    scheduler.process_ended(0);
    assert!(scheduler.retire(0));
    assert!(!scheduler.retire(0), "a supervisor exits once");
    assert!(scheduler.is_over());
    assert!(scheduler.requeue(TestCall::new(2)).is_err());
}

#[test]
fn abort_returns_every_queued_call() {
    let (mut scheduler, _conns) = idle(1);
    for call in [TestCall::new(1), TestCall::new(2), TestCall::new(3).pinned_to(0)] {
        submit(&mut scheduler, call);
    }
    let (calls, conns) = scheduler.abort();
    assert_eq!(calls.iter().map(|call| call.id).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(conns.len(), 1);
    // A later shutdown has no effect.
    scheduler.drain();
    assert!(scheduler.is_aborting());
    assert!(scheduler.requeue(TestCall::new(1)).is_err());
}

#[test]
fn missing_supervisors_run_nothing() {
    let mut scheduler = TestScheduler::new(PoolSize::fixed(2), Duration::ZERO, ReadyWhen::ProcessStarted);
    scheduler.supervisors_missing(1);
    assert!(!scheduler.is_open() && !scheduler.is_over());
    assert!(scheduler.requeue(TestCall::new(1).pinned_to(1)).is_err());
    assert!(scheduler.requeue(TestCall::new(2)).is_ok());
}

#[test]
fn failed_start_charges_one_call_in_a_round() {
    let round = Duration::from_millis(300);
    let now = Instant::now();
    let mut scheduler = TestScheduler::new(PoolSize::fixed(2), Duration::ZERO, ReadyWhen::ProcessStarted);
    submit(&mut scheduler, TestCall::new(1));
    submit(&mut scheduler, TestCall::new(2));
    submit(&mut scheduler, TestCall::new(3).pinned_to(1));
    let charged = scheduler.charge_failed_start(0, now, round);
    assert!(charged.is_some_and(|call| call.id == 1 && call.made == 1));
    // The other worker of the pool fails in the same round. A call that is pinned to it is still
    // charged.
    assert!(scheduler.charge_failed_start(0, now, round).is_none());
    assert!(scheduler.charge_failed_start(1, now, round).is_some_and(|call| call.id == 3));
    assert!(scheduler.charge_failed_start(1, now, round).is_none());
    // A worker with a process can run the call.
    start(&mut scheduler, 1);
    assert!(scheduler.charge_failed_start(0, now + round, round).is_none());
    scheduler.process_ended(1);
    assert!(scheduler.charge_failed_start(0, now + round, round).is_some_and(|call| call.id == 2));
}

#[test]
fn first_start_decides_if_the_pool_has_started() {
    let mut scheduler = TestScheduler::new(PoolSize::fixed(2), Duration::ZERO, ReadyWhen::ProcessStarted);
    assert!(matches!(scheduler.startup(), Startup::Pending(0, None)));
    start(&mut scheduler, 0);
    assert!(matches!(scheduler.startup(), Startup::Pending(1, None)));
    start(&mut scheduler, 1);
    assert!(matches!(scheduler.startup(), Startup::Ready));
    scheduler.process_ended(0);
    scheduler.process_started(0, Err(failed_start()));
    assert!(matches!(scheduler.startup(), Startup::Ready), "a failure of a later start is not one of the pool");

    let mut scheduler = TestScheduler::new(PoolSize::fixed(1), Duration::ZERO, ReadyWhen::ProgramLoaded);
    start(&mut scheduler, 0);
    assert!(matches!(scheduler.startup(), Startup::Pending(0, Some(_))));
    assert!(scheduler.load_finished(0, 1, Ok(report())));
    assert!(!scheduler.load_finished(0, 2, Err(failed_start())));
    assert!(matches!(scheduler.startup(), Startup::Ready));

    let mut scheduler = TestScheduler::new(PoolSize::fixed(1), Duration::ZERO, ReadyWhen::ProgramLoaded);
    scheduler.process_started(0, Err(failed_start()));
    assert!(matches!(scheduler.startup(), Startup::Failed(CallError::Start(_))));
}

#[test]
fn each_passed_deadline_is_found_once() {
    let now = Instant::now();
    let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
    let (mut scheduler, conns) = idle(1);
    submit(&mut scheduler, TestCall::new(1).until(later));
    submit(&mut scheduler, TestCall::new(2).until(soon));
    submit(&mut scheduler, TestCall::new(3));
    assert_eq!(scheduler.next_deadline(), Some(soon));
    assert!(scheduler.is_before_timer(soon));
    scheduler.timer_wakes_at = Some(soon);
    assert!(!scheduler.is_before_timer(soon));
    assert!(scheduler.take_expired(now).is_empty() && scheduler.take_overdue(now).is_empty());
    assert_eq!(scheduler.take_expired(soon).iter().map(|call| call.id).collect::<Vec<_>>(), [2]);
    assert_eq!(scheduler.next_deadline(), Some(later));
    assert_eq!(scheduler.take_overdue(later), [Arc::clone(&conns[0])]);
    assert!(scheduler.take_overdue(later).is_empty());
    assert_eq!(scheduler.next_deadline(), None);
    assert_eq!(scheduler.queued(), 1);
}

#[test]
fn undelivered_calls_are_free_up_to_a_limit() {
    let mut call = TestCall::new(1);
    for _ in 0..3 {
        call.made += 1;
        assert!(call.attempts().count_undelivered(3));
        assert_eq!(call.made, 0);
    }
    // One more costs the attempt, and resets the count.
    call.made += 1;
    assert!(call.attempts().count_undelivered(3));
    assert_eq!((call.made, call.undelivered), (1, 0));
    call.made = TestCall::ALLOWED;
    assert!(!call.attempts().count_undelivered(0));
}
