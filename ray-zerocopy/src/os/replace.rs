//! Atomic replacement of files: a file appears under its name when it is complete.
//!
//! Until then the file has no name at all (`O_TMPFILE`), so a process that ends early leaves
//! nothing behind. Where the file system does not support that, the file has a hidden name. Its
//! guard removes it, or the program does if it ends by a signal: see
//! [`temporary`](super::temporary).
//!
//! `linkat` cannot replace an existing file. So a file that replaces another one briefly gets a
//! hidden name, which is then renamed. A process that is killed by SIGKILL between these two calls
//! leaves the hidden file behind.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, linkat};
#[cfg(target_os = "linux")]
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::temporary::Hidden;

/// Maximum number of symbolic links to follow, as in the kernel.
const MOST_LINKS: usize = 40;

/// Writes a file that appears under its name when it is complete, and replaces an existing file of
/// that name.
///
/// - A new file has mode 0666 minus the umask. A file that replaces another one keeps its mode.
/// - A symbolic link stays: the file that it points to is written, even on another file system.
/// - Only a regular file is replaced, not a folder, pipe or device.
/// - When this returns, the file's content is on the disk. Its name is as well, where the file
///   system can sync folders.
///
/// # Errors
/// If the file cannot be written; `failed` converts the I/O error. Errors of `write` are returned
/// as they are. No file is left behind in either case.
pub fn replace<E>(
    path: &Path,
    write: impl FnOnce(&File) -> Result<(), E>,
    to_error: impl Fn(io::Error) -> E,
) -> Result<(), E> {
    let path = target(path).map_err(&to_error)?;
    let folder = folder(&path);
    let mode = mode(&path).map_err(&to_error)?;
    let file = Unnamed::make(folder).map_err(&to_error)?;
    if let Some(mode) = mode {
        set_mode(file.get(), mode).map_err(&to_error)?;
    }
    write(file.get())?;
    file.get().sync_all().map_err(&to_error)?;
    file.publish(folder, &path).map_err(&to_error)?;
    // The name is durable when the folder is. Not every folder can be read, and not every file
    // system can sync one. The file has been written in either case, so this is not an error.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// A file that does not have its final name yet.
enum Unnamed {
    /// A file without any name (`O_TMPFILE`).
    Nameless(File),
    Hidden(Hidden<File>),
}

impl Unnamed {
    fn make(folder: &Path) -> io::Result<Self> {
        match nameless(folder) {
            Some(file) => Ok(Self::Nameless(file)),
            // If no file can be created in the folder, this returns the reason.
            None => Ok(Self::Hidden(Hidden::make(folder, create)?)),
        }
    }

    fn get(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Hidden(file) => file.file(),
        }
    }

    fn publish(self, folder: &Path, path: &Path) -> io::Result<()> {
        let file = match self {
            Self::Nameless(file) => file,
            Self::Hidden(file) => return file.persist(path).map_err(explain_busy),
        };
        let hidden = match link(&file, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Hidden::make(folder, |hidden| link(&file, hidden)).and_then(|hidden| hidden.persist(path))
            }
            Err(error) => Err(error),
        };
        // Some file systems support `O_TMPFILE` but not linking such a file later. Then the bytes
        // are copied.
        match hidden {
            Err(error) if !matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices) => {
                let hidden = Hidden::make(folder, create)?;
                copy(&file, hidden.file())?;
                hidden.persist(path).map_err(explain_busy)
            }
            linked => linked.map_err(explain_busy),
        }
    }
}

/// Creates a file without a name in a folder. Returns `None` if the file system does not support
/// that, or if the file could not be linked later.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(open(folder, flags, Mode::from_raw_mode(0o666)).ok()?);
    // Linking works through /proc; without it, only a privileged process could link the file.
    let (own, found) = (file.metadata().ok()?, fs::metadata(proc_fd_path(&file)).ok()?);
    ((own.dev(), own.ino()) == (found.dev(), found.ino())).then_some(file)
}

#[cfg(not(target_os = "linux"))]
fn nameless(_folder: &Path) -> Option<File> {
    None
}

fn proc_fd_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    Ok(linkat(CWD, proc_fd_path(file), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o666).open(path)
}

fn copy(mut from: &File, mut to: &File) -> io::Result<()> {
    to.set_permissions(from.metadata()?.permissions())?;
    from.rewind()?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()
}

/// Returns the mode of the file to replace, or `None` if it does not exist.
fn mode(path: &Path) -> io::Result<Option<u32>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found.mode() & 0o777)),
        Ok(found) if found.is_dir() => Err(Errno::ISDIR.into()),
        Ok(_) => Err(io::Error::other("it is not a regular file, and only such a one can be replaced")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the mode of a file unless it already has it: some file systems do not support modes.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    if file.metadata()?.mode() & 0o777 == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Resolves the symbolic links of a path. The resulting file need not exist.
fn target(path: &Path) -> io::Result<PathBuf> {
    // A link in /proc, such as /dev/stdout, may lead to a file without a path.
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(io::Error::other("it is not a regular file, and only such a one can be replaced"));
    }
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => may_follow(&path, &found)?,
            // If the file's metadata cannot be read, writing fails as well and returns the better
            // error.
            _ => return Ok(path),
        }
        path = folder(&path).join(fs::read_link(&path)?);
    }
    Err(Errno::LOOP.into())
}

/// Applies the kernel's own rule (`fs.protected_symlinks`), which resolving a link manually would
/// bypass: in a world-writable sticky folder such as /tmp, links created by another user are not
/// followed.
fn may_follow(path: &Path, link: &fs::Metadata) -> io::Result<()> {
    let folder = fs::metadata(folder(path))?;
    let open_to_all = folder.mode() & 0o1002 == 0o1002;
    if open_to_all && link.uid() != geteuid().as_raw() && link.uid() != folder.uid() {
        let reason = "it is a symbolic link of another user in a folder that all may write to";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(())
}

fn explain_busy(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::ResourceBusy {
        return error;
    }
    let reason = format!("{error}: it is mounted by itself, and cannot be replaced; write to another name");
    io::Error::new(io::ErrorKind::ResourceBusy, reason)
}
