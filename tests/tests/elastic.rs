//! Many cycles of growing and shrinking, limits that keep a pool from growing, and the cores and the niceness
//! of workers.
//!
//! Limits and holdings belong to a process, so each test starts its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use ray_zerocopy::{ActorWrapper, LocalPool, TaskWrapper, Threads, gather};
use ray_zerocopy_tests::chaos::{ChaosModel, SeededRng};
use ray_zerocopy_tests::holdings::{Holdings, holdings};
use ray_zerocopy_tests::memory::{eventually, rollup};
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

const ROLE: &str = "RAY_ZEROCOPY_TEST_ELASTIC";
/// Environment variable with the number of cycles, if it is not [`CYCLES`].
const CYCLES_VARIABLE: &str = "RAY_ZEROCOPY_CYCLES";
const CYCLES: u32 = 200;
/// Cycles after which the memory of the owner is measured for the first time: the allocator keeps what
/// the first ones have needed.
const WARM_UP: u32 = 20;
/// Private memory that may be left of the cycles. A worker takes more.
const LEFT: u64 = 4 << 20;
const IDLE: Duration = Duration::from_millis(2);

fn tasks(pool: &impl ray_zerocopy::engine::Backend) -> TaskWrapper<ChaosModel> {
    // A call that loses its worker fails: shrinking must not cost an attempt.
    TaskWrapper::on(pool, &ChaosModel::new(&Device::flex())).unwrap().attempts(1)
}

/// Makes a pool grow with calls of random length, and waits until it is at its least number of workers.
fn cycles(tasks: &TaskWrapper<ChaosModel>, cycles: u32, rng: &mut SeededRng, workers: impl Fn() -> usize) {
    for _ in 0..cycles {
        gather((0..4).map(|_| tasks.sleep(1 + rng.below(3)))).wait().unwrap();
        // Calls that meet ending workers.
        std::thread::sleep(Duration::from_micros(rng.below(4000)));
        gather((0..2).map(|_| tasks.sleep(rng.below(2)))).wait().unwrap();
        eventually("the pool shrinks", || workers() == 0);
    }
}

/// Resources of this process when all workers have ended, and their connections are closed.
fn settled() -> Holdings {
    let is_settled = |held: &Holdings| held.children == 0 && !held.files.iter().any(|file| file.starts_with("socket"));
    let mut held = holdings();
    eventually("the workers are gone", || {
        held = holdings();
        is_settled(&held)
    });
    held
}

fn lose_nothing(tasks: &TaskWrapper<ChaosModel>, workers: impl Fn() -> usize) {
    let count = std::env::var(CYCLES_VARIABLE).map_or(CYCLES, |count| count.parse().expect("a number of cycles"));
    let mut rng = SeededRng::new(3);
    cycles(tasks, WARM_UP, &mut rng, &workers);
    let before = settled();
    let private = rollup(std::process::id(), "Anonymous");
    cycles(tasks, count, &mut rng, &workers);
    let after = settled();
    assert_eq!(after, before, "after {count} cycles");
    let after = rollup(std::process::id(), "Anonymous");
    assert!(after <= private + LEFT, "{private} bytes before {count} cycles, and {after} afterwards");
}

fn cycles_of_processes() {
    let pool = LocalPool::builder().workers(0..=3).idle(IDLE).threads_per_worker(1).start().unwrap();
    lose_nothing(&tasks(&pool), || pool.report().workers);
    let report = pool.report();
    assert!(report.refused == 0 && report.grown == report.shrunk && report.grown >= u64::from(WARM_UP), "{report}");
}

fn cycles_of_threads() {
    let threads = Threads::builder().workers(0..=3).idle(IDLE).threads_per_worker(1).build();
    lose_nothing(&tasks(&threads), || threads.report().unwrap().workers);
}

/// The user may not have another process, so the pool serves on with the worker that it has.
fn limit_on_processes() {
    let pool = LocalPool::builder().workers(1..=3).idle(IDLE).threads_per_worker(1).start().unwrap();
    let tasks = tasks(&pool);
    tasks.sleep(0).wait().unwrap();
    let before = getrlimit(Resource::Nproc);
    setrlimit(Resource::Nproc, Rlimit { current: Some(1), maximum: before.maximum }).unwrap();
    let begun = Instant::now();
    gather((0..8).map(|_| tasks.sleep(10))).wait().unwrap();
    let report = pool.report();
    assert_eq!((report.workers, report.grown), (1, 0));
    let refusal = report.refusal.unwrap();
    assert!(report.refused > 0 && refusal.contains("see `ulimit -u`"), "{refusal}");
    // Two workers are refused at a time, and then there is a pause of a second.
    let most = 2 * (1 + begun.elapsed().as_secs());
    assert!(report.refused <= most, "{} of at most {most}", report.refused);

    setrlimit(Resource::Nproc, before).unwrap();
    eventually("the pool grows again", || {
        gather((0..3).map(|_| tasks.sleep(10))).wait().unwrap();
        pool.report().grown > 0
    });
}

/// The cores that a thread may use, and its niceness, by the kernel's figures.
fn placement(task: &Path) -> (String, i32) {
    let status = std::fs::read_to_string(task.join("status")).unwrap();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let stat = std::fs::read_to_string(task.join("stat")).unwrap();
    // The 19th field. The name of the program is in parentheses, and is the second.
    let niceness = stat.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap();
    (cores.trim().to_owned(), niceness.parse().unwrap())
}

