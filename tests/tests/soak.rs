//! Soak test: each engine under steady load, with messages below and above every size limit of the
//! engine. Each answer is compared, and the memory of the owner and of its workers must not grow.
//!
//! As a test it runs for seconds. `cargo xtask soak` runs it for ten minutes per engine with
//! messages of up to 256 MiB, and with `--ray` on a local Ray cluster. `RAY_ZEROCOPY_SOAK_SECONDS`
//! sets the duration, and `RAY_ZEROCOPY_SOAK_ONLY` selects engines by a part of their names.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use ray_zerocopy::engine::Worker;
use ray_zerocopy::jit::{JitActorWrapper, JitTaskWrapper, TracedGraph, Values, trace};
use ray_zerocopy::{ActorWrapper, CallError, Error, LocalPool, Pending, Pipeline, TaskWrapper};
use ray_zerocopy_tests::memory::eventually;

/// Time limit of one call. A call that takes longer counts as hung.
const PATIENCE: Duration = Duration::from_secs(300);
/// Sizes of tensors in bytes. A packet of the local engine has 64 KiB, and a result in Ray's reply
/// at most 100 KiB.
const SIZES: &[usize] = &[
    4,
    1 << 10,
    16 << 10,
    65_000,
    (64 << 10) - 4,
    64 << 10,
    (64 << 10) + 4,
    99 << 10,
    100 << 10,
    101 << 10,
    1 << 20,
    4 << 20,
];
/// Large sizes in bytes, one per round.
const LARGE: &[usize] = &[16 << 20, 64 << 20, 256 << 20];
/// Sizes of texts in bytes: around the size of a packet, which includes a header, and around Ray's
/// limit.
const TEXTS: &[usize] = &[1, 65_279, 65_400, 65_480, 65_520, 65_535, 65_536, 65_537, 102_399, 102_400, 102_401];
/// Numbers of tensors in a message. `sendmsg` accepts 253 descriptors, and an owner sends 252 with
/// a packet.
const COUNTS: &[usize] = &[0, 1, 251, 252, 253, 254, 400];
/// Allowed growth of private memory of the owner and of each worker, from the first to the last
/// third of the run: freed memory that the allocator keeps.
const GROWTH: u64 = 32 << 20;

#[derive(Pipeline)]
#[pipeline(init = EchoModel::new)]
struct EchoModel {
    weights: Linear,
}

#[ray_zerocopy::remote]
impl EchoModel {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { weights: LinearConfig::new(256, 256).init(device) }
    }

    pub fn shift(&self, x: Tensor<1>) -> Tensor<1> {
        x.add_scalar(1.0)
    }

    pub fn flip(&self, x: Tensor<1, Bool>) -> Tensor<1, Bool> {
        x.bool_not()
    }

    pub fn text(&self, text: String) -> String {
        text
    }

    pub fn many(&self, tensors: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        tensors.into_iter().rev().collect()
    }

    pub fn sleep(&self, millis: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(millis));
        millis
    }
}

/// A way to wait for an answer.
#[derive(Debug, Clone, Copy)]
enum Way {
    Wait,
    WaitFor,
    Poll,
    Drop,
}

const WAYS: [Way; 4] = [Way::Wait, Way::WaitFor, Way::Poll, Way::Drop];

