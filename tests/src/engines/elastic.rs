//! Pools that grow and shrink.

use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::engine::PoolSize;
use ray_zerocopy::report::PoolReport;
use ray_zerocopy::{CallError, Error, TaskWrapper, gather};

use super::EngineUnderTest;
use crate::chaos::{ChaosModel, SeededRng};
use crate::memory::eventually;

/// An engine whose pool may have a range of workers.
pub trait ElasticEngine: EngineUnderTest {
    /// A pool whose workers have one thread each, and that keeps `reserve` bytes of memory free.
    fn pool(size: PoolSize, idle: Duration, reserve: u64) -> Result<Self::Backend, CallError>;

    /// Runs the queued calls, and ends the workers.
    fn shut_down(pool: &Self::Backend);

    /// Replaces the workers.
    fn restart(pool: &Self::Backend) -> Result<(), CallError>;

    /// How the pool has grown and shrunk.
    fn report(pool: &Self::Backend) -> PoolReport;
}

/// An idle time that no test waits for.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(5);

fn tasks<E: ElasticEngine>(pool: &E::Backend) -> TaskWrapper<ChaosModel> {
    // A call that loses its worker fails: shrinking must not cost an attempt.
    TaskWrapper::on(pool, &ChaosModel::new(&Device::flex())).unwrap().attempts(1)
}

fn pool<E: ElasticEngine>(size: impl Into<PoolSize>, idle: Duration) -> E::Backend {
    E::pool(size.into(), idle, 0).unwrap()
}

/// Makes calls that run at the same time, and waits until the pool has as many workers.
fn grow<E: ElasticEngine>(pool: &E::Backend, tasks: &TaskWrapper<ChaosModel>, workers: usize) {
    let folder = tempfile::tempdir().unwrap();
    let end = folder.path().join("end");
    let calls: Vec<_> = (0..workers).map(|_| tasks.wait_for(end.to_str().unwrap().to_owned())).collect();
    eventually("the pool grows", || E::report(pool).workers == workers);
    std::fs::write(end, "").unwrap();
    gather(calls).wait().unwrap();
}

pub fn pool_grows_for_waiting_calls_and_shrinks<E: ElasticEngine>() {
    let pool = pool::<E>(1..=3, SOON);
    let tasks = tasks::<E>(&pool);
    assert_eq!((E::report(&pool).workers, E::report(&pool).grown), (1, 0));
    for round in 1..=3 {
        grow::<E>(&pool, &tasks, 3);
        eventually("the pool shrinks", || E::report(&pool).workers == 1);
        let report = E::report(&pool);
        assert!(report.grown >= 2 * round && report.shrunk >= 2 * round, "{report}");
    }
    let report = tasks.report().unwrap();
    let pool = report.pool.as_ref().expect("the pool is elastic");
    assert_eq!((pool.min, pool.max, pool.refusal.as_deref()), (1, 3, None));
    assert!(report.to_string().contains("\npool: 1 of 1 to 3 workers, "), "{report}");
}

pub fn empty_pool_starts_a_worker_for_a_call<E: ElasticEngine>() {
    let pool = pool::<E>(0..=2, SOON);
    let tasks = tasks::<E>(&pool);
    for _ in 0..3 {
        assert_eq!(E::report(&pool).workers, 0);
        tasks.sleep(0).wait().unwrap();
        eventually("the pool is empty again", || E::report(&pool).workers == 0);
    }
}

pub fn lone_calls_do_not_grow_a_pool<E: ElasticEngine>() {
    let pool = pool::<E>(1..=4, NEVER);
    let tasks = tasks::<E>(&pool);
    // The worker may not be idle yet after its start.
    tasks.sleep(0).wait().unwrap();
    let grown = E::report(&pool).grown;
    for _ in 0..50 {
        tasks.sleep(0).wait().unwrap();
    }
    assert_eq!(E::report(&pool).grown, grown);
}

/// Calls arrive while workers end.
pub fn shrinking_loses_no_call<E: ElasticEngine>() {
    let pool = pool::<E>(0..=3, Duration::from_millis(2));
    let tasks = tasks::<E>(&pool);
    let mut rng = SeededRng::new(11);
    for _ in 0..100 {
        gather((0..=rng.below(4)).map(|_| tasks.sleep(rng.below(3)))).wait().unwrap();
        std::thread::sleep(Duration::from_micros(rng.below(4000)));
    }
    eventually("the pool is empty", || E::report(&pool).workers == 0);
    let report = E::report(&pool);
    assert!(report.grown >= report.shrunk && report.shrunk > 0, "{report}");
}

pub fn pool_without_memory_serves_on<E: ElasticEngine>() {
    let pool = E::pool(PoolSize::from(1..=3), NEVER, u64::MAX).unwrap();
    let tasks = tasks::<E>(&pool);
    gather((0..8).map(|_| tasks.sleep(20))).wait().unwrap();
    let report = E::report(&pool);
    assert_eq!((report.workers, report.grown), (1, 0));
    assert!(report.refused > 0, "{report}");
    let refusal = report.refusal.unwrap();
    assert!(refusal.contains("are kept free") && refusal.contains("MiB are available ("), "{refusal}");
}

pub fn empty_pool_without_memory_is_an_error<E: ElasticEngine>() {
    let pool = E::pool(PoolSize::from(0..=2), NEVER, u64::MAX).unwrap();
    for _ in 0..2 {
        let error = tasks::<E>(&pool).sleep(0).wait().unwrap_err();
        let Error::Call(CallError::Start(start)) = &error else { panic!("{error}") };
        assert!(start.reason().contains("MiB are available ("), "{error}");
        assert!(error.to_string().contains("`sleep`"), "{error}");
    }
    assert_eq!(E::report(&pool).workers, 0);
}

#[expect(clippy::reversed_empty_ranges, reason = "it is what a user may write by mistake")]
pub fn range_without_a_worker_is_refused<E: ElasticEngine>() {
    for range in [0..=0, 4..=2] {
        let text = format!("the range of workers {}..={}", range.start(), range.end());
        let error = E::pool(range.into(), NEVER, 0).err().unwrap();
        assert!(error.to_string().contains(&text), "{error}");
    }
}

pub fn closing_pool_runs_what_waits<E: ElasticEngine>() {
    for workers in [0..=3, 1..=3] {
        let pool = pool::<E>(workers, NEVER);
        let tasks = tasks::<E>(&pool);
        let calls: Vec<_> = (0..6).map(|_| tasks.sleep(5)).collect();
        E::shut_down(&pool);
        gather(calls).wait().unwrap();
        let error = tasks.sleep(0).wait().unwrap_err();
        assert!(matches!(error, Error::Call(CallError::ShutDown { .. })), "{error}");
    }
}
