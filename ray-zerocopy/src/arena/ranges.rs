//! Copies ranges of files on several threads, and computes their checksums while copying.
//!
//! The ranges are divided into chunks of 2 MiB. Each thread takes the next chunk, reads, hashes and
//! writes it. A chunk is a complete subtree of BLAKE3, so chunks are hashed independently, and merged
//! into the checksum of their range. The kernel is told to read ahead of the threads.
//!
//! A file on a network is read by one thread, in order, once.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use super::io::{CHUNK, ProgressReporter, read_at, write_at};
use crate::os::readahead::{is_remote, read_ahead};
use crate::os::scratch::scratch;

/// Maximum number of threads. More do not make copies faster that are limited by memory.
const MOST_THREADS: usize = 8;
/// Number of chunks that the kernel reads ahead.
const AHEAD: usize = 16;

/// A range of a file, and where it is copied to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileRange<'a> {
    pub(crate) file: BorrowedFd<'a>,
    pub(crate) from: u64,
    pub(crate) len: u64,
    /// Offset in the target.
    pub(crate) to: u64,
}

/// Why a range was not copied.
#[derive(Debug)]
pub(crate) enum RangeError {
    Read(io::Error),
    Write(io::Error),
}

/// A part of a range: at most [`CHUNK`] bytes.
#[derive(Clone, Copy)]
struct Chunk {
    range: usize,
    /// Offset in the range.
    at: u64,
    len: usize,
}

/// Copies ranges to a target, and returns their checksums. Without a target, only computes these.
///
/// # Errors
/// The first error, with the index of its range. Other ranges may have been copied or not.
pub(crate) fn copy_ranges(
    ranges: &[FileRange<'_>],
    target: Option<BorrowedFd<'_>>,
    meter: &mut ProgressReporter<'_>,
) -> Result<Vec<blake3::Hash>, (usize, RangeError)> {
    let chunks: Vec<Chunk> = ranges.iter().enumerate().flat_map(|(range, whole)| parts(range, whole.len)).collect();
    let threads = threads(ranges, chunks.len());
    // Each thread has a part of it for its chunks.
    let size = chunks.iter().map(|chunk| chunk.len).max().unwrap_or_default().max(1);
    let mut buffers = scratch(threads * size).map_err(|error| (0, RangeError::Read(error)))?;
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut values = vec![None; chunks.len()];
    let mut failed: Option<(usize, RangeError)> = None;
    std::thread::scope(|scope| {
        let (done, results) = channel();
        for buffer in buffers.chunks_exact_mut(size).take(threads) {
            let worker = Worker { ranges, chunks: &chunks, target, next: &next, stop: &stop, done: done.clone() };
            // If no thread can be started, this one works.
            let named = std::thread::Builder::new().name("ray-zerocopy copy".to_owned());
            let spare = worker.clone();
            if named.spawn_scoped(scope, move || worker.run(buffer)).is_err() {
                spare.run(&mut vec![0; size]);
            }
        }
        drop(done);
        // The progress is reported on the thread of the caller.
        for (index, result) in results {
            match result {
                Ok(value) => {
                    values[index] = Some(value);
                    meter.add(chunks[index].len);
                }
                Err(error) => {
                    let range = chunks[index].range;
                    if failed.as_ref().is_none_or(|(first, _)| range < *first) {
                        failed = Some((range, error));
                    }
                }
            }
        }
    });
    if let Some(failed) = failed {
        return Err(failed);
    }
    let mut values = chunks.iter().zip(values).filter_map(|(chunk, value)| Some((chunk.range, value?))).peekable();
    let hash = |(range, whole): (usize, &FileRange<'_>)| {
        let mut own = Vec::new();
        while let Some((_, value)) = values.next_if(|(of, _)| *of == range) {
            own.push(value);
        }
        checksum(&own, whole.len)
    };
    Ok(ranges.iter().enumerate().map(hash).collect())
}

/// Divides a range into chunks.
fn parts(range: usize, len: u64) -> impl Iterator<Item = Chunk> {
    let starts = (0..len).step_by(CHUNK);
    starts.map(move |at| Chunk { range, at, len: CHUNK.min((len - at) as usize) })
}

fn threads(ranges: &[FileRange<'_>], chunks: usize) -> usize {
    let is_remote = ranges.first().is_some_and(|range| is_remote(range.file));
    let most = if is_remote { 1 } else { rayon::current_num_threads().min(MOST_THREADS) };
    most.min(chunks)
}

/// The hash of a chunk: of a whole range, or of a subtree.
#[derive(Clone, Copy)]
enum Value {
    Whole(blake3::Hash),
    Subtree(ChainingValue),
}

/// What a thread needs.
#[derive(Clone)]
struct Worker<'a> {
    ranges: &'a [FileRange<'a>],
    chunks: &'a [Chunk],
    target: Option<BorrowedFd<'a>>,
    /// Index of the next chunk.
    next: &'a AtomicUsize,
    stop: &'a AtomicBool,
    done: Sender<(usize, Result<Value, RangeError>)>,
}

