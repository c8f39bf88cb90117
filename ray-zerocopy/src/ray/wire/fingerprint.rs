//! Fingerprint of the program: functions are sent as offsets in its code, so driver and workers
//! must run the same file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// BLAKE3 hash of the code of this executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint([u8; 32]);

/// Any function in this binary; used to find its text mapping.
#[inline(never)]
fn anchor() {}

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
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let (start, end, offset, path) =
        containing(&maps, anchor as fn() as usize).ok_or_else(|| std::io::Error::other("it is in no file"))?;
    let is_executable = std::fs::read_link("/proc/self/exe").is_ok_and(|exe| exe.as_os_str() == path);
    // The executable can be read even if a build has replaced it on disk since; a library cannot.
    let file = File::open(if is_executable { "/proc/self/exe" } else { path })?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = offset;
    let last = offset + (end - start) as u64;
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

/// Finds the code mapping that contains an address.
fn containing(maps: &str, address: usize) -> Option<(usize, usize, u64, &str)> {
    maps.lines().filter_map(code).find(|(start, end, ..)| (*start..*end).contains(&address))
}

/// Returns the file that contains the code at an address of this process.
pub(crate) fn code_at(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    containing(&maps, address).map(|(.., path)| PathBuf::from(path))
}

/// Parses a code mapping of `/proc/<pid>/maps`: its addresses, its offset in the file, and the
/// file.
fn code(line: &str) -> Option<(usize, usize, u64, &str)> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()?.contains('x');
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let path = words.nth(2)?.trim_start();
    let hex = |text| usize::from_str_radix(text, 16).ok();
    is_code.then_some((hex(start)?, hex(end)?, offset, path))
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;
    use super::code;

    #[test]
    fn the_code_has_one_fingerprint() {
        assert_eq!(Fingerprint::own().unwrap(), Fingerprint::own().unwrap());
    }

    #[test]
    fn lines_of_proc_maps_are_understood() {
        let line = "55d0c8a00000-55d0c8a21000 r-xp 00021000 08:02 173521                     /usr/bin/my prog";
        assert_eq!(code(line), Some((0x55d0_c8a0_0000, 0x55d0_c8a2_1000, 0x21000, "/usr/bin/my prog")));
        assert_eq!(code("7ffd4a5f0000-7ffd4a611000 rw-p 00000000 00:00 0                          [stack]"), None);
        assert_eq!(code("nonsense"), None);
    }
}
