//! Passing an arena to another process of this machine, as file descriptors and a handle.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::arena::Arena;
use super::region::{Backing, Region};
use crate::error::arena::ArenaError;

/// Serialisable description of an arena, sent to another process together with its file
/// descriptors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Handle {
    regions: Vec<Backing>,
}

impl Arena {
    /// Checks that the arena can be passed to another process of this machine, and returns it.
    ///
    /// # Errors
    /// If the arena, or a part of it, is in an object store.
    pub(crate) fn handed_over(self) -> Result<Self, ArenaError> {
        if self.fds().len() == self.0.regions.len() { Ok(self) } else { Err(ArenaError::InStore) }
    }

    /// Returns what another process needs, besides the file descriptors, to open the same arena.
    pub(crate) fn handle(&self) -> Handle {
        Handle { regions: self.0.regions.iter().map(|region| region.backing.clone()).collect() }
    }

    /// Returns the file descriptors of the regions, in the order of [`handle`](Self::handle).
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.0.regions.iter().filter_map(|region| region.fd.as_ref()).map(AsFd::as_fd).collect()
    }

    /// Opens an arena that was received from the parent process, whose guarantee that files do not
    /// change is trusted.
    ///
    /// # Errors
    /// As [`from_memfd`](Self::from_memfd), or if a file descriptor is missing.
    pub(crate) fn from_handle(handle: &Handle, fds: Vec<OwnedFd>) -> Result<Self, ArenaError> {
        Self::handed(handle, fds, Region::open)
    }

    /// Opens an arena that was received in exchange for a serialised handle. The handle may come
    /// from an untrusted source, so a file is accepted only if other users cannot change it.
    ///
    /// # Errors
    /// As [`from_handle`](Self::from_handle), or if a file can be changed by other users.
    pub(crate) fn from_ticket(handle: &Handle, fds: Vec<OwnedFd>) -> Result<Self, ArenaError> {
        Self::handed(handle, fds, Region::fetched)
    }

    fn handed(
        handle: &Handle,
        fds: Vec<OwnedFd>,
        open: fn(OwnedFd, &Backing) -> Result<Arc<Region>, ArenaError>,
    ) -> Result<Self, ArenaError> {
        if fds.len() != handle.regions.len() {
            let (expected, found) = (handle.regions.len(), fds.len());
            return Err(ArenaError::NotAnArena(format!(
                "{expected} file descriptors were expected, and {found} were received"
            )));
        }
        let regions = fds.into_iter().zip(&handle.regions).map(|(fd, backing)| open(fd, backing));
        Self::from_regions(regions.collect::<Result<_, _>>()?)
    }
}
