//! Fingerprint of the program: functions are sent as offsets in its code, so driver and workers
//! must run the same file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::engine::sys::entry;
use crate::os::procfs::{self, MappedFile};

/// BLAKE3 hash of the code of this executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the fingerprint of this process.
    ///
    /// # Errors
    /// If the executable cannot be read any more.
    pub(crate) fn own() -> Result<Self, String> {
        // Errors are not cached: the next call may succeed, for example once a file descriptor is
        // free.
        static OWN: OnceLock<Fingerprint> = OnceLock::new();
        if let Some(own) = OWN.get() {
            return Ok(*own);
        }
        let own = read().map_err(|error| format!("the code of this program cannot be read: {error}"))?;
        Ok(*OWN.get_or_init(|| own))
    }
}

/// Reads the code from the file. Reading it from memory would make all of the code resident.
fn read() -> std::io::Result<Fingerprint> {
    let maps = std::fs::read("/proc/self/maps")?;
    let MappedFile { addresses, offset, path } = procfs::file_at(&maps, entry::anchor_address())
        .ok_or_else(|| std::io::Error::other("/proc/self/maps has no file at the address of the code"))?;
    let is_executable = std::fs::read_link("/proc/self/exe").is_ok_and(|exe| exe == path);
    // The executable can be read even if a build has replaced it on disk since; a library cannot.
    let file = File::open(if is_executable { Path::new("/proc/self/exe") } else { &path })?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = offset;
    let last = offset + addresses.len() as u64;
    while at < last {
        let wanted = buffer.len().min((last - at) as usize);
        let read = file.read_at(&mut buffer[..wanted], at)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(Fingerprint(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;

    #[test]
    fn fingerprint_is_stable() {
        assert_eq!(Fingerprint::own().unwrap(), Fingerprint::own().unwrap());
    }
}
