//! Space on the disk of the target folder: old builds make room for new ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::shell::target;

/// Free space below which old builds are deleted, in GiB: all steps from nothing take about as much.
const WANTED: f64 = 30.0;
/// Free space below which no step is started, in GiB.
const LEAST: f64 = 4.0;
/// Free space below which a failed step says that the disk is full, in GiB.
const FULL: f64 = 1.0;
/// Age from which a build is old. Younger ones may be in use.
const OLD: Duration = Duration::from_secs(3600);

const GIB: f64 = (1_u64 << 30) as f64;

/// Deletes old builds of the workspace if the disk has little free space. Builds of dependencies stay.
///
/// # Errors
/// If too little is free after that.
pub(crate) fn make_room() -> Result<()> {
    let target = target();
    let Some(before) = free(&target) else { return Ok(()) };
    if before >= WANTED {
        return Ok(());
    }
    let freed = delete_old_builds(&target, OLD) as f64 / GIB;
    let folder = target.display();
    eprintln!("{before:.1} GiB were free for {folder}; {freed:.1} GiB of old builds have been deleted");
    match free(&target) {
        Some(free) if free < LEAST => bail!(
            "{free:.1} GiB are free for {folder}, and the tests need up to {WANTED} GiB; delete that folder, or set \
             CARGO_TARGET_DIR to one on another disk"
        ),
        _ => Ok(()),
    }
}

/// What to add to the error of a step if the disk is full.
pub(crate) fn full() -> Option<String> {
    let target = target();
    let free = free(&target).filter(|free| *free < FULL)?;
    Some(format!("the disk is full: {:.0} MiB are free for {}", free * 1024.0, target.display()))
}

/// Free space of a folder's disk, in GiB. The folder need not exist.
fn free(folder: &Path) -> Option<f64> {
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    let output = Command::new("df").arg("-Pk").arg(existing).output().ok()?;
    free_in(&String::from_utf8_lossy(&output.stdout))
}

/// The free space in the output of `df -Pk`, in GiB.
fn free_in(output: &str) -> Option<f64> {
    let kib: f64 = output.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib * 1024.0 / GIB)
}

/// Deletes what cargo has built for the workspace before, and can build again: incremental data, and
/// executables of tests. Returns the number of bytes.
fn delete_old_builds(target: &Path, age: Duration) -> u64 {
    let mut freed = 0;
    for profile in entries(target) {
        for crate_data in entries(&profile.join("incremental")) {
            if is_older(&crate_data, age) {
                freed += size(&crate_data);
                // What cannot be deleted takes space, which is measured after this.
                fs::remove_dir_all(crate_data).ok();
            }
        }
        for file in entries(&profile.join("deps")) {
            if is_executable(&file) && is_older(&file, age) {
                freed += size(&file);
                fs::remove_file(file).ok();
            }
        }
    }
    freed
}

/// An executable of a test or an example. Libraries have an extension.
fn is_executable(file: &Path) -> bool {
    let is_executable = |file: &Path| {
        fs::symlink_metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    file.extension().is_none() && is_executable(file)
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed >= age))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten();
    found.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => entries(path).iter().map(|entry| size(entry)).sum(),
        Ok(found) => found.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::{delete_old_builds, free, free_in};

    #[test]
    fn free_space_is_that_of_df() {
        let output = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 100 60 2097152 60% /\n";
        assert_eq!(free_in(output), Some(2.0));
        assert_eq!(free_in("df: no such file"), None);
        assert!(free(&std::env::temp_dir().join("missing/folder")).is_some());
    }

    #[test]
    fn old_builds_are_deleted_and_dependencies_stay() {
        let target = std::env::temp_dir().join(format!("xtask-disk-{}", std::process::id()));
        let deps = target.join("debug/deps");
        let incremental = target.join("debug/incremental/model-1");
        for folder in [&deps, &incremental] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(incremental.join("data"), [0; 10]).unwrap();
        for (name, mode) in [("test-1", 0o755), ("libburn.rlib", 0o644), ("libburn.so", 0o755), ("notes", 0o644)] {
            fs::write(deps.join(name), [0; 5]).unwrap();
            fs::set_permissions(deps.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(delete_old_builds(&target, Duration::from_secs(3600)), 0, "they are young");
        assert_eq!(delete_old_builds(&target, Duration::ZERO), 15);
        let mut left: Vec<_> = fs::read_dir(&deps).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["libburn.rlib", "libburn.so", "notes"]);
        assert!(!incremental.exists());
        fs::remove_dir_all(target).unwrap();
    }
}
