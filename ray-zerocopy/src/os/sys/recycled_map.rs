//! Memory for messages that is used again: segments, which one process writes and another one reads.
//!
//! The writer has the only mapping through which a segment can be written to. The reader maps it for
//! reading only. Both have a slot for it, with its state in memory that both have mapped:
//!
//! | state | set by | what it means |
//! | --- | --- | --- |
//! | `FREE` | the reader, when it has dropped a message; the writer, for a message that it has not sent | the writer may write |
//! | `USED` | the writer, when it has written a message | the reader may read |
//! | `GIVEN_UP` | the reader, if it could not map the segment, or a fork of it may still read the message | the writer does not write to it again |
//! | `DROPPED` | the writer, when it no longer has the segment | the reader unmaps it |

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::advice::Pages;
use super::memfd;
use super::process_id::{forks, process_id};
use super::shared_words::SharedWords;

const FREE: u64 = 0;
const USED: u64 = 1;
const GIVEN_UP: u64 = 2;
const DROPPED: u64 = 3;

/// The state of a segment: a word that two processes have mapped.
#[derive(Clone)]
pub(crate) struct SegmentState {
    words: Arc<SharedWords>,
    index: usize,
}

impl SegmentState {
    /// The state in the word with this index. The caller ensures that a word is the state of one
    /// [`WriterSlot`] in one process and one [`ReaderSlot`] in the other.
    pub(crate) fn new(words: &Arc<SharedWords>, index: usize) -> Self {
        Self { words: Arc::clone(words), index }
    }

    fn word(&self) -> &AtomicU64 {
        &self.words.words()[self.index]
    }

    fn set(&self, state: u64) {
        self.word().store(state, Ordering::Release);
    }

    fn get(&self) -> u64 {
        self.word().load(Ordering::Acquire)
    }
}

/// A place for a segment in the process that writes to it.
pub(crate) struct WriterSlot {
    state: SegmentState,
    /// The segment. Its memory is used by nothing else in this process.
    map: Option<MmapRaw>,
}

impl WriterSlot {
    pub(crate) fn new(state: SegmentState) -> Self {
        Self { state, map: None }
    }

    /// Size of the segment, if there is one.
    pub(crate) fn capacity(&self) -> Option<usize> {
        self.map.as_ref().map(MmapRaw::len)
    }

    /// Returns `true` if there is a segment, and it can be written to.
    pub(crate) fn is_free(&self) -> bool {
        self.map.is_some() && self.state.get() == FREE
    }

    /// Returns `true` if there is a segment, and the reader has given it up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.map.is_some() && self.state.get() == GIVEN_UP
    }

    /// Creates a segment of `capacity` bytes, which `fill` writes the first message to. Returns that
    /// message, and the descriptor for the reader.
    ///
    /// # Errors
    /// If there is a segment that is in use, there is no memory, or the kernel lacks what is needed.
    pub(crate) fn create(
        &mut self,
        capacity: usize,
        fill: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<(Claim, OwnedFd)> {
        self.clear();
        if self.map.is_some() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let fd = memfd::create("ray-zerocopy-recycled", capacity as u64).map_err(|(_, error)| error)?;
        // Before it is mapped: the kernel fills whole pages, whereas a mapping would fault on each of them.
        fill(fd.as_fd())?;
        let map = MmapOptions::new().len(capacity).map_raw(fd.as_raw_fd())?;
        let fd = memfd::seal_for_one_writer(fd)?;
        self.map = Some(map);
        self.state.set(USED);
        // A reader that has not got the descriptor cannot read the next message either.
        Ok((Claim { state: self.state.clone(), unsent: GIVEN_UP, is_sent: AtomicBool::new(false) }, fd))
    }

    /// Writes a message: bytes, and where they begin. Returns `None` if there is no segment, or it is not
    /// free, or too small.
    pub(crate) fn write<'a>(&mut self, parts: impl Iterator<Item = (&'a [u8], usize)>) -> Option<Claim> {
        let map = self.map.as_mut().filter(|_| self.state.get() == FREE)?;
        for (bytes, start) in parts {
            start.checked_add(bytes.len()).filter(|&end| end <= map.len())?;
            // SAFETY: `start .. start + bytes.len()` is within the mapping, which is writable and lives as
            // long as `map`, and whose size the memfd always has. No other thread of this process writes
            // to it, since it is borrowed exclusively. No process reads it: the state is `FREE`, which is
            // stored in two cases. The last message was not sent (`Claim`); or the `Lease` of the last one
            // has been dropped, and neither the reader nor a fork of it has a slice of the message. This
            // thread has read that with `Acquire`, and it was stored with `Release`, so every access
            // through the lease comes before this one. `bytes` is other memory: a slice of this segment
            // would keep its lease alive.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.as_mut_ptr().wrapping_add(start), bytes.len());
            }
        }
        self.state.set(USED);
        Some(Claim { state: self.state.clone(), unsent: FREE, is_sent: AtomicBool::new(false) })
    }

    /// Drops the segment, unless it is in use.
    pub(crate) fn clear(&mut self) {
        if self.is_free() || self.is_given_up() {
            self.map = None;
            self.state.set(DROPPED);
        }
    }
}

