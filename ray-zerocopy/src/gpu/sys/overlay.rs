//! Makes burn's next allocation a mapping of this process.
//!
//! burn's CUDA backend has no function that takes memory which it has not allocated. Its bindings
//! load the driver under the name `libcuda.so`. This module loads a small library of that name
//! first (`overlay.c`), whose functions for allocating and freeing are those below, and whose other
//! functions are the driver's. A mapping is offered for an allocation of one size, and becomes the
//! memory of the tensors that burn creates there. Freeing it unmaps it.
//!
//! The book's chapter on devices has the patch that would make this unnecessary.

use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};
use rustix::fs::MemfdFlags;

use super::api::{Address, api};
use super::memory::Mapping;
use crate::os::sync::Mutex;

/// The library, compiled by the build script.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/overlay.so"));

/// The symbol that only this library has.
const SYMBOL: &[u8] = b"ray_zerocopy_overlay\0";

type Allocate = extern "C" fn(*mut Address, usize) -> c_int;
type Free = extern "C" fn(Address) -> c_int;

/// `RTLD_NOLOAD`: finds a library that is loaded, and loads none.
const NO_LOAD: c_int = libc::RTLD_NOLOAD;

/// `CUDA_ERROR_UNKNOWN`.
const UNKNOWN: c_int = 999;

/// Mappings that burn is offered or has.
#[derive(Default)]
struct Mappings {
    /// The mapping for the next allocation of this many bytes.
    offered: Option<(usize, Mapping)>,
    /// The mappings that burn has taken, by their addresses.
    taken: HashMap<Address, Mapping>,
}

static MAPPINGS: OnceLock<Mutex<Mappings>> = OnceLock::new();

fn mappings() -> &'static Mutex<Mappings> {
    MAPPINGS.get_or_init(Mutex::default)
}

/// Whether burn has allocated memory.
static HAS_ALLOCATED: AtomicBool = AtomicBool::new(false);

/// Whether burn has allocated memory of a GPU in this process.
pub(crate) fn has_allocated() -> bool {
    HAS_ALLOCATED.load(Ordering::Relaxed)
}

extern "C" fn allocate(address: *mut Address, len: usize) -> c_int {
    HAS_ALLOCATED.store(true, Ordering::Relaxed);
    let mut mappings = mappings().lock();
    if let Some((_, mapping)) = mappings.offered.take_if(|(wanted, _)| *wanted == len) {
        let found = mapping.address();
        mappings.taken.insert(found, mapping);
        // SAFETY: the caller passes a pointer for the address, as to the driver.
        unsafe { address.write(found) };
        return 0;
    }
    drop(mappings);
    let Ok(api) = api() else { return UNKNOWN };
    // SAFETY: the caller's arguments, as it meant them for the driver.
    unsafe { (api.cuMemAlloc_v2)(address, len) }
}

extern "C" fn free(address: Address) -> c_int {
    let taken = mappings().lock().taken.remove(&address);
    if let Some(mapping) = taken {
        drop(mapping);
        return 0;
    }
    let Ok(api) = api() else { return UNKNOWN };
    // SAFETY: the caller's argument, as it meant it for the driver.
    unsafe { (api.cuMemFree_v2)(address) }
}

/// Loads the library, before burn loads the driver.
///
/// # Errors
/// If the library cannot be loaded, or burn has loaded the driver itself.
pub(crate) fn install() -> Result<(), String> {
    static INSTALLED: OnceLock<Result<Library, String>> = OnceLock::new();
    INSTALLED.get_or_init(load).as_ref().map(|_| ()).map_err(Clone::clone)
}

fn load() -> Result<Library, String> {
    // The driver, which the library needs, is loaded now.
    api()?;
    let refused =
        |error: &dyn std::fmt::Display| format!("the library that passes memory to burn cannot be loaded: {error}");
    let file =
        rustix::fs::memfd_create("ray-zerocopy-overlay", MemfdFlags::CLOEXEC).map_err(|error| refused(&error))?;
    let mut rest = LIBRARY;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).map_err(|error| refused(&error))?;
        rest = &rest[written..];
    }
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    // SAFETY: the library has no initialisers.
    let library = unsafe { Library::open(Some(&path), RTLD_LAZY | RTLD_LOCAL) }.map_err(|error| refused(&error))?;
    // SAFETY: the symbol is a function with these arguments.
    let route = unsafe { library.get::<extern "C" fn(Allocate, Free)>(SYMBOL) }.map_err(|error| refused(&error))?;
    route(allocate, free);
    // SAFETY: looks for a library that is loaded.
    let burns = unsafe { Library::open(Some("libcuda.so"), RTLD_LAZY | RTLD_LOCAL | NO_LOAD) };
    let burns = burns.map_err(|error| refused(&error))?;
    // SAFETY: only asks whether there is such a symbol.
    let is_ours = unsafe { burns.get::<extern "C" fn(Allocate, Free)>(SYMBOL) }.is_ok();
    if is_ours {
        return Ok(library);
    }
    Err("burn has loaded the driver before; open the device with `ray_zerocopy::device` before others are used"
        .to_owned())
}

/// Offers a mapping for the next allocation of `len` bytes, which `take` makes. Returns its result,
/// and whether the allocation was the mapping.
pub(crate) fn offering<T>(len: usize, mapping: Mapping, take: impl FnOnce() -> T) -> (T, bool) {
    /// One offer at a time.
    static OFFER: Mutex<()> = Mutex::new(());
    let _one = OFFER.lock();
    let address = mapping.address();
    mappings().lock().offered = Some((len, mapping));
    let taken = take();
    let mut mappings = mappings().lock();
    let left = mappings.offered.take();
    let is_taken = left.is_none() && mappings.taken.contains_key(&address);
    drop(mappings);
    (taken, is_taken)
}
