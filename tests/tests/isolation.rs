//! Isolation of arenas: workers can read an arena, no process can change it, and other users cannot
//! read it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::{ActorWrapper, Pipeline};
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::process::getuid;

const ROLE: &str = "RAY_ZEROCOPY_TEST_STRANGER";

/// Ways to map a file that need `unsafe`.
mod map {
    #![allow(unsafe_code)]

    use std::fs::File;
    use std::io;

    use memmap2::{Mmap, MmapMut, MmapOptions};

    /// Maps for reading.
    pub(super) fn read(file: &File) -> io::Result<Mmap> {
        // SAFETY: the file is a sealed memfd, which cannot be changed or truncated while the map
        // lives.
        unsafe { MmapOptions::new().map(file) }
    }

    /// Maps for writing, shared with all who map it.
    pub(super) fn write(file: &File) -> io::Result<MmapMut> {
        // SAFETY: as above. The kernel must refuse this, which the test checks. If it does not,
        // nothing is written.
        unsafe { MmapOptions::new().map_mut(file) }
    }

    /// Maps for writing, privately to this process.
    pub(super) fn copy(file: &File) -> io::Result<MmapMut> {
        // SAFETY: as in `read`. Writes stay in this process.
        unsafe { MmapOptions::new().map_copy(file) }
    }
}

/// A pipeline whose methods try to write to its own arena.
#[derive(Pipeline)]
#[pipeline(init = WritingModel::new)]
struct WritingModel {
    layer: Linear,
}

#[ray_zerocopy::remote]
impl WritingModel {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(64, 64).init(device) }
    }

    /// Tries all ways to write. Returns the number of attacked files, and each attack that
    /// succeeded.
    pub fn attack(&self) -> (usize, Vec<String>) {
        let mut succeeded = Vec::new();
        let files = arena_files();
        for path in &files {
            let mut attempt = |name: &str, outcome: Result<(), String>| {
                if outcome.is_ok() {
                    succeeded.push(format!("{name} of {path}"));
                }
            };
            let text = |error: &dyn std::fmt::Display| error.to_string();
            let reader = File::open(path).unwrap();
            // The user can open it for writing, but cannot write.
            if let Ok(mut writer) = OpenOptions::new().read(true).write(true).open(path) {
                attempt("write", writer.write_all(b"graffiti").map_err(|e| text(&e)));
                attempt("pwrite", writer.write_all_at(b"graffiti", 4096).map_err(|e| text(&e)));
                attempt("truncate", ftruncate(&writer, 0).map_err(|e| text(&e)));
                attempt("grow", ftruncate(&writer, 1 << 30).map_err(|e| text(&e)));
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                attempt("punch a hole", fallocate(&writer, hole, 0, 4096).map_err(|e| text(&e)));
                attempt("allocate", fallocate(&writer, FallocateFlags::empty(), 0, 1 << 30).map_err(|e| text(&e)));
                attempt("seal", fcntl_add_seals(writer.as_fd(), SealFlags::FUTURE_WRITE).map_err(|e| text(&e)));
                attempt("map for writing", map::write(&writer).map(drop).map_err(|e| text(&e)));
            }
            attempt("mprotect", map::read(&reader).unwrap().make_mut().map(drop).map_err(|e| text(&e)));
            // A private copy can be written, and other processes do not see that.
            map::copy(&reader).unwrap()[..8].copy_from_slice(b"graffiti");
        }
        // The kernel lets a process write to its own private memory despite its protection, but not
        // to shared memory.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let memory = OpenOptions::new().write(true).open("/proc/self/mem");
        for line in maps.lines().filter(|line| line.contains("/memfd:ray-zerocopy (deleted)")) {
            let start = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
            if memory.as_ref().is_ok_and(|memory| memory.write_all_at(b"graffiti", start).is_ok()) {
                succeeded.push(format!("/proc/self/mem at {line}"));
            }
        }
        (files.len(), succeeded)
    }

    pub fn total(&self) -> f32 {
        self.layer.weight.val().sum().into_scalar()
    }
}

/// Paths under `/proc` of the arena memfds that this process has open.
fn arena_files() -> Vec<String> {
    let myself = std::process::id();
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    numbers
        .filter(|entry| {
            std::fs::read_link(entry.path())
                .is_ok_and(|file| file.to_string_lossy().contains("memfd:ray-zerocopy (deleted)"))
        })
        .map(|entry| format!("/proc/{myself}/fd/{}", entry.file_name().to_string_lossy()))
        .collect()
}

#[test]
fn a_worker_cannot_change_the_arena() {
    let shared = ActorWrapper::new(&WritingModel::new(&Device::flex())).unwrap();
    let actors = shared.spawn(2).unwrap();
    let before = actors.actor(1).total().wait().unwrap();
    let (attacked, succeeded) = actors.actor(0).attack().wait().unwrap();
    assert!(attacked > 0, "the worker has no arena to attack");
    assert!(succeeded.is_empty(), "{succeeded:?}");
    shared.arena().verify().unwrap();
    for actor in actors.iter() {
        assert_eq!(actor.total().wait().unwrap().to_bits(), before.to_bits());
    }
}

/// Not a test of its own: a process of another user, which has the handle and all paths and tries
/// to read the arena.
#[test]
fn role_of_another_user() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let mut knowledge = String::new();
    std::io::Read::read_to_string(&mut std::io::stdin(), &mut knowledge).unwrap();
    let (handle, paths): (String, Vec<String>) = serde_json::from_str(&knowledge).unwrap();
    let handle: ActorWrapper<WritingModel> = match serde_json::from_str(&handle) {
        Ok(handle) => handle,
        // Deserializing a handle attaches the arena.
        Err(error) => {
            println!("handle: {error}");
            return strange_paths(&paths);
        }
    };
    println!("handle: {}", handle.load().map(drop).expect_err("another user must not load the arena"));
    strange_paths(&paths);
}

fn strange_paths(paths: &[String]) {
    assert!(!paths.is_empty());
    for path in paths {
        let error = File::open(path).expect_err("another user must not open this memory");
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{path}: {error}");
    }
    println!("paths: denied");
}

#[test]
fn another_user_cannot_attach_an_arena() {
    if !getuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let shared = ActorWrapper::new(&WritingModel::new(&Device::flex())).unwrap();
    let actors = shared.spawn(1).unwrap();
    let worker = actors.workers()[0].pid;
    let handle = serde_json::to_string(&shared).unwrap();
    let mut paths = arena_files();
    assert!(!paths.is_empty(), "the owner has the arena open");
    let inside = ["mem", "maps", "environ"];
    let processes = [std::process::id(), worker];
    paths.extend(processes.iter().flat_map(|pid| inside.map(|file| format!("/proc/{pid}/{file}"))));

    let mut stranger = Command::new("/proc/self/exe")
        .args(["--exact", "role_of_another_user", "--nocapture", "--test-threads=1"])
        .env(ROLE, "1")
        .uid(65534)
        .gid(65534)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let knowledge = serde_json::to_string(&(handle, paths)).unwrap();
    stranger.stdin.take().unwrap().write_all(knowledge.as_bytes()).unwrap();
    let output = stranger.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Permission denied") && said.contains("paths: denied"), "{said}");
    // The arena is still usable.
    assert!(actors.total().wait().is_ok());
}
