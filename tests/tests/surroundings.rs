//! Restricted environments: no `/proc`, seccomp policies that refuse system calls, and resource
//! limits. Whatever does not need the missing feature works, and errors name the restriction.
//!
//! A restriction belongs to a process, so each test starts its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use burn::tensor::{Device, Tensor};
use memmap2::MmapOptions;
use ray_zerocopy::memory::{HugePages, MemoryPolicy, Obstacle, PolicyStatus};
use ray_zerocopy::report::scan;
use ray_zerocopy::{ActorWrapper, Arena, Checkpoint, load, share, share_from};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use ray_zerocopy_tests::seccomp;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};
use tempfile::TempDir;

const ROLE: &str = "RAY_ZEROCOPY_TEST_SURROUNDINGS";

fn model(size: usize) -> TestModel {
    TestModelConfig::new(size).init(&Device::flex())
}

/// A sealed memfd of zeros, which is not an arena.
fn sealed(len: u64) -> OwnedFd {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, len).unwrap();
    fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    fd
}

fn refusal(fd: OwnedFd) -> String {
    Arena::from_memfd(fd).unwrap_err().to_string()
}

fn limit(resource: Resource, soft: u64) -> Rlimit {
    let before = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(soft), maximum: before.maximum }).unwrap();
    before
}

/// Without `/proc` no descriptor can be reopened as read-only. Before Linux 6.7 all maps are
/// therefore private.
fn without_proc() {
    assert!(!Path::new("/proc/self").exists());
    let original = model(1024);
    let arena = share(&original).unwrap();
    arena.verify().unwrap();
    let x = Tensor::<2>::ones([2, 1024], &Device::flex());
    let loaded = load::<TestModel>(&arena, &Device::flex()).unwrap().strict().unwrap();
    assert_eq!(loaded.forward(x.clone()).into_data(), original.forward(x).into_data());

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.bpk");
    for _ in 0..2 {
        arena.save(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the file itself");
    }
    assert_eq!(Arena::open(&path).unwrap().id(), arena.id());

    // Policies are applied, but their effect can only be read from `/proc`.
    let outcome = arena.apply_policy(MemoryPolicy::default().huge_pages(HugePages::Now).prefault(true));
    let PolicyStatus::Unknown { reason, .. } = &outcome.prefault else { panic!("{outcome}") };
    assert!(reason.starts_with("/proc/self/smaps cannot be read"), "{reason}");
    let error = scan().unwrap_err().to_string();
    assert!(error.contains("reports need Linux's /proc"), "{error}");
    eprintln!("all was done without /proc");
}

fn without_memfds() {
    seccomp::refuse(libc::SYS_memfd_create);
    let error = share(&model(64)).unwrap_err().to_string();
    assert!(error.contains("memfd_create failed") && error.contains("a policy of this machine refuses it"), "{error}");
}

fn without_maps() {
    let fd = sealed(1 << 20);
    seccomp::refuse(libc::SYS_mmap);
    let error = refusal(fd);
    assert!(error.contains("mmap failed") && error.contains("a policy of this machine refuses it"), "{error}");
    assert!(!error.contains("enough memory"), "{error}");
}

fn without_advice() {
    let arena = share(&model(1024)).unwrap();
    seccomp::refuse(libc::SYS_madvise);
    let outcome = arena.apply_policy(MemoryPolicy::default().huge_pages(HugePages::Now).prefault(true));
    for (part, call) in
        [(&outcome.huge_pages, "madvise(MADV_COLLAPSE)"), (&outcome.prefault, "madvise(MADV_POPULATE_READ)")]
    {
        let refused = |why: &Obstacle| matches!(why, Obstacle::Refused { call: found, errno } if (found.as_str(), *errno) == (call, libc::EPERM));
        assert!(part.why().iter().any(refused), "{outcome}");
    }
    assert!(outcome.to_string().contains("a policy of this machine refuses it"), "{outcome}");
    arena.verify().unwrap();
}

fn few_addresses() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.split_whitespace().next()).unwrap();
    let before = limit(Resource::As, size.parse::<u64>().unwrap() * 1024 + (8 << 20));
    let error = refusal(sealed(64 << 20));
    assert!(error.contains("and needs 64 more: raise the limit, see `ulimit -v`"), "{error}");
    setrlimit(Resource::As, before).unwrap();
    assert!(refusal(sealed(64 << 20)).starts_with("not an arena"));
}

fn many_maps() {
    let (file, arena) = (tempfile::tempfile().unwrap(), sealed(4096));
    file.set_len(4096).unwrap();
    let mut maps = Vec::with_capacity(1 << 20);
    let map = || MmapOptions::new().len(4096).map_raw_read_only(&file);
    while maps.len() < maps.capacity() {
        match map() {
            Ok(map) => maps.push(map),
            Err(_) => break,
        }
    }
    if maps.len() == maps.capacity() {
        return eprintln!("skipped: this machine allows more maps than {}", maps.len());
    }
    let error = refusal(arena.try_clone().unwrap());
    drop(maps);
    assert!(error.contains("memory maps, and may have") && error.contains("`sysctl vm.max_map_count`"), "{error}");
    assert!(refusal(arena).starts_with("not an arena"));
}

