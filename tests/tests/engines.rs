//! The conformance suite of engines on threads and on local processes.

use ray_zerocopy::{LocalPool, Threads};
use ray_zerocopy_tests::engine_conforms;
use ray_zerocopy_tests::engines::EngineUnderTest;

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

engine_conforms!(threads, super::OnThreads);
engine_conforms!(processes, super::OnProcesses);