/// The threads of a process that have been started for its work: their names, and their folders.
fn tasks_of(pid: u32) -> Vec<(String, PathBuf)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|task| task.path());
    tasks.map(|task| (std::fs::read_to_string(task.join("comm")).unwrap().trim().to_owned(), task)).collect()
}

/// The first core of this process.
fn first_core() -> usize {
    let (cores, _) = placement(Path::new("/proc/self"));
    cores.split([',', '-']).next().unwrap().parse().unwrap()
}

#[test]
fn processes_have_cores_and_niceness() {
    let core = first_core();
    let pool = LocalPool::builder().workers(2).threads_per_worker(2).affinity([[core]]).niceness(5).start().unwrap();
    tasks(&pool).sleep(0).wait().unwrap();
    let expected = (core.to_string(), 5);
    for worker in pool.workers() {
        let main = PathBuf::from(format!("/proc/{}/task/{}", worker.pid, worker.pid));
        assert_eq!(placement(&main), expected);
        // The watcher may have been started before. A new thread has the name of its process until it sets its own, of
        // which the kernel keeps 15 bytes.
        eventually("all threads but the watcher have the core and the niceness", || {
            let is_watcher = |name: &str| name == &"ray-zerocopy watcher"[..15];
            let others = tasks_of(worker.pid).into_iter().filter(|(name, _)| !is_watcher(name));
            others.map(|(_, task)| placement(&task)).all(|found| found == expected)
        });
    }
    let actors = ActorWrapper::new(&ChaosModel::new(&Device::flex())).unwrap().niceness(6).pin_cores();
    let actors = actors.threads_per_worker(1).spawn(1).unwrap();
    let pid = actors.workers()[0].pid;
    let (cores, niceness) = placement(Path::new(&format!("/proc/{pid}")));
    assert_eq!((cores, niceness), (core.to_string(), 6));
}

#[test]
fn threads_have_cores_and_niceness() {
    let core = first_core();
    let threads = Threads::builder().workers(1).threads_per_worker(2).affinity([vec![core]]).niceness(7).build();
    let before = tasks_of(std::process::id());
    let (_, own) = placement(Path::new("/proc/self"));
    tasks(&threads).sleep(0).wait().unwrap();
    let is_new = |task: &(String, PathBuf)| !before.contains(task);
    let workers: Vec<_> = tasks_of(std::process::id()).into_iter().filter(is_new).collect();
    let placed = workers.iter().filter(|(_, task)| placement(task) == (core.to_string(), 7)).count();
    assert_eq!(placed, 2, "{workers:?}");
    assert_eq!(placement(Path::new("/proc/self")).1, own);
}

#[test]
fn placement_that_is_refused_is_an_error() {
    let error = LocalPool::builder().workers(0..=1).affinity([[first_core(), 1023]]).start().unwrap_err().to_string();
    assert!(error.contains("1023] cannot be set: "), "{error}");
    let error = LocalPool::builder().workers(1).affinity([[1023]]).start().unwrap_err().to_string();
    assert!(error.contains("the affinity to cores [1023] cannot be set: "), "{error}");
    let threads = Threads::builder().workers(1).affinity([[1023]]).build();
    let error = TaskWrapper::on(&threads, &ChaosModel::new(&Device::flex())).unwrap_err().to_string();
    assert!(error.contains("this process may use cores ["), "{error}");
}

/// Another user than root may not lower the niceness.
fn limit_on_niceness() {
    setrlimit(Resource::Nice, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    let error = LocalPool::builder().workers(1).niceness(-5).start().unwrap_err().to_string();
    let (_, own) = placement(Path::new("/proc/self"));
    let expected = format!("niceness -5 cannot be set: this user may not go below {own} (it is {own} now)");
    assert!(error.contains(&expected) && error.contains("see `ulimit -e`"), "{error}");
}

/// Not a test of its own: what the tests below start.
#[test]
fn role_of_an_elastic_process() {
    match std::env::var(ROLE).as_deref() {
        Ok("cycles of processes") => cycles_of_processes(),
        Ok("cycles of threads") => cycles_of_threads(),
        Ok("limit on processes") => limit_on_processes(),
        Ok("limit on niceness") => limit_on_niceness(),
        _ => {}
    }
}

fn in_a_process_of_its_own(role: &str, user: Option<u32>) {
    let mut process = Command::new("/proc/self/exe");
    process.args(["--exact", "role_of_an_elastic_process", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    if let Some(user) = user {
        process.uid(user).gid(user);
    }
    let output = process.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn cycles_of_processes_lose_nothing() {
    in_a_process_of_its_own("cycles of processes", None);
}

#[test]
fn cycles_of_threads_lose_nothing() {
    in_a_process_of_its_own("cycles of threads", None);
}

#[test]
fn pool_serves_on_at_the_process_limit() {
    // The limit does not apply to root, so the process runs as another user then.
    let unprivileged = 65534;
    in_a_process_of_its_own("limit on processes", getuid().is_root().then_some(unprivileged));
}

#[test]
fn lowering_the_niceness_names_the_limit() {
    let unprivileged = 65534;
    in_a_process_of_its_own("limit on niceness", getuid().is_root().then_some(unprivileged));
}
