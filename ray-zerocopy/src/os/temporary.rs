//! Files that have a name before they are complete: their guards remove them, and a program that ends by a signal can.
//!
//! A signal runs no destructors. A program that handles signals calls [`remove`] before it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::{Builder, NamedTempFile};

/// The names of the files that are not complete.
static NAMES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A file with a hidden name of its own, which is removed with this value unless it is [`persist`](Self::persist)ed.
pub(super) struct Hidden<R> {
    file: NamedTempFile<R>,
    // Behind the file: its name is listed until there is no such file.
    listed: Listed,
}

impl<R> Hidden<R> {
    /// Makes one in a folder: `make` gets names until it makes a file of one.
    pub(super) fn make(folder: &Path, mut make: impl FnMut(&Path) -> io::Result<R>) -> io::Result<Self> {
        // Held until the name is listed: there is no moment at which the file is there and a signal leaves it behind.
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let file = Builder::new().prefix(".rzc-").make_in(folder, |path| make(path))?;
        names.push(file.path().to_owned());
        let listed = Listed(file.path().to_owned());
        Ok(Self { file, listed })
    }

    pub(super) fn file(&self) -> &R {
        self.file.as_file()
    }

    /// Gives the file the name `path`, and takes it from the file that has it.
    pub(super) fn persist(self, path: &Path) -> io::Result<()> {
        let Self { file, listed } = self;
        let renamed = file.persist(path).map(drop).map_err(|error| error.error);
        drop(listed);
        renamed
    }
}

/// A name on the list.
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        NAMES.lock().unwrap_or_else(PoisonError::into_inner).retain(|name| *name != self.0);
    }
}

/// Removes every file of this process that has a name and is not complete. No other one is made after this: the process has
/// to end.
pub fn remove() {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    for name in names.iter() {
        // It may have got its final name, or have been removed by its guard, a moment ago.
        drop(fs::remove_file(name));
    }
    std::mem::forget(names);
}
