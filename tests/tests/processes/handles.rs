//! Handles between processes under difficult conditions: forks, a removed runtime folder, other
//! users, and no free descriptors.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ray_zerocopy::{ActorWrapper, TaskWrapper};
use ray_zerocopy_tests::memory::eventually;
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

use crate::forks::succeeded;
use crate::pipeline::{Probe, engine, probe};
use crate::{role, sys};

fn wrapper() -> ActorWrapper<Probe> {
    ActorWrapper::new(&probe()).unwrap()
}

fn written(wrapper: &ActorWrapper<Probe>) -> String {
    serde_json::to_string(wrapper).unwrap()
}

fn read(text: &str) -> Result<ActorWrapper<Probe>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(crate) fn serialise_in_a_fork() {
    let folder = PathBuf::from(role::subject());
    let (handle, done) = (folder.join("handle"), folder.join("done"));
    let wrapper = wrapper();
    // This process serves the handle too, so the fork starts with a copy of that state.
    read(&written(&wrapper)).unwrap();
    let child = sys::fork(|| {
        std::fs::write(folder.join("new"), written(&wrapper)).unwrap();
        std::fs::rename(folder.join("new"), &handle).unwrap();
        eventually("the handle was used", || done.exists());
        0
    });
    eventually("the fork has written the handle", || handle.exists());
    let loaded = read(&std::fs::read_to_string(&handle).unwrap());
    std::fs::write(&done, "").unwrap();
    succeeded(child);
    assert!(loaded.unwrap().load().is_ok());
}

#[test]
fn fork_serves_the_handles_it_serialises() {
    let folder = tempfile::tempdir().unwrap();
    role::succeed(role::with(role::command("serialises in a fork"), folder.path()));
}

pub(crate) fn lose_the_runtime_folder() {
    let wrapper = wrapper();
    let first = written(&wrapper);
    assert!(first.contains(&role::subject()), "{first}");
    read(&first).unwrap();
    // A logout or a cleaner of temporary files removes the folder too.
    std::fs::remove_dir_all(role::subject()).unwrap();
    let error = read(&first).unwrap_err();
    assert!(error.contains("cannot be fetched from process"), "{error}");
    read(&written(&wrapper)).unwrap();
}

#[test]
fn handles_work_without_the_runtime_folder() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("runtime");
    std::fs::create_dir(&runtime).unwrap();
    let mut command = role::with(role::command("loses its runtime folder"), &runtime);
    command.env("XDG_RUNTIME_DIR", &runtime);
    role::succeed(command);
}

pub(crate) fn listen() {
    let socket = PathBuf::from(role::subject());
    let listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
    std::fs::write(socket.with_extension("ready"), "").unwrap();
    let (stream, _) = listener.accept().unwrap();
    // The client refuses to talk to another user, and closes the connection.
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut &stream, &mut byte).unwrap(), 0, "the client sent the secret");
}

#[test]
fn handle_to_another_user_is_refused() {
    if !getuid().is_root() {
        eprintln!("skipped: only root can be two users");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let socket = folder.path().join("socket");
    let program = folder.path().join("program");
    std::fs::copy("/proc/self/exe", &program).unwrap();
    let mut command = role::cast(std::process::Command::new(&program), "listens for another user");
    command.uid(65534).gid(65534);
    let listener = role::start(role::with(command, &socket));
    eventually("the other user listens", || socket.with_extension("ready").exists());

    let mut handle: serde_json::Value = serde_json::from_str(&written(&wrapper())).unwrap();
    handle["ticket"]["socket"] = socket.to_string_lossy().into_owned().into();
    let error = read(&handle.to_string()).unwrap_err();
    assert!(error.contains("now belongs to another user, 65534"), "{error}");
    let (status, text) = role::end_of(listener);
    assert!(status.success(), "{text}");
}

/// Opens files up to the limit of descriptors.
fn fill() -> Vec<File> {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// CPU time of a thread of this process, in clock ticks.
fn ticks_of(thread: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let stat = |path: &Path| std::fs::read_to_string(path.join("stat")).ok();
    let found = tasks.filter_map(|task| stat(&task.path())).find(|stat| stat.contains(thread)).unwrap();
    let fields: Vec<_> = found.rsplit_once(") ").unwrap().1.split(' ').map(str::to_owned).collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

pub(crate) fn have_no_descriptors() {
    let wrapper = wrapper();
    let text = written(&wrapper);
    let handle = PathBuf::from(role::subject());
    std::fs::write(&handle, &text).unwrap();
    let filled = fill();
    let mut asker = None;
    // The client is in this process and shares its descriptors, so two are freed for its
    // connection.
    let mut filled = filled;
    for _ in 0..2 {
        filled.pop();
    }
    let stream = std::os::unix::net::UnixStream::connect(socket_in(&text));
    asker.replace(stream.unwrap());
    filled.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
    std::thread::sleep(Duration::from_millis(1500));
    // Reading the ticks needs descriptors.
    for _ in 0..2 {
        filled.pop();
    }
    let ticks = ticks_of("ray-zerocopy br");
    assert!(ticks < 40, "the broker has used {ticks} ticks of CPU time while it waited");
    drop((filled, asker));
    // The broker gives up the client that sends nothing, and serves others.
    read(&text).unwrap();
}

fn socket_in(text: &str) -> PathBuf {
    let handle: serde_json::Value = serde_json::from_str(text).unwrap();
    handle["ticket"]["socket"].as_str().unwrap().into()
}

#[test]
fn a_broker_without_descriptors_waits_for_them() {
    let folder = tempfile::tempdir().unwrap();
    role::succeed(role::with(role::command("has no descriptors for its broker"), folder.path().join("handle")));
}

pub(crate) fn have_no_descriptors_at_first_use() {
    let wrapper = wrapper();
    let filled = fill();
    let error = serde_json::to_string(&wrapper).unwrap_err().to_string();
    assert!(error.contains("cannot be offered"), "{error}");
    assert!(TaskWrapper::new(&probe()).is_err());
    drop(filled);
    read(&written(&wrapper)).unwrap();
    let (_engine, tasks) = engine(1);
    tasks.pid().wait().unwrap();
}

#[test]
fn failed_first_use_can_be_repeated() {
    role::succeed(role::command("has no descriptors at first use"));
}
