//! Chaos test: pools of up to 16 workers under load, which grow and shrink, while workers are killed and
//! stopped, descriptors and memory run out, methods panic, garbage is sent, and weights are swapped. Every call is answered once,
//! with the right value or an expected error, and no resources leak.
//!
//! Run it with `RAY_ZEROCOPY_CHAOS_SECONDS=120 cargo test --workspace --test chaos`, or `cargo
//! xtask chaos`. The seed is printed. `RAY_ZEROCOPY_CHAOS_SEED` repeats the random numbers, but not
//! the order in which the kernel schedules the threads.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod calls;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use ray_zerocopy::engine::Worker;
use ray_zerocopy::{ActorWrapper, Actors, Arena, Batching, CallError, Error, LocalPool, Pending, TaskWrapper, share};
use ray_zerocopy_tests::chaos::{ChaosModel, SeededRng, connections, send_garbage};
use ray_zerocopy_tests::heap;
use ray_zerocopy_tests::holdings::holdings;
use ray_zerocopy_tests::memory::{eventually, rollup};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};

// Counted bytes show a leak of a few bytes per call, which resident memory does not.
#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// Time limit of one call, including all restarts of its worker. A call that takes longer counts as
/// hung.
const PATIENCE: Duration = Duration::from_secs(90);
/// Allowed growth of the owner's allocated bytes.
const HEAP_GROWTH: usize = 256 << 10;
/// Allowed growth of the owner's anonymous memory: glibc keeps freed memory of the callers'
/// threads.
const OWNER_GROWTH: u64 = 32 << 20;
/// Allowed growth of the sum of PSS over all processes: that of the owner, and the freed heap that
/// each worker keeps for activations. A worker that was just restarted has none yet.
fn pss_growth(workers: usize) -> u64 {
    OWNER_GROWTH + (16 << 20) + workers as u64 * (64 << 20)
}

/// Maximal sizes of the pools.
const WORKERS: u64 = 16;
const ACTORS: u64 = 4;
/// Seconds that one pair of pools runs.
const ROUND: u64 = 20;

fn seconds() -> u64 {
    let seconds = std::env::var("RAY_ZEROCOPY_CHAOS_SECONDS").ok();
    seconds.map_or_else(
        || {
            eprintln!("chaos for 6 s only; RAY_ZEROCOPY_CHAOS_SECONDS=120, or `cargo xtask chaos`, for longer");
            6
        },
        |seconds| seconds.parse().expect("RAY_ZEROCOPY_CHAOS_SECONDS is a number of seconds"),
    )
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("RAY_ZEROCOPY_CHAOS_SEED").ok();
    let seed = seed.map_or(now % 1_000_000, |seed| seed.parse().expect("RAY_ZEROCOPY_CHAOS_SEED is a number"));
    eprintln!("RAY_ZEROCOPY_CHAOS_SEED={seed}");
    seed
}

/// Counters of events.
#[derive(Default)]
struct Log {
    events: Mutex<BTreeMap<String, usize>>,
    busy: AtomicUsize,
    /// Whether a resource limit was lowered before.
    short: AtomicBool,
    /// Whether the callers rest for a while, so that pools shrink.
    rest: AtomicBool,
}

impl Log {
    pub(crate) fn note(&self, event: &str) {
        *self.events.lock().unwrap().entry(event.to_owned()).or_default() += 1;
    }

    /// Waits for an answer in a random way, and checks it.
    fn settle<T>(
        &self,
        rng: &mut SeededRng,
        what: &str,
        mut pending: Pending<T>,
        right: impl Fn(T) -> bool,
        kind: impl Fn(&CallError) -> bool,
    ) {
        let cancelled = rng.below(12) == 0;
        if cancelled {
            std::thread::sleep(Duration::from_micros(rng.below(3) * 100));
            pending.cancel();
        }
        let result = match rng.below(11) {
            // The call runs although its `Pending` is dropped.
            0 => return self.note(&format!("{what}: dropped")),
            10 => {
                drop(pending.cancel_on_drop());
                return self.note(&format!("{what}: dropped, which cancels"));
            }
            1..3 => pollster::block_on(pending),
            3..5 => pending.wait_timeout(PATIENCE).unwrap_or_else(|| panic!("{what} has no answer after {PATIENCE:?}")),
            5 => match pending.wait_timeout(Duration::from_micros(rng.below(300))) {
                Some(result) => result,
                None => pending.wait(),
            },
            _ => pending.wait(),
        };
        match result {
            Ok(value) => {
                assert!(right(value), "{what}: a wrong value");
                self.note(&format!("{what}: answered"));
            }
            Err(Error::Call(error)) => {
                self.check(what, &error, cancelled, kind);
                let name = format!("{error:?}");
                self.note(&format!("{what}: {}", name.split(' ').next().unwrap()));
            }
            Err(error) => panic!("{what}: an error of another kind, {error}"),
        }
    }

