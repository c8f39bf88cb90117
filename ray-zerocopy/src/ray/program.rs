//! The file that Ray starts as a worker: the file that contains this program's own code.

use std::path::{Path, PathBuf};

use super::sys::main::entry_point;
use crate::error::ray::RayError;
use crate::os::procfs::own_file_at;
use crate::os::sync::Mutex;

/// Command that starts this program again.
#[derive(Debug)]
pub(super) struct Program {
    /// The dynamic loader, if the program was started as its argument.
    loader: Option<PathBuf>,
    /// The program's file, or a path that leads to it as long as this process lives.
    file: PathBuf,
}

impl Program {
    /// Returns this program.
    ///
    /// This is the executable as it was when the process started: an executable that has been
    /// deleted or replaced on disk since is accessed through `/proc`.
    ///
    /// # Errors
    /// If there is no executable file of the program.
    pub(super) fn own() -> Result<Self, RayError> {
        let exe = Path::new("/proc/self/exe");
        let program_error = |path: &Path, reason: String| RayError::Program { path: path.to_owned(), reason };
        let path = std::fs::read_link(exe)
            .map_err(|error| program_error(exe, format!("{error}; is /proc mounted in this container or chroot?")))?;
        let code = entry_point().and_then(own_file_at);
        if let Some(file) = code.filter(|file| *file != path) {
            return Self::loaded(path, file);
        }
        let file = if is_file(&path, exe) { path } else { format!("/proc/{}/exe", std::process::id()).into() };
        Ok(Self { loader: None, file })
    }

    /// Creates the description of a program that was started through the dynamic loader.
    fn loaded(loader: PathBuf, file: PathBuf) -> Result<Self, RayError> {
        if !file.exists() {
            let reason = format!(
                "it was started through the dynamic loader, {}, and its file has been deleted; start the program directly",
                loader.display()
            );
            return Err(RayError::Program { path: file, reason });
        }
        Ok(Self { loader: Some(loader), file })
    }

    /// A path from which the program's file can be read.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The words of the command that starts the program.
    pub(super) fn command(&self) -> impl Iterator<Item = &Path> {
        self.loader.iter().map(PathBuf::as_path).chain([self.file.as_path()])
    }

    /// Returns a folder that contains only this program, as `program`. Ray packs and sends the
    /// folder, which exists as long as the process.
    ///
    /// # Errors
    /// If the folder cannot be created or is full.
    pub(super) fn folder(&self) -> std::io::Result<PathBuf> {
        static FOLDER: Mutex<Option<tempfile::TempDir>> = Mutex::new(None);
        let mut folder = FOLDER.lock();
        if let Some(folder) = &*folder {
            return Ok(folder.path().to_owned());
        }
        let made = tempfile::Builder::new().prefix("ray-zerocopy-ship-").tempdir()?;
        let target = made.path().join("program");
        // A hard link if possible, since the file may be large.
        std::fs::hard_link(&self.file, &target).or_else(|_| std::fs::copy(&self.file, &target).map(drop))?;
        Ok(folder.insert(made).path().to_owned())
    }
}

/// Returns `true` if two paths lead to the same file.
fn is_file(path: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let id = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((id(path), id(other)), (Ok(path), Ok(other)) if path == other)
}

#[cfg(test)]
mod tests {
    use super::Program;
    use super::is_file;

    #[test]
    fn this_program_is_its_own_file() {
        let program = Program::own().unwrap();
        let words: Vec<_> = program.command().collect();
        assert_eq!(words, [std::env::current_exe().unwrap()]);
    }

    #[test]
    fn replaced_file_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("program"), folder.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        std::fs::hard_link(&path, &link).unwrap();
        assert!(is_file(&path, &link));
        std::fs::write(folder.path().join("new"), "new").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(!is_file(&path, &link));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_file(&path, &link));
    }
}
