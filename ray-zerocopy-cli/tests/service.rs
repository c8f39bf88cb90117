//! `rzc hold` as a service. The test does what systemd does: it stores file descriptors, passes them to
//! the next process, and listens for a service that does not run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};

use common::{Folder, command, eventually, finish};
use ray_zerocopy::Arena;
use rustix::cmsg_space;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

/// The part of systemd that the service needs.
struct Manager {
    files: Folder,
    runtime: Folder,
    notifications: UnixDatagram,
    stored: BTreeMap<String, OwnedFd>,
    /// Whether the service has said that it is ready.
    is_ready: bool,
}

/// A process that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Manager {
    fn new() -> Self {
        let (files, runtime) = (Folder::new(), Folder::new());
        let notifications = UnixDatagram::bind(files.path().join("notify")).unwrap();
        notifications.set_nonblocking(true).unwrap();
        Self { files, runtime, notifications, stored: BTreeMap::new(), is_ready: false }
    }

    /// Starts the service with what is stored, and with a socket.
    fn start(&mut self, files: &[&str], socket: Option<&UnixListener>) -> Running {
        self.is_ready = false;
        let stored = self.stored.iter().map(|(name, fd)| (name.clone(), fd.as_fd()));
        let passed = stored.chain(socket.map(|socket| ("rzc-hold.socket".to_owned(), socket.as_fd())));
        // Unlike the original, a duplicate is inherited by the shell, which gives it its number.
        let passed: Vec<_> = passed.map(|(name, fd)| (name, rustix::io::dup(fd).unwrap())).collect();
        // First to numbers that no duplicate has, since the numbers of two may be exchanged.
        let moved = |from: usize, to: usize| format!("exec {to}<&{from} {from}<&-; ");
        let away = passed.iter().enumerate().map(|(at, (_, fd))| moved(fd.as_raw_fd() as usize, at + 500));
        let numbered = (0..passed.len()).map(|at| moved(at + 500, at + 3));
        let script = format!("{}export LISTEN_PID=$$; exec \"$@\"", away.chain(numbered).collect::<String>());
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_rzc"), "hold"]).args(files);
        if !passed.is_empty() {
            let names: Vec<_> = passed.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", passed.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        command.env("NOTIFY_SOCKET", self.files.path().join("notify")).env("XDG_RUNTIME_DIR", self.runtime.path());
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// Receives what the service has said.
    fn listen(&mut self) {
        loop {
            let mut text = [0; 4096];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(&self.notifications, &mut [IoSliceMut::new(&mut text)], &mut control, flags);
            let Ok(received) = received else { return };
            let fds = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            });
            let mut fds = fds.flatten();
            let text = std::str::from_utf8(&text[..received.bytes]).unwrap();
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default();
            for line in text.lines() {
                match line {
                    "READY=1" => self.is_ready = true,
                    "FDSTORE=1" => drop(self.stored.insert(name.to_owned(), fds.next().unwrap())),
                    "FDSTOREREMOVE=1" => drop(self.stored.remove(name)),
                    _ => {}
                }
            }
        }
    }

    fn wait_until_ready(&mut self) {
        eventually("the service is ready", || {
            self.listen();
            self.is_ready
        });
    }

    fn rzc(&self, arguments: &[&str]) -> Value {
        let mut command = command(arguments);
        finish(command.env("XDG_RUNTIME_DIR", self.runtime.path())).well().json()
    }

    /// What the service holds.
    fn held(&self) -> Vec<Value> {
        self.rzc(&["ps", "--json"])["held"].as_array().unwrap().clone()
    }

    /// The inodes of the arenas with this id, of all processes.
    fn inodes(&self, id: &Value) -> Vec<Value> {
        let printed = self.rzc(&["ps", "--json"]);
        let arenas = printed["arenas"].as_array().unwrap().iter().filter(|arena| arena["id"] == *id);
        arenas.map(|arena| arena["inode"].clone()).collect()
    }
}

