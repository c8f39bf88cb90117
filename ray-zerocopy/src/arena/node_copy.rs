//! Copies a region to a NUMA node, and finds out on which nodes its pages are.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use super::index::Index;
use super::io::ProgressReporter;
use super::memory::status::Obstacle;
use super::ranges::{FileRange, RangeError, copy_ranges};
use super::region::Region;
use crate::error::arena::ArenaError;
use crate::os::available_memory::{Available, available};
use crate::os::byte_size::mib;
use crate::os::cpu_placement::bind_thread;
use crate::os::limits;
use crate::os::numa::NumaNode;
use crate::os::numa_maps::{BytesByNode, bytes_by_node};
use crate::os::sys::advice::Advice;
use crate::os::sys::memfd;
use crate::os::sys::node_memory::prefer_node;

/// No page is smaller.
const PAGE: usize = 4096;

/// A copy of a region on a node.
#[derive(Clone)]
pub(super) struct NodeRegion {
    pub(super) region: Arc<Region>,
    /// Where its pages were when it was made. `None` if the kernel does not say.
    pub(super) pages: Option<BytesByNode>,
}

/// A copy that is dropped with the arenas that have it.
pub(super) struct WeakNodeRegion {
    node: u32,
    region: Weak<Region>,
    pages: Option<BytesByNode>,
}

impl WeakNodeRegion {
    fn upgrade(&self) -> Option<NodeRegion> {
        Some(NodeRegion { region: self.region.upgrade()?, pages: self.pages.clone() })
    }
}

impl Region {
    /// Returns a copy of this sealed container on a node: that which this process has of it, or a new one.
    /// So variants of one base have one copy of the base on each node.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn on_node(&self, node: &NumaNode) -> Result<NodeRegion, Vec<Obstacle>> {
        // Held during the copy: a second caller gets the same one.
        let mut copies = self.node_copies.lock();
        copies.retain(|copy| copy.region.strong_count() > 0);
        let known = copies.iter().find(|copy| copy.node == node.id);
        if let Some(known) = known.and_then(WeakNodeRegion::upgrade) {
            return Ok(known);
        }
        check_room(node.id, self.memory.len() as u64, node.available(), available())?;
        let copy = self.copied_to(node)?;
        let (region, pages) = (Arc::downgrade(&copy.region), copy.pages.clone());
        copies.push(WeakNodeRegion { node: node.id, region, pages });
        Ok(copy)
    }

    fn copied_to(&self, node: &NumaNode) -> Result<NodeRegion, Vec<Obstacle>> {
        let len = self.memory.len() as u64;
        let failed = |reason: String| vec![Obstacle::NotCopied { node: node.id, reason }];
        let no_room = |available| Obstacle::NoRoom { node: node.id, needed: len, available };
        let system = |(call, error): (&str, io::Error)| failed(limits::named(call, &error).to_string());
        let fd = memfd::create(super::MEMFD, len).map_err(system)?;
        // If it is refused, the kernel takes the memory of the node that the copying thread runs on.
        let preferred = prefer_node(&fd, len as usize, node.id).map_err(|error| Obstacle::refused("mbind", &error));
        let index = self.index().map_err(|error| failed(error.to_string()))?;
        self.copy_on_cores(&index, &fd, node).map_err(failed)?;
        let fd = memfd::seal(fd).map_err(|error| system(("fcntl(F_ADD_SEALS)", error)))?;
        let region = Self::sealed(fd).map_err(|error| failed(error.to_string()))?;
        region.mark_verified();
        let pages = region.bytes_by_node().ok();
        region.unmap();
        let there = pages.as_ref().map(|pages| pages.get(&node.id).copied().unwrap_or_default());
        match (there, preferred) {
            // A small part may be elsewhere. The status says how much.
            (Some(bytes), _) if bytes >= len / 2 => Ok(NodeRegion { region, pages }),
            (Some(bytes), Ok(())) => Err(vec![no_room(bytes)]),
            (None, Ok(())) => Ok(NodeRegion { region, pages }),
            (_, Err(refused)) => Err(vec![refused]),
        }
    }

    /// Copies the container to a memfd, with threads that run on the node's cores, and compares the checksums.
    fn copy_on_cores(&self, index: &Index, target: &OwnedFd, node: &NumaNode) -> Result<(), String> {
        let fd = self.fd.as_ref().ok_or("it has no file descriptor")?;
        let own = index.manifest.blobs.iter().zip(&index.places);
        let mut blobs: Vec<_> = own.filter(|(blob, place)| blob.is_own() && place.len > 0).collect();
        blobs.sort_by_key(|(_, place)| place.offset);
        let range = |from: u64, len: u64| FileRange { file: fd.as_fd(), from, len, to: from };
        let (mut ranges, mut checked) = (Vec::new(), Vec::new());
        let mut end = 0;
        for (blob, place) in blobs {
            let (start, len) = (place.offset as u64, place.len as u64);
            // Between two blobs.
            if start > end {
                ranges.push(range(end, start - end));
                checked.push(None);
            }
            ranges.push(range(start, len));
            checked.push(blob.blake3.as_deref().map(|expected| (blob, expected)));
            end = start + len;
        }
        ranges.push(range(end, (self.memory.len() as u64).saturating_sub(end)));
        checked.push(None);
        let copy = || {
            // Only the preference for the node's memory is left if it is refused.
            let _ = bind_thread(&node.cores);
            copy_ranges(&ranges, Some(target.as_fd()), &mut ProgressReporter::new(0, &mut |_| ()))
        };
        let copied = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("ray-zerocopy node".to_owned());
            let thread =
                thread.spawn_scoped(scope, copy).map_err(|error| limits::named("a thread", &error).to_string());
            thread?.join().map_err(|_| "the thread that copies panicked".to_owned())
        });
        let hashes = copied?.map_err(|(_, error)| match error {
            RangeError::Read(error) => format!("the arena cannot be read: {error}"),
            RangeError::Write(error) => limits::explained("pwrite", self.memory.len() as u64, &error),
        })?;
        let compare = checked.into_iter().zip(hashes).filter_map(|(checked, hash)| Some((checked?, hash)));
        let compared: Result<(), ArenaError> =
            compare.into_iter().try_for_each(|((blob, expected), hash)| blob.check(expected, hash));
        compared.map_err(|error| error.to_string())
    }

    /// Reads the region, and returns on which nodes its pages are. They stay in the page table of this process.
    pub(super) fn bytes_by_node(&self) -> Result<BytesByNode, String> {
        self.memory.iter().step_by(PAGE).for_each(|byte| {
            std::hint::black_box(*byte);
        });
        self.mapped_by_node()
    }

    /// Returns on which nodes the pages are that this process has in its page table.
    pub(super) fn mapped_by_node(&self) -> Result<BytesByNode, String> {
        let start = self.memory.as_ptr() as usize;
        bytes_by_node("self", std::slice::from_ref(&(start..start + self.memory.len())))
    }

    /// Removes the pages from the page table of this process, so that its figures are those of what it reads.
    pub(super) fn unmap(&self) {
        if let Some(pages) = &self.pages {
            // Not possible for locked pages, which stay.
            let _ = pages.advise(0, self.memory.len(), Advice::Unmap);
        }
    }
}

