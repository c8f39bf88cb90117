//! Which build of the program this is: functions travel as places in its code, so driver and workers have to be one file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// BLAKE3 of the code of this executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint([u8; 32]);

/// Something in the code whose fingerprint is wanted.
#[inline(never)]
fn here() {}

impl Fingerprint {
    /// Of this process.
    ///
    /// # Errors
    /// If its file cannot be read any more.
    pub(crate) fn own() -> Result<Self, String> {
        // An error is not kept: there may be a descriptor again when this is asked for the next time.
        static OWN: OnceLock<Fingerprint> = OnceLock::new();
        if let Some(own) = OWN.get() {
            return Ok(*own);
        }
        let own = read().map_err(|error| format!("the code of this program cannot be read: {error}"))?;
        Ok(*OWN.get_or_init(|| own))
    }
}

/// Read from the file, not from memory: that would put all of the code into the process's memory.
fn read() -> std::io::Result<Fingerprint> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let (start, end, offset, path) =
        containing(&maps, here as fn() as usize).ok_or_else(|| std::io::Error::other("it is in no file"))?;
    let own = std::fs::read_link("/proc/self/exe").is_ok_and(|exe| exe.as_os_str() == path);
    // The executable can be read even if a build has replaced it on disk since; a library cannot.
    let file = File::open(if own { "/proc/self/exe" } else { path })?;
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

/// The code that an address is in.
fn containing(maps: &str, address: usize) -> Option<(usize, usize, u64, &str)> {
    maps.lines().filter_map(code).find(|(start, end, ..)| (*start..*end).contains(&address))
}

/// The file of the code that an address of this process is in.
pub(crate) fn code_at(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    containing(&maps, address).map(|(.., path)| PathBuf::from(path))
}

/// A line of `/proc/<pid>/maps` that is code: its addresses, its place in the file, and the file.
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