impl Worker<'_> {
    fn run(self, buffer: &mut [u8]) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = self.chunks.get(index).filter(|_| !self.stop.load(Ordering::Relaxed)) else { return };
            let ahead = if index == 0 { 0..AHEAD + 1 } else { index + AHEAD..index + AHEAD + 1 };
            for chunk in self.chunks.get(ahead.start..ahead.end.min(self.chunks.len())).unwrap_or_default() {
                let range = &self.ranges[chunk.range];
                read_ahead(range.file, range.from + chunk.at, chunk.len as u64);
            }
            let result = self.copy(chunk, &mut buffer[..chunk.len]);
            if result.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            // The receiver outlives this thread.
            let _ = self.done.send((index, result));
        }
    }

    fn copy(&self, chunk: &Chunk, bytes: &mut [u8]) -> Result<Value, RangeError> {
        let range = &self.ranges[chunk.range];
        read_at(range.file, bytes, range.from + chunk.at).map_err(RangeError::Read)?;
        let value = if chunk.len as u64 == range.len {
            Value::Whole(blake3::hash(bytes))
        } else {
            Value::Subtree(Hasher::new().set_input_offset(chunk.at).update(bytes).finalize_non_root())
        };
        if let Some(target) = self.target {
            write_at(target, bytes, range.to + chunk.at).map_err(RangeError::Write)?;
        }
        Ok(value)
    }
}

/// Merges the hashes of the chunks of a range.
fn checksum(values: &[Value], len: u64) -> blake3::Hash {
    if let [Value::Whole(hash)] = values {
        return *hash;
    }
    let subtrees: Vec<_> = values
        .iter()
        .filter_map(|value| match value {
            Value::Subtree(value) => Some(*value),
            Value::Whole(_) => None,
        })
        .collect();
    match split(&subtrees, len) {
        None => blake3::hash(&[]),
        Some((left, right, left_len)) => {
            merge_subtrees_root(&subtree(left, left_len), &subtree(right, len - left_len), Mode::Hash)
        }
    }
}

/// Divides the chunks of more than one chunk into the left and the right subtree. Returns `None` for
/// one chunk, or none.
fn split(values: &[ChainingValue], len: u64) -> Option<(&[ChainingValue], &[ChainingValue], u64)> {
    if values.len() < 2 {
        return None;
    }
    let left_len = left_subtree_len(len);
    let (left, right) = values.split_at((left_len / CHUNK as u64) as usize);
    Some((left, right, left_len))
}

fn subtree(values: &[ChainingValue], len: u64) -> ChainingValue {
    match split(values, len) {
        None => values.first().copied().unwrap_or_default(),
        Some((left, right, left_len)) => {
            merge_subtrees_non_root(&subtree(left, left_len), &subtree(right, len - left_len), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::{FileRange, RangeError, copy_ranges};
    use crate::arena::io::{CHUNK, Progress, ProgressReporter, read_at};

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + at / 997) as u8).collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "hashes megabytes")]
    fn checksums_are_those_of_the_whole_ranges() {
        let sizes = [0, 1, 1024, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5, 5 * CHUNK, 8 * CHUNK];
        let content = bytes(8 * CHUNK + 77);
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&content).unwrap();
        let target = tempfile::tempfile().unwrap();
        let mut to = 0;
        let ranges = sizes.map(|len| {
            to += len as u64 + 13;
            FileRange { file: source.as_fd(), from: 7, len: len as u64, to: to - len as u64 }
        });
        let mut last = Progress::default();
        let mut tell = |progress: Progress| last = progress;
        let total = sizes.iter().sum::<usize>() as u64;
        let found = copy_ranges(&ranges, Some(target.as_fd()), &mut ProgressReporter::new(total, &mut tell)).unwrap();
        assert_eq!((last.done, last.total), (total, total));
        for ((range, found), len) in ranges.iter().zip(found).zip(sizes) {
            let expected = &content[7..7 + len];
            assert_eq!(found, blake3::hash(expected), "{len} bytes");
            let mut written = vec![0; len];
            read_at(&target, &mut written, range.to).unwrap();
            assert!(written == expected, "{len} bytes");
        }
    }

    #[test]
    fn error_names_the_first_range() {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&bytes(100)).unwrap();
        let range = |from| FileRange { file: source.as_fd(), from, len: 60, to: 0 };
        let mut tell = |_| ();
        let mut copy = |ranges: &[FileRange<'_>]| copy_ranges(ranges, None, &mut ProgressReporter::new(0, &mut tell));
        assert!(copy(&[]).unwrap().is_empty());
        let (range, error) = copy(&[range(0), range(50), range(90)]).unwrap_err();
        assert!(range > 0 && matches!(error, RangeError::Read(_)), "{range} {error:?}");
    }
}
