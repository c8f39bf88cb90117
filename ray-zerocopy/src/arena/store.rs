//! Arenas in an object store, which maps the memory itself.

use super::arena::Arena;
use super::region::{Origin, Region};
use crate::error::arena::ArenaError;

impl Arena {
    /// Opens an arena that is one object in an object store.
    ///
    /// # Errors
    /// As [`from_memfd`](Self::from_memfd).
    pub(crate) fn from_store(memory: bytes::Bytes, origin: Option<Origin>) -> Result<Self, ArenaError> {
        Self::from_regions(vec![Region::store(memory, origin)])
    }

    /// Returns the data of the engine in whose store the arena is.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.0.regions[0].origin.as_ref()
    }

    /// Returns the container, if it is the whole arena.
    pub(crate) fn container(&self) -> Option<&bytes::Bytes> {
        match &self.0.regions[..] {
            [container] => Some(&container.memory),
            _ => None,
        }
    }

    /// Returns the arena with everything in one container: a clone, if it already is. An arena that
    /// borrows from files is not copied, since its user chose not to copy them.
    ///
    /// # Errors
    /// If there is not enough memory for the tensors of another arena.
    pub(crate) fn in_one(&self) -> Result<Self, ArenaError> {
        if self.0.regions.len() > 1 && self.files().next().is_none() {
            self.rebuild()?.seal(&mut |_| ())
        } else {
            Ok(self.clone())
        }
    }
}
