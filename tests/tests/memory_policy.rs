//! Memory policies (huge pages, prefault, lock) in the owner and in workers, checked with `/proc`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use burn::tensor::{Device, Tensor};
use ray_zerocopy::memory::{HugePages, MemoryPolicy, Obstacle, PolicyStatus};
use ray_zerocopy::{ActorWrapper, Actors, Arena, LocalPool, TaskWrapper, gather, share};
use ray_zerocopy_tests::memory::{Mapped, eventually, kernel_is_before, mapped};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

const BLOCK: u64 = 2 << 20;
/// Rows and columns of a model of a little more than 16 MiB: eight whole huge pages and a rest.
const SIZE: usize = 2048;
/// Rows and columns of a model of 4 MiB, which many machines let any user lock.
const SMALL: usize = 1024;

fn arena(size: usize) -> Arena {
    share(&TestModelConfig::new(size).init(&Device::flex())).unwrap()
}

/// The mapping of the arena in a process.
fn seen(arena: &Arena, pid: u32) -> Mapped {
    let inode = rustix::fs::fstat(arena.fd().unwrap()).unwrap().st_ino;
    let mut found = mapped(pid, inode);
    assert_eq!(found.len(), 1, "process {pid} maps the arena {} times", found.len());
    found.remove(0)
}

fn pids(actors: &Actors<TestModel>) -> Vec<u32> {
    actors.workers().iter().map(|worker| worker.pid).collect()
}

fn whole(arena: &Arena) -> u64 {
    arena.size_bytes() / BLOCK * BLOCK
}

/// Whether the kernel made the huge pages. If not, checks that the outcome gives a reason, and
/// prints that the test is skipped.
fn made(outcome: &PolicyStatus, arena: &Arena) -> bool {
    if let PolicyStatus::Applied { bytes } = outcome {
        assert_eq!(*bytes, whole(arena));
        return true;
    }
    assert!(!outcome.why().is_empty(), "{outcome}");
    let new = !kernel_is_before((6, 1));
    let thp = "/sys/kernel/mm/transparent_hugepage";
    let size = fs::read_to_string(format!("{thp}/hpage_pmd_size")).unwrap_or_default();
    let denied = fs::read_to_string(format!("{thp}/shmem_enabled")).is_ok_and(|text| text.contains("[deny]"));
    // A kernel that supports it may still lack free huge pages. No other reason is accepted.
    let for_want_of_memory = |why: &Obstacle| matches!(why, Obstacle::Refused { errno: 11 | 12 | 16, .. });
    if new && size.trim() == BLOCK.to_string() && !denied {
        assert!(outcome.why().iter().all(for_want_of_memory), "{outcome}");
    }
    eprintln!("skipped: no huge pages here: {outcome}");
    false
}

#[test]
fn arena_mappings_are_huge_page_aligned() {
    for (size, aligned) in [(8, false), (SMALL, true), (SIZE, true)] {
        let arena = arena(size);
        let actors = ActorWrapper::<TestModel>::from_arena(arena.clone()).spawn(2).unwrap();
        for pid in pids(&actors).into_iter().chain([std::process::id()]) {
            let start = seen(&arena, pid).addresses.start;
            assert!(!aligned || start.is_multiple_of(BLOCK), "{start:x} in {pid}");
        }
    }
}

