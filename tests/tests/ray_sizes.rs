//! Results of every size on Ray: below and above Ray's limits, with all ways to wait for a result.
//!
//! Ray puts a result of more than 100 KiB into its object store, and its completion callback needs
//! two steps then.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::sync::LazyLock;
use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use ray_zerocopy::ray::{Cluster, ClusterTarget, Options};
use ray_zerocopy::{ActorWrapper, CallError, Error, Pending, Pipeline, TaskWrapper, gather};

static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::local().cpus(4).object_store(900 << 20).quiet().start().unwrap());

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Sizes in bytes. Ray's limit is 100 KiB.
const SIZES: [usize; 5] = [1, 99 * KIB, 101 * KIB, MIB, 64 * MIB];

type Reply = Tensor<1, Bool>;

/// A pipeline with results of any size.
#[derive(Pipeline)]
#[pipeline(init = Source::new)]
struct Source {
    weight: Linear,
}

#[ray_zerocopy::remote]
impl Source {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { weight: LinearConfig::new(8, 8).init(device) }
    }

    /// Returns `len` bytes after a pause.
    pub fn reply(&self, len: usize, value: bool, millis: u64) -> Tensor<1, Bool> {
        std::thread::sleep(Duration::from_millis(millis));
        Tensor::from_data(TensorData::new(vec![value; len], [len]), &self.weight.weight.device())
    }
}

fn site() -> ClusterTarget {
    CLUSTER.with(Options::default().cpus(0.1))
}

fn source() -> Source {
    Source::new(&Device::flex())
}

fn check(reply: Reply, len: usize, value: bool) {
    let data = reply.into_data();
    assert_eq!(data.num_elements(), len);
    assert!(data.as_bytes() == vec![u8::from(value); len], "{len} bytes are not all {value}");
}

/// Takes results of each size in every way. `call` takes the size, the value and the pause of the
/// method.
fn every_size(call: impl Fn(usize, bool, u64) -> Pending<Reply>) {
    for len in SIZES {
        check(call(len, true, 0).wait().unwrap(), len, true);

        let mut polled = call(len, false, 0);
        let result = loop {
            match polled.wait_timeout(Duration::from_millis(1)) {
                Some(result) => break result.unwrap(),
                None => std::thread::yield_now(),
            }
        };
        check(result, len, false);
        check(pollster::block_on(call(len, true, 0)).unwrap(), len, true);

        // Dropped at once, after a poll, and while the answer arrives.
        for pause in [0, 1, 5, 20, 60] {
            let mut dropped = call(len, false, 0);
            drop(dropped.wait_timeout(Duration::from_millis(pause)));
        }
        drop(call(len, true, 20));
        check(call(len, true, 0).wait().unwrap(), len, true);

        // Two results, taken in reverse order.
        let (first, second) = (call(len, true, 0), call(len, false, 0));
        check(second.wait().unwrap(), len, false);
        check(first.wait().unwrap(), len, true);
    }
}

#[test]
fn task_results_of_every_size_arrive() {
    let tasks = TaskWrapper::on(&site(), &source()).unwrap();
    every_size(|len, value, millis| tasks.reply(len, value, millis));
}

#[test]
fn actor_results_of_every_size_arrive() {
    let actors = ActorWrapper::on(&site(), &source()).unwrap().spawn(2).unwrap();
    every_size(|len, value, millis| actors.reply(len, value, millis));
    every_size(|len, value, millis| actors.actor(1).reply(len, value, millis));
}

#[test]
fn results_of_direct_actors_arrive() {
    let direct = CLUSTER.with(Options::default().cpus(0.1).compiled_graph());
    let actors = ActorWrapper::on(&direct, &source()).unwrap().spawn(1).unwrap();
    every_size(|len, value, millis| actors.reply(len, value, millis));
}

/// Calls whose deadline passes before, while or after their results arrive.
fn late(call: impl Fn(usize, Duration) -> Pending<Reply>) {
    for len in [99 * KIB, 101 * KIB, 4 * MIB] {
        for deadline in [1, 30, 200] {
            match call(len, Duration::from_millis(deadline)).wait() {
                Ok(reply) => check(reply, len, true),
                Err(Error::Call(CallError::Deadline { .. })) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn late_results_are_deadline_errors() {
    let tasks = TaskWrapper::on(&site(), &source()).unwrap();
    check(tasks.reply(MIB, true, 0).wait().unwrap(), MIB, true);
    late(|len, deadline| tasks.clone().deadline(deadline).reply(len, true, 25));
    check(tasks.reply(MIB, true, 0).wait().unwrap(), MIB, true);

    let actors = ActorWrapper::on(&site(), &source()).unwrap().spawn(1).unwrap();
    late(|len, deadline| actors.clone().deadline(deadline).reply(len, true, 25));
    check(actors.reply(MIB, true, 0).wait().unwrap(), MIB, true);
}

#[test]
fn hundreds_of_results_at_once_arrive() {
    let actors = ActorWrapper::on(&site(), &source()).unwrap().spawn(3).unwrap();
    let tasks = TaskWrapper::on(&site(), &source()).unwrap();
    let len = |n: usize| [1, 99 * KIB, 101 * KIB, 300 * KIB][n % 4];
    let calls = |n: usize| {
        if n.is_multiple_of(3) { tasks.reply(len(n), true, 0) } else { actors.reply(len(n), true, 0) }
    };
    for (n, reply) in gather((0..600).map(calls)).wait().unwrap().into_iter().enumerate() {
        check(reply, len(n), true);
    }
    // Several threads drop most of the results at once.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for n in 0..100 {
                    let pending = calls(n + thread);
                    if n.is_multiple_of(7) {
                        check(pending.wait().unwrap(), len(n + thread), true);
                    }
                }
            });
        }
    });
    check(actors.reply(MIB, true, 0).wait().unwrap(), MIB, true);
}

#[test]
fn values_of_every_size_come_from_plain_tasks() {
    fn text(len: usize) -> String {
        "x".repeat(len)
    }
    let text = CLUSTER.task(text as fn(usize) -> String).options(Options::default().cpus(0.1));
    for len in [1, 99 * KIB, 101 * KIB, MIB, 16 * MIB] {
        drop(text.remote(len).unwrap());
        assert!(text.remote(len).unwrap().get().unwrap() == "x".repeat(len), "{len}");
    }
}
