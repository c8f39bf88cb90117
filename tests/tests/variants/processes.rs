//! Tickets and deaths.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use ray_zerocopy::{ActorWrapper, share};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::kill_myself;

use crate::speech::{Speech, inode, small};

const ROLE: &str = "RAY_ZEROCOPY_TEST_VARIANT";

/// Not a test of its own: the processes that the tests below start.
#[test]
fn role_of_a_process() {
    match std::env::var(ROLE).as_deref() {
        Ok("opens a ticket") => open_ticket(),
        Ok("owns workers and dies") => own_workers(),
        _ => {}
    }
}

fn start(role: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::role_of_a_process", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The rest of the first line that starts with the word.
fn said(child: &mut Child, word: &str) -> String {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let found =
        lines.map(Result::unwrap).find_map(|line| line.split_once(word).map(|(_, rest)| rest.trim().to_owned()));
    found.unwrap_or_else(|| panic!("the process has not said {word}"))
}

fn open_ticket() {
    let mut ticket = String::new();
    std::io::stdin().read_line(&mut ticket).unwrap();
    let wrapper: ActorWrapper<Speech> = serde_json::from_str(&ticket).unwrap();
    let loaded = wrapper.load().unwrap();
    assert!(loaded.copied().is_empty());
    println!("opened: {} {:?}", wrapper.arena().id(), loaded.sums());
    // Until its standard input is closed. It can compute all the time.
    std::io::stdin().read_line(&mut ticket).unwrap();
    println!("again: {:?}", loaded.sums());
}

#[test]
fn ticket_of_a_variant_hands_over_its_base_too() {
    let mut pipeline = small();
    let base = share(&pipeline).unwrap();
    pipeline.body[1] = pipeline.config.layer();
    let first = base.variant(&pipeline).unwrap();
    pipeline.body[2] = pipeline.config.layer();
    let second = first.variant(&pipeline).unwrap();
    drop((base, first));
    let wrapper = ActorWrapper::<Speech>::from_arena(second.clone());
    let mut child = start("opens a ticket");
    writeln!(child.stdin.as_mut().unwrap(), "{}", serde_json::to_string(&wrapper).unwrap()).unwrap();
    assert_eq!(said(&mut child, "opened: "), format!("{} {:?}", second.id(), pipeline.sums()));
    // The memory of all regions outlives the process that made it.
    wrapper.withdraw();
    drop((wrapper, second));
    drop(child.stdin.take());
    assert_eq!(said(&mut child, "again: "), format!("{:?}", pipeline.sums()));
    assert!(child.wait().unwrap().success());
}

fn own_workers() {
    let mut pipeline = small();
    let base = share(&pipeline).unwrap();
    pipeline.body[1] = pipeline.config.layer();
    let tuned = base.variant(&pipeline).unwrap();
    let actors = [&base, &tuned].map(|arena| ActorWrapper::<Speech>::from_arena(arena.clone()).spawn(2).unwrap());
    let pids: Vec<_> = actors.iter().flat_map(|actors| actors.workers()).map(|worker| worker.pid.to_string()).collect();
    let _busy: Vec<_> = actors.iter().map(|actors| actors.read_and_wait(600_000)).collect();
    let ticket = serde_json::to_string(&ActorWrapper::<Speech>::from_arena(tuned.clone())).unwrap();
    println!("owner: {} {} {}", pids.join(" "), inode(&base), inode(&tuned));
    println!("ticket: {ticket}");
    println!("sums: {:?}", pipeline.sums());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    kill_myself();
}

/// Processes that map memory with this inode.
fn mapping(inode: &str) -> usize {
    let maps = |entry: &std::fs::DirEntry| std::fs::read_to_string(entry.path().join("maps")).unwrap_or_default();
    let is_ours =
        |line: &str| line.contains("/memfd:ray-zerocopy (deleted)") && line.split_whitespace().nth(4) == Some(inode);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|entry| maps(entry).lines().any(is_ours)).count()
}

#[test]
fn death_of_the_owner_frees_base_and_variant() {
    let mut owner = start("owns workers and dies");
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = |word: &str| {
        let found = lines.find_map(|line| line.split_once(word).map(|(_, rest)| rest.trim().to_owned()));
        found.unwrap_or_else(|| panic!("the owner has not said {word}"))
    };
    let mut words: Vec<_> = said("owner: ").split_whitespace().map(str::to_owned).collect();
    let (tuned, base) = (words.pop().unwrap(), words.pop().unwrap());
    let pids: Vec<u32> = words.iter().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4);
    let (ticket, sums) = (said("ticket: "), said("sums: "));

    let mut other = start("opens a ticket");
    writeln!(other.stdin.as_mut().unwrap(), "{ticket}").unwrap();
    assert!(self::said(&mut other, "opened: ").ends_with(&sums));
    assert!(mapping(&base) >= 6 && mapping(&tuned) >= 4);

    // The owner kills itself with SIGKILL, while workers map both.
    drop(owner.stdin.take());
    assert!(!owner.wait().unwrap().success());
    eventually("the workers end", || pids.iter().all(|&pid| !is_alive(pid)));
    assert_eq!((mapping(&base), mapping(&tuned)), (1, 1), "the process with the ticket has both");
    drop(other.stdin.take());
    assert_eq!(self::said(&mut other, "again: "), sums);
    assert!(other.wait().unwrap().success());
    assert_eq!((mapping(&base), mapping(&tuned)), (0, 0));
}
