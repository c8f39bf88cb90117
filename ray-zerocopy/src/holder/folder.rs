//! The folder in which the processes of a user find each other: `$XDG_RUNTIME_DIR/ray-zerocopy`, or
//! `/tmp/ray-zerocopy-UID`. Its mode is 0700.
//!
//! | file | what |
//! | --- | --- |
//! | `PID-RANDOM` | the socket of a process: its endpoint |
//! | `KEY.PID-RANDOM` | empty: the process with this endpoint holds the arena of the key |
//! | `hold` | the socket with which systemd starts a holder, if it is set up |
//! | `KEY.lock` | locked by the process that makes the arena of the key |
//!
//! A process removes its files when it ends, and the folder with the last of them. Files of a killed
//! process are removed by the next process that finds them. The kernel releases its locks.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::key::Key;
use crate::error::holder::HolderError;

const NAME: &str = "ray-zerocopy";
/// Ending of the name of a lock.
const LOCK: &str = "lock";
/// The socket of a holder that systemd starts.
const ACTIVATION: &str = "hold";
/// A socket's name of the greatest length.
const LONGEST: &str = "4194304-0123456789abcdef";

/// The private folder of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Opens the folder. Creates it if it does not exist.
    ///
    /// # Errors
    /// If it cannot be created, or other users can use it.
    pub(super) fn open() -> Result<Self, HolderError> {
        let path = place();
        let failed = |reason: String| HolderError::Folder { path: path.display().to_string(), reason };
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(format!("it cannot be created: {error}"))),
        }
        // Not of the file that a symbolic link points to.
        let found = fs::symlink_metadata(&path).map_err(|error| failed(error.to_string()))?;
        if !found.is_dir() {
            return Err(failed("it is not a folder".to_owned()));
        }
        if found.uid() != geteuid().as_raw() {
            return Err(failed(format!("it belongs to another user, {}", found.uid())));
        }
        if found.mode() & 0o077 != 0 {
            return Err(failed(format!("other users may use it: its mode is {:o}, not 700", found.mode() & 0o777)));
        }
        Ok(Self(path))
    }

    pub(super) fn socket(&self, endpoint: &str) -> PathBuf {
        self.0.join(endpoint)
    }

    /// The socket of a holder that systemd starts when a program connects, if there is one.
    pub(super) fn activation(&self) -> Option<PathBuf> {
        Some(self.0.join(ACTIVATION)).filter(|socket| socket.exists())
    }

    /// The file that says that the process with an endpoint holds the arena of a key.
    pub(super) fn offer(&self, key: &Key, endpoint: &str) -> PathBuf {
        self.0.join(format!("{key}.{endpoint}"))
    }

    pub(super) fn lock(&self, key: &Key) -> PathBuf {
        self.0.join(format!("{key}.{LOCK}"))
    }

    /// The endpoints of the processes that hold the arena of a key.
    pub(super) fn holders(&self, key: &Key) -> Vec<String> {
        let start = format!("{key}.");
        let of_key = |name: String| name.strip_prefix(&start).filter(|rest| *rest != LOCK).map(str::to_owned);
        self.names().filter_map(of_key).collect()
    }

    /// The endpoints of all processes.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.names().filter(|name| is_endpoint(name)).collect()
    }

    fn names(&self) -> impl Iterator<Item = String> {
        // A folder that has been removed is empty.
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
    }

    /// Removes the files of an endpoint: its socket, and its offers.
    pub(super) fn remove_endpoint(&self, endpoint: &str) {
        let ending = format!(".{endpoint}");
        for name in self.names().filter(|name| name == endpoint || name.ends_with(&ending)) {
            // Another process may have removed it.
            let _ = fs::remove_file(self.0.join(name));
        }
    }

    /// Removes the folder if it is empty.
    pub(super) fn remove_if_empty(&self) {
        // The error says that it is not.
        let _ = fs::remove_dir(&self.0);
    }

    /// Removes the files of killed processes.
    pub(super) fn sweep(&self) {
        for name in self.names() {
            match name.split_once('.') {
                None if is_endpoint(&name) && is_dead(&self.0.join(&name)) => self.remove_endpoint(&name),
                Some((_, LOCK)) => super::making::remove_abandoned(&self.0.join(&name)),
                // The process removes its socket before its offers.
                Some((_, endpoint)) if is_endpoint(endpoint) && !self.socket(endpoint).exists() => {
                    let _ = fs::remove_file(self.0.join(&name));
                }
                _ => {}
            }
        }
    }
}

/// Returns `true` for the name of a socket.
fn is_endpoint(name: &str) -> bool {
    name.split_once('-').is_some_and(|(pid, rest)| pid.parse::<u32>().is_ok() && rest.len() == 16)
}

/// Returns `true` if no process listens on a socket of this user. Process ids of another container
/// have no meaning here, so this asks the socket itself.
pub(super) fn is_dead(socket: &Path) -> bool {
    let ours = fs::symlink_metadata(socket)
        .is_ok_and(|found| found.file_type().is_socket() && found.uid() == geteuid().as_raw());
    ours && matches!(UnixStream::connect(socket), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The path of the folder. Does not depend on `TMPDIR`, which differs between the programs of a user.
fn place() -> PathBuf {
    let own =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw());
    let user = geteuid().as_raw();
    // Programs that were not started from a session lack the variable.
    let bases = [std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), Some(format!("/run/user/{user}").into())];
    let mut runtime = bases.into_iter().flatten().filter(own).map(|base| base.join(NAME)).filter(|path| fits(path));
    let temporary = || {
        let base = if Path::new("/tmp").is_dir() { PathBuf::from("/tmp") } else { std::env::temp_dir() };
        base.join(format!("{NAME}-{user}"))
    };
    runtime.next().unwrap_or_else(temporary)
}

/// Returns `true` if a socket can be in this folder: its path has at most 107 bytes.
fn fits(folder: &Path) -> bool {
    SocketAddr::from_pathname(folder.join(LONGEST)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::is_endpoint;

    #[test]
    fn names_of_sockets_are_told_from_others() {
        assert!(is_endpoint("17-0123456789abcdef") && is_endpoint(super::LONGEST));
        for other in ["", "17", "17-", "x-0123456789abcdef", "17-0123", "0123456789abcdef.lock"] {
            assert!(!is_endpoint(other), "{other}");
        }
    }
}
