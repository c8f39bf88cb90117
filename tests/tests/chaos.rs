//! Chaos: pools of 1 to 16 workers under load, while one or all of them are killed or stopped, descriptors and memory are short, methods
//! panic, and nonsense is sent. Every call is answered once, with the right value or with an error of the kind that is to be expected,
//! and nothing is left behind.
//!
//! `RAY_ZEROCOPY_CHAOS_SECONDS=120 cargo test --workspace --test chaos`, or `cargo xtask chaos`. The seed is printed;
//! `RAY_ZEROCOPY_CHAOS_SEED` repeats the dice, though not what the kernel's scheduler makes of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use ray_zerocopy::engine::Worker;
use ray_zerocopy::{ActorWrapper, Actors, CallError, Error, LocalPool, Pending, TaskWrapper};
use ray_zerocopy_tests::chaos::{Boast, Crew, Dice, babble, connections};
use ray_zerocopy_tests::memory::{eventually, rollup};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};

/// Counts what is allocated: a leak of a few bytes a call shows here, and not in what the allocator keeps for later.
mod heap {
    #![allow(unsafe_code)]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub(super) struct Counting;

    static BYTES: AtomicUsize = AtomicUsize::new(0);

    /// What is allocated now, in bytes.
    pub(super) fn bytes() -> usize {
        BYTES.load(Ordering::Relaxed)
    }

    // SAFETY: every call goes on to the system's allocator, with the same arguments; the counter changes nothing.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            BYTES.fetch_add(layout.size(), Ordering::Relaxed);
            // SAFETY: the caller keeps the contract of `alloc`, which is that of the system's.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
            // SAFETY: `pointer` came from `alloc` above, with this layout, and so from the system's allocator.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// How long one call may take, however often its worker is killed or stopped: longer than that, it hangs.
const PATIENCE: Duration = Duration::from_secs(90);
/// How much more the owner may have allocated after the chaos than before: next to nothing.
const HEAP_GROWTH: usize = 256 << 10;
/// How much more anonymous memory it may have: what glibc keeps of what the callers' threads have freed.
const OWNER_GROWTH: u64 = 32 << 20;
/// How much the sum of the proportional set sizes of all processes may have grown: by what the owner may have, and by what each worker
/// keeps of its freed heap, for the next activations. A worker that was started anew just before has nothing yet.
fn pss_growth(workers: usize) -> u64 {
    OWNER_GROWTH + (16 << 20) + workers as u64 * (64 << 20)
}

/// How large the pools are at most.
const WORKERS: u64 = 16;
const ACTORS: u64 = 4;
/// How long one pair of pools lives, in seconds.
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

/// How often what happened.
#[derive(Default)]
struct Log {
    events: Mutex<BTreeMap<String, usize>>,
    busy: AtomicUsize,
    /// Something was short before.
    short: AtomicBool,
}

impl Log {
    fn note(&self, event: &str) {
        *self.events.lock().unwrap().entry(event.to_owned()).or_default() += 1;
    }

