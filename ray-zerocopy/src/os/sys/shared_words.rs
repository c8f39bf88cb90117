//! Memory that two processes write to: a memfd of a fixed size, mapped as atomic numbers.
//!
//! It is accessed through atomics alone. So there is no data race, whatever the other process does,
//! and a reader checks what it finds, like any other message.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::memfd;
use crate::os::limits;

/// Size of a word in bytes.
pub(crate) const WORD: usize = size_of::<u64>();

/// A range of numbers that another process has mapped as well.
pub(crate) struct SharedWords {
    map: MmapRaw,
    count: usize,
}

impl SharedWords {
    /// Creates `count` numbers, all 0. Returns the descriptor with which another process
    /// [opens](Self::open) them.
    pub(crate) fn create(name: &str, count: usize) -> io::Result<(Self, OwnedFd)> {
        let bytes = (count * WORD) as u64;
        let fd = memfd::create(name, bytes).map_err(|(call, error)| limits::named(call, &error))?;
        memfd::fix_size(&fd).map_err(|error| limits::named("fcntl(F_ADD_SEALS)", &error))?;
        Ok((Self::open(&fd, count)?, fd))
    }

    /// Maps the numbers of another process.
    ///
    /// # Errors
    /// If the size of the memfd is another one or may change, or the kernel refuses the mapping.
    pub(crate) fn open(fd: impl AsFd, count: usize) -> io::Result<Self> {
        let fd = fd.as_fd();
        let bytes = count * WORD;
        let found = rustix::fs::fstat(fd)?.st_size as u64;
        if found != bytes as u64 || !memfd::has_fixed_size(fd)? {
            let reason =
                format!("shared memory of {bytes} bytes and of a fixed size is expected, and {found} bytes were found");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let map = MmapOptions::new().len(bytes).map_raw(fd.as_raw_fd());
        let map = map.map_err(|error| io::Error::new(error.kind(), limits::explained("mmap", bytes as u64, &error)))?;
        Ok(Self { map, count })
    }

    /// The numbers.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `count` words that are readable and writable, starts at a page and so
        // is aligned, and lives as long as `self`. The memfd has this size, which its seals make
        // permanent (both checked in `open`), so no access raises SIGBUS. Every bit pattern is a valid
        // `u64`. This process accesses the memory as atomics only, as this function is the only way to
        // it, and what another process writes is, to this one, the work of a device, for which atomics
        // exist.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.count) }
    }
}

impl std::fmt::Debug for SharedWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedWords").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Copies bytes to words, from the first one on.
///
/// # Panics
/// If there are not enough words.
pub(crate) fn write_bytes(words: &[AtomicU64], bytes: &[u8]) {
    for (word, bytes) in words[..bytes.len().div_ceil(WORD)].iter().zip(bytes.chunks(WORD)) {
        let mut value = [0; WORD];
        value[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
    }
}

/// Copies bytes from words, from the first one on.
///
/// # Panics
/// If there are not enough words.
pub(crate) fn read_bytes(words: &[AtomicU64], bytes: &mut [u8]) {
    let words = &words[..bytes.len().div_ceil(WORD)];
    for (word, bytes) in words.iter().zip(bytes.chunks_mut(WORD)) {
        let value = word.load(Ordering::Relaxed).to_ne_bytes();
        bytes.copy_from_slice(&value[..bytes.len()]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{SharedWords, read_bytes, write_bytes};

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn both_mappings_are_the_same_memory() {
        let (own, fd) = SharedWords::create("ray-zerocopy-test", 512).unwrap();
        let other = SharedWords::open(&fd, 512).unwrap();
        assert!(own.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
        for len in [0, 1, 7, 8, 9, 200] {
            let bytes: Vec<_> = (0..len).map(|byte| byte as u8).collect();
            write_bytes(&own.words()[3..], &bytes);
            let mut found = vec![0; len];
            read_bytes(&other.words()[3..], &mut found);
            assert_eq!(found, bytes);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn memory_of_another_or_of_a_variable_size_is_refused() {
        let (_, fd) = SharedWords::create("ray-zerocopy-test", 512).unwrap();
        let error = SharedWords::open(&fd, 1024).unwrap_err();
        assert!(error.to_string().contains("8192 bytes and of a fixed size is expected, and 4096"), "{error}");
        let variable = super::memfd::create("ray-zerocopy-test", 4096).unwrap();
        SharedWords::open(&variable, 512).unwrap_err();
    }
}
