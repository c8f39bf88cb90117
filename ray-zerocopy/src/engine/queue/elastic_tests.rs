//! Tests of growing and shrinking without threads and processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::elastic::{GROWTH_PAUSE, Wanted};
use super::job::Job;
use super::restart::Restart;
use super::scheduler::{Scheduler, Startup};
use super::test_call::{TestCall, TestConn};
use super::worker_slot::ReadyWhen;
use crate::engine::pool_size::PoolSize;
use crate::error::call::{CallError, StartError};

type TestScheduler = Scheduler<TestCall, TestConn>;

const IDLE: Duration = Duration::from_secs(30);
const ADDITIONAL: Wanted = Wanted::Start { is_additional: true };

fn scheduler(min: usize, max: usize) -> TestScheduler {
    Scheduler::new(PoolSize { min, max }, IDLE, ReadyWhen::ProcessStarted)
}

fn start(scheduler: &mut TestScheduler, index: usize) -> Arc<TestConn> {
    let conn = Arc::new(TestConn(index));
    scheduler.process_started(index, Ok(Arc::clone(&conn)));
    conn
}

/// The call that a worker gets next.
fn next_call(scheduler: &mut TestScheduler, conn: &Arc<TestConn>) -> Option<u32> {
    scheduler.next_job(conn).map(|assignment| match assignment.job {
        Job::Call(call) => call.id,
        Job::Bundle(_) | Job::Load(_) | Job::Forget(_) | Job::ShutDown => panic!("not one call"),
    })
}

/// Submits a call that has to wait. Returns `true` if supervisors are woken.
fn wait_in_queue(scheduler: &mut TestScheduler, id: u32) -> bool {
    let next = scheduler.submit(TestCall::new(id));
    assert!(next.assignment.is_none());
    next.wakes_supervisors
}

/// A pool with running workers, as after a burst of calls. All of them are idle.
fn grown(min: usize, max: usize, workers: usize) -> (TestScheduler, Vec<Arc<TestConn>>) {
    let mut scheduler = scheduler(min, max);
    for id in 0..workers as u32 {
        wait_in_queue(&mut scheduler, id);
    }
    let conns: Vec<_> = (0..workers).map(|index| start(&mut scheduler, index)).collect();
    for conn in &conns {
        assert!(next_call(&mut scheduler, conn).is_some());
    }
    for conn in &conns {
        assert!(scheduler.next_job(conn).is_none());
    }
    (scheduler, conns)
}

#[test]
fn only_the_least_number_starts_at_first() {
    let mut elastic = scheduler(1, 3);
    assert_eq!(elastic.wanted(0), Wanted::Start { is_additional: false });
    assert_eq!((elastic.wanted(1), elastic.wanted(2)), (Wanted::Rest, Wanted::Rest));
    assert!(matches!(elastic.startup(), Startup::Pending(0, None)));
    start(&mut elastic, 0);
    assert!(matches!(elastic.startup(), Startup::Ready));
    let mut none = scheduler(0, 1);
    assert_eq!(none.wanted(0), Wanted::Rest);
    assert!(matches!(none.startup(), Startup::Ready));
}

#[test]
fn waiting_calls_wake_as_many_workers() {
    let (mut scheduler, conns) = grown(1, 4, 1);
    assert_eq!(scheduler.submit(TestCall::new(1)).assignment.map(|next| next.conn.0), Some(0));
    assert!(wait_in_queue(&mut scheduler, 2));
    assert_eq!(scheduler.starting(), 1);
    assert_eq!((scheduler.wanted(1), scheduler.wanted(2)), (ADDITIONAL, Wanted::Rest));
    assert!(wait_in_queue(&mut scheduler, 3));
    assert_eq!(scheduler.starting(), 2);
    // A worker that starts takes a call, and the pool does not grow for that any more.
    let started = start(&mut scheduler, 1);
    assert_eq!(next_call(&mut scheduler, &started), Some(2));
    assert_eq!(scheduler.starting(), 1);
    assert_eq!(next_call(&mut scheduler, &conns[0]), Some(3));
    // The other one is not needed any more.
    assert_eq!((scheduler.wanted(2), scheduler.starting()), (Wanted::Rest, 0));
    assert_eq!(scheduler.pool_report().grown, 1);
}

#[test]
fn pool_does_not_grow_past_its_size() {
    let (mut scheduler, _conns) = grown(0, 2, 2);
    assert!(scheduler.submit(TestCall::new(1)).assignment.is_some());
    assert!(scheduler.submit(TestCall::new(2)).assignment.is_some());
    assert!(!wait_in_queue(&mut scheduler, 3));
    assert_eq!((scheduler.starting(), scheduler.workers()), (0, 2));
}

