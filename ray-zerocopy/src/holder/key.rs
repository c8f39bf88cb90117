//! Keys: identify what an arena is made from, and what is done to it.

use std::fmt;
use std::os::fd::AsFd;

use rustix::fs::fstat;
use serde::{Deserialize, Serialize};

use crate::arena::manifest::ArenaId;
use crate::checkpoint::Checkpoint;

/// Identifies what an arena is made from. Programs with the same key get the same arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Key([u8; 32]);

/// Written in hexadecimal, as part of a file's name.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Collects the parts of a key.
struct Parts(blake3::Hasher);

impl Parts {
    /// Arenas of other versions of this crate have other layouts.
    fn new(kind: &str) -> Self {
        let mut parts = Self(blake3::Hasher::new());
        parts.add(env!("CARGO_PKG_VERSION").as_bytes());
        parts.add(kind.as_bytes());
        parts
    }

    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn key(self) -> Key {
        Key(*self.0.finalize().as_bytes())
    }
}

impl Key {
    /// The key of a name that the user chose.
    pub(super) fn of_name(name: &str) -> Self {
        let mut parts = Parts::new("name");
        parts.add(name.as_bytes());
        parts.key()
    }

    /// The key of a saved arena: its content, wherever the file is.
    pub(super) fn of_arena(id: ArenaId) -> Self {
        let mut parts = Parts::new("arena");
        parts.add(&id.0);
        parts.key()
    }

    /// The key of a checkpoint that a pipeline is shared from: the files by identity and time stamps,
    /// what is done to their tensors, and the pipeline without its weights.
    pub(super) fn of_checkpoint(checkpoint: &Checkpoint, pipeline: &[u8]) -> std::io::Result<Self> {
        let mut parts = Parts::new("checkpoint");
        parts.add(pipeline);
        for file in &checkpoint.files {
            let stat = fstat(file.fd.as_fd())?;
            // The time of the last change of the inode cannot be set, unlike that of the content.
            let stamp = (
                (stat.st_dev, stat.st_ino, stat.st_size),
                (stat.st_mtime, stat.st_mtime_nsec),
                (stat.st_ctime, stat.st_ctime_nsec),
            );
            parts.add(format!("{stamp:?}").as_bytes());
        }
        let Checkpoint { entries, pytorch, floats, partial, placement, files: _, tell: _ } = checkpoint;
        parts.add(format!("{pytorch} {floats:?} {partial} {placement:?}").as_bytes());
        entries.iter().for_each(|entry| parts.add(format!("{entry:?}").as_bytes()));
        Ok(parts.key())
    }
}

#[cfg(test)]
mod tests {
    use super::Key;
    use crate::arena::manifest::ArenaId;

    #[test]
    fn keys_of_different_kinds_differ() {
        let id = ArenaId([7; 32]);
        assert_eq!(Key::of_arena(id), Key::of_arena(id));
        assert_ne!(Key::of_arena(id), Key::of_arena(ArenaId([8; 32])));
        assert_ne!(Key::of_name(std::str::from_utf8(&id.0).unwrap()), Key::of_arena(id));
        assert_eq!(Key::of_name("a").to_string().len(), 64);
    }
}
