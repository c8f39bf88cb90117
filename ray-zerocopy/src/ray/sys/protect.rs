//! Pages of an object in Ray's store that nobody in this process can write to.
//!
//! Ray maps its store writable in every process, so a stray write of one worker would change the weights of all.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Protects whole pages until it is dropped.
pub(crate) struct Protected {
    pages: Range<usize>,
}

/// How often each range of pages is protected now.
static PROTECTED: Mutex<Option<HashMap<(usize, usize), usize>>> = Mutex::new(None);

impl Protected {
    /// Protects the pages that lie in a range of addresses from end to end. Pages that reach out of it, into other objects, stay as they are.
    ///
    /// The range has to be of one object in Ray's store, which stays there until the protection ends: so whoever holds this holds the
    /// object too.
    pub(crate) fn new(range: Range<usize>) -> Result<Self, std::io::Error> {
        let page = rustix::param::page_size();
        let start = range.start.next_multiple_of(page);
        let end = range.end / page * page;
        let pages = start..end.max(start);
        let mut table = PROTECTED.lock().unwrap_or_else(PoisonError::into_inner);
        let count = table.get_or_insert_default().entry((pages.start, pages.end)).or_default();
        if *count == 0 {
            set(&pages, libc::PROT_READ)?;
        }
        *count += 1;
        Ok(Self { pages })
    }

    /// How many bytes are protected.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        let mut table = PROTECTED.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.pages.start, self.pages.end);
        let table = table.get_or_insert_default();
        let left = table.get(&key).map_or(0, |count| count - 1);
        if left > 0 {
            table.insert(key, left);
            return;
        }
        table.remove(&key);
        // Ray writes the next object here. What could be protected can be given back.
        drop(set(&self.pages, libc::PROT_READ | libc::PROT_WRITE));
    }
}

fn set(pages: &Range<usize>, protection: libc::c_int) -> Result<(), std::io::Error> {
    if pages.is_empty() {
        return Ok(());
    }
    // SAFETY: the pages are part of a mapping that Ray made, and are filled by one object of its store, which is held
    // while they are protected. Nobody writes to a sealed object, so nobody misses the right to; it is given back before
    // the object is released and the memory used for another.
    match unsafe { libc::mprotect(pages.start as *mut libc::c_void, pages.len(), protection) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::Protected;

    #[test]
    fn only_whole_pages_are_protected_and_given_back() {
        let page = rustix::param::page_size();
        let mut memory = memmap2::MmapMut::map_anon(4 * page).unwrap();
        memory.fill(7);
        let start = memory.as_ptr() as usize;
        let most = start + 10..start + 3 * page + 10;
        let first = Protected::new(most.clone()).unwrap();
        assert_eq!(first.len(), 2 * page);
        // The ends may be written, by whoever has them.
        memory[0] = 1;
        memory[3 * page + 20] = 1;
        let second = Protected::new(most).unwrap();
        drop(first);
        let line = |memory: &[u8]| {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let start = format!("{:x}-", memory.as_ptr() as usize + page);
            maps.lines().find(|line| line.starts_with(&start)).map(|line| line.contains(" r--"))
        };
        assert_eq!(line(&memory), Some(true), "somebody still borrows it");
        drop(second);
        memory[page] = 1;
        assert!(Protected::new(start..start + 10).unwrap().len() == 0);
    }
}
