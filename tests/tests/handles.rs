//! Deserialization of handles on any thread, and of untrusted handles.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

use burn::tensor::Device;
use ray_zerocopy::arena::Placement;
use ray_zerocopy::{ActorWrapper, Arena, share};
use ray_zerocopy_tests::memory::eventually;
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use rustix::process::getuid;
use tempfile::TempDir;

const ROLE: &str = "RAY_ZEROCOPY_TEST_HANDLES";

/// Not a test of its own: reads a handle on other threads and on the only thread of rayon's pool,
/// which hashes for all of them.
#[test]
fn role_of_a_process_that_reads_handles() {
    let Some(handle) = std::env::var_os(ROLE) else { return };
    let handle = fs::read(handle).unwrap();
    let read = || drop(serde_json::from_slice::<ActorWrapper<TestModel>>(&handle).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| (0..16).for_each(|_| read()));
        scope.spawn(|| (0..16).for_each(|_| rayon::scope(|pool| pool.spawn(|_| read()))));
    });
}

/// rayon hashes an arena. A thread that waited for that while holding a lock would deadlock if the
/// pool's thread waited for the same lock in another task.
#[test]
fn handles_are_read_on_rayons_own_threads() {
    let wrapper = ActorWrapper::new(&TestModelConfig::new(4096).init(&Device::flex())).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("handle.json");
    fs::write(&path, serde_json::to_vec(&wrapper).unwrap()).unwrap();
    let mut process = Command::new("/proc/self/exe");
    process.args(["--exact", "role_of_a_process_that_reads_handles"]);
    let mut process = process.env(ROLE, &path).env("RAYON_NUM_THREADS", "1").spawn().unwrap();
    let mut status = None;
    let mut ended = || {
        status = process.try_wait().unwrap();
        status.is_some()
    };
    let ended = catch_unwind(AssertUnwindSafe(|| eventually("all handles are read", &mut ended)));
    if ended.is_err() {
        process.kill().unwrap();
    }
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

fn in_place(path: &Path) -> ActorWrapper<TestModel> {
    #[allow(unsafe_code, reason = "the test keeps the promise of `in_file`")]
    // SAFETY: the file is in the folder of one test, which changes its owner and mode, but not its
    // bytes.
    let placement = unsafe { Placement::in_file() };
    ActorWrapper::from_arena(Arena::open_placed(path, placement).unwrap())
}

/// `Placement::in_file` is a promise of its caller that the file does not change. A handle from
/// another process carries no such promise.
#[test]
fn handle_names_no_file_others_can_change() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.bpk");
    share(&TestModelConfig::new(64).init(&Device::flex())).unwrap().save(&path).unwrap();
    let set_mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    let read = |path: &Path| {
        let handle = serde_json::to_string(&in_place(path)).unwrap();
        serde_json::from_str::<ActorWrapper<TestModel>>(&handle).map(drop).map_err(|error| error.to_string())
    };
    set_mode(0o644);
    read(&path).unwrap();
    set_mode(0o666);
    let error = read(&path).unwrap_err();
    assert!(error.contains("other users can change it") && error.contains("its mode is 666"), "{error}");
    set_mode(0o644);
    if getuid().is_root() {
        chown(&path, Some(65534), None).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains("it belongs to user 65534"), "{error}");
    } else {
        eprintln!("skipped: only root can give a file to another user");
    }
    // Another file of the same name is refused.
    let wrapper = in_place(&path);
    let handle = serde_json::to_string(&wrapper).unwrap();
    fs::rename(&path, folder.path().join("moved.bpk")).unwrap();
    fs::copy(folder.path().join("moved.bpk"), &path).unwrap();
    let error = serde_json::from_str::<ActorWrapper<TestModel>>(&handle).map(drop).unwrap_err().to_string();
    assert!(error.contains("was changed or replaced"), "{error}");
}