/// Checks that a node, and the machine with the limits of the cgroups, have room for a copy. The kernel kills a
/// process of a cgroup that takes more than its limit.
fn check_room(node: u32, needed: u64, on_node: Option<u64>, machine: Option<Available>) -> Result<(), Vec<Obstacle>> {
    if let Some(available) = on_node.filter(|available| *available < needed) {
        return Err(vec![Obstacle::NoRoom { node, needed, available }]);
    }
    let Some(Available { bytes, source }) = machine.filter(|available| available.bytes < needed) else { return Ok(()) };
    let reason = format!("it needs {} MiB, and {} MiB are available ({source})", mib(needed), mib(bytes));
    Err(vec![Obstacle::NotCopied { node, reason }])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Available, Obstacle, check_room};
    use crate::arena::builder::ArenaBuilder;
    use crate::os::numa::nodes;

    fn arena() -> crate::Arena {
        let mut builder = ArenaBuilder::new("test");
        builder.copy("a", vec![1; 5000]);
        builder.copy("b", (0..9_000_000).map(|at| (at % 251) as u8).collect());
        builder.seal(&mut |_| ()).unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps memory")]
    fn copy_has_the_same_bytes_and_is_made_once() {
        let arena = arena();
        let region = &arena.regions()[0];
        let Some(node) = nodes().unwrap().into_iter().next() else {
            return eprintln!("skipped: the kernel does not support NUMA");
        };
        let copy = region.on_node(&node).unwrap().region;
        assert!(copy.mapped_by_node().unwrap().is_empty(), "its pages are not in the page table");
        assert!(copy.memory == region.memory && copy.memory.as_ptr() != region.memory.as_ptr());
        assert!(copy.is_verified() && copy.index().unwrap().id == arena.id());
        assert!(Arc::ptr_eq(&copy, &region.on_node(&node).unwrap().region), "it is made once");
        let found = copy.bytes_by_node().unwrap();
        assert!(found.keys().eq([&node.id]) && found[&node.id] >= copy.memory.len() as u64, "{found:?}");
        let weak = Arc::downgrade(&copy);
        drop(copy);
        assert_eq!(weak.strong_count(), 0, "the region does not keep it");
    }

    #[test]
    fn lack_of_memory_is_found_before_the_copy() {
        let machine = |bytes| Some(Available { bytes, source: "the limit in /x".to_owned() });
        assert_eq!(check_room(1, 10, Some(10), machine(10)), Ok(()));
        assert_eq!(check_room(1, 10, None, None), Ok(()));
        let why = check_room(1, 10, Some(9), machine(99)).unwrap_err();
        assert_eq!(why, [Obstacle::NoRoom { node: 1, needed: 10, available: 9 }]);
        let why = check_room(1, 3 << 20, Some(4 << 20), machine(2 << 20)).unwrap_err();
        let [Obstacle::NotCopied { node: 1, reason }] = &why[..] else { panic!("{why:?}") };
        assert_eq!(reason, "it needs 3.0 MiB, and 2.0 MiB are available (the limit in /x)");
    }
}