    /// Checks an error: it is of a kind that the call may have, or is explained by violence.
    pub(crate) fn check(&self, what: &str, error: &CallError, cancelled: bool, kind: impl Fn(&CallError) -> bool) {
        // Either garbage was sent to or by the worker, or the error names the limit that was lowered.
        let explained = |reason: &str| {
            let nonsense = reason.contains("a packet is broken");
            let named = ["`ulimit -n`", "`ulimit -v`", "is there enough memory"];
            let short = named.iter().any(|name| reason.contains(name));
            nonsense || (short && self.short.load(Ordering::Relaxed))
        };
        let violence = match error {
            CallError::WorkerDied { .. } => true,
            CallError::Cancelled { .. } => cancelled,
            CallError::Wire { reason, .. } => explained(reason),
            CallError::Start(error) => {
                error.reason().contains("processes died while they loaded") || explained(error.reason())
            }
            CallError::Load { error, .. } => explained(&error.to_string()),
            _ => false,
        };
        assert!(violence || kind(error), "{what}: an unexpected error, {error}");
    }
}

/// Kills or stops workers, sends garbage, or lowers limits, a few times per second.
fn violence(workers: impl Fn() -> Vec<Worker>, log: &Log, rng: &mut SeededRng) {
    std::thread::sleep(Duration::from_millis(20 + rng.below(200)));
    let workers = workers();
    let Some(victim) = workers.get(rng.below(workers.len().max(1) as u64) as usize) else { return };
    let pid = Pid::from_raw(victim.pid as i32).unwrap();
    // The victim may have ended since it was listed.
    let signal = |signal| kill_process(pid, signal).unwrap_or_default();
    match rng.below(16) {
        0..5 => {
            signal(Signal::KILL);
            log.note("violence: killed");
        }
        5..7 => {
            // Kills two or more workers at once, up to all.
            let many = 2 + rng.below(workers.len() as u64) as usize;
            for victim in workers.iter().take(many) {
                kill_process(Pid::from_raw(victim.pid as i32).unwrap(), Signal::KILL).unwrap_or_default();
            }
            log.note("violence: killed many");
        }
        7 => {
            signal(Signal::STOP);
            log.note("violence: stopped for good");
        }
        8..10 => {
            signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(rng.below(300)));
            signal(Signal::CONT);
            log.note("violence: stopped for a while");
        }
        10..12 => {
            let connections = connections();
            if let Some(connection) = connections.get(rng.below(connections.len().max(1) as u64) as usize) {
                send_garbage(connection, &rng.garbage());
                log.note("violence: garbage");
            }
        }
        12..14 => {
            log.short.store(true, Ordering::Relaxed);
            let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
            let before = getrlimit(Resource::Nofile);
            let few = Rlimit { current: Some(open + rng.below(4)), maximum: before.maximum };
            setrlimit(Resource::Nofile, few).unwrap();
            std::thread::sleep(Duration::from_millis(rng.below(800)));
            setrlimit(Resource::Nofile, before).unwrap();
            log.note("violence: few descriptors here");
        }
        14 => {
            log.short.store(true, Ordering::Relaxed);
            limited(victim, Resource::Nofile, 4 + rng.below(4), rng);
            log.note("violence: few descriptors in a worker");
        }
        // The standard library prints a backtrace under a lock that a failed allocation takes
        // again, so a process that is out of memory would deadlock there.
        _ if std::env::var("RUST_BACKTRACE").is_ok_and(|style| style != "0") => {}
        _ => {
            log.short.store(true, Ordering::Relaxed);
            let statm = std::fs::read_to_string(format!("/proc/{}/statm", victim.pid)).unwrap_or_default();
            let pages: Option<u64> = statm.split(' ').next().and_then(|pages| pages.parse().ok());
            if let Some(pages) = pages {
                limited(victim, Resource::As, pages * 4096 + (rng.below(4) << 20), rng);
                log.note("violence: little memory in a worker");
            }
        }
    }
}

