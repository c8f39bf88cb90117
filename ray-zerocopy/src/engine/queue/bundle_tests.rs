//! Tests of bundles without threads and processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bundle::{Bundle, Pace};
use super::bundle_size::BundleRoom;
use super::job::Job;
use super::scheduler::{Assignment, Scheduler};
use super::test_call::{TestCall, TestConn};
use super::worker_slot::ReadyWhen;
use crate::engine::pool_size::PoolSize;
use crate::engine::program::Attached;

type TestScheduler = Scheduler<TestCall, TestConn>;

/// Creates a scheduler whose workers have loaded program 1 and have each run a call, which took no time.
fn fast(workers: usize) -> (TestScheduler, Vec<Arc<TestConn>>) {
    let mut scheduler = Scheduler::new(PoolSize::fixed(workers), Duration::ZERO, ReadyWhen::ProcessStarted);
    let mut conns = Vec::new();
    for index in 0..workers {
        let conn = Arc::new(TestConn(index));
        scheduler.process_started(index, Ok(Arc::clone(&conn)));
        let (copied, memory) = Default::default();
        let report = Attached {
            copied,
            device: None,
            took: Duration::ZERO,
            decoding: Duration::ZERO,
            memory,
            instructions: None,
        };
        scheduler.load_finished(index, 1, Ok(report));
        assert!(scheduler.next_job(&conn).is_none());
        conns.push(conn);
    }
    for index in 0..workers as u32 {
        assert!(scheduler.submit(small(1000 + index)).assignment.is_some());
    }
    (scheduler, conns)
}

fn small(id: u32) -> TestCall {
    TestCall::new(id).of_bytes(100)
}

/// The calls of an assignment.
fn calls(assignment: Option<Assignment<TestCall, TestConn>>) -> Vec<TestCall> {
    match assignment.map(|assignment| assignment.job) {
        Some(Job::Call(call)) => vec![call],
        Some(Job::Bundle(calls)) => calls,
        Some(Job::Load(_) | Job::Forget(_) | Job::ShutDown) | None => Vec::new(),
    }
}

fn ids(assignment: Option<Assignment<TestCall, TestConn>>) -> Vec<u32> {
    calls(assignment).iter().map(|call| call.id).collect()
}

#[test]
fn workers_share_what_waits() {
    let (mut scheduler, conns) = fast(2);
    (0..8).for_each(|id| drop(scheduler.submit(small(id)).assignment));
    assert_eq!(ids(scheduler.next_job(&conns[0])), [0, 1, 2, 3]);
    assert_eq!(ids(scheduler.next_job(&conns[1])), [4, 5]);
    assert_eq!(ids(scheduler.next_job(&conns[0])), [6]);
    assert_eq!(ids(scheduler.next_job(&conns[0])), [7]);
}

#[test]
fn only_small_calls_of_one_loaded_program_are_bundled() {
    let (mut scheduler, conns) = fast(1);
    let large = |id| TestCall::new(id).of_bytes(1 << 20);
    let other = |id| small(id).of_program(2);
    let (empty, alone) = (|id| TestCall::new(id).of_bytes(0), TestCall::new);
    let waiting = [small(0), small(1), large(2), empty(3), alone(4), other(5), other(6), small(7), empty(8), small(9)];
    for call in waiting {
        assert!(scheduler.submit(call).assignment.is_none());
    }
    let found: Vec<_> = (0..7).map(|_| ids(scheduler.next_job(&conns[0]))).collect();
    assert_eq!(found, [vec![0, 1], vec![2], vec![3], vec![4], vec![5], vec![6], vec![7, 8, 9]]);
}

#[test]
fn bundle_of_an_actor_has_its_own_calls() {
    let (mut scheduler, conns) = fast(2);
    (0..6).for_each(|id| drop(scheduler.submit(small(id).pinned_to((id % 2) as usize)).assignment));
    assert_eq!(ids(scheduler.next_job(&conns[1])), [1, 3, 5]);
    assert_eq!(ids(scheduler.next_job(&conns[0])), [0, 2, 4]);
}

#[test]
fn attempts_of_calls_that_have_not_begun_do_not_count() {
    let (mut scheduler, conns) = fast(1);
    (0..4).for_each(|id| drop(scheduler.submit(small(id)).assignment));
    let mut bundle = Bundle::new(calls(scheduler.next_job(&conns[0])));
    bundle.progress(2, 1);
    assert_eq!((bundle.running().unwrap().id, bundle.unread()), (1, 1));
    let left = bundle.take_unbegun();
    assert!(left.iter().all(|call| call.made == 1));
    let put_back = scheduler.put_back(left, 0);
    assert!(put_back.stranded.is_empty() && put_back.assignments.is_empty());
    let again = calls(scheduler.next_job(&conns[0]));
    assert!(again.iter().map(|call| (call.id, call.made)).eq([(2, 1), (3, 1)]));
    assert_eq!(bundle.take_answered().unwrap().id, 0);
    assert_eq!(bundle.running_number(), Some(1));
    bundle.progress(2, 2);
    assert_eq!((bundle.running(), bundle.unread()), (None, 1));
    assert_eq!(bundle.take_answered().unwrap().id, 1);
    assert!(bundle.is_empty());
}

#[test]
fn impossible_progress_is_limited() {
    let mut bundle = Bundle::new(vec!['a', 'b', 'c']);
    bundle.progress(usize::MAX, usize::MAX);
    assert_eq!((bundle.unread(), bundle.running()), (3, None));
    bundle.progress(1, 3);
    assert_eq!((bundle.unread(), bundle.running()), (1, None));
    assert_eq!(bundle.take_answered(), Some('a'));
    bundle.progress(0, 0);
    assert_eq!((bundle.unread(), bundle.take_unbegun()), (0, vec!['b', 'c']));
}

#[test]
fn time_is_divided_among_calls() {
    let mut pace = Pace::default();
    let now = Instant::now();
    let mut job = |calls: usize, taken: Duration| {
        pace.begin(now, calls);
        pace.end(now + taken);
        let mut room = BundleRoom::new(usize::MAX);
        std::iter::from_fn(|| room.take(1, pace.per_call).then_some(())).count()
    };
    assert_eq!(job(1, Duration::from_secs(1)), 0);
    assert_eq!(job(1, Duration::from_micros(10)), 0, "the slow one still counts");
    let fitting = (0..30).map(|_| job(4, Duration::from_micros(40))).last().unwrap();
    assert!((45..=50).contains(&fitting), "{fitting}");
    assert_eq!(job(4, Duration::from_millis(4)), 0);
}