#[test]
fn idle_workers_end_down_to_the_least_number() {
    let (mut scheduler, conns) = grown(1, 3, 3);
    let now = Instant::now();
    assert!(scheduler.shrink(now).is_empty());
    assert!(scheduler.next_resize(now).is_some_and(|at| at <= now + IDLE));
    let ending: Vec<_> = scheduler.shrink(now + IDLE).iter().map(|ending| ending.conn.0).collect();
    // Those that have been idle longest.
    assert_eq!(ending, [0, 1]);
    assert!(scheduler.shrink(now + IDLE).is_empty());
    assert_eq!(scheduler.next_resize(now), None);
    // The one that stays gets the call, and not one that ends.
    assert_eq!(scheduler.submit(TestCall::new(9)).assignment.map(|next| next.conn.0), Some(2));
    for index in ending {
        scheduler.process_ended(index);
        assert_eq!(scheduler.wanted(index), Wanted::Rest);
    }
    assert_eq!(scheduler.next_job(&conns[2]).map(|_| ()), None);
    let report = scheduler.pool_report();
    assert_eq!((report.workers, report.grown, report.shrunk), (1, 2, 2));
}

#[test]
fn worker_that_ends_starts_again_for_a_call() {
    let (mut scheduler, _conns) = grown(0, 1, 1);
    assert_eq!(scheduler.shrink(Instant::now() + IDLE).len(), 1);
    assert!(!wait_in_queue(&mut scheduler, 7));
    scheduler.process_ended(0);
    assert_eq!(scheduler.wanted(0), ADDITIONAL);
    let conn = start(&mut scheduler, 0);
    let assignment = scheduler.next_job(&conn).unwrap();
    assert!(matches!(assignment.job, Job::Call(call) if call.id == 7 && call.made == 1));
}

#[test]
fn pool_pauses_after_a_failed_growth() {
    let (mut scheduler, _conns) = grown(1, 3, 1);
    assert!(scheduler.submit(TestCall::new(1)).assignment.is_some());
    assert!(wait_in_queue(&mut scheduler, 2));
    let now = Instant::now();
    assert!(scheduler.growth_failed(1, "no memory", now));
    assert_eq!(scheduler.wanted(1), Wanted::Rest);
    assert!(!wait_in_queue(&mut scheduler, 3));
    assert_eq!(scheduler.next_resize(now), Some(now + GROWTH_PAUSE));
    let report = scheduler.pool_report();
    assert_eq!((report.refused, report.refusal.as_deref()), (1, Some("no memory")));
    assert!(report.to_string().ends_with("not grown 1 times, last because no memory"), "{report}");
}

#[test]
fn failed_growth_beside_a_worker_that_starts_costs_no_attempt() {
    let mut scheduler = scheduler(0, 2);
    assert!(wait_in_queue(&mut scheduler, 1));
    assert!(wait_in_queue(&mut scheduler, 2));
    scheduler.expect_worker(0);
    assert_eq!(scheduler.expected(), 1);
    let now = Instant::now();
    assert!(scheduler.growth_failed(1, "no memory", now));
    assert_eq!(scheduler.wanted(1), Wanted::Rest);
    // The other one is the last, which has to tell a call.
    assert!(!scheduler.growth_failed(0, "no memory", now));
    assert_eq!(scheduler.expected(), 0);
}

#[test]
fn worker_that_is_replaced_is_awaited() {
    let (mut scheduler, conns) = grown(1, 2, 1);
    assert!(!scheduler.is_awaited(0));
    assert!(scheduler.begin_restart(0));
    assert!(scheduler.is_awaited(0) && !scheduler.is_awaited(1));
    drop(conns);
    scheduler.drain();
    assert!(scheduler.is_awaited(1));
}

#[test]
fn shortest_idle_time_is_a_millisecond() {
    let size = PoolSize { min: 0, max: 2 };
    let mut scheduler = TestScheduler::new(size, Duration::ZERO, ReadyWhen::ProcessStarted);
    assert!(wait_in_queue(&mut scheduler, 1));
    let now = Instant::now();
    assert_eq!(scheduler.next_resize(now), Some(now + Duration::from_millis(1)));
}

#[test]
fn failed_growth_of_an_empty_pool_is_told_to_a_call() {
    let mut scheduler = scheduler(0, 2);
    assert!(wait_in_queue(&mut scheduler, 1));
    let now = Instant::now();
    assert!(!scheduler.growth_failed(0, "no memory", now));
    assert!(scheduler.charge_failed_start(0, now, GROWTH_PAUSE).is_some_and(|call| call.id == 1));
    // The call has its error, and no other one waits.
    assert_eq!(scheduler.wanted(0), Wanted::Rest);
    // The next call does not wait for the pause, since there is no worker.
    assert!(wait_in_queue(&mut scheduler, 2));
}