#[test]
fn huge_pages_are_used_by_every_process() {
    let arena = arena(SIZE);
    let input = Tensor::<2>::ones([1, SIZE], &Device::flex());
    // These workers have mapped and read small pages before the huge pages are made.
    let early = ActorWrapper::<TestModel>::from_arena(arena.clone()).spawn(1).unwrap();
    let before = early.forward(input.clone()).wait().unwrap().into_data();
    assert!(seen(&arena, pids(&early)[0]).figure("Rss") > BLOCK);

    let shared =
        ActorWrapper::<TestModel>::from_arena(arena.clone()).memory(MemoryPolicy::default().huge_pages(HugePages::Now));
    let outcome = arena.memory_status();
    assert_eq!((&outcome.prefault, &outcome.lock), (&PolicyStatus::NotAsked, &PolicyStatus::NotAsked));
    let actors = shared.spawn(2).unwrap();
    let report = actors.report().unwrap();
    if !made(&outcome.huge_pages, &arena) {
        assert!(report.processes.iter().all(|process| !process.memory.huge_pages.why().is_empty()), "{report}");
        return;
    }
    for (process, &pid) in report.processes.iter().zip([std::process::id()].iter().chain(&pids(&actors))) {
        assert_eq!(process.memory.huge_pages, PolicyStatus::Applied { bytes: whole(&arena) }, "{report}");
        assert_eq!(process.huge, whole(&arena), "{report}");
        assert_eq!(seen(&arena, pid).figure("ShmemPmdMapped"), whole(&arena));
    }
    let text = report.to_string();
    assert!(text.contains("owner, worker 0, worker 1: huge pages: applied to 16.0 of 16.0 MiB"), "{text}");

    // Existing processes map the huge pages at their next read, and the contents do not change.
    for actors in [&early, &actors] {
        assert_eq!(actors.forward(input.clone()).wait().unwrap().into_data(), before);
    }
    assert_eq!(seen(&arena, pids(&early)[0]).figure("ShmemPmdMapped"), whole(&arena));
    arena.verify().unwrap();
    // The early workers have no policy, so the report has only figures for them.
    let report = early.report().unwrap();
    assert!(!report.processes[1].memory.is_asked());
}

#[test]
fn pages_are_collapsed_while_workers_read() {
    let arena = arena(4096);
    let shared = ActorWrapper::<TestModel>::from_arena(arena.clone());
    let actors = shared.threads_per_worker(1).spawn(2).unwrap();
    let input = Tensor::<2>::ones([1, 4096], &Device::flex());
    let before = actors.forward(input.clone()).wait().unwrap().into_data();
    let outcome = arena.apply_policy(MemoryPolicy::default().huge_pages(HugePages::Background));
    let mut rounds = 0;
    while matches!(arena.memory_status().huge_pages, PolicyStatus::InProgress { .. }) || rounds < 4 {
        let answers = gather((0..4).map(|_| actors.forward(input.clone()))).wait().unwrap();
        assert!(answers.into_iter().all(|answer| answer.into_data() == before));
        arena.verify().unwrap();
        rounds += 1;
    }
    eprintln!("{rounds} rounds; at first {outcome}, then {}", arena.memory_status());
    made(&arena.memory_status().huge_pages, &arena);
}

#[test]
fn background_thread_ends_with_the_arena() {
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "rzc huge pages").count()
    };
    let arena = arena(4096);
    let inode = rustix::fs::fstat(arena.fd().unwrap()).unwrap().st_ino;
    let outcome = arena.apply_policy(MemoryPolicy::default().huge_pages(HugePages::Background)).huge_pages;
    assert!(matches!(outcome, PolicyStatus::InProgress { .. }) || made(&outcome, &arena) || !outcome.why().is_empty());
    drop(arena);
    eventually("the arena is unmapped", || mapped(std::process::id(), inode).is_empty());
    eventually("the thread has ended", || threads() == 0);
}

#[test]
fn worker_that_prefaults_maps_every_page() {
    let arena = arena(SIZE);
    let pages = arena.size_bytes().next_multiple_of(4096);
    let shared = ActorWrapper::<TestModel>::from_arena(arena.clone());
    let lazy = shared.spawn(1).unwrap();
    assert!(seen(&arena, pids(&lazy)[0]).figure("Rss") < pages / 2);
    let report = lazy.report().unwrap().to_string();
    assert!(!report.contains("huge") && !report.contains("prefault"), "{report}");

    let actors = shared.memory(MemoryPolicy::default().prefault(true)).spawn(1).unwrap();
    if kernel_is_before((5, 14)) {
        let report = actors.report().unwrap();
        let worker = &report.processes[1].memory;
        assert!(matches!(worker.prefault.why(), [Obstacle::Unsupported { since, .. }] if since == "5.14"), "{report}");
        return;
    }
    assert_eq!(seen(&arena, pids(&actors)[0]).figure("Rss"), pages);
    let report = actors.report().unwrap();
    let worker = &report.processes[1].memory;
    assert_eq!(worker.prefault, PolicyStatus::Applied { bytes: arena.size_bytes() }, "{report}");
    assert!(worker.is_applied() && worker.is_asked());
    assert_eq!((&worker.huge_pages, &worker.lock), (&PolicyStatus::NotAsked, &PolicyStatus::NotAsked));
    // The policy does not apply to the owner, which does not compute.
    assert!(!report.processes[0].memory.is_asked());
    assert!(report.to_string().contains("worker 0: prefault: applied to 16.0 of 16.0 MiB"), "{report}");
}

