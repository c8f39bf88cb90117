//! Tensors over borrowed memory, and access to the elements of tensors.

#![allow(deprecated, reason = "burn marks LibTorch as on its way out; users who name it ask for it")]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use burn::tensor::{BoolStore, Bytes, DType};
use burn_tch::{StorageRef, TchTensor};

use super::ffi;
use crate::tensor::dtype;

/// Returns LibTorch's number of an element type, or `None` if LibTorch does not have it.
fn kind(dtype: DType) -> Option<i32> {
    Some(match dtype {
        DType::U8 => 0,
        DType::I8 => 1,
        DType::I16 => 2,
        DType::I32 => 3,
        DType::I64 => 4,
        DType::F16 => 5,
        DType::F32 => 6,
        DType::F64 => 7,
        DType::Bool(BoolStore::Native | BoolStore::U8) => 11,
        DType::BF16 => 15,
        _ => return None,
    })
}

/// A LibTorch tensor.
pub(crate) struct Tensor(NonNull<ffi::Opaque>);

// SAFETY: a LibTorch tensor is a counted reference, and the count is atomic. The pointer is owned
// by this value.
unsafe impl Send for Tensor {}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: the tensor is owned by this value and is not used after this call.
        unsafe { ffi::rz_tensor_free(self.0.as_ptr()) };
    }
}

/// Memory of a GPU that a tensor can read.
///
/// # Safety
/// The bytes are mapped on the GPU, for reading at least, until the value is dropped.
#[cfg(target_os = "linux")]
pub(crate) unsafe trait GpuMemory: Send {
    /// The address of the first byte.
    fn address(&self) -> u64;
    /// The number of bytes.
    fn len(&self) -> usize;
    /// The number of the GPU.
    fn gpu(&self) -> usize;
}

/// The memory of a tensor. Never written to.
enum Memory {
    Host(Bytes),
    #[cfg(target_os = "linux")]
    Gpu(Box<dyn GpuMemory>),
}

impl Memory {
    /// Address, size, and number of the GPU, or -1.
    fn place(&self) -> (*const c_void, usize, c_int) {
        match self {
            Self::Host(bytes) => (bytes.as_ptr().cast(), bytes.len(), -1),
            #[cfg(target_os = "linux")]
            Self::Gpu(memory) => {
                let gpu = c_int::try_from(memory.gpu()).unwrap_or(c_int::MAX);
                (memory.address() as usize as *const c_void, memory.len(), gpu)
            }
        }
    }
}

/// Owner of a tensor's memory. Dropped with the last tensor that reads it.
struct Owner {
    memory: Memory,
    /// An additional reference to the count that burn uses to decide whether it may write to a
    /// tensor in place.
    _shared: Option<Shared>,
}