/// Counters of events.
#[derive(Default)]
struct Log(RefCell<BTreeMap<&'static str, usize>>);

impl Log {
    fn note(&self, event: &'static str) {
        *self.0.borrow_mut().entry(event).or_default() += 1;
    }

    /// Waits for the answer of a call, and checks it.
    fn settle<T>(&self, way: Way, mut pending: Pending<T>, right: impl FnOnce(T) -> bool) {
        let result = match way {
            Way::Drop => {
                drop(pending);
                return self.note("dropped");
            }
            Way::Wait => pending.wait(),
            Way::Poll => pollster::block_on(pending),
            Way::WaitFor => pending.wait_timeout(PATIENCE).unwrap_or_else(|| panic!("no answer within {PATIENCE:?}")),
        };
        assert!(right(result.unwrap()), "a wrong answer");
        self.note(match way {
            Way::Wait | Way::Drop => "waited for",
            Way::WaitFor => "waited for with a limit",
            Way::Poll => "polled",
        });
    }

    /// Waits for an answer that may miss its deadline.
    fn late<T>(&self, pending: Pending<T>, right: impl FnOnce(T) -> bool) {
        match pending.wait() {
            Ok(value) => {
                assert!(right(value), "a wrong answer");
                self.note("in time");
            }
            Err(Error::Call(CallError::Deadline { .. })) => self.note("late"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn numbers(bytes: usize, x: f32) -> Tensor<1> {
    Tensor::full([bytes / 4], x, &Device::flex())
}

/// Whether all numbers are `x`. Of a large tensor, checks every thousandth number and the last.
fn all(found: &TensorData, bytes: usize, x: f32) -> bool {
    let found = found.as_slice::<f32>().unwrap();
    let step = if found.len() > 1 << 20 { 1009 } else { 1 };
    found.len() == bytes / 4 && found.iter().step_by(step).chain(found.last()).all(|&number| number == x)
}

/// One round of calls on tasks or actors, which have the same methods.
macro_rules! round {
    ($calls:expr, $hasty:expr, $log:expr, $large:expr) => {{
        let (calls, hasty, log) = (&$calls, &$hasty, $log);
        for (at, &bytes) in SIZES.iter().chain([&$large]).enumerate() {
            for way in if bytes > 1 << 20 { &WAYS[at % 4..][..1] } else { &WAYS[..] } {
                let x = at as f32;
                log.settle(*way, calls.shift(numbers(bytes, x)), |y: Tensor<1>| all(&y.into_data(), bytes, x + 1.0));
            }
        }
        for len in [1, 3, 65_537] {
            let pending = calls.flip(Tensor::full([len], true, &Device::flex()));
            log.settle(Way::Wait, pending, |y: Tensor<1, Bool>| {
                y.dims() == [len] && y.into_data().iter::<bool>().all(|flag| !flag)
            });
        }
        for (at, &len) in TEXTS.iter().enumerate() {
            log.settle(WAYS[at % 4], calls.text("t".repeat(len)), |text: String| text == "t".repeat(len));
        }
        for &count in COUNTS {
            let tensors = (0..count).map(|n| numbers(4, n as f32)).collect();
            log.settle(Way::Wait, calls.many(tensors), |found: Vec<Tensor<1>>| {
                let mut expected = (0..count).rev();
                found.len() == count
                    && found.into_iter().all(|found| all(&found.into_data(), 4, expected.next().unwrap() as f32))
            });
        }
        let burst: Vec<_> = (0..60).map(|n| (n, calls.shift(numbers(4 << (n % 16), n as f32)))).collect();
        for (n, pending) in burst {
            log.settle(WAYS[n % 4], pending, |y: Tensor<1>| all(&y.into_data(), 4 << (n % 16), n as f32 + 1.0));
        }
        log.late(hasty.shift(numbers(256 << 10, 1.0)), |y: Tensor<1>| all(&y.into_data(), 256 << 10, 2.0));
        log.late(hasty.sleep(20), |millis| millis == 20);
        // Calls whose answers were dropped run too.
        (0..4)
            .map(|_| calls.sleep(1))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|call| assert_eq!(call.wait().unwrap(), 1));
    }};
}

/// One round of calls of a graph.
fn jit_round(run: &dyn Fn(Values, bool) -> Pending<Values>, log: &Log, large: usize) {
    let given = |bytes, x| Values::new().with("x", numbers(bytes, x));
    let right = |values: &Values, bytes, x| all(&values.data("output").unwrap(), bytes, x + 1.0);
    for (at, &bytes) in SIZES.iter().chain([&large]).enumerate() {
        for way in if bytes > 1 << 20 { &WAYS[at % 4..][..1] } else { &WAYS[..] } {
            log.settle(*way, run(given(bytes, at as f32), false), |values| right(&values, bytes, at as f32));
        }
    }
    let burst: Vec<_> = (0..60).map(|n| (n, run(given(4 << (n % 16), n as f32), false))).collect();
    for (n, pending) in burst {
        log.settle(WAYS[n % 4], pending, |values| right(&values, 4 << (n % 16), n as f32));
    }
    log.late(run(given(256 << 10, 1.0), true), |values| right(&values, 256 << 10, 1.0));
    (0..4).for_each(|_| assert!(right(&run(given(4, 1.0), false).wait().unwrap(), 4, 1.0)));
}

fn graph(model: &EchoModel) -> TracedGraph {
    let tracer = trace(model).input("x", numbers(12, 1.0)).symbol("len", [("x", 0)]);
    tracer.forward(|_, inputs| Ok(inputs.float::<1>("x")?.add_scalar(1.0))).unwrap()
}

/// Private memory of the owner and of its workers, and the sum of PSS over all processes, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    owner: u64,
    workers: u64,
    pss: u64,
}

fn sample(workers: &dyn Fn() -> Vec<Worker>, count: usize) -> Sample {
    let figure = |pid: u32, field: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    let own = std::process::id();
    let mut found = Sample::default();
    // A worker that missed a deadline was ended, and a new one starts.
    eventually("all workers run", || {
        let pids: Vec<_> = workers().iter().map(|worker| worker.pid).collect();
        let sum = |pids: &[u32], field| pids.iter().map(|&pid| figure(pid, field)).sum::<Option<u64>>();
        let taken = (
            pids.len() == count,
            figure(own, "Anonymous"),
            sum(&pids, "Anonymous"),
            sum(&[&pids[..], &[own]].concat(), "Pss"),
        );
        if let (true, Some(owner), Some(workers), Some(pss)) = taken {
            found = Sample { owner, workers, pss };
            return true;
        }
        false
    });
    found
}

fn long() -> Option<Duration> {
    let seconds = std::env::var("RAY_ZEROCOPY_SOAK_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("RAY_ZEROCOPY_SOAK_SECONDS is a number of seconds")))
}

/// Runs rounds for some time, prints a summary, and fails if the memory of the owner or of the
/// `count` workers has grown.
fn soak(name: &str, count: usize, workers: &dyn Fn() -> Vec<Worker>, round: &dyn Fn(&Log, usize)) {
    if std::env::var("RAY_ZEROCOPY_SOAK_ONLY").is_ok_and(|only| !name.contains(&only)) {
        return eprintln!("{name}: skipped, since `--only` does not name it");
    }
    let time = long().unwrap_or(Duration::from_secs(2));
    // The rounds cycle through all large sizes. The short run uses only the smallest of them.
    let large = if long().is_some() { LARGE } else { &LARGE[..1] };
    let (log, begun) = (Log::default(), Instant::now());
    let (mut samples, mut shown) = (Vec::new(), Instant::now());
    (0..large.len()).for_each(|at| round(&log, large[at]));
    while begun.elapsed() < time || samples.len() < 3 * large.len() {
        round(&log, large[samples.len() % large.len()]);
        samples.push(sample(workers, count));
        if shown.elapsed() > Duration::from_secs(10) {
            shown = Instant::now();
            let calls: usize = log.0.borrow().values().sum();
            eprintln!("{name}: {calls} calls in {:.0?} of {time:.0?}", begun.elapsed());
        }
    }
    let third = samples.len() / 3;
    let median = |samples: &[Sample], of: fn(&Sample) -> u64| {
        let mut figures: Vec<_> = samples.iter().map(of).collect();
        figures.sort_unstable();
        figures[figures.len() / 2]
    };
    let compared = |of| (median(&samples[..third], of), median(&samples[samples.len() - third..], of));
    let [owner, private, pss] = [compared(|s| s.owner), compared(|s| s.workers), compared(|s| s.pss)];
    let shown = |(before, after): (u64, u64)| format!("{} -> {} MiB", before >> 20, after >> 20);
    let events: Vec<_> = log.0.borrow().iter().map(|(event, count)| format!("{count} {event}")).collect();
    eprintln!(
        "{name}: {} rounds in {:.0?}, {}; medians of the first and the last third: private memory of the owner {}, of {count} \
         workers {}, proportional set sizes {}",
        samples.len(),
        begun.elapsed(),
        events.join(", "),
        shown(owner),
        shown(private),
        shown(pss)
    );
    assert!(owner.1 < owner.0 + GROWTH, "{name}: the owner has grown");
    assert!(private.1 < private.0 + GROWTH * count.max(1) as u64, "{name}: the workers have grown");
}

const HASTE: Duration = Duration::from_millis(5);

#[test]
fn local_engine() {
    if long().is_none() {
        eprintln!("two seconds an engine only, and messages of at most 16 MiB; `cargo xtask soak` takes longer");
    }
    let model = EchoModel::new(&Device::flex());
    let engine = LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap();
    {
        let tasks = TaskWrapper::on(&engine, &model).unwrap();
        let hasty = tasks.clone().deadline(HASTE);
        soak("local tasks", 2, &|| engine.workers(), &|log, large| round!(tasks, hasty, log, large));
    }
    let graph = graph(&model);
    {
        let tasks = JitTaskWrapper::on(&engine, &graph).unwrap();
        let hasty = tasks.clone().deadline(HASTE);
        let run = |values: Values, late: bool| if late { hasty.run(values) } else { tasks.run(values) };
        soak("local graph tasks", 2, &|| engine.workers(), &|log, large| jit_round(&run, log, large));
    }
    {
        let actors = ActorWrapper::new(&model).unwrap().spawn(2).unwrap();
        let hasty = actors.clone().deadline(HASTE);
        soak("local actors", 2, &|| actors.workers(), &|log, large| round!(actors, hasty, log, large));
    }
    let actors = JitActorWrapper::new(&graph).spawn(2).unwrap();
    let hasty = actors.clone().deadline(HASTE);
    let run = |values: Values, late: bool| if late { hasty.run(values) } else { actors.run(values) };
    soak("local graph actors", 2, &|| actors.workers(), &|log, large| jit_round(&run, log, large));
}

/// The same on a local Ray cluster. Task workers belong to Ray, so only the memory of actors is
/// checked.
#[cfg(feature = "ray")]
#[test]
fn ray_engine() {
    use ray_zerocopy::ray::{Cluster, Options};

    if long().is_none() {
        return eprintln!("skipped: `cargo xtask soak --ray` runs this for ten minutes");
    }
    let model = EchoModel::new(&Device::flex());
    let cluster = Cluster::local().cpus(4).object_store(2 << 30).quiet().start().unwrap();
    let site = cluster.with(Options::default().cpus(0.5));
    {
        let tasks = TaskWrapper::on(&site, &model).unwrap();
        let hasty = tasks.clone().deadline(HASTE);
        soak("Ray tasks", 0, &Vec::new, &|log, large| round!(tasks, hasty, log, large));
    }
    let graph = graph(&model);
    {
        let tasks = JitTaskWrapper::on(&site, &graph).unwrap();
        let hasty = tasks.clone().deadline(HASTE);
        let run = |values: Values, late: bool| if late { hasty.run(values) } else { tasks.run(values) };
        soak("Ray graph tasks", 0, &Vec::new, &|log, large| jit_round(&run, log, large));
    }
    {
        let actors = ActorWrapper::on(&site, &model).unwrap().spawn(2).unwrap();
        let hasty = actors.clone().deadline(HASTE);
        soak("Ray actors", 2, &|| actors.workers(), &|log, large| round!(actors, hasty, log, large));
    }
    let actors = JitActorWrapper::on(&site, &graph).unwrap().spawn(2).unwrap();
    let hasty = actors.clone().deadline(HASTE);
    let run = |values: Values, late: bool| if late { hasty.run(values) } else { actors.run(values) };
    soak("Ray graph actors", 2, &|| actors.workers(), &|log, large| jit_round(&run, log, large));
}