    /// Waits for an answer in one of the ways there are, and checks it.
    fn settle<T>(
        &self,
        dice: &mut Dice,
        what: &str,
        mut pending: Pending<T>,
        right: impl Fn(T) -> bool,
        kind: impl Fn(&CallError) -> bool,
    ) {
        let result = match dice.roll(10) {
            // Nobody waits. The call runs all the same.
            0 => return self.note(&format!("{what}: dropped")),
            1..3 => pollster::block_on(pending),
            3..5 => pending.wait_timeout(PATIENCE).unwrap_or_else(|| panic!("{what} has no answer after {PATIENCE:?}")),
            5 => match pending.wait_timeout(Duration::from_micros(dice.roll(300))) {
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
                // What was said to the worker, or by it, in between; or what was short, by its name.
                let explained = |reason: &str| {
                    let nonsense = reason.contains("a packet is broken");
                    let named = ["`ulimit -n`", "`ulimit -v`", "is there enough memory"];
                    let short = named.iter().any(|name| reason.contains(name));
                    nonsense || (short && self.short.load(Ordering::Relaxed))
                };
                let violence = match &error {
                    CallError::WorkerDied { .. } => true,
                    CallError::Wire { reason, .. } => explained(reason),
                    CallError::Start(error) => {
                        error.reason().contains("processes died while they loaded") || explained(error.reason())
                    }
                    CallError::Load { error, .. } => explained(&error.to_string()),
                    _ => false,
                };
                assert!(violence || kind(&error), "{what}: an error that nothing explains, {error}");
                let name = format!("{error:?}");
                self.note(&format!("{what}: {}", name.split(' ').next().unwrap()));
            }
            Err(error) => panic!("{what}: an error of another kind, {error}"),
        }
    }
}

fn never(_: &CallError) -> bool {
    false
}

fn wire(error: &CallError) -> bool {
    matches!(error, CallError::Wire { .. })
}

fn late(error: &CallError) -> bool {
    matches!(error, CallError::Deadline { .. })
}

/// One call of some kind, and its answer.
fn task(tasks: &TaskWrapper<Crew>, log: &Log, dice: &mut Dice) {
    let x = dice.roll(1 << 30);
    match dice.roll(100) {
        0..45 => log.settle(dice, "row", tasks.row(x), |y| y == 3 * x + 1, never),
        45..60 => {
            let len = [10, 5_000, 100_000, 1_000_000][dice.roll(4) as usize];
            let pending = tasks.carry(Tensor::full([len], x as f32, &Device::flex()));
            let right = |y: Tensor<1>| {
                let data = y.into_data();
                let numbers = data.as_slice::<f32>().unwrap();
                numbers.len() == len && numbers.iter().all(|&number| number == x as f32 + 1.0)
            };
            log.settle(dice, "carry", pending, right, never);
        }
        60..70 => {
            let hasty = tasks.clone().deadline(Duration::from_millis(10));
            let millis = dice.roll(20);
            log.settle(dice, "dawdle", hasty.dawdle(millis), |y| y == millis, late);
        }
        70..75 => {
            let jammed = |error: &CallError| matches!(error, CallError::Panicked { message, .. } if message.contains(&x.to_string()));
            log.settle(dice, "mutiny", tasks.mutiny(x), |_| false, jammed);
        }
        75..80 => {
            let len = (dice.roll(4) as usize) << 20;
            log.settle(dice, "swallow", tasks.swallow(vec![7; len]), |y| y == len, never);
        }
        80..85 => log.settle(dice, "listen", tasks.listen(Boast(vec![1, 2, 3])), |_| false, wire),
        85..90 => log.settle(dice, "secret", tasks.secret(), |_| false, wire),
        90..92 => log.settle(dice, "drown", tasks.clone().attempts(2).drown(), |()| false, never),
        92..94 => {
            let garbage = dice.garbage();
            let len = garbage.len();
            log.settle(dice, "babble", tasks.babble(garbage), |y| y == len, never);
        }
        // Many at once.
        _ => {
            let many: Vec<_> = (0..50).map(|n| (n, tasks.row(n))).collect();
            many.into_iter().for_each(|(n, pending)| log.settle(dice, "burst", pending, |y| y == 3 * n + 1, never));
        }
    }
}

fn actor(actors: &Actors<Crew>, log: &Log, dice: &mut Dice) {
    let one = actors.actor(dice.roll(actors.actor_count() as u64) as usize);
    match dice.roll(10) {
        0..5 => log.settle(dice, "actor: stroke", one.stroke(), |strokes| strokes > 0, never),
        5..8 => {
            let x = dice.roll(1000);
            log.settle(dice, "actor: row", actors.row(x), |y| y == 3 * x + 1, never);
        }
        8 => log.settle(
            dice,
            "actor: mutiny",
            one.mutiny(5),
            |_| false,
            |error| matches!(error, CallError::Panicked { .. }),
        ),
        _ => {
            let hasty = one.deadline(Duration::from_millis(15));
            log.settle(dice, "actor: dawdle", hasty.dawdle(10), |y| y == 10, late);
        }
    }
}

/// Kills, stops, says nonsense, and takes away, some times a second.
fn violence(workers: impl Fn() -> Vec<Worker>, log: &Log, dice: &mut Dice) {
    std::thread::sleep(Duration::from_millis(20 + dice.roll(200)));
    let workers = workers();
    let Some(victim) = workers.get(dice.roll(workers.len().max(1) as u64) as usize) else { return };
    let pid = Pid::from_raw(victim.pid as i32).unwrap();
    // The victim may have ended since it was listed.
    let signal = |signal| kill_process(pid, signal).unwrap_or_default();
    match dice.roll(16) {
        0..5 => {
            signal(Signal::KILL);
            log.note("violence: killed");
        }
        5..7 => {
            // From two to all of them, at once.
            let many = 2 + dice.roll(workers.len() as u64) as usize;
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
            std::thread::sleep(Duration::from_millis(dice.roll(300)));
            signal(Signal::CONT);
            log.note("violence: stopped for a while");
        }
        10..12 => {
            let connections = connections();
            if let Some(connection) = connections.get(dice.roll(connections.len().max(1) as u64) as usize) {
                babble(connection, &dice.garbage());
                log.note("violence: nonsense");
            }
        }
        12..14 => {
            log.short.store(true, Ordering::Relaxed);
            let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
            let before = getrlimit(Resource::Nofile);
            let few = Rlimit { current: Some(open + dice.roll(4)), maximum: before.maximum };
            setrlimit(Resource::Nofile, few).unwrap();
            std::thread::sleep(Duration::from_millis(dice.roll(800)));
            setrlimit(Resource::Nofile, before).unwrap();
            log.note("violence: few descriptors here");
        }
        14 => {
            log.short.store(true, Ordering::Relaxed);
            limited(victim, Resource::Nofile, 4 + dice.roll(4), dice);
            log.note("violence: few descriptors in a worker");
        }
        // The standard library prints a backtrace under a lock that a failed allocation takes once more:
        // a process that is short of memory hangs there for ever.
        _ if std::env::var("RUST_BACKTRACE").is_ok_and(|style| style != "0") => {}
        _ => {
            log.short.store(true, Ordering::Relaxed);
            let statm = std::fs::read_to_string(format!("/proc/{}/statm", victim.pid)).unwrap_or_default();
            let pages: Option<u64> = statm.split(' ').next().and_then(|pages| pages.parse().ok());
            if let Some(pages) = pages {
                limited(victim, Resource::As, pages * 4096 + (dice.roll(4) << 20), dice);
                log.note("violence: little memory in a worker");
            }
        }
    }
}

/// Gives a worker less of something, for a while. It may have ended.
fn limited(worker: &Worker, resource: Resource, limit: u64, dice: &mut Dice) {
    let pid = Pid::from_raw(worker.pid as i32);
    let maximum = getrlimit(resource).maximum;
    let Ok(before) = prlimit(pid, resource, Rlimit { current: Some(limit), maximum }) else { return };
    std::thread::sleep(Duration::from_millis(dice.roll(500)));
    let _ended = prlimit(pid, resource, before);
}

/// What this process holds: open files, threads of the engine, children, arenas and messages that are mapped, and folders.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    files: Vec<String>,
    threads: usize,
    children: usize,
    mappings: usize,
    folders: usize,
}