/// Lowers a limit of a worker for a while. The worker may have ended.
fn limited(worker: &Worker, resource: Resource, limit: u64, rng: &mut SeededRng) {
    let pid = Pid::from_raw(worker.pid as i32);
    let maximum = getrlimit(resource).maximum;
    let Ok(before) = prlimit(pid, resource, Rlimit { current: Some(limit), maximum }) else { return };
    std::thread::sleep(Duration::from_millis(rng.below(500)));
    let _ended = prlimit(pid, resource, before);
}

/// Anonymous memory of this process, and the sum of PSS over all processes.
fn memory(workers: &[Worker]) -> (u64, u64) {
    let pids = workers.iter().map(|worker| worker.pid).chain([std::process::id()]);
    (rollup(std::process::id(), "Anonymous"), pids.map(|pid| rollup(pid, "Pss")).sum())
}

/// Runs callers and violence for some time.
fn chaos(
    engine: &LocalPool,
    tasks: &TaskWrapper<ChaosModel>,
    actors: &Actors<ChaosModel>,
    arenas: &[Arena; 2],
    seed: u64,
    time: Duration,
    log: &Log,
) {
    let stop = AtomicBool::new(false);
    let until = Instant::now() + time;
    let batched = &tasks.clone().batch(Batching::default().max_rows(16));
    // A caller that panics stops the other callers.
    struct Ended<'a>(&'a AtomicBool, &'a AtomicUsize);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
            if std::thread::panicking() {
                self.0.store(true, Ordering::Relaxed);
            }
        }
    }
    std::thread::scope(|scope| {
        for caller in 0..9 {
            let (stop, mut rng) = (&stop, SeededRng::new(seed + 1000 * (caller + 1)));
            log.busy.fetch_add(1, Ordering::Relaxed);
            scope.spawn(move || {
                let _ended = Ended(stop, &log.busy);
                while !stop.load(Ordering::Relaxed) {
                    if log.rest.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    match caller {
                        0..4 => calls::task(tasks, log, &mut rng),
                        4 => calls::stream(tasks, actors, log, &mut rng),
                        5 => calls::batch(batched, log, &mut rng),
                        6 => calls::swap(tasks, actors, arenas, log, &mut rng),
                        _ => calls::actor(actors, log, &mut rng),
                    }
                }
            });
        }
        let mut rng = SeededRng::new(seed);
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            violence(|| engine.workers().into_iter().chain(actors.workers()).collect(), log, &mut rng);
            if rng.below(4) == 0 {
                log.rest.store(true, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100 + rng.below(200)));
                log.rest.store(false, Ordering::Relaxed);
                log.note("violence: no calls for a while");
            }
        }
        stop.store(true, Ordering::Relaxed);
        eventually("every call is answered", || log.busy.load(Ordering::Relaxed) == 0);
    });
}

/// Waits until all workers run and have answered calls.
fn calm(engine: &LocalPool, least: usize, tasks: &TaskWrapper<ChaosModel>, actors: &Actors<ChaosModel>) -> Vec<Worker> {
    let workers = || [engine.workers(), actors.workers()].concat();
    let state = |worker: &Worker| std::fs::read_to_string(format!("/proc/{}/stat", worker.pid)).unwrap_or_default();
    eventually("all workers run", || {
        let workers = workers();
        workers.len() >= least + actors.actor_count() && workers.iter().all(|worker| state(worker).contains(") S "))
    });
    // Calls whose `Pending` was dropped may still run, and garbage may still be unread.
    let mut well = 0;
    eventually("the workers answer all calls", || {
        let pending: Vec<_> = (0..30).map(|_| tasks.sleep(5)).collect();
        let answered = pending.into_iter().map(Pending::wait).filter(Result::is_ok).count();
        let answered = answered + actors.iter().filter(|actor| actor.compute(1).wait().is_ok()).count();
        well = if answered == 30 + actors.actor_count() { well + 1 } else { 0 };
        well == 5
    });
    workers()
}