/// burn counts references to an address, which it never dereferences.
struct Shared(#[allow(dead_code, reason = "counted, not read")] StorageRef);

// SAFETY: the address is never dereferenced through this type, and the count is atomic.
unsafe impl Send for Shared {}

/// # Safety
/// `owner` comes from `Box::into_raw` of an `Owner`, and this function is called once with it.
unsafe extern "C" fn release(owner: *mut c_void) {
    // SAFETY: guaranteed by the caller.
    drop(unsafe { Box::from_raw(owner.cast::<Owner>()) });
}

impl Tensor {
    /// Creates a tensor over shared bytes, which are not copied and live as long as the tensor. The
    /// tensor must not be written to: the bytes may be sealed memory.
    ///
    /// # Errors
    /// If the bytes are not a tensor of this type and shape, or not aligned for LibTorch.
    pub(crate) fn borrowed(bytes: Bytes, shape: &[usize], dtype: DType) -> Result<Self, String> {
        Self::of(Owner { memory: Memory::Host(bytes), _shared: None }, shape, dtype)
    }

    /// Creates a tensor over memory of a GPU, which is not copied and lives as long as the tensor.
    ///
    /// # Errors
    /// As [`borrowed`](Self::borrowed), or if the memory is not that of a GPU that LibTorch has.
    #[cfg(all(feature = "torchscript", target_os = "linux"))]
    pub(crate) fn on_gpu(memory: impl GpuMemory + 'static, shape: &[usize], dtype: DType) -> Result<Self, String> {
        Self::of(Owner { memory: Memory::Gpu(Box::new(memory)), _shared: None }, shape, dtype)
    }

    fn of(owner: Owner, shape: &[usize], dtype: DType) -> Result<Self, String> {
        let number = kind(dtype).ok_or_else(|| format!("LibTorch does not compute with {}", dtype::name(dtype)))?;
        let (data, len, gpu) = owner.memory.place();
        dtype::fits(dtype, shape, len)?;
        if !(data as usize).is_multiple_of(dtype.size()) {
            return Err(format!("elements of {dtype:?} begin at an address that is not a multiple of their size"));
        }
        let dims: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
        let owner = Box::into_raw(Box::new(owner)).cast();
        let mut tensor = std::ptr::null_mut();
        // SAFETY: `dims` has as many elements as its length says. The bytes are as many as shape
        // and type need (`fits`), and aligned. They do not move until `release`, which is called
        // once with the box that owns them: the shim holds the box in a counted pointer from its
        // first line on, in the case of an error too. LibTorch treats the bytes as writable, but
        // writes only where a program asks for it. burn does not, see `borrowed_tensor`.
        // TorchScript modules that would are rejected as far as that can be determined in advance;
        // the bytes of all other modules are a private mapping of this process, which can be
        // written to, and which no Rust code reads. Memory of a GPU is mapped for reading only.
        let made = unsafe { ffi::rz_blob(data, gpu, dims.as_ptr(), dims.len(), number, owner, release, &mut tensor) };
        made.check()?;
        Self::new(tensor)
    }

    /// Takes ownership of a tensor that the shim has returned.
    pub(super) fn new(tensor: *mut ffi::Opaque) -> Result<Self, String> {
        NonNull::new(tensor).map(Self).ok_or_else(|| "LibTorch has given no tensor".to_owned())
    }

    /// Converts to a tensor of `tch`.
    fn into_tch(self) -> tch::Tensor {
        let pointer = std::mem::ManuallyDrop::new(self).0.as_ptr();
        // SAFETY: both types are a `torch::Tensor` created by `new` and deleted by their owner,
        // which is the `tch` tensor from here on.
        unsafe { tch::Tensor::from_ptr(pointer.cast()) }
    }
}

/// Creates a tensor of burn's LibTorch backend over shared bytes. burn considers them shared, so it
/// never writes to them in place.
///
/// # Errors
/// As [`Tensor::borrowed`].
pub(crate) fn borrowed_tensor(bytes: Bytes, shape: &[usize], dtype: DType) -> Result<TchTensor, String> {
    shared_tensor(Memory::Host(bytes), shape, dtype)
}

/// Creates a tensor of burn's LibTorch backend over memory of a GPU. burn considers it shared, so it
/// never writes to it in place.
///
/// # Errors
/// If the memory has another size, or is not that of a GPU that LibTorch has.
#[cfg(target_os = "linux")]
pub(crate) fn gpu_tensor(memory: impl GpuMemory + 'static, shape: &[usize], dtype: DType) -> Result<TchTensor, String> {
    shared_tensor(Memory::Gpu(Box::new(memory)), shape, dtype)
}

fn shared_tensor(memory: Memory, shape: &[usize], dtype: DType) -> Result<TchTensor, String> {
    let address = memory.place().0.cast_mut();
    #[allow(clippy::arc_with_non_send_sync, reason = "burn-tch's own type, whose address is never read")]
    let buffer_ref: StorageRef = Arc::new(address);
    // As long as a tensor over this memory exists, its owner holds one more reference than burn
    // does.
    let owner = Owner { memory, _shared: Some(Shared(Arc::clone(&buffer_ref))) };
    let tensor = Tensor::of(owner, shape, dtype)?.into_tch();
    Ok(TchTensor { tensor, storage: burn_tch::Storage::Owned { buffer_ref } })
}

#[cfg(feature = "torchscript")]
mod elements {
    use super::Tensor;
    use super::{DType, ffi};

    /// Returns burn's element type for a LibTorch number.
    fn dtype(kind: i32) -> Option<DType> {
        use burn::tensor::BoolStore;
        let known = [
            DType::U8,
            DType::I8,
            DType::I16,
            DType::I32,
            DType::I64,
            DType::F16,
            DType::F32,
            DType::F64,
            DType::Bool(BoolStore::Native),
            DType::BF16,
        ];
        known.into_iter().find(|&dtype| super::kind(dtype) == Some(kind))
    }

    /// Layout and location of a tensor.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Description {
        /// Element type. `None` if burn does not have it, or the elements are not plain numbers in
        /// host memory.
        pub dtype: Option<DType>,
        /// Shape, if it has elements.
        pub shape: Vec<usize>,
        /// Address of the storage, of which the tensor may be a part.
        pub storage: usize,
        /// Size of the elements in bytes.
        pub len: usize,
    }

    impl Tensor {
        fn raw(&self) -> Result<ffi::Description, String> {
            let mut made = std::mem::MaybeUninit::uninit();
            // SAFETY: the tensor is valid, and `made` has room for a description.
            unsafe { ffi::rz_describe(self.0.as_ptr(), made.as_mut_ptr()) }.check()?;
            // SAFETY: the shim has written the description if it returns no message.
            Ok(unsafe { made.assume_init() })
        }

        /// Describes the tensor.
        ///
        /// # Errors
        /// If LibTorch fails.
        pub(crate) fn description(&self) -> Result<Description, String> {
            let raw = self.raw()?;
            let dims = match raw.rank {
                0 => &[][..],
                // SAFETY: the dimensions are stored in the tensor, which is valid and not reshaped
                // during the borrow.
                rank => unsafe { std::slice::from_raw_parts(raw.dims, rank) },
            };
            let shape = dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
            Ok(Description { dtype: dtype(raw.kind), shape, storage: raw.storage as usize, len: raw.len })
        }

        /// Passes the elements to `show` in row-major order: in place if they have this order in
        /// memory, otherwise as a copy.
        ///
        /// # Errors
        /// If the tensor has no elements in host memory.
        pub(crate) fn elements<T>(&self, show: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
            let mut ordered = std::ptr::null_mut();
            // SAFETY: the tensor is valid, and the new tensor is owned by this function.
            unsafe { ffi::rz_ordered(self.0.as_ptr(), &mut ordered) }.check()?;
            let ordered = Self::new(ordered)?;
            let raw = ordered.raw()?;
            if raw.len == 0 {
                return Ok(show(&[]));
            }
            if raw.data.is_null() {
                return Err("a tensor does not lie in host memory".to_owned());
            }
            // SAFETY: `data` points to the `len` bytes of a contiguous tensor, which lives until
            // the end of this function. Only a call of the module that the tensor comes from could
            // write to them, and the owner of both is in this function.
            Ok(show(unsafe { std::slice::from_raw_parts(raw.data.cast::<u8>(), raw.len) }))
        }

        /// Returns the address and the size in bytes of the elements, or `None` if they are not in
        /// row-major order.
        pub(crate) fn place(&self) -> Option<(usize, usize)> {
            let raw = self.raw().ok()?;
            (!raw.data.is_null()).then_some((raw.data as usize, raw.len))
        }

        /// Creates a tensor of the same type without elements.
        pub(in crate::tensor::libtorch) fn emptied(&self) -> Result<Self, String> {
            let mut made = std::ptr::null_mut();
            // SAFETY: the tensor is valid, and the caller owns the new one.
            unsafe { ffi::rz_emptied(self.0.as_ptr(), &mut made) }.check()?;
            Self::new(made)
        }

        /// Pointer for the shim. Valid as long as this value.
        pub(in crate::tensor::libtorch) fn as_ptr(&self) -> *mut ffi::Opaque {
            self.0.as_ptr()
        }
    }
}

#[cfg(feature = "torchscript")]
pub(crate) use elements::Description;