#[test]
fn policy_on_an_arena_of_few_bytes_is_valid() {
    let engine = LocalPool::builder().workers(1).threads_per_worker(1).start().unwrap();
    let model = TestModelConfig::new(8).init(&Device::flex());
    let memory = MemoryPolicy::default().huge_pages(HugePages::Now).prefault(true);
    let tasks = TaskWrapper::on(&engine, &model).unwrap().memory(memory).strict().device("cpu").unwrap();
    tasks.pid().wait().unwrap();
    let report = tasks.report().unwrap();
    let bytes = tasks.arena().size_bytes();
    for process in &report.processes {
        let expected = PolicyStatus::NotApplied { of: 0, why: vec![Obstacle::Smaller { bytes }] };
        assert_eq!(process.memory.huge_pages, expected, "{report}");
    }
    assert_eq!(report.processes[1].memory.prefault, PolicyStatus::Applied { bytes });
    assert!(!report.processes[1].memory.is_applied());
}

#[test]
fn handle_carries_its_policy_to_the_loader() {
    let shared = ActorWrapper::new(&TestModelConfig::new(SMALL).init(&Device::flex())).unwrap();
    let text = serde_json::to_string(&shared.memory(MemoryPolicy::default().prefault(true))).unwrap();
    let received: ActorWrapper<TestModel> = serde_json::from_str(&text).unwrap();
    assert!(!received.arena().memory_status().is_asked());
    received.load().unwrap();
    let expected = PolicyStatus::Applied { bytes: received.arena().size_bytes() };
    assert_eq!(received.arena().memory_status().prefault, expected);
    received.withdraw();

    let tasks = TaskWrapper::<TestModel>::from_arena_on(&LocalPool::shared().unwrap(), arena(SMALL)).unwrap();
    let tasks = tasks.memory(MemoryPolicy::default().prefault(true));
    tasks.load().unwrap();
    assert_eq!(tasks.arena().memory_status().prefault, PolicyStatus::Applied { bytes: tasks.arena().size_bytes() });
}

#[test]
fn a_locked_arena_stays_in_memory() {
    let arena = arena(SMALL);
    let shared = ActorWrapper::<TestModel>::from_arena(arena.clone()).memory(MemoryPolicy::default().lock(true));
    let actors = shared.spawn(1).unwrap();
    let report = actors.report().unwrap();
    if let [Obstacle::MemlockLimit { .. }] = report.processes[1].memory.lock.why() {
        return eprintln!("skipped: this user may not lock 4 MiB: {report}");
    }
    assert_eq!(report.processes[1].memory.lock, PolicyStatus::Applied { bytes: arena.size_bytes() }, "{report}");
    let worker = seen(&arena, pids(&actors)[0]);
    assert!(worker.flags.iter().any(|flag| flag == "lo"), "{:?}", worker.flags);
    assert_eq!(worker.figure("Rss"), arena.size_bytes().next_multiple_of(4096));
    // `Locked` in smaps is the worker's proportional share, because the owner has mapped the arena
    // too.
    let locked = worker.figure("Locked");
    assert!(locked > 0 && locked <= worker.figure("Rss"), "{locked}");
    assert_eq!(report.processes[1].locked, worker.figure("Rss"), "{report}");
    assert_eq!(report.processes[0].locked, 0, "{report}");
    arena.verify().unwrap();
}