#[test]
fn closing_pool_retires_dormant_workers() {
    let (mut scheduler, conns) = grown(1, 3, 1);
    assert!(scheduler.submit(TestCall::new(1)).assignment.is_some());
    assert!(wait_in_queue(&mut scheduler, 2));
    scheduler.drain();
    // One is starting for the call, the other one is not needed.
    assert!(!scheduler.retire(1));
    assert!(scheduler.retire(2));
    assert_eq!(next_call(&mut scheduler, &conns[0]), Some(2));
    assert!(scheduler.retire(1));
    assert!(scheduler.shrink(Instant::now() + IDLE).is_empty());
    assert!(scheduler.next_job(&conns[0]).is_some_and(|next| matches!(next.job, Job::ShutDown)));
    scheduler.process_ended(0);
    assert!(scheduler.retire(0));
    assert!(scheduler.is_over());
}

#[test]
fn fixed_pool_neither_grows_nor_shrinks() {
    let mut scheduler = scheduler(1, 1);
    let conn = start(&mut scheduler, 0);
    assert!(scheduler.next_job(&conn).is_none());
    assert!(scheduler.shrink(Instant::now() + 2 * IDLE).is_empty());
    assert_eq!(scheduler.next_resize(Instant::now()), None);
    assert!(scheduler.submit(TestCall::new(1)).assignment.is_some());
    assert!(!wait_in_queue(&mut scheduler, 2));
    scheduler.process_ended(0);
    assert_eq!(scheduler.wanted(0), Wanted::Start { is_additional: false });
}

#[test]
fn lost_worker_above_the_least_number_is_not_replaced() {
    let (mut scheduler, _conns) = grown(1, 2, 2);
    scheduler.process_ended(1);
    assert_eq!(scheduler.wanted(1), Wanted::Rest);
    scheduler.process_ended(0);
    assert_eq!(scheduler.wanted(0), Wanted::Start { is_additional: false });
}

#[test]
fn restarted_worker_gets_no_further_call() {
    let (mut scheduler, conns) = grown(2, 2, 2);
    assert_eq!(scheduler.submit(TestCall::new(1).pinned_to(0)).assignment.map(|next| next.conn.0), Some(0));
    assert!(scheduler.submit(TestCall::new(2).pinned_to(0)).assignment.is_none());
    assert!(scheduler.begin_restart(0));
    assert_eq!(scheduler.restart(0), Restart::Pending);
    // It finishes its call, and ends before the next one, which waits for the new process.
    assert!(scheduler.next_job(&conns[0]).is_some_and(|next| matches!(next.job, Job::ShutDown)));
    assert!(!scheduler.begin_restart(0), "it ends already");
    scheduler.process_ended(0);
    assert_eq!(scheduler.wanted(0), Wanted::Start { is_additional: false });
    assert_eq!(scheduler.restart(0), Restart::Pending);
    let conn = start(&mut scheduler, 0);
    assert_eq!(scheduler.restart(0), Restart::Done);
    assert_eq!(next_call(&mut scheduler, &conn), Some(2));
    assert_eq!(scheduler.pool_report().grown, 0);
}

#[test]
fn idle_worker_is_restarted_at_once() {
    let (mut scheduler, _conns) = grown(1, 1, 1);
    assert!(scheduler.begin_restart(0));
    let ending = scheduler.assign().unwrap();
    assert!(matches!(ending.job, Job::ShutDown));
    assert!(scheduler.assign().is_none());
}

#[test]
fn failure_of_a_restart_is_reported_once() {
    let (mut scheduler, _conns) = grown(1, 1, 1);
    assert!(scheduler.begin_restart(0));
    scheduler.process_ended(0);
    let error: CallError = StartError::Worker { index: 0, reason: "no memory".to_owned() }.into();
    scheduler.process_started(0, Err(error.clone()));
    assert_eq!(scheduler.restart(0), Restart::Failed(error));
    scheduler.drain();
    assert_eq!(scheduler.restart(0), Restart::Closed);
    assert!(!scheduler.begin_restart(0));
}

#[test]
fn earlier_cancellations_do_not_keep_a_call_waiting() {
    let (mut scheduler, _conns) = grown(0, 2, 1);
    assert!(scheduler.submit(TestCall::new(1)).assignment.is_some());
    for id in 2..6 {
        wait_in_queue(&mut scheduler, id);
    }
    // A running call is cancelled, which is counted until the next look at the queue.
    assert!(scheduler.take_cancelled().is_empty());
    scheduler.process_ended(0);
    while scheduler.charge_failed_start(0, Instant::now(), Duration::ZERO).is_some() {}
    assert_eq!((scheduler.wanted(0), scheduler.wanted(1)), (Wanted::Rest, Wanted::Rest));
    assert!(wait_in_queue(&mut scheduler, 7));
}

#[test]
fn closing_pool_does_not_repeat_a_failed_growth() {
    let (mut scheduler, _conns) = grown(1, 2, 1);
    assert!(scheduler.submit(TestCall::new(1)).assignment.is_some());
    assert!(wait_in_queue(&mut scheduler, 2));
    scheduler.drain();
    assert!(!scheduler.retire(1));
    assert!(scheduler.growth_failed(1, "no memory", Instant::now()));
    assert!(scheduler.retire(1));
}
