//! Arenas in an object store: each container is one object.

use std::sync::{Arc, Weak};

use super::arena::Arena;
use super::manifest::ArenaId;
use super::region::{Origin, Region};
use crate::error::arena::ArenaError;

/// A container of an arena: its own, or one that it borrows from. In memory, or in an object store.
#[derive(Clone)]
pub(crate) struct Container(Arc<Region>);

/// A container that may have been dropped.
pub(crate) struct WeakContainer(Weak<Region>);

impl WeakContainer {
    /// Returns the container, unless the last arena that used it has been dropped.
    pub(crate) fn upgrade(&self) -> Option<Container> {
        self.0.upgrade().map(Container)
    }
}

impl Container {
    /// Wraps memory of an object store.
    pub(crate) fn in_store(memory: bytes::Bytes, origin: Option<Origin>) -> Self {
        Self(Region::store(memory, origin))
    }

    /// Returns this container after its bytes have been copied to an object store.
    pub(crate) fn copied_to_store(&self, memory: bytes::Bytes, origin: Origin) -> Self {
        let stored = Region::store(memory, Some(origin));
        if self.0.is_verified() {
            stored.mark_verified();
        }
        Self(stored)
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &bytes::Bytes {
        &self.0.memory
    }

    /// The data of the engine in whose store it is.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_ref()
    }

    pub(crate) fn downgrade(&self) -> WeakContainer {
        WeakContainer(Arc::downgrade(&self.0))
    }
}

impl Arena {
    /// Opens an arena from containers: its own, then those that its manifest names.
    ///
    /// # Errors
    /// As [`from_memfd`](Self::from_memfd), or if a container is not the one that the manifest names.
    pub(crate) fn from_containers(containers: impl IntoIterator<Item = Container>) -> Result<Self, ArenaError> {
        Self::from_regions(containers.into_iter().map(|Container(region)| region).collect())
    }

    /// Returns the containers of the arena with their ids: its own, then those that it borrows from.
    /// Returns `None` if it borrows from files, which are no containers.
    pub(crate) fn all_containers(&self) -> Option<Vec<(ArenaId, Container)>> {
        let has_files = !self.manifest().files.is_empty();
        let containers = || self.containers().into_iter().map(|(id, region)| (id, Container(region))).collect();
        (!has_files).then(containers)
    }

    /// Returns the arena with everything in one container: a clone, if it already is. An arena that
    /// borrows from files is not copied, since its user chose not to copy them.
    ///
    /// # Errors
    /// If there is not enough memory for the tensors of another arena.
    pub(crate) fn in_one(&self) -> Result<Self, ArenaError> {
        if self.regions().len() > 1 && self.files().next().is_none() {
            self.rebuild()?.seal(&mut |_| ())
        } else {
            Ok(self.clone())
        }
    }
}
