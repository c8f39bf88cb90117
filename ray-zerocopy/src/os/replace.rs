//! Files that appear when they are complete.
//!
//! Until then a file has no name at all (`O_TMPFILE`), so that a process that ends early leaves nothing behind. Where the file
//! system cannot do that, the file has a hidden name, which its guard removes, or the program when it ends by a signal: see
//! [`temporary`](super::temporary).
//!
//! `linkat` gives a name to a file and cannot take it from another. So a file that replaces one gets a hidden name
//! first, for as long as the rename after it takes. A process that is killed by SIGKILL just then leaves it behind.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::temporary::Hidden;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Writes a file that has its name when it is complete, and then takes the place of one that is there.
///
/// - A new file has the mode that the umask leaves of 0666; one that replaces another keeps the mode of that.
/// - A symbolic link stays: the file that it points to is written, even on another file system.
/// - Only a regular file is replaced: no folder, pipe or device.
/// - The file is on the disk when this returns, its name where the file system can sync folders.
///
/// # Errors
/// If the file cannot be written; `failed` makes the error of it. Or as `write`. Nothing is left behind then.
pub fn replace<E>(
    path: &Path,
    write: impl FnOnce(&File) -> Result<(), E>,
    failed: impl Fn(io::Error) -> E,
) -> Result<(), E> {
    let path = target(path).map_err(&failed)?;
    let folder = folder(&path);
    let mode = mode(&path).map_err(&failed)?;
    let file = Unnamed::make(folder).map_err(&failed)?;
    if let Some(mode) = mode {
        keep(file.get(), mode).map_err(&failed)?;
    }
    write(file.get())?;
    file.get().sync_all().map_err(&failed)?;
    file.publish(folder, &path).map_err(&failed)?;
    // The name lasts when the folder does. Not every folder can be read, and not every file system can sync one; what was
    // written is there all the same, so this is no error.
    drop(File::open(folder).and_then(|folder| folder.sync_all()));
    Ok(())
}

/// A file that has not got its name yet.
enum Unnamed {
    /// One without any name.
    Nameless(File),
    Hidden(Hidden<File>),
}

impl Unnamed {
    fn make(folder: &Path) -> io::Result<Self> {
        match nameless(folder) {
            Some(file) => Ok(Self::Nameless(file)),
            // If nothing can be made in the folder, this says why.
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
            Self::Hidden(file) => return file.persist(path).map_err(explained),
        };
        let hidden = match link(&file, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Hidden::make(folder, |hidden| link(&file, hidden)).and_then(|hidden| hidden.persist(path))
            }
            Err(error) => Err(error),
        };
        // A file system that has files without names, and gives them none: the bytes are worth a copy.
        match hidden {
            Err(error) if !matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices) => {
                let hidden = Hidden::make(folder, create)?;
                copy(&file, hidden.file())?;
                hidden.persist(path).map_err(explained)
            }
            linked => linked.map_err(explained),
        }
    }
}

/// A file of a folder without a name, if the file system has such files and one can get a name later.
fn nameless(folder: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(open(folder, flags, Mode::from_raw_mode(0o666)).ok()?);
    // Without /proc only a privileged process could give it one.
    let (own, found) = (file.metadata().ok()?, fs::metadata(through_proc(&file)).ok()?);
    ((own.dev(), own.ino()) == (found.dev(), found.ino())).then_some(file)
}

fn through_proc(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    Ok(linkat(CWD, through_proc(file), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
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

/// The mode of the file that is to be replaced, if there is one.
fn mode(path: &Path) -> io::Result<Option<u32>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found.mode() & 0o777)),
        Ok(found) if found.is_dir() => Err(Errno::ISDIR.into()),
        Ok(_) => Err(io::Error::other("it is not a regular file, and only such a one can be replaced")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives a file a mode, if it does not have it: some file systems have none to give.
fn keep(file: &File, mode: u32) -> io::Result<()> {
    if file.metadata()?.mode() & 0o777 == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file that a path stands for: itself, or what its links lead to, which need not be there.
fn target(path: &Path) -> io::Result<PathBuf> {
    // A link of /proc, such as /dev/stdout, leads to what may have no path.
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(io::Error::other("it is not a regular file, and only such a one can be replaced"));
    }
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => may_follow(&path, &found)?,
            // If the file cannot be looked at, it cannot be written either, which is a better place for the error.
            _ => return Ok(path),
        }
        path = folder(&path).join(fs::read_link(&path)?);
    }
    Err(Errno::LOOP.into())
}

/// The kernel's own rule (`fs.protected_symlinks`), which resolving a link by hand would get around: in a folder like /tmp a
/// link that another user has made is not followed.
fn may_follow(path: &Path, link: &fs::Metadata) -> io::Result<()> {
    let folder = fs::metadata(folder(path))?;
    let open_to_all = folder.mode() & 0o1002 == 0o1002;
    if open_to_all && link.uid() != geteuid().as_raw() && link.uid() != folder.uid() {
        let reason = "it is a symbolic link of another user in a folder that all may write to";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(())
}

fn explained(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::ResourceBusy {
        return error;
    }
    let reason = format!("{error}: it is mounted by itself, and cannot be replaced; write to another name");
    io::Error::new(io::ErrorKind::ResourceBusy, reason)
}
