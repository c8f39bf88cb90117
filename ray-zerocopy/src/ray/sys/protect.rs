//! Write protection of objects in Ray's store.
//!
//! Ray maps its store writable in every process, so a stray write of one worker would change the
//! weights of all.

use std::collections::HashMap;
use std::ops::Range;

use crate::os::sync::Mutex;

/// Write-protects whole pages until it is dropped.
pub(crate) struct Protected {
    pages: Range<usize>,
}

/// Number of active protections of each page range.
static PROTECTED: Mutex<Option<HashMap<(usize, usize), usize>>> = Mutex::new(None);

impl Protected {
    /// Write-protects the pages that lie completely in an address range. Pages that extend beyond
    /// it, into other objects, are not changed.
    ///
    /// The range must belong to one object in Ray's store that is not released before the
    /// protection ends: the owner of this value must hold the object too.
    pub(crate) fn new(range: Range<usize>) -> Result<Self, std::io::Error> {
        let page = rustix::param::page_size();
        let start = range.start.next_multiple_of(page);
        let end = range.end / page * page;
        let pages = start..end.max(start);
        let mut table = PROTECTED.lock();
        let count = table.get_or_insert_default().entry((pages.start, pages.end)).or_default();
        if *count == 0 {
            set(&pages, libc::PROT_READ)?;
        }
        *count += 1;
        Ok(Self { pages })
    }

    /// Number of protected bytes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        let mut table = PROTECTED.lock();
        let key = (self.pages.start, self.pages.end);
        let table = table.get_or_insert_default();
        let left = table.get(&key).map_or(0, |count| count - 1);
        if left > 0 {
            table.insert(key, left);
            return;
        }
        table.remove(&key);
        // Ray reuses the memory for other objects. Restoring the protection of a range that could
        // be protected does not fail.
        let _ = set(&self.pages, libc::PROT_READ | libc::PROT_WRITE);
    }
}

fn set(pages: &Range<usize>, protection: libc::c_int) -> Result<(), std::io::Error> {
    if pages.is_empty() {
        return Ok(());
    }
    // SAFETY: the pages are part of a mapping that Ray created, and lie completely in one object of
    // its store, which is held while they are protected. A sealed object is never written, so
    // removing write access affects no code; access is restored before the object is released and
    // its memory is reused.
    match unsafe { libc::mprotect(pages.start as *mut libc::c_void, pages.len(), protection) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::Protected;

    #[test]
    fn only_whole_pages_are_protected() {
        let page = rustix::param::page_size();
        let mut memory = memmap2::MmapMut::map_anon(4 * page).unwrap();
        memory.fill(7);
        let start = memory.as_ptr() as usize;
        let most = start + 10..start + 3 * page + 10;
        let first = Protected::new(most.clone()).unwrap();
        assert_eq!(first.len(), 2 * page);
        // The ends are not protected, and can still be written.
        memory[0] = 1;
        memory[3 * page + 20] = 1;
        let second = Protected::new(most).unwrap();
        drop(first);
        let line = |memory: &[u8]| {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let start = format!("{:x}-", memory.as_ptr() as usize + page);
            maps.lines().find(|line| line.starts_with(&start)).map(|line| line.contains(" r--"))
        };
        assert_eq!(line(&memory), Some(true), "the second protection is active");
        drop(second);
        memory[page] = 1;
        assert!(Protected::new(start..start + 10).unwrap().len() == 0);
    }
}