#[test]
fn memory_survives_a_restart_of_the_service() {
    let mut manager = Manager::new();
    let (one, two) = (manager.files.arena("one.bpk", 64), manager.files.arena("two.bpk", 32));
    let service = manager.start(&[&one, &two], None);
    manager.wait_until_ready();
    assert_eq!((manager.stored.len(), manager.held().len()), (2, 2));
    let id = manager.held().iter().find(|held| held["source"] == *one).unwrap()["id"].clone();
    let before = manager.inodes(&id);
    assert_eq!(before.len(), 1);
    drop(service);

    // Without the files: the memory comes from the store.
    std::fs::remove_file(&one).unwrap();
    let service = manager.start(&[&two], None);
    manager.wait_until_ready();
    assert_eq!(manager.inodes(&id), before, "the same memory");
    let sources: Vec<_> = manager.held().iter().map(|held| held["source"].as_str().unwrap().to_owned()).collect();
    assert!(sources.iter().any(|source| source.starts_with("arena ")) && sources.contains(&two), "{sources:?}");
    assert_eq!(manager.stored.len(), 2, "an arena is stored once");

    let mut drop_one = command(&["drop", &id.as_str().unwrap()[..12]]);
    finish(drop_one.env("XDG_RUNTIME_DIR", manager.runtime.path())).well();
    eventually("the manager has forgotten the arena", || {
        manager.listen();
        manager.stored.len() == 1
    });
    eventually("the memory is gone", || manager.inodes(&id).is_empty());
    drop(service);
}

#[test]
fn variants_survive_a_restart_of_the_service() {
    let mut manager = Manager::new();
    let path = manager.files.arena("base.bpk", 64);
    let base = Arena::open(&path).unwrap();
    let first = manager.files.variant("first.bpk", &base, "first");
    let second = manager.files.variant("second.bpk", &Arena::open_variant(&first, &base).unwrap(), "second");
    drop(base);
    let service = manager.start(&[&second, "--base", &path, "--base", &first], None);
    manager.wait_until_ready();
    let ids = |manager: &Manager| manager.held().iter().map(|held| held["id"].clone()).collect::<Vec<_>>();
    let before: Vec<_> = ids(&manager).iter().map(|id| manager.inodes(id)).collect();
    assert!(before.len() == 3 && before.iter().all(|inodes| inodes.len() == 1), "{before:?}");
    drop(service);

    let service = manager.start(&[], None);
    manager.wait_until_ready();
    let after: Vec<_> = ids(&manager).iter().map(|id| manager.inodes(id)).collect();
    assert!(after.len() == 3 && before.iter().all(|inodes| after.contains(inodes)), "{before:?} {after:?}");
    // A base goes after its variants.
    let release = |path: &str| finish(command(&["drop", path]).env("XDG_RUNTIME_DIR", manager.runtime.path()));
    let error = release(&path);
    assert!(error.error().contains("a variant of it: drop that first"), "{error:?}");
    for path in [&second, &first, &path] {
        release(path).well();
    }
    assert_eq!(manager.held(), Vec::<Value>::new());
    drop(service);
}

#[test]
fn program_that_asks_starts_the_service() {
    let mut manager = Manager::new();
    let file = manager.files.arena("model.bpk", 64);
    drop({
        let service = manager.start(&[&file], None);
        manager.wait_until_ready();
        service
    });
    // The manager listens, and has the memory.
    let folder = manager.runtime.path().join("ray-zerocopy");
    // What the killed service has left is removed by the next one.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).unwrap();
    let socket = UnixListener::bind(folder.join("hold")).unwrap();
    let stored = manager.stored.values().next().unwrap();
    let inode = rustix::fs::fstat(stored).unwrap().st_ino;

    let mut asker = command(&["hold", &file]);
    let asker = Running(asker.env("XDG_RUNTIME_DIR", manager.runtime.path()).stdout(Stdio::null()).spawn().unwrap());
    // As the manager does when a client has connected.
    rustix::event::poll(&mut [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::IN)], None).unwrap();
    let _service = manager.start(&[], Some(&socket));
    eventually("both hold it", || manager.held().len() == 2);
    let held = manager.held();
    assert!(held.iter().any(|held| held["pid"] == asker.0.id()), "{held:?}");
    assert_eq!(manager.inodes(&held[0]["id"]), [Value::from(inode)], "the memory that was stored");
}

#[test]
fn unexpected_descriptor_is_named() {
    let mut manager = Manager::new();
    manager.stored.insert("something".to_owned(), std::fs::File::open("/dev/null").unwrap().into());
    let mut service = manager.start(&[], None);
    assert_eq!(service.0.wait().unwrap().code(), Some(2));
}