/// Memory after a round, which is compared with later rounds: allocated bytes and anonymous memory.
#[derive(Debug, Clone, Copy)]
struct Left {
    heap: usize,
    anonymous: u64,
}

/// Runs one pair of pools from its start to its end. The workers of tasks are at least `least` and at most
/// `size`.
fn round(
    model: &ChaosModel,
    (least, size, actors): (usize, usize, usize),
    seed: u64,
    time: Duration,
    log: &Log,
) -> Left {
    let builder = LocalPool::builder().workers(least..=size).idle(Duration::from_millis(seed % 100));
    let engine = builder.threads_per_worker(1).start().unwrap();
    let arenas = [share(model).unwrap(), share(model).unwrap()];
    let tasks = TaskWrapper::on(&engine, model).unwrap();
    let shared = ActorWrapper::new(model).unwrap();
    let actors = shared.spawn(actors).unwrap();
    let many = size + actors.actor_count();
    // Warm-up, so that the allocators of all threads have their memory.
    chaos(&engine, &tasks, &actors, &arenas, seed + 7, Duration::from_secs(2), log);
    let (anonymous, pss) = memory(&calm(&engine, least, &tasks, &actors));
    let heap = heap::used();

    chaos(&engine, &tasks, &actors, &arenas, seed, time, log);
    let (anonymous_after, pss_after) = memory(&calm(&engine, least, &tasks, &actors));
    let heap_after = heap::used();
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    let [a, b, c, d] = [anonymous, anonymous_after, pss, pss_after].map(mib);
    let report = engine.report();
    eprintln!("{least} to {size} workers: grown {} times, shrunk {} times", report.grown, report.shrunk);
    eprintln!(
        "{} actors: anonymous memory of the owner {a:.1} -> {b:.1} MiB, sum of PSS of all processes {c:.1} -> \
         {d:.1} MiB, allocated in the owner {heap} -> {heap_after} bytes",
        actors.actor_count()
    );
    assert!(heap_after < heap + HEAP_GROWTH, "the owner leaks");
    assert!(anonymous_after < anonymous + OWNER_GROWTH, "the owner has grown");
    assert!(pss_after < pss + pss_growth(many), "the processes have grown");
    actors.shut_down();
    engine.shut_down();
    Left { heap: heap_after, anonymous: anonymous_after }
}

#[test]
fn every_call_is_answered_once_without_leaks() {
    let (seconds, seed) = (seconds(), seed());
    // Warm-up: threads of the numeric kernels, for example, stay until the process ends.
    let device = Device::flex();
    let model = ChaosModel::new(&device);
    drop(Tensor::<2>::ones([512, 512], &device).matmul(model.layer.weight.val()).into_data());
    let before = holdings();

    let (log, mut rng) = (Log::default(), SeededRng::new(seed));
    let rounds = seconds.div_ceil(ROUND).max(2);
    let time = Duration::from_secs(seconds) / rounds as u32;
    let mut left: Vec<Left> = Vec::new();
    for number in 0..rounds {
        // The largest pool comes first, so that the memory that threads keep is allocated from then
        // on. The smallest is next, then random sizes.
        let size = match number {
            0 => WORKERS,
            1 => 1,
            _ => 1 + rng.below(WORKERS),
        };
        // All of the largest pool's workers stay.
        let least = if number == 0 { size } else { rng.below(size + 1) };
        let sizes = (least as usize, size as usize, 1 + rng.below(ACTORS) as usize);
        left.push(round(&model, sizes, seed + 100_000 * number, time, &log));
        let mut now = holdings();
        for _ in 0..6000 {
            if now == before {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            now = holdings();
        }
        assert_eq!(now, before, "resources of the round are left a minute after its end");
    }
    for (event, count) in &*log.events.lock().unwrap() {
        eprintln!("{count:>8}  {event}");
    }
    // Rounds of other sizes keep other amounts, but the amount must not grow from round to round.
    let most = left[..left.len().div_ceil(2)].iter().map(|left| left.heap).max().unwrap();
    let last = left[left.len() - 1];
    assert!(last.heap < most + HEAP_GROWTH, "the owner leaks from round to round: {left:?}");
    assert!(last.anonymous < left[0].anonymous + 2 * OWNER_GROWTH, "the owner grows from round to round: {left:?}");
}
