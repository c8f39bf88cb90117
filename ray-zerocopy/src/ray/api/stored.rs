//! What a driver has put into the object store of its cluster, by its content.

use std::collections::HashMap;

use crate::arena::manifest::ArenaId;
use crate::arena::store::{Container, WeakContainer};
use crate::os::sync::Mutex;

/// The containers that this process has put into the store of its cluster, and still uses. A base is there
/// once, for all its variants.
#[derive(Default)]
pub(crate) struct StoredContainers(Mutex<HashMap<ArenaId, WeakContainer>>);

impl StoredContainers {
    pub(crate) fn find(&self, id: ArenaId) -> Option<Container> {
        self.0.lock().get(&id).and_then(WeakContainer::upgrade)
    }

    /// Adds a container. Returns the one to use: another thread may have put the same one meanwhile.
    pub(crate) fn add(&self, id: ArenaId, container: Container) -> Container {
        let mut stored = self.0.lock();
        stored.retain(|_, container| container.upgrade().is_some());
        if let Some(other) = stored.get(&id).and_then(WeakContainer::upgrade) {
            return other;
        }
        stored.insert(id, container.downgrade());
        container
    }
}