/// Runs one test of this file again, in a process that `prepare` has changed. Returns `None` if
/// such a process cannot be started.
fn again(test: &str, prepare: impl FnOnce(&mut Command)) -> Option<String> {
    let mut command = Command::new("/proc/self/exe");
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("MEMORY_POLICY_CHILD", test);
    prepare(&mut command);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: no such process can be started: {error}");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
    Some(text)
}

fn is_child(test: &str) -> bool {
    std::env::var("MEMORY_POLICY_CHILD").is_ok_and(|child| child == test)
}

#[test]
fn process_that_may_not_lock_is_told_the_limit() {
    const TEST: &str = "process_that_may_not_lock_is_told_the_limit";
    const LIMIT: u64 = 1 << 20;
    if !is_child(TEST) {
        // A process with CAP_IPC_LOCK has no limit.
        let text = again(TEST, |command| {
            if geteuid().is_root() {
                command.uid(65534).gid(65534);
            }
        });
        let told = "lock: not applied (the process may lock 1.0 MiB, has locked 0.0 MiB, and needs 4.0 MiB more; \
                    raise `ulimit -l`";
        return assert!(text.is_none_or(|text| text.contains(told)));
    }
    setrlimit(Resource::Memlock, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
    assert_eq!(getrlimit(Resource::Memlock).current, Some(LIMIT));
    let arena = arena(SMALL);
    let why = Obstacle::MemlockLimit { limit: LIMIT, locked: 0, needed: arena.size_bytes() };
    let expected = PolicyStatus::NotApplied { of: arena.size_bytes(), why: vec![why] };
    let memory = MemoryPolicy::default().lock(true);
    assert_eq!(arena.apply_policy(memory).lock, expected);
    println!("{}", arena.memory_status());

    // Workers inherit the limit of their owner, and still work.
    let actors = ActorWrapper::<TestModel>::from_arena(arena.clone()).memory(memory).spawn(1).unwrap();
    let report = actors.report().unwrap();
    assert_eq!(report.processes[1].memory.lock, expected, "{report}");
    assert_eq!(report.processes[1].locked, 0);
    actors.forward(Tensor::ones([1, SMALL], &Device::flex())).wait().unwrap();

    // An arena that fits into the limit is locked.
    let little = share(&TestModelConfig::new(64).init(&Device::flex())).unwrap();
    assert_eq!(little.apply_policy(memory).lock, PolicyStatus::Applied { bytes: little.size_bytes() });
}

#[test]
fn policy_that_the_kernel_refuses_has_a_reason() {
    const TEST: &str = "policy_that_the_kernel_refuses_has_a_reason";
    if !is_child(TEST) {
        again(TEST, |_| ());
        return;
    }
    forbid_huge_pages();
    let arena = arena(SIZE);
    for when in [HugePages::Now, HugePages::Background] {
        arena.apply_policy(MemoryPolicy::default().huge_pages(when));
        eventually("it is tried", || !matches!(arena.memory_status().huge_pages, PolicyStatus::InProgress { .. }));
        let outcome = arena.memory_status().huge_pages;
        assert!(matches!(&outcome, PolicyStatus::NotApplied { of, .. } if *of == whole(&arena)), "{outcome}");
        match outcome.why() {
            [Obstacle::Refused { errno: 22, call }] => assert_eq!(call, "madvise(MADV_COLLAPSE)"),
            [Obstacle::Unsupported { .. } | Obstacle::OtherSize { .. }] => eprintln!("skipped: {outcome}"),
            _ => panic!("{outcome}"),
        }
    }
    arena.verify().unwrap();
    assert_eq!(seen(&arena, std::process::id()).figure("ShmemPmdMapped"), 0);
}

/// Disables huge pages for this process with `prctl`, as an administrator can.
fn forbid_huge_pages() {
    const PR_SET_THP_DISABLE: i32 = 41;
    unsafe extern "C" {
        fn prctl(option: i32, ...) -> i32;
    }
    // SAFETY: this call takes four numbers and touches no memory.
    let result = unsafe { prctl(PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
