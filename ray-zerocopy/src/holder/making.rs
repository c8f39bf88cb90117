//! The lock of a key: one process makes the arena, and others wait for it.
//!
//! A process holds the lock (`flock`) while it makes the arena, and removes the file when it offers
//! the arena. The kernel releases the lock of a process that dies, and the next one makes the arena.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// What a process is to do.
pub(super) enum Turn {
    /// It makes the arena.
    Make(Making),
    /// Another process has stopped making it. It may be offered now.
    Look,
}

/// The right to make the arena of a key. Dropping it passes the right on.
pub(super) struct Making {
    lock: PathBuf,
    file: File,
}

/// Takes the lock of a key. Waits as long as another process has it.
pub(super) fn turn(lock: &Path) -> io::Result<Turn> {
    loop {
        let options = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(lock);
        let file = options()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // A process that has made the arena has removed the file, which no other process finds.
            Ok(()) if is_at(&file, lock) => return Ok(Turn::Make(Making { lock: lock.to_owned(), file })),
            Ok(()) | Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                // Shared, so that all that wait continue at the same time.
                retry(|| flock(&file, FlockOperation::LockShared))?;
                return Ok(Turn::Look);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Making {
    /// Ends the making: the arena is offered, or could not be made.
    pub(super) fn end(self) {}
}

impl Drop for Making {
    fn drop(&mut self) {
        // Still locked, so it is the file of this process.
        let _ = fs::remove_file(&self.lock);
        // A fork of this process has the file open as well, and would keep the lock.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Removes the lock of a process that has died.
pub(super) fn remove_abandoned(lock: &Path) {
    let Ok(file) = File::open(lock) else { return };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&file, lock) {
        let _ = fs::remove_file(lock);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(found), Ok(own)) = (fs::symlink_metadata(path), file.metadata()) else { return false };
    (found.dev(), found.ino()) == (own.dev(), own.ino())
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::{Turn, remove_abandoned, turn};

    #[test]
    fn one_makes_and_others_wait() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("key.lock");
        let Turn::Make(making) = turn(&lock).unwrap() else { panic!("the lock is free") };
        remove_abandoned(&lock);
        assert!(lock.exists(), "it is in use");
        let (sender, woken) = channel();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (lock, sender) = (lock.clone(), sender.clone());
                std::thread::spawn(move || {
                    let found = matches!(turn(&lock).unwrap(), Turn::Look);
                    sender.send(()).unwrap();
                    found
                })
            })
            .collect();
        assert!(woken.recv_timeout(Duration::from_millis(100)).is_err(), "they wait");
        making.end();
        assert!(!lock.exists());
        // One that had not begun to wait may make the arena itself, so the answers do not matter.
        for thread in waiting {
            let _waited: bool = thread.join().unwrap();
        }
    }

    #[test]
    fn abandoned_lock_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("key.lock");
        std::fs::write(&lock, "").unwrap();
        remove_abandoned(&lock);
        assert!(!lock.exists());
    }
}
