//! The kernel's figures of a process, in bytes.

use std::fs;

/// A field of `/proc/<pid>/smaps_rollup`, `Pss` or `Anonymous`.
pub fn rollup(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process is there");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {field} in smaps_rollup of {pid}")) * 1024
}

/// Whether a process is there, and is not a corpse that nobody has fetched.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The first thread is a corpse as soon as it has ended, while others may still be on their way, with the sockets
    // and the memory of all.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let corpse = matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X') | None);
    !corpse || threads > 1
}

/// Waits until `done`, and panics with `what` if it takes a minute. For what has to happen, but may take its time.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it did not happen within a minute: {what}");
}