fn holdings() -> Holdings {
    let list = |path: &str| std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path());
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let mut files: Vec<_> = list("/proc/self/fd")
        .filter_map(|path| Some(std::fs::read_link(path).ok()?.to_string_lossy().into_owned()))
        // The folder that is being read.
        .filter(|file| !file.ends_with("/fd"))
        .collect();
    files.sort();
    let myself = std::process::id().to_string();
    let parent = |stat: &str| stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).map(str::to_owned);
    Holdings {
        files,
        threads: list("/proc/self/task").filter(|task| read(task.join("comm")).starts_with("ray-zerocopy")).count(),
        children: list("/proc").filter(|process| parent(&read(process.join("stat"))).as_ref() == Some(&myself)).count(),
        mappings: read("/proc/self/maps".into()).matches("/memfd:ray-zerocopy").count(),
        folders: list(&std::env::temp_dir().to_string_lossy())
            .filter(|path| path.to_string_lossy().contains(&format!("ray-zerocopy-{myself}-")))
            .count(),
    }
}

/// Anonymous memory of this process, and the proportional set sizes of all.
fn memory(workers: &[Worker]) -> (u64, u64) {
    let pids = workers.iter().map(|worker| worker.pid).chain([std::process::id()]);
    (rollup(std::process::id(), "Anonymous"), pids.map(|pid| rollup(pid, "Pss")).sum())
}

/// Load and violence for some time.
fn chaos(engine: &LocalPool, tasks: &TaskWrapper<Crew>, actors: &Actors<Crew>, seed: u64, time: Duration, log: &Log) {
    let stop = AtomicBool::new(false);
    let until = Instant::now() + time;
    // A caller that fails ends the chaos for all.
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
        for caller in 0..6 {
            let (stop, mut dice) = (&stop, Dice::new(seed + 1000 * (caller + 1)));
            log.busy.fetch_add(1, Ordering::Relaxed);
            scope.spawn(move || {
                let _ended = Ended(stop, &log.busy);
                while !stop.load(Ordering::Relaxed) {
                    match caller {
                        0..4 => task(tasks, log, &mut dice),
                        _ => actor(actors, log, &mut dice),
                    }
                }
            });
        }
        let mut dice = Dice::new(seed);
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            violence(|| engine.workers().into_iter().chain(actors.workers()).collect(), log, &mut dice);
        }
        stop.store(true, Ordering::Relaxed);
        eventually("every call is answered", || log.busy.load(Ordering::Relaxed) == 0);
    });
}

