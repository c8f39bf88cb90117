//! The driver's functions, found by the dynamic loader.

#![expect(non_snake_case, reason = "the driver has these names")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};

/// `CUdeviceptr`: an address in a GPU's memory.
pub(crate) type Address = u64;

/// `CUmemGenericAllocationHandle`.
pub(super) type Handle = u64;

/// `CUcontext`, `CUstream` and `CUevent`.
pub(super) type Object = *mut c_void;

/// `CUmemLocation`, as all versions of CUDA have it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Location {
    /// `CU_MEM_LOCATION_TYPE_DEVICE` is 1.
    pub kind: c_int,
    pub device: c_int,
}

/// `CUmemAllocationProp`.
#[repr(C)]
pub(super) struct AllocationProperties {
    /// `CU_MEM_ALLOCATION_TYPE_PINNED` is 1.
    pub kind: c_int,
    /// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR` is 1.
    pub handles: c_int,
    pub location: Location,
    pub windows: *mut c_void,
    pub flags: [u8; 8],
}

/// `CUmemAccessDesc`.
#[repr(C)]
pub(super) struct AccessDescription {
    pub location: Location,
    /// `CU_MEM_ACCESS_FLAGS_PROT_READ` is 1, and `READWRITE` 3.
    pub flags: c_int,
}

/// Why the driver refused a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DriverError {
    pub(crate) call: &'static str,
    pub(crate) code: c_int,
    name: String,
}

impl DriverError {
    /// Whether the GPU has no room.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.code == 2
    }

    /// Whether another process has the GPU for itself.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.code == 46
    }

    /// Whether the driver answers every call of this process with it from now on: a failed kernel, memory with an error that
    /// cannot be corrected, or a GPU that is gone.
    pub(crate) fn ends_the_context(&self) -> bool {
        matches!(self.code, 4 | 201 | 214 | 220 | 226 | 700..=702 | 709..=710 | 714..=719 | 999)
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the driver answers {} to {}", self.name, self.call)
    }
}

macro_rules! functions {
    ($($name:ident($($argument:ty),*);)*) => {
        /// The functions, with the library that has them. The library stays loaded.
        pub(super) struct Api {
            _library: Library,
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Api {
            fn of(library: Library) -> Result<Self, String> {
                $(
                    // SAFETY: the driver declares this function with these arguments, in all
                    // versions that have it under this name.
                    let $name = *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }
                        .map_err(|_| concat!("an NVIDIA driver that is too old: it lacks ", stringify!($name)).to_owned())?;
                )*
                Ok(Self { $($name,)* _library: library })
            }
        }
    };
}

functions! {
    cuInit(c_uint);
    cuGetErrorName(c_int, *mut *const c_char);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut c_int, c_int);
    cuDeviceGetUuid_v2(*mut [u8; 16], c_int);
    cuDeviceGetAttribute(*mut c_int, c_int, c_int);
    cuDevicePrimaryCtxRetain(*mut Object, c_int);
    cuCtxSetCurrent(Object);
    cuCtxSynchronize();
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAlloc_v2(*mut Address, usize);
    cuMemFree_v2(Address);
    cuMemGetAllocationGranularity(*mut usize, *const AllocationProperties, c_int);
    cuMemCreate(*mut Handle, usize, *const AllocationProperties, u64);
    cuMemRelease(Handle);
    cuMemExportToShareableHandle(*mut c_void, Handle, c_int, u64);
    cuMemImportFromShareableHandle(*mut Handle, *mut c_void, c_int);
    cuMemAddressReserve(*mut Address, usize, usize, Address, u64);
    cuMemAddressFree(Address, usize);
    cuMemMap(Address, usize, usize, Handle, u64);
    cuMemSetAccess(Address, usize, *const AccessDescription, usize);
    cuMemUnmap(Address, usize);
    cuMemAllocHost_v2(*mut *mut c_void, usize);
    cuMemFreeHost(*mut c_void);
    cuMemcpyHtoDAsync_v2(Address, *const c_void, usize, Object);
    cuStreamCreate(*mut Object, c_uint);
    cuStreamDestroy_v2(Object);
    cuStreamSynchronize(Object);
}

/// Returns the driver, which is initialised once in this process.
///
/// # Errors
/// Says what is missing, as the rest of "found …".
pub(super) fn api() -> Result<&'static Api, String> {
    static API: OnceLock<Result<Api, String>> = OnceLock::new();
    API.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Api, String> {
    let names = ["libcuda.so.1", "libcuda.so"];
    // SAFETY: the driver's library may be loaded at any time. Its initialisers need nothing.
    let library = names.into_iter().find_map(|name| unsafe { Library::open(Some(name), RTLD_LAZY | RTLD_LOCAL) }.ok());
    let library = library.ok_or("no NVIDIA driver: the dynamic loader does not find libcuda.so")?;
    let api = Api::of(library)?;
    // SAFETY: takes a number, and may be called again.
    let code = unsafe { (api.cuInit)(0) };
    check(&api, "cuInit", code).map_err(|error| format!("no CUDA device: {error}"))?;
    Ok(api)
}

/// Converts the result of a call.
pub(super) fn check(api: &Api, call: &'static str, code: c_int) -> Result<(), DriverError> {
    if code == 0 {
        return Ok(());
    }
    let mut name: *const c_char = std::ptr::null();
    // SAFETY: the driver writes the address of a constant to `name`.
    let known = unsafe { (api.cuGetErrorName)(code, &raw mut name) } == 0 && !name.is_null();
    let name = if known {
        // SAFETY: the driver's constant is a zero-terminated string.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    } else {
        format!("error {code}")
    };
    Err(DriverError { call, code, name })
}

/// Calls a function of the driver. The caller says in a safety comment why its arguments are valid.
macro_rules! call {
    ($api:expr, $name:ident($($argument:expr),*)) => {
        $crate::gpu::sys::api::check($api, stringify!($name), ($api.$name)($($argument),*))
    };
}
pub(super) use call;
