//! Processes that die, files that change, and folders that cannot be used.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

use ray_zerocopy_tests::memory::eventually;
use rustix::process::{Pid, Signal, getuid, kill_process};

use crate::program::{Source, Stage};

#[test]
fn memory_survives_the_process_that_made_it() {
    let stage = Stage::new();
    let path = stage.checkpoint("model.safetensors", 64, 0.5);
    let (maker, made) = stage.get(Source::Path(path.clone()));
    let (holder, held) = stage.get(Source::Path(path.clone()));
    maker.kill();
    // The file may even be gone: the memory is handed on.
    let (third, found) = stage.get(Source::Path(path.clone()));
    assert_eq!((made.inode, held.inode), (found.inode, found.inode));
    holder.end();
    let (_fourth, found) = stage.get(Source::Path(path));
    assert_eq!(made.inode, found.inode);
    third.end();
}

#[test]
fn waiter_makes_the_arena_when_the_maker_dies() {
    let stage = Stage::new();
    let path = stage.saved("model.bpk", 64);
    let mut order = stage.order(Source::File(path.clone()));
    let stopped = stage.folder.path().join("stopped");
    order.stops = Some(stopped.clone());
    let maker = stage.start(&order);
    eventually("the first program seals the arena", || stopped.exists());
    let waiters: Vec<_> = (0..3).map(|_| stage.start(&stage.order(Source::File(path.clone())))).collect();
    // Long enough for a program that does not wait.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(waiters.iter().all(|waiter| !waiter.has_found()), "they wait");
    maker.kill();
    let found: Vec<_> = waiters.iter().map(|waiter| waiter.found().unwrap()).collect();
    assert!(found.iter().all(|one| one.inode == found[0].inode), "{found:?}");
    waiters.into_iter().for_each(crate::program::Program::end);
    assert!(stage.left().is_empty(), "{:?}", stage.left());
}

#[test]
fn killed_programs_leave_nothing_that_stays() {
    let stage = Stage::new();
    let path = stage.saved("model.bpk", 64);
    let (first, one) = stage.get(Source::Path(path.clone()));
    first.kill();
    assert!(!stage.left().is_empty(), "a killed process cannot remove its files");
    let (second, other) = stage.get(Source::Path(path));
    assert_ne!(one.inode, other.inode, "the memory has ended with its last process");
    second.end();
    assert!(stage.left().is_empty(), "{:?}", stage.left());
}

#[test]
fn stopped_holder_delays_and_loses_nothing() {
    let stage = Stage::new();
    let path = stage.saved("model.bpk", 64);
    let (holder, one) = stage.get(Source::Path(path.clone()));
    let pid = Pid::from_raw(holder.pid() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let waiting = stage.start(&stage.order(Source::Path(path)));
    std::thread::sleep(std::time::Duration::from_millis(200));
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(waiting.found().unwrap().inode, one.inode);
}

#[test]
fn replaced_file_is_another_arena() {
    let stage = Stage::new();
    let path = stage.checkpoint("model.safetensors", 64, 0.5);
    let (_first, one) = stage.get(Source::Path(path.clone()));
    let new = stage.checkpoint("new.safetensors", 64, 0.75);
    fs::rename(new, &path).unwrap();
    let (_second, other) = stage.get(Source::Path(path.clone()));
    assert_eq!((one.weight, other.weight), (0.5, 0.75));
    // Written over, with the same size and the same time of its content.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let written = stage.checkpoint("model.safetensors", 64, 0.25);
    assert_eq!(written, path);
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let (_third, third) = stage.get(Source::Path(path));
    assert_eq!(third.weight, 0.25);
}

#[test]
fn corrupt_file_is_an_error_of_each_program() {
    let stage = Stage::new();
    let path = stage.saved("model.bpk", 64);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    for _ in 0..2 {
        let program = stage.start(&stage.order(Source::Path(path.clone())));
        let error = program.found().unwrap_err();
        assert!(error.contains("is corrupted"), "{error}");
        program.end();
    }
    assert!(stage.left().is_empty(), "{:?}", stage.left());
}

/// A file system without a free inode, in a namespace of the test's own.
#[test]
fn full_folder_is_named() {
    let stage = Stage::new();
    let path = stage.saved("model.bpk", 64);
    let order = stage.order(Source::Path(path));
    let script = format!("mount -t tmpfs -o nr_inodes=2,mode=700 none {} && exec \"$@\"", stage.runtime().display());
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"]);
    unshare.arg(fs::read_link("/proc/self/exe").unwrap());
    let output = stage.run(unshare, &order).stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !order.has_found() && (said.contains("unshare") || said.contains("mount:")) {
        eprintln!("not tested: a full file system, because namespaces are not allowed here: {said}");
        return;
    }
    let error = order.found().unwrap_err();
    assert!(error.contains("No space left on device") && error.contains("XDG_RUNTIME_DIR"), "{error}");
}

#[test]
fn folder_that_others_can_use_is_refused() {
    let stage = Stage::new();
    let path = stage.saved("model.bpk", 64);
    let folder = stage.runtime().join("ray-zerocopy");
    let refused = |expected: &str| {
        let error = stage.start(&stage.order(Source::Path(path.clone()))).found().unwrap_err();
        assert!(error.contains(expected) && error.contains("XDG_RUNTIME_DIR"), "{error}");
    };
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    refused("other users may use it: its mode is 755, not 700");
    fs::remove_dir(&folder).unwrap();

    let elsewhere = stage.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o700)).unwrap();
    symlink(&elsewhere, &folder).unwrap();
    refused("it is not a folder");
    fs::remove_file(&folder).unwrap();

    if getuid().is_root() {
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        chown(&folder, Some(65534), None).unwrap();
        refused("it belongs to another user, 65534");
    } else {
        eprintln!("not tested: a folder of another user, which only root can create");
    }
}