/// A message that has been written to a segment. The segment becomes free again if the message is not
/// [sent](Self::sent).
pub(crate) struct Claim {
    state: SegmentState,
    /// The state if the message is not sent.
    unsent: u64,
    is_sent: AtomicBool,
}

impl Claim {
    /// Notes that the reader gets the message. It frees the segment.
    pub(crate) fn sent(&self) {
        self.is_sent.store(true, Ordering::Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !*self.is_sent.get_mut() {
            self.state.set(self.unsent);
        }
    }
}

/// A place for a segment in the process that reads it.
pub(crate) struct ReaderSlot {
    state: SegmentState,
    segment: Option<Arc<Readable>>,
}

/// A segment that this process reads.
struct Readable {
    pages: Pages,
    state: SegmentState,
    /// Whether its message has not been dropped yet.
    is_leased: AtomicBool,
}

impl ReaderSlot {
    pub(crate) fn new(state: SegmentState) -> Self {
        Self { state, segment: None }
    }

    fn is_leased(&self) -> bool {
        self.segment.as_ref().is_some_and(|segment| segment.is_leased.load(Ordering::Acquire))
    }

    /// Maps the segment of a writer, in place of the one before.
    ///
    /// # Errors
    /// If the kernel refuses the mapping. An error of kind `InvalidData` if the one before holds a message,
    /// or other processes than the writer may write to the new one, or its size may change.
    pub(crate) fn open(&mut self, fd: impl AsFd) -> io::Result<()> {
        let invalid = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
        if self.is_leased() {
            return Err(invalid("a segment that replaces one in use"));
        }
        let fd = fd.as_fd();
        if !memfd::has_one_writer(fd).unwrap_or(false) {
            return Err(invalid("a segment that other processes may write to"));
        }
        let reader = memfd::reopened(fd);
        let capacity = usize::try_from(rustix::fs::fstat(fd)?.st_size).map_err(io::Error::other)?;
        let pages = Pages::map(reader.as_ref().map_or(fd, AsFd::as_fd), capacity)?;
        self.segment = Some(Arc::new(Readable { pages, state: self.state.clone(), is_leased: AtomicBool::new(false) }));
        Ok(())
    }

    /// Returns the message in the first `len` bytes. Returns `None` if there is no segment, it is shorter,
    /// or it holds no message or one that was received before.
    pub(crate) fn lease(&self, len: usize) -> Option<Lease> {
        // Counted before the message exists.
        let forks = forks();
        let segment = self.segment.as_ref().filter(|segment| len <= segment.pages.addresses().len())?;
        if self.state.get() != USED || segment.is_leased.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(Lease { segment: Arc::clone(segment), len, process: process_id(), forks })
    }