/// Under strict overcommit, sealed memory is charged when it is written.
fn promises() {
    // 9 GiB of weights. The pipeline has not initialised them, and the file is sparse.
    const SIZE: usize = 49_152;
    let (weight, bias) = (SIZE * SIZE * 4, SIZE * 4);
    let header = serde_json::json!({
        "layer.weight": { "dtype": "F32", "shape": [SIZE, SIZE], "data_offsets": [0, weight] },
        "layer.bias": { "dtype": "F32", "shape": [SIZE], "data_offsets": [weight, weight + bias] },
    });
    let header = header.to_string().into_bytes();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], &header].concat()).unwrap();
    let len = 8 + header.len() + weight + bias;
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len as u64).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let error = share_from(&model(SIZE), &checkpoint).unwrap_err().to_string();
    assert!(error.contains("this machine promises no more memory than it has"), "{error}");
    share(&model(64)).unwrap().verify().unwrap();
}

fn small_files() {
    let arena = share(&model(256)).unwrap();
    let folder = TempDir::new().unwrap();
    let before = limit(Resource::Fsize, 100_000);
    // By default the kernel would end the process with SIGXFSZ.
    let error = share(&model(256)).unwrap_err().to_string();
    assert!(error.contains("may not write files that are that large: see `ulimit -f`"), "{error}");
    let error = arena.save(folder.path().join("model.bpk")).unwrap_err().to_string();
    assert!(error.contains("see `ulimit -f`"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    setrlimit(Resource::Fsize, before).unwrap();
    arena.save(folder.path().join("model.bpk")).unwrap();
}

/// The report counts processes of other users, which may have mapped the arena and cannot be read.
fn strangers() {
    let wrapper = ActorWrapper::new(&model(64)).unwrap();
    let report = wrapper.report().unwrap();
    let scan = scan().unwrap();
    assert!(report.hidden > 0 && scan.hidden > 0, "{report}");
    assert!(report.to_string().contains("processes that this user may not inspect: "), "{report}");
}

/// Not a test of its own: the processes that the tests below start.
#[test]
fn role_of_a_process_in_hostile_surroundings() {
    match std::env::var(ROLE).as_deref() {
        Ok("without /proc") => without_proc(),
        Ok("without memfds") => without_memfds(),
        Ok("without maps") => without_maps(),
        Ok("without advice") => without_advice(),
        Ok("few addresses") => few_addresses(),
        Ok("many maps") => many_maps(),
        Ok("promises") => promises(),
        Ok("small files") => small_files(),
        Ok("strangers") => strangers(),
        _ => {}
    }
}

fn in_a_process_of_its_own(role: &str, mut process: Command) -> String {
    process.args(["--exact", "role_of_a_process_in_hostile_surroundings", "--nocapture", "--test-threads=1"]);
    let output = process.env(ROLE, role).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    for line in said.lines().filter(|line| line.starts_with("skipped")) {
        eprintln!("{line}");
    }
    said
}

fn here(role: &str) {
    in_a_process_of_its_own(role, Command::new("/proc/self/exe"));
}

#[test]
fn library_works_without_proc_except_workers() {
    let mut process = Command::new("unshare");
    process.args(["-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\""]);
    let permitted = Command::new("unshare").args(["-m", "true"]).status();
    if !permitted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: only root can hide /proc from a process");
        return;
    }
    process.arg(std::env::current_exe().unwrap());
    let said = in_a_process_of_its_own("without /proc", process);
    assert!(said.contains("all was done without /proc"), "{said}");
}

#[test]
fn a_policy_that_refuses_memfds_is_named() {
    here("without memfds");
}

#[test]
fn a_policy_that_refuses_maps_is_named() {
    here("without maps");
}

#[test]
fn policy_that_refuses_advice_is_named() {
    here("without advice");
}

#[test]
fn a_limit_of_the_address_space_is_named() {
    here("few addresses");
}

#[test]
fn the_limit_of_maps_is_named() {
    here("many maps");
}

#[test]
fn strict_overcommit_is_named() {
    if fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap().trim() != "2" {
        eprintln!("skipped: `sysctl vm.overcommit_memory` is not 2; the virtual machine of `cargo xtask test` sets it");
        return;
    }
    here("promises");
}

#[test]
fn file_size_limit_is_an_error_and_not_a_signal() {
    here("small files");
}

#[test]
fn unreadable_processes_are_counted() {
    if !getuid().is_root() {
        // There is always a process of root.
        return here("strangers");
    }
    let mut process = Command::new("/proc/self/exe");
    process.uid(65534).gid(65534);
    in_a_process_of_its_own("strangers", process);
}