/// All workers are up, none is stopped, and each has answered a call and holds no message.
fn calm(engine: &LocalPool, size: usize, tasks: &TaskWrapper<Crew>, actors: &Actors<Crew>) -> Vec<Worker> {
    let workers = || [engine.workers(), actors.workers()].concat();
    let state = |worker: &Worker| std::fs::read_to_string(format!("/proc/{}/stat", worker.pid)).unwrap_or_default();
    eventually("the pools heal", || {
        let workers = workers();
        workers.len() == size + actors.actor_count() && workers.iter().all(|worker| state(worker).contains(") S "))
    });
    // Calls whose `Pending` was dropped may still run, and nonsense may still wait to be read.
    let mut well = 0;
    eventually("the workers are well", || {
        let pending: Vec<_> = (0..30).map(|_| tasks.dawdle(5)).collect();
        let answered = pending.into_iter().map(Pending::wait).filter(Result::is_ok).count();
        let answered = answered + actors.iter().filter(|actor| actor.row(1).wait().is_ok()).count();
        well = if answered == 30 + actors.actor_count() { well + 1 } else { 0 };
        well == 5
    });
    workers()
}

/// What is left of a round that a later one is compared with: bytes that are allocated, and anonymous memory.
#[derive(Debug, Clone, Copy)]
struct Left {
    heap: usize,
    anonymous: u64,
}

/// One pair of pools, from its start to its end.
fn round(crew: &Crew, (size, actors): (usize, usize), seed: u64, time: Duration, log: &Log) -> Left {
    let engine = LocalPool::builder().workers(size).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, crew).unwrap();
    let shared = ActorWrapper::new(crew).unwrap();
    let actors = shared.spawn(actors).unwrap();
    let many = size + actors.actor_count();
    // The allocators of all threads have seen what is to come.
    chaos(&engine, &tasks, &actors, seed + 7, Duration::from_secs(2), log);
    let (anonymous, pss) = memory(&calm(&engine, size, &tasks, &actors));
    let heap = heap::bytes();

    chaos(&engine, &tasks, &actors, seed, time, log);
    let (anonymous_after, pss_after) = memory(&calm(&engine, size, &tasks, &actors));
    let heap_after = heap::bytes();
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    let [a, b, c, d] = [anonymous, anonymous_after, pss, pss_after].map(mib);
    eprintln!(
        "{size} workers and {} actors: anonymous memory of the owner {a:.1} -> {b:.1} MiB, sum of PSS of all processes {c:.1} -> \
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
fn every_call_is_answered_once_and_nothing_is_left() {
    let (seconds, seed) = (seconds(), seed());
    // What the test itself keeps is there before: the threads of the numeric kernels, say.
    let device = Device::flex();
    let crew = Crew::new(&device);
    drop(Tensor::<2>::ones([512, 512], &device).matmul(crew.oar.weight.val()).into_data());
    let before = holdings();

    let (log, mut dice) = (Log::default(), Dice::new(seed));
    let rounds = seconds.div_ceil(ROUND).max(2);
    let time = Duration::from_secs(seconds) / rounds as u32;
    let mut left: Vec<Left> = Vec::new();
    for number in 0..rounds {
        // Many first, so that what threads keep of their heaps is there from then on; then few; then any number.
        let size = match number {
            0 => WORKERS,
            1 => 1,
            _ => 1 + dice.roll(WORKERS),
        };
        let sizes = (size as usize, 1 + dice.roll(ACTORS) as usize);
        left.push(round(&crew, sizes, seed + 100_000 * number, time, &log));
        let mut now = holdings();
        for _ in 0..6000 {
            if now == before {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            now = holdings();
        }
        assert_eq!(now, before, "something is left of the round a minute after its end");
    }
    for (event, count) in &*log.events.lock().unwrap() {
        eprintln!("{count:>8}  {event}");
    }
    // Rounds of other sizes keep other amounts, but not more and more.
    let most = left[..left.len().div_ceil(2)].iter().map(|left| left.heap).max().unwrap();
    let last = left[left.len() - 1];
    assert!(last.heap < most + HEAP_GROWTH, "the owner leaks from round to round: {left:?}");
    assert!(last.anonymous < left[0].anonymous + 2 * OWNER_GROWTH, "the owner grows from round to round: {left:?}");
}