    /// Unmaps a segment that the writer has dropped.
    pub(crate) fn drop_if_writer_has(&mut self) {
        if self.segment.is_some() && !self.is_leased() && self.state.get() == DROPPED {
            self.segment = None;
        }
    }

    /// Tells the writer that its last message could not be read, unless this process has one.
    pub(crate) fn give_up(&self) {
        if !self.is_leased() {
            self.state.set(GIVEN_UP);
        }
    }
}

/// A message in a segment. The segment is free again when this is dropped.
pub(crate) struct Lease {
    segment: Arc<Readable>,
    len: usize,
    /// The process that has received it.
    process: u32,
    /// The number of its forks then.
    forks: Option<u64>,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping has `len` readable bytes (checked in `lease`), it lives as long as `self`,
        // and its memfd has a permanent size (checked in `open`), so that no read raises SIGBUS. The bytes
        // do not change while this value lives, which rests on the seals and on the other process:
        // - F_SEAL_FUTURE_WRITE (checked in `open`) leaves mappings that were made before the memfd was
        //   sealed as the only way to write. `WriterSlot::create` makes one, in the process that has
        //   sent the descriptor.
        // - That process is the other end of a socket without a name: the owner or the worker of this
        //   process, with the same version of this code. It writes in `WriterSlot::write` alone, and
        //   only if the state is `FREE`. The state was `USED` when this value was made (checked in
        //   `lease`), and there is no other value for the slot (`is_leased`, checked in `lease` and
        //   `open`). This process stores the next state, in `drop`; the writer does so only for a message
        //   that it has not sent.
        // Unlike with a sealed memfd, the kernel does not enforce the second part: a process with a defect
        // could write nevertheless. So users have to ask for such memory, and are told: see
        // `LocalPoolBuilder::recycled_memory`.
        unsafe { std::slice::from_raw_parts(self.segment.pages.start(), self.len) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A fork has a copy of this value, and its parent still reads the message.
        if process_id() != self.process {
            return;
        }
        // A fork that was made meanwhile may still read it.
        let is_unread = self.forks.is_some() && forks() == self.forks;
        // Before the state, so that the message that comes next does not find it.
        self.segment.is_leased.store(false, Ordering::Release);
        self.segment.state.set(if is_unread { FREE } else { GIVEN_UP });
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::sync::Arc;

    use super::super::memfd;
    use super::super::process_id::NO_FORKS;
    use super::super::shared_words::SharedWords;
    use super::{Claim, ReaderSlot, SegmentState, WriterSlot};

    const CAPACITY: usize = 8192;

    fn slots() -> (WriterSlot, ReaderSlot) {
        let words = Arc::new(SharedWords::create("ray-zerocopy-test", 1).unwrap().0);
        (WriterSlot::new(SegmentState::new(&words, 0)), ReaderSlot::new(SegmentState::new(&words, 0)))
    }

    /// Writes ten ones to a new segment.
    fn create(writer: &mut WriterSlot) -> (Claim, OwnedFd) {
        let fill = |fd: BorrowedFd<'_>| Ok(rustix::io::pwrite(fd, &[1; 10], 0).map(drop)?);
        writer.create(CAPACITY, fill).unwrap()
    }

    fn write(writer: &mut WriterSlot, byte: u8, start: usize) -> Option<Claim> {
        writer.write([(&[byte; 3][..], start)].into_iter())
    }

    #[test]
    #[cfg_attr(miri, ignore = "memfds, which Miri does not have")]
    fn segment_is_written_again_when_its_message_is_dropped() {
        let _no_forks = NO_FORKS.read();
        let (mut writer, mut reader) = slots();
        assert!(write(&mut writer, 2, 0).is_none() && reader.lease(1).is_none() && !writer.is_free());
        let (claim, fd) = create(&mut writer);
        claim.sent();
        drop(claim);
        reader.open(&fd).unwrap();
        let message = reader.lease(10).unwrap();
        assert_eq!(message.as_ref(), [1; 10]);
        assert!(reader.lease(10).is_none() && reader.open(&fd).is_err(), "one message at a time");
        writer.clear();
        assert!(write(&mut writer, 2, 0).is_none() && writer.capacity() == Some(CAPACITY), "it is in use");
        reader.give_up();
        assert!(!writer.is_given_up());
        drop(message);
        assert!(reader.lease(10).is_none(), "there is no message");
        assert!(write(&mut writer, 2, CAPACITY - 2).is_none(), "it is too small");
        drop(write(&mut writer, 2, 0).unwrap());
        assert!(writer.is_free(), "the message was not sent");
        writer.write([(&[3; 3][..], 0), (&[4; 3][..], CAPACITY - 3)].into_iter()).unwrap().sent();
        assert!(reader.lease(CAPACITY + 1).is_none());
        let message = reader.lease(CAPACITY).unwrap();
        assert_eq!((&message.as_ref()[..5], &message.as_ref()[CAPACITY - 3..]), (&[3, 3, 3, 1, 1][..], &[4; 3][..]));
        drop(writer);
        assert_eq!(message.as_ref()[0], 3);
    }

    #[test]
    #[cfg_attr(miri, ignore = "memfds, which Miri does not have")]
    fn dropped_segment_is_unmapped_and_replaced() {
        let _no_forks = NO_FORKS.read();
        let (mut writer, mut reader) = slots();
        let (claim, fd) = create(&mut writer);
        claim.sent();
        reader.open(&fd).unwrap();
        drop(reader.lease(10));
        writer.clear();
        assert_eq!(writer.capacity(), None);
        reader.drop_if_writer_has();
        assert!(reader.segment.is_none());
        let (claim, fd) = create(&mut writer);
        claim.sent();
        reader.open(&fd).unwrap();
        assert_eq!(reader.lease(1).unwrap().as_ref(), [1]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "memfds, which Miri does not have")]
    fn new_segment_is_given_up_if_its_descriptor_was_not_sent() {
        let (mut writer, _) = slots();
        drop(create(&mut writer));
        assert!(writer.is_given_up());
        writer.clear();
        assert_eq!(writer.capacity(), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "memfds, which Miri does not have")]
    fn memory_with_other_writers_is_refused() {
        let (mut writer, mut reader) = slots();
        let (_claim, fd) = create(&mut writer);
        rustix::io::pwrite(&fd, &[1; 10], 0).unwrap_err();
        let fixed = memfd::create("ray-zerocopy-test", CAPACITY as u64).unwrap();
        memfd::fix_size(&fixed).unwrap();
        let error = reader.open(&fixed).unwrap_err();
        assert!(error.to_string().contains("other processes may write"), "{error}");
        reader.open(std::fs::File::open("/proc/self/exe").unwrap()).unwrap_err();
    }

    #[test]
    #[cfg_attr(miri, ignore = "forks")]
    fn message_that_a_fork_may_read_is_not_overwritten() {
        let _forks = NO_FORKS.write();
        let (mut writer, mut reader) = slots();
        let (claim, fd) = create(&mut writer);
        claim.sent();
        reader.open(&fd).unwrap();
        let message = reader.lease(10).unwrap();
        // SAFETY: the child compares two numbers, and exits.
        match unsafe { libc::fork() } {
            0 => {
                drop(message);
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(0) }
            }
            child => {
                // SAFETY: a null pointer is allowed, and means that the status is not stored.
                assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
                assert!(!writer.is_free() && !writer.is_given_up(), "the fork has not freed it");
                drop(message);
                assert!(writer.is_given_up() && write(&mut writer, 2, 0).is_none());
            }
        }
    }
}
