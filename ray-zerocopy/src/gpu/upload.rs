//! Uploads from an arena's pages to a GPU, through page-locked memory of several threads.
//!
//! Each thread copies pieces into two page-locked buffers of its own in turn, and starts the transfer from
//! there to the GPU. So it copies while the last piece is transferred. Larger buffers transfer faster, and the
//! driver takes longer to lock them. Stores that bypass the caches are slower, and so is to page-lock the arena
//! itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use ::burn::tensor::Bytes;

use super::layout::Layout;
use super::sys::context::Gpu;
use super::sys::memory::Mapping;
use super::sys::staging::Staging;
use crate::os::sync::Mutex;

/// The size of a page-locked buffer.
const PIECE: usize = 2 << 20;

/// The most threads of one upload. More spend longer on their buffers than they gain.
const THREADS: usize = 8;

/// A range of a part's bytes, and its offset in the copy.
struct Piece {
    part: usize,
    offset: usize,
    start: usize,
    len: usize,
}

/// Uploads all parts of a layout. `bytes` returns those of one part.
///
/// # Errors
/// If the driver refuses a transfer, or a part has no bytes or another length than the layout says.
pub(super) fn upload(
    gpu: Gpu,
    target: &Mapping,
    layout: &Layout,
    bytes: &(dyn Fn(usize) -> Result<Bytes, String> + Sync),
) -> Result<(), String> {
    let pieces: Vec<Piece> = layout
        .parts()
        .iter()
        .enumerate()
        .flat_map(|(part, (offset, found))| pieces(part, *offset, found.len))
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(THREADS).min(pieces.len()).max(1);
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<String>> = Mutex::new(None);
    let work = || -> Result<(), String> {
        let mut staging = Staging::new(gpu, PIECE).map_err(|error| error.to_string())?;
        // Pieces of one part follow each other, and a part may have to be converted.
        let mut last: Option<(usize, Bytes)> = None;
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.lock().is_some() {
                break;
            }
            if last.as_ref().is_none_or(|(part, _)| *part != piece.part) {
                last = Some((piece.part, bytes(piece.part)?));
            }
            let Some((_, all)) = &last else { break };
            let wanted = piece.start..piece.start + piece.len;
            let found = all.get(wanted).ok_or_else(|| {
                format!(
                    "part {} has {} bytes, and {} were expected",
                    piece.part,
                    all.len(),
                    layout.parts()[piece.part].1.len
                )
            })?;
            staging.upload(target, piece.offset, found).map_err(|error| error.to_string())?;
        }
        staging.wait().map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| {
        let work = &work;
        let failed = &failed;
        let run = move || {
            if let Err(error) = crate::panics::caught(work).and_then(|done| done) {
                failed.lock().get_or_insert(error);
            }
        };
        // Without a second thread, the upload only takes longer.
        for _ in 1..threads {
            let started = std::thread::Builder::new().name("ray-zerocopy upload".to_owned()).spawn_scoped(scope, run);
            if started.is_err() {
                break;
            }
        }
        run();
    });
    let failed = failed.lock().take();
    failed.map_or(Ok(()), Err)
}

fn pieces(part: usize, offset: usize, len: usize) -> impl Iterator<Item = Piece> {
    (0..len).step_by(PIECE).map(move |start| Piece { part, offset: offset + start, start, len: PIECE.min(len - start) })
}

#[cfg(test)]
mod tests {
    use super::{PIECE, pieces};

    #[test]
    fn pieces_cover_a_part_without_a_gap() {
        for len in [0, 1, PIECE, PIECE + 1, 3 * PIECE - 1] {
            let mut end = 0;
            for piece in pieces(0, 512, len) {
                assert_eq!((piece.start, piece.offset), (end, 512 + end));
                assert!(piece.len > 0 && piece.len <= PIECE);
                end += piece.len;
            }
            assert_eq!(end, len);
        }
    }
}
