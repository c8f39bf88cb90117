//! The owner's death ends its workers, and the memory returns.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use burn::tensor::Device;
use ray_zerocopy::ActorWrapper;
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::{Mill, MillConfig, kill_myself};

const ROLE: &str = "RAY_ZEROCOPY_TEST_OWNER";

/// Not a test of its own: the owner that the tests below start, in a process that they kill.
#[test]
fn role_of_the_owner() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let wrapper = ActorWrapper::<Mill>::new(&MillConfig::new(512).init(&Device::flex())).unwrap();
    let actors = wrapper.spawn(3).unwrap();
    // Two are busy for longer than the test takes, one is idle.
    let busy = [actors.actor(0).sleep(600_000), actors.actor(1).sleep(600_000)];
    let pids: Vec<_> = actors.workers().iter().map(|worker| worker.pid.to_string()).collect();
    let inode = std::fs::read_to_string("/proc/self/maps").unwrap();
    let inode = inode.lines().find(|line| line.contains("/memfd:ray-zerocopy")).unwrap();
    println!("owner: {} {}", pids.join(" "), inode.split_whitespace().nth(4).unwrap());
    match role.as_str() {
        "killed" => kill_myself(),
        "exits" => std::process::exit(0),
        _ => drop(busy),
    }
}

fn workers_of_an_owner_that(ends: &str) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "role_of_the_owner", "--nocapture", "--test-threads=1"])
        .env(ROLE, ends)
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
    eventually("the workers end by themselves", || pids.iter().all(|&pid| !is_alive(pid)));
    // Nobody maps the arena any more, so that its memory is free.
    let holders = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let maps = std::fs::read_to_string(entry.path().join("maps")).unwrap_or_default();
        maps.lines().any(|line| line.contains("/memfd:ray-zerocopy") && line.split_whitespace().nth(4) == Some(&inode))
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
