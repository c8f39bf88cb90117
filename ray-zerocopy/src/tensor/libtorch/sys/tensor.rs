//! Tensors on memory of others, and the elements of tensors.

#![allow(deprecated, reason = "burn marks LibTorch as on its way out; users who name it ask for it")]

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use burn::tensor::{BoolStore, Bytes, DType};
use burn_tch::{StorageRef, TchTensor};

use super::ffi;
use crate::tensor::dtype;

/// LibTorch's number of an element type; none for those that it does not have.
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

/// A tensor of LibTorch.
pub(crate) struct Tensor(NonNull<ffi::Opaque>);

// SAFETY: a tensor of LibTorch is a counted reference, and the count is atomic. The pointer is this value's own.
unsafe impl Send for Tensor {}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: the tensor is this value's own and is not used any more.
        unsafe { ffi::rz_tensor_free(self.0.as_ptr()) };
    }
}

/// What keeps the memory of a tensor: dropped with the last tensor that reads it.
struct Owner {
    /// The bytes, which nobody writes to.
    bytes: Bytes,
    /// One more reference to what burn counts to find out whether a tensor is its own to write to.
    _shared: Option<Shared>,
}

/// burn's count is of an address, which it never reads.
struct Shared(#[allow(dead_code, reason = "counted, not read")] StorageRef);

// SAFETY: the address is never read through this, and the count is atomic.
unsafe impl Send for Shared {}

/// # Safety
/// `owner` comes from `Box::into_raw` of an `Owner`, and this is called once with it.
unsafe extern "C" fn release(owner: *mut c_void) {
    // SAFETY: by the promise of the caller.
    drop(unsafe { Box::from_raw(owner.cast::<Owner>()) });
}

impl Tensor {
    /// A tensor over bytes, which stay where they are and live as long as it does. For tensors that nobody writes to: the bytes may
    /// be those of sealed memory.
    ///
    /// # Errors
    /// If the bytes are no tensor of this type and shape, or not where LibTorch could read them.
    pub(crate) fn borrowed(bytes: Bytes, shape: &[usize], dtype: DType) -> Result<Self, String> {
        Self::of(Owner { bytes, _shared: None }, shape, dtype)
    }

    fn of(owner: Owner, shape: &[usize], dtype: DType) -> Result<Self, String> {
        let number = kind(dtype).ok_or_else(|| format!("LibTorch does not compute with {}", dtype::name(dtype)))?;
        dtype::fits(dtype, shape, owner.bytes.len())?;
        let data = owner.bytes.as_ptr();
        if !(data as usize).is_multiple_of(dtype.size()) {
            return Err(format!("elements of {dtype:?} begin at an address that is no multiple of their size"));
        }
        let dims: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
        let owner = Box::into_raw(Box::new(owner)).cast();
        let mut tensor = std::ptr::null_mut();
        // SAFETY: `dims` has as many elements as it says. The bytes are as many as shape and type need (`fits`), and aligned;
        // they stay where they are until `release`, which gets the box that owns them, once: the shim holds it by a
        // counted pointer from its first line on, error or not. LibTorch takes them as writable, but writes only where a
        // program asks for it: burn does not, see `lent`. TorchScript modules that would are refused as far as that can be seen
        // beforehand; the others' bytes are a view of this process's own, which can be written to, and which nothing of Rust reads.
        unsafe { ffi::rz_blob(data.cast(), dims.as_ptr(), dims.len(), number, owner, release, &mut tensor) }.check()?;
        Self::new(tensor)
    }

    /// Takes a tensor that the shim has given away.
    pub(super) fn new(tensor: *mut ffi::Opaque) -> Result<Self, String> {
        NonNull::new(tensor).map(Self).ok_or_else(|| "LibTorch has given no tensor".to_owned())
    }

    /// As `tch` has it.
    fn into_tch(self) -> tch::Tensor {
        let pointer = std::mem::ManuallyDrop::new(self).0.as_ptr();
        // SAFETY: both are a `torch::Tensor` made by `new`, which the one that holds it deletes; from here on that is `tch`.
        unsafe { tch::Tensor::from_ptr(pointer.cast()) }
    }
}

/// A tensor of burn's LibTorch backend over bytes, which burn takes for somebody else's: it never writes into them.
///
/// # Errors
/// As [`Tensor::borrowed`].
pub(crate) fn lent(bytes: Bytes, shape: &[usize], dtype: DType) -> Result<TchTensor, String> {
    let address = bytes.as_ptr().cast_mut().cast::<c_void>();
    #[allow(clippy::arc_with_non_send_sync, reason = "burn-tch's own type, whose address nobody reads")]
    let buffer_ref: StorageRef = Arc::new(address);
    // As long as there is a tensor on these bytes, its owner holds one reference more than burn does.
    let owner = Owner { bytes, _shared: Some(Shared(Arc::clone(&buffer_ref))) };
    let tensor = Tensor::of(owner, shape, dtype)?.into_tch();
    Ok(TchTensor { tensor, storage: burn_tch::Storage::Owned { buffer_ref } })
}

#[cfg(feature = "torchscript")]
mod elements {
    use self::Tensor;
    use super::{DType, ffi};

    /// burn's name of an element type.
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

    /// What a tensor is.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Description {
        /// Its elements; none if they are none that burn knows, or not plain numbers in host memory.
        pub dtype: Option<DType>,
        /// Its shape, if it has elements.
        pub shape: Vec<usize>,
        /// Where the memory begins that it may be a part of.
        pub storage: usize,
        /// How many bytes its elements are.
        pub len: usize,
    }

    impl Tensor {
        fn raw(&self) -> Result<ffi::Description, String> {
            let mut made = std::mem::MaybeUninit::uninit();
            // SAFETY: the tensor lives, and there is room for a description.
            unsafe { ffi::rz_describe(self.0.as_ptr(), made.as_mut_ptr()) }.check()?;
            // SAFETY: without a message, the shim has written it.
            Ok(unsafe { made.assume_init() })
        }

        /// What the tensor is.
        ///
        /// # Errors
        /// If LibTorch cannot say.
        pub(crate) fn description(&self) -> Result<Description, String> {
            let raw = self.raw()?;
            let dims = match raw.rank {
                0 => &[][..],
                // SAFETY: the dimensions lie in the tensor, which lives and which nobody reshapes meanwhile.
                rank => unsafe { std::slice::from_raw_parts(raw.dims, rank) },
            };
            let shape = dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
            Ok(Description { dtype: dtype(raw.kind), shape, storage: raw.storage as usize, len: raw.len })
        }

        /// Shows the elements, in the order of C: where they lie if they are in that order, else a copy.
        ///
        /// # Errors
        /// If it has none in host memory.
        pub(crate) fn elements<T>(&self, show: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
            let mut ordered = std::ptr::null_mut();
            // SAFETY: the tensor lives, and the one that is made is this function's own.
            unsafe { ffi::rz_ordered(self.0.as_ptr(), &mut ordered) }.check()?;
            let ordered = Self::new(ordered)?;
            let raw = ordered.raw()?;
            if raw.len == 0 {
                return Ok(show(&[]));
            }
            if raw.data.is_null() {
                return Err("a tensor does not lie in host memory".to_owned());
            }
            // SAFETY: `data` is where the `len` bytes of a contiguous tensor lie, which lives until the end of this function. Only a
            // call of the module that the tensor comes from could write to them, and whoever holds both is here.
            Ok(show(unsafe { std::slice::from_raw_parts(raw.data.cast::<u8>(), raw.len) }))
        }

        /// Where the elements lie, and how many bytes they are, if they lie in the order of C.
        pub(crate) fn place(&self) -> Option<(usize, usize)> {
            let raw = self.raw().ok()?;
            (!raw.data.is_null()).then_some((raw.data as usize, raw.len))
        }

        /// A tensor of the same type without elements.
        pub(in crate::tensor::libtorch) fn emptied(&self) -> Result<Self, String> {
            let mut made = std::ptr::null_mut();
            // SAFETY: the tensor lives, and the one that is made is the caller's.
            unsafe { ffi::rz_emptied(self.0.as_ptr(), &mut made) }.check()?;
            Self::new(made)
        }

        /// For the shim, as long as this value lives.
        pub(in crate::tensor::libtorch) fn as_ptr(&self) -> *mut ffi::Opaque {
            self.0.as_ptr()
        }
    }
}

#[cfg(feature = "torchscript")]
pub(crate) use elements::Description;
