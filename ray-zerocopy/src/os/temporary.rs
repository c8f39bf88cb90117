//! Incomplete files that have a name. Their guards remove them; a program that ends by a signal can
//! remove them as well.
//!
//! A signal runs no destructors. A program that handles signals calls [`remove`] before it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::os::sync::Mutex;

/// Names of the incomplete files of this process.
static NAMES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A file with a hidden name. Removed when dropped unless it was [`persist`](Self::persist)ed.
pub(super) struct Hidden<R> {
    file: NamedTempFile<R>,
    // Dropped after the file: its name is listed as long as the file exists.
    listed: Listed,
}

impl<R> Hidden<R> {
    /// Creates a file in a folder. `make` is called with candidate names until it succeeds.
    pub(super) fn make(folder: &Path, mut make: impl FnMut(&Path) -> io::Result<R>) -> io::Result<Self> {
        // The lock is held until the name is listed, so a signal never finds a file that exists but
        // is not listed.
        let mut names = NAMES.lock();
        let file = Builder::new().prefix(".rzc-").make_in(folder, |path| make(path))?;
        names.push(file.path().to_owned());
        let listed = Listed(file.path().to_owned());
        Ok(Self { file, listed })
    }

    pub(super) fn file(&self) -> &R {
        self.file.as_file()
    }

    /// Renames the file to `path`. Replaces an existing file of that name.
    pub(super) fn persist(self, path: &Path) -> io::Result<()> {
        let Self { file, listed } = self;
        let renamed = file.persist(path).map(drop).map_err(|error| error.error);
        drop(listed);
        renamed
    }
}

/// An entry of [`NAMES`]. Removed from the list when dropped.
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        NAMES.lock().retain(|name| *name != self.0);
    }
}

/// Removes all incomplete files of this process that have a name. The process must end after this
/// call: the lock stays held, so no further file can be created.
pub fn remove() {
    let names = NAMES.lock();
    for name in names.iter() {
        // The file may just have been renamed, or removed by its guard.
        let _ = fs::remove_file(name);
    }
    std::mem::forget(names);
}
