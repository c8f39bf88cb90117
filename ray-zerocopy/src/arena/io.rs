//! Copies bytes into a memfd or a file, and computes their checksum while copying.

use std::io;
use std::os::fd::AsFd;

use crate::os::scratch::scratch;
use crate::tensor::source::BlobSource;

/// Bytes that are copied and hashed together, so that they stay in the CPU cache between the two.
pub(crate) const CHUNK: usize = 2 << 20;
/// Bytes from which on hashing on a second thread saves more time than it costs.
const WORTH_A_THREAD: usize = 128 << 10;

/// Progress of a long operation, in bytes.
///
/// Every operation that reports progress takes a `FnMut(Progress)`, and calls it on the thread of
/// its caller.
///
/// ```no_run
/// # fn main() -> ray_zerocopy::Result<()> {
/// let file = ray_zerocopy::arena::ArenaFile::open("model.bpk")?;
/// file.verify(|progress| eprintln!("{} of {} bytes", progress.done, progress.total))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes processed so far.
    pub done: u64,
    /// Bytes in total.
    pub total: u64,
}

/// Counts the processed bytes, and calls a progress callback.
pub(crate) struct ProgressReporter<'a> {
    progress: Progress,
    tell: &'a mut dyn FnMut(Progress),
}

impl<'a> ProgressReporter<'a> {
    pub(crate) fn new(total: u64, tell: &'a mut dyn FnMut(Progress)) -> Self {
        Self { progress: Progress { done: 0, total }, tell }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.progress.done += bytes as u64;
        (self.tell)(self.progress);
    }
}

/// Copies the bytes of a blob to the offset `start` of `target`, and returns their checksum.
/// `explain` formats a write error.
pub(super) fn copy(
    source: &dyn BlobSource,
    target: impl AsFd + Sync,
    start: u64,
    meter: &mut ProgressReporter<'_>,
    explain: &dyn Fn(&io::Error) -> String,
) -> Result<blake3::Hash, String> {
    let mut hasher = blake3::Hasher::new();
    let mut at = start;
    source.stream(&mut |bytes| {
        if at - start + bytes.len() as u64 > source.len() as u64 {
            return Err(format!("it has more than the {} bytes that were expected", source.len()));
        }
        for chunk in bytes.chunks(CHUNK) {
            let written = match chunk.len() {
                ..WORTH_A_THREAD => {
                    hasher.update(chunk);
                    write_at(&target, chunk, at)
                }
                _ => rayon::join(|| write_at(&target, chunk, at), || hasher.update(chunk)).0,
            };
            written.map_err(|error| explain(&error))?;
            at += chunk.len() as u64;
            meter.add(chunk.len());
        }
        Ok(())
    })?;
    match at - start {
        len if len == source.len() as u64 => Ok(hasher.finalize()),
        len => Err(format!("it has {len} bytes, and {} were expected", source.len())),
    }
}

/// Writes all of `bytes` to a file, at an offset.
pub(crate) fn write_at(fd: impl AsFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&fd, bytes, at) {
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Fills all of `bytes` from a file, at an offset.
///
/// # Errors
/// If the file ends before that.
pub(crate) fn read_at(fd: impl AsFd, bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(&fd, &mut bytes[filled..], at) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file ends at byte {at}"))),
            Ok(read) => {
                filled += read;
                at += read as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Passes a range of a file to `sink` in chunks, so that it is never in memory as a whole.
pub(crate) fn stream_file(
    fd: impl AsFd,
    start: u64,
    len: u64,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut buffer = scratch(CHUNK.min(len as usize)).map_err(|error| error.to_string())?;
    let mut done = 0;
    while done < len {
        let size = buffer.len().min((len - done) as usize);
        read_at(&fd, &mut buffer[..size], start + done).map_err(|error| error.to_string())?;
        sink(&buffer[..size])?;
        done += size as u64;
    }
    Ok(())
}
