//! Workers end when their owner ends, and the memory is freed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use burn::tensor::Device;
use ray_zerocopy::ActorWrapper;
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig, kill_myself};
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "RAY_ZEROCOPY_TEST_OWNER";
/// A file that a fork of the owner creates. The fork ends when the file is removed.
const FORK: &str = "RAY_ZEROCOPY_TEST_FORK";

/// Not a test of its own: the owner process that the tests below start and kill.
#[test]
fn role_of_the_owner() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let wrapper = ActorWrapper::<TestModel>::new(&TestModelConfig::new(512).init(&Device::flex())).unwrap();
    let actors = wrapper.spawn(3).unwrap();
    // Two workers are busy for longer than the test takes, and one is idle.
    let busy = [actors.actor(0).sleep(600_000), actors.actor(1).sleep(600_000)];
    let pids: Vec<_> = actors.workers().iter().map(|worker| worker.pid.to_string()).collect();
    let inode = std::fs::read_to_string("/proc/self/maps").unwrap();
    let inode = inode.lines().find(|line| line.contains("/memfd:ray-zerocopy (deleted)")).unwrap();
    println!("owner: {} {}", pids.join(" "), inode.split_whitespace().nth(4).unwrap());
    match role.as_str() {
        "killed" => kill_myself(),
        "leaves a fork" => {
            fork_that_waits(std::env::var_os(FORK).unwrap().into());
            kill_myself();
        }
        "has stopped a worker" => {
            for worker in actors.workers() {
                kill_process(Pid::from_raw(worker.pid as i32).unwrap(), Signal::STOP).unwrap();
            }
            kill_myself();
        }
        "exits" => std::process::exit(0),
        _ => drop(busy),
    }
}

/// Forks this process. The child does not execute a program, so it keeps copies of all file
/// descriptors and mappings.
fn fork_that_waits(file: PathBuf) {
    let there = file.clone();
    std::thread::spawn(move || {
        let mut command = Command::new("true");
        // SAFETY: only async-signal-safe code may run between fork and exec if the process has
        // other threads. This code writes files and sleeps, and glibc keeps its heap usable in a
        // forked child.
        unsafe {
            command.pre_exec(move || {
                std::fs::write(&file, std::process::id().to_string())?;
                while file.exists() {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                Ok(())
            })
        };
        command.status()
    });
    eventually("the fork exists", || std::fs::read(&there).is_ok_and(|text| !text.is_empty()));
}

fn workers_of_an_owner_that(ends: &str) {
    let folder = tempfile::tempdir().unwrap();
    let fork = folder.path().join("fork");
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "role_of_the_owner", "--nocapture", "--test-threads=1"])
        .env(ROLE, ends)
        .env(FORK, &fork)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| line.unwrap().split_once("owner: ").map(|(_, rest)| rest.to_owned())).unwrap();
    let mut words: Vec<_> = line.split_whitespace().collect();
    let inode = words.pop().unwrap().to_owned();
    let pids: Vec<u32> = words.iter().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 3);
    drop(lines);
    owner.wait().unwrap();
    eventually("the workers end", || pids.iter().all(|&pid| !is_alive(pid)));
    if ends == "leaves a fork" {
        let pid = std::fs::read_to_string(&fork).unwrap().parse().unwrap();
        assert!(is_alive(pid), "the fork was to outlive the workers");
        std::fs::remove_file(&fork).unwrap();
        eventually("the fork ends", || !is_alive(pid));
    }
    // No process maps the arena any more, so its memory is free.
    let holders = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let maps = std::fs::read_to_string(entry.path().join("maps")).unwrap_or_default();
        maps.lines().any(|line| {
            line.contains("/memfd:ray-zerocopy (deleted)") && line.split_whitespace().nth(4) == Some(&inode)
        })
    });
    assert_eq!(holders.count(), 0);
}

#[test]
fn workers_end_when_their_owner_is_killed() {
    workers_of_an_owner_that("killed");
}

#[test]
fn workers_end_when_their_owner_exits() {
    workers_of_an_owner_that("exits");
}

#[test]
fn workers_end_although_a_fork_of_owner_lives() {
    workers_of_an_owner_that("leaves a fork");
}

#[test]
fn stopped_workers_end_with_their_owner() {
    workers_of_an_owner_that("has stopped a worker");
}
