//! The conformance suite of engines on a Ray cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::sync::LazyLock;

use ray_zerocopy::ray::{Cluster, ClusterTarget, Options};
use ray_zerocopy_tests::engines::EngineUnderTest;
use ray_zerocopy_tests::{engine_conforms, tracer};

const CPUS: usize = 4;

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    // Before any worker starts, since all tests share the workers: those that run traced calls have to record them.
    tracer::prepare();
    Cluster::local().cpus(CPUS).object_store(300 << 20).quiet().start().expect("Ray starts")
});

struct OnRay;

impl EngineUnderTest for OnRay {
    type Backend = ClusterTarget;

    /// Ray has no pools of workers for tasks. The share of a task in the cluster's CPUs limits how
    /// many of them run at the same time.
    fn backend(workers: usize) -> ClusterTarget {
        CLUSTER.with(Options::default().cpus(CPUS as f64 / workers as f64))
    }

    const REPLACES_WORKERS: bool = true;
    const KNOWS_WORKERS: bool = false;
    const PASSES_CALLS_ON: bool = true;
    // Ray has a buffer of its own, of the same size.
    const ITEMS_UNDER_WAY: usize = 4 + 3;
}

engine_conforms!(cluster, super::OnRay);
