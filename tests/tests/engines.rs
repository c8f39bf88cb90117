//! The conformance suite of engines on threads and on local processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::engine::PoolSize;
use ray_zerocopy::report::PoolReport;
use ray_zerocopy::{CallError, Error, LocalPool, Pending, TaskWrapper, Threads, gather};
use ray_zerocopy_tests::chaos::{ChaosModel, SeededRng};
use ray_zerocopy_tests::engine_conforms;
use ray_zerocopy_tests::engines::EngineUnderTest;
use ray_zerocopy_tests::engines::elastic::ElasticEngine;

struct OnThreads;

impl EngineUnderTest for OnThreads {
    type Backend = Threads;

    fn backend(workers: usize) -> Threads {
        Threads::builder().workers(workers).threads_per_worker(1).build()
    }

    const REPLACES_WORKERS: bool = false;
}

struct OnProcesses;

impl EngineUnderTest for OnProcesses {
    type Backend = LocalPool;

    fn backend(workers: usize) -> LocalPool {
        LocalPool::builder().workers(workers).threads_per_worker(1).start().expect("the workers start")
    }

    const REPLACES_WORKERS: bool = true;
}

impl ElasticEngine for OnThreads {
    fn pool(size: PoolSize, idle: Duration, reserve: u64) -> Result<Threads, CallError> {
        let threads = Threads::builder().workers(size).idle(idle).memory_reserve(reserve).threads_per_worker(1).build();
        // The threads start with the first wrapper.
        match TaskWrapper::on(&threads, &ChaosModel::new(&Device::flex())) {
            Ok(_) => Ok(threads),
            Err(Error::Call(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    fn shut_down(pool: &Threads) {
        pool.shut_down();
    }

    fn restart(pool: &Threads) -> Result<(), CallError> {
        pool.restart()
    }

    fn report(pool: &Threads) -> PoolReport {
        pool.report().expect("the threads have started")
    }
}

impl ElasticEngine for OnProcesses {
    fn pool(size: PoolSize, idle: Duration, reserve: u64) -> Result<LocalPool, CallError> {
        LocalPool::builder().workers(size).idle(idle).memory_reserve(reserve).threads_per_worker(1).start()
    }

    fn shut_down(pool: &LocalPool) {
        pool.shut_down();
    }

    fn restart(pool: &LocalPool) -> Result<(), CallError> {
        pool.restart()
    }

    fn report(pool: &LocalPool) -> PoolReport {
        pool.report()
    }
}

engine_conforms!(threads, super::OnThreads);
engine_conforms!(processes, super::OnProcesses);
engine_conforms!(elastic elastic_threads, super::OnThreads);
engine_conforms!(elastic elastic_processes, super::OnProcesses);

/// Calls are cancelled at random while the workers are busy. None of them ever runs, and each of the
/// others runs once.
#[test]
fn ten_thousand_cancelled_calls_never_run() {
    const CALLS: u64 = 20_000;
    let mut rng = SeededRng::new(7);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marks");
    std::fs::write(&path, vec![0; CALLS as usize]).unwrap();
    let file = path.to_str().unwrap().to_owned();
    let engine = LocalPool::builder().workers(2).threads_per_worker(1).queue(CALLS as usize + 2).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &ChaosModel::new(&Device::flex())).unwrap();
    gather((0..8).map(|_| tasks.sleep(5))).wait().unwrap();

    let end = folder.path().join("end");
    let busy = [0; 2].map(|_| tasks.wait_for(end.to_str().unwrap().to_owned()));
    let calls: Vec<_> = (0..CALLS).map(|call| tasks.mark(file.clone(), call)).collect();
    let mut order: Vec<_> = (0..CALLS as usize).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, rng.below(last as u64 + 1) as usize);
    }
    let (cancelled, kept) = order.split_at(order.len() / 2);
    cancelled.iter().for_each(|&call| calls[call].cancel());
    std::fs::write(end, "").unwrap();
    drop(busy);
    let results: Vec<_> = calls.into_iter().map(Pending::wait).collect();
    let marks = std::fs::read(&path).unwrap();
    for &call in kept {
        assert!(matches!(results[call], Ok(false)) && marks[call] == 1, "call {call}: {:?}", results[call]);
    }
    for &call in cancelled {
        let is_cancelled = matches!(&results[call], Err(Error::Call(CallError::Cancelled { .. })));
        assert!(is_cancelled && marks[call] == 0, "call {call}: {:?}, mark {}", results[call], marks[call]);
    }
}
