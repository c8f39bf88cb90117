//! Saving of arenas: target, file mode, and the state of the folder after an error.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::Device;
use ray_zerocopy::{Arena, share};
use ray_zerocopy_tests::models::TestModelConfig;
use rustix::fs::Mode;
use rustix::process::{geteuid, getuid, umask};
use tempfile::TempDir;

const ROLE: &str = "RAY_ZEROCOPY_TEST_SAVING";
const FOLDER: &str = "RAY_ZEROCOPY_TEST_FOLDER";
const NOBODY: u32 = 65534;

fn arena() -> Arena {
    share(&TestModelConfig::new(64).init(&Device::flex())).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn refused(arena: &Arena, path: &Path, reason: &str) {
    let error = arena.save(path).unwrap_err().to_string();
    assert!(error.contains(reason) && error.contains(&path.display().to_string()), "{error}");
}

/// Not a test of its own: the processes that the tests below start, because a umask, a user and a
/// mount namespace belong to a process.
#[test]
fn role_of_a_process_that_saves() {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from).unwrap_or_default();
    let path = folder.join("model.bpk");
    match std::env::var(ROLE).as_deref() {
        Ok("umask") => {
            umask(Mode::from_raw_mode(0o027));
            arena().save(&path).unwrap();
            assert_eq!(mode(&path), 0o640);
            // An existing file keeps its mode, because the umask applies to new files.
            set_mode(&path, 0o666);
            arena().save(&path).unwrap();
            assert_eq!(mode(&path), 0o666);
            assert_eq!(names(&folder), ["model.bpk"]);
        }
        Ok("blind folder") => {
            assert!(fs::read_dir(&folder).is_err(), "the folder can be read");
            let arena = arena();
            arena.save(&path).unwrap();
            arena.save(&path).unwrap();
            assert_eq!(Arena::open(&path).unwrap().id(), arena.id());
        }
        Ok("no room") => {
            fs::write(&path, "what was there before").unwrap();
            let large = share(&TestModelConfig::new(1024).init(&Device::flex())).unwrap();
            refused(&large, &path, "No space left on device");
            refused(&large, &folder.join("other.bpk"), "No space left on device");
            assert_eq!(names(&folder), ["model.bpk"]);
            assert_eq!(fs::read_to_string(&path).unwrap(), "what was there before");
        }
        Ok("mounted file") => {
            refused(&arena(), &path, "it is mounted by itself, and cannot be replaced");
            assert_eq!(names(&folder), ["model.bpk", "source"]);
        }
        _ => {}
    }
}

fn role(role: &str, folder: &Path, mut process: Command) {
    process.args(["--exact", "role_of_a_process_that_saves", "--nocapture", "--test-threads=1"]);
    let output = process.env(ROLE, role).env(FOLDER, folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A process in its own mount namespace, where `mount` has been run. Returns `None` if that is not
/// permitted.
fn with_mount(mount: &str) -> Option<Command> {
    let permitted = Command::new("unshare").args(["-m", "true"]).status();
    if !permitted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: only root can mount a file system");
        return None;
    }
    let mut process = Command::new("unshare");
    process.args(["-m", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")]).arg(std::env::current_exe().unwrap());
    Some(process)
}

#[test]
fn new_file_has_umask_mode_and_old_keeps_its() {
    let folder = TempDir::new().unwrap();
    role("umask", folder.path(), Command::new("/proc/self/exe"));
}

#[test]
fn saving_to_a_symlink_writes_its_target() {
    let (folder, arena) = (TempDir::new().unwrap(), arena());
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("models")).unwrap();
    fs::write(at("models/old.bpk"), "old").unwrap();
    symlink("models/old.bpk", at("relative.bpk")).unwrap();
    symlink(at("relative.bpk"), at("twice.bpk")).unwrap();
    symlink("models/new.bpk", at("dangling.bpk")).unwrap();
    for (link, file) in
        [("relative.bpk", "models/old.bpk"), ("twice.bpk", "models/old.bpk"), ("dangling.bpk", "models/new.bpk")]
    {
        arena.save(at(link)).unwrap();
        assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
        assert_eq!(Arena::open(at(file)).unwrap().id(), arena.id(), "{link}");
        fs::write(at("models/old.bpk"), "old").unwrap();
    }
    // A link to another file system.
    let elsewhere = TempDir::new_in("/dev/shm").unwrap();
    symlink(elsewhere.path().join("far.bpk"), at("far.bpk")).unwrap();
    for _ in 0..2 {
        arena.save(at("far.bpk")).unwrap();
        assert_eq!(names(elsewhere.path()), ["far.bpk"]);
    }
    symlink("round.bpk", at("round.bpk")).unwrap();
    refused(&arena, &at("round.bpk"), "Too many levels of symbolic links");
    assert_eq!(names(&at("models")), ["new.bpk", "old.bpk"]);
    assert_eq!(names(folder.path()), ["dangling.bpk", "far.bpk", "models", "relative.bpk", "round.bpk", "twice.bpk"]);
}

/// The kernel does not follow such a link (`fs.protected_symlinks`), and resolving it in the
/// library must not bypass that.
#[test]
fn symlink_of_another_user_is_not_followed() {
    if !getuid().is_root() {
        eprintln!("skipped: only root can make the link of another user");
        return;
    }
    let folder = TempDir::new().unwrap();
    set_mode(folder.path(), 0o1777);
    let (link, file) = (folder.path().join("link.bpk"), folder.path().join("file"));
    fs::write(&file, "mine").unwrap();
    symlink("file", &link).unwrap();
    lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    refused(&arena(), &link, "it is a symbolic link of another user");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    lchown(&link, Some(geteuid().as_raw()), None).unwrap();
    arena().save(&link).unwrap();
}

#[test]
fn only_regular_files_are_replaced() {
    let (folder, arena) = (TempDir::new().unwrap(), arena());
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    refused(&arena, &at("folder"), "Is a directory");
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .unwrap();
    refused(&arena, &at("pipe"), "not a regular file");
    symlink("/dev/null", at("null")).unwrap();
    refused(&arena, &at("null"), "not a regular file");
    refused(&arena, Path::new("/dev/null"), "not a regular file");
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    refused(&arena, &at("no/where.bpk"), "No such file or directory");
    assert_eq!(names(folder.path()), ["folder", "null", "pipe"]);
}

#[test]
fn file_is_saved_in_an_unreadable_folder() {
    let folder = TempDir::new().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    set_mode(folder.path(), 0o755);
    let mut process = Command::new("/proc/self/exe");
    if getuid().is_root() {
        // root can read every folder.
        chown(&inner, Some(NOBODY), Some(NOBODY)).unwrap();
        process.uid(NOBODY).gid(NOBODY);
    }
    set_mode(&inner, 0o333);
    role("blind folder", &inner, process);
    set_mode(&inner, 0o755);
    assert_eq!(names(&inner), ["model.bpk"]);
}

#[test]
fn a_file_system_that_is_full_is_left_as_it_was() {
    let folder = TempDir::new().unwrap();
    let Some(process) = with_mount(&format!("mount -t tmpfs -o size=256k none {}", folder.path().display())) else {
        return;
    };
    role("no room", folder.path(), process);
}

#[test]
fn file_that_is_a_mount_point_is_refused() {
    let folder = TempDir::new().unwrap();
    let [source, target] = ["source", "model.bpk"].map(|name| folder.path().join(name));
    fs::write(&source, "").unwrap();
    fs::write(&target, "").unwrap();
    let Some(process) = with_mount(&format!("mount -o bind {} {}", source.display(), target.display())) else { return };
    role("mounted file", folder.path(), process);
}
