//! The loaded file that contains this code, as described by the dynamic loader: its code, its
//! constructors, and whether it is the program or a shared library. Needs no `/proc`, and cannot
//! fail for lack of memory or descriptors.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The executable or shared library that contains an address.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// Path of the shared library, or `None` for the program itself.
    pub(crate) library: Option<PathBuf>,
    /// Whether the file requests a dynamic loader (`PT_INTERP`).
    pub(crate) wants_loader: bool,
    /// Address ranges of its code.
    code: Vec<Range<usize>>,
    /// Address range of its array of constructors, `.init_array`.
    constructors: Option<Range<usize>>,
}

impl Image {
    /// Finds the image that contains an address. Returns `None` if the address is outside of all
    /// images.
    pub(crate) fn of(address: usize) -> Option<Self> {
        let mut search = Search { address, index: 0, found: None };
        // SAFETY: `visit` has the required type, does not unwind, and gets the address of `search`,
        // which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
        search.found
    }

    /// Returns `true` if the address lies in the image's code.
    pub(crate) fn has_code_at(&self, address: usize) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    /// Address range of the constructors after the one at `entry`. Empty if `entry` is not in the
    /// array.
    pub(crate) fn constructors_behind(&self, entry: usize) -> Range<usize> {
        match &self.constructors {
            Some(all) if all.contains(&entry) => entry + size_of::<usize>()..all.end,
            _ => 0..0,
        }
    }
}

struct Search {
    address: usize,
    /// Number of images visited so far. The program is the first.
    index: usize,
    found: Option<Image>,
}

/// An entry of an image's dynamic section.
#[repr(C)]
struct Dynamic {
    tag: usize,
    value: usize,
}

const DT_NULL: usize = 0;
const DT_INIT_ARRAY: usize = 25;
const DT_INIT_ARRAYSZ: usize = 27;

extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, search: *mut c_void) -> c_int {
    // SAFETY: `Image::of` passes the address of its `Search`, which nothing else uses during the
    // call.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the loader passes a description that is valid during this call.
    let info = unsafe { &*info };
    let index = search.index;
    search.index += 1;
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the loader gives the address and the number of the image's program headers, which do
    // not change while it is loaded.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let base = info.dlpi_addr as usize;
    let range = |start: u64, len: u64| {
        let start = base.wrapping_add(start as usize);
        start..start.saturating_add(len as usize)
    };
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let loaded: Vec<_> = loaded.map(|header| (range(header.p_vaddr, header.p_memsz), header.p_flags)).collect();
    if !loaded.iter().any(|(range, _)| range.contains(&search.address)) {
        return 0;
    }
    let dynamic = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC);
    let dynamic = dynamic.map(|header| range(header.p_vaddr, header.p_memsz));
    let constructors = dynamic.and_then(constructors).map(|(start, len)| range(start as u64, len as u64));
    let library = (index > 0 && !info.dlpi_name.is_null()).then(|| {
        // SAFETY: the loader gives a zero-terminated string that is valid during this call.
        let name = unsafe { CStr::from_ptr(info.dlpi_name) };
        PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()))
    });
    search.found = Some(Image {
        library,
        wants_loader: headers.iter().any(|header| header.p_type == libc::PT_INTERP),
        constructors: constructors.filter(|array| {
            array.start.is_multiple_of(size_of::<usize>())
                && loaded.iter().any(|(range, _)| range.contains(&array.start) && array.end <= range.end)
        }),
        code: loaded.into_iter().filter(|(_, flags)| flags & libc::PF_X != 0).map(|(range, _)| range).collect(),
    });
    1
}

/// Address of the array of constructors before relocation, and its size in bytes.
fn constructors(dynamic: Range<usize>) -> Option<(usize, usize)> {
    let (mut start, mut len) = (None, None);
    let mut at = dynamic.start;
    while at + size_of::<Dynamic>() <= dynamic.end {
        // SAFETY: the image's own headers say that its dynamic section is here: entries of this
        // layout, in memory that is loaded for reading, up to `dynamic.end`.
        let entry = unsafe { &*std::ptr::with_exposed_provenance::<Dynamic>(at) };
        match entry.tag {
            DT_NULL => break,
            DT_INIT_ARRAY => start = Some(entry.value),
            DT_INIT_ARRAYSZ => len = Some(entry.value),
            _ => {}
        }
        at += size_of::<Dynamic>();
    }
    Some((start?, len?))
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    #[cfg_attr(miri, ignore = "asks the dynamic loader, which Miri does not have")]
    fn program_and_libraries_are_distinguished() {
        let own = Image::of(Image::of as fn(usize) -> Option<Image> as usize).unwrap();
        assert_eq!(own.library, None);
        assert!(own.has_code_at(Image::of as fn(usize) -> Option<Image> as usize));
        let constructors = own.constructors.clone().unwrap();
        assert!(!constructors.is_empty() && constructors.len().is_multiple_of(size_of::<usize>()));
        assert_eq!(own.constructors_behind(constructors.start).len(), constructors.len() - size_of::<usize>());
        assert!(own.constructors_behind(constructors.end).is_empty());

        let library = Image::of(libc::getpid as unsafe extern "C" fn() -> i32 as usize).unwrap();
        if !cfg!(target_feature = "crt-static") {
            assert!(library.library.is_some_and(|path| path.to_string_lossy().contains("libc")));
        }
        assert!(Image::of(8).is_none());
    }
}
