//! Bytes that go to Python without a copy, and bytes that come from there.

use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Bytes of a Python object, which keeps them where they are.
struct Borrowed {
    buffer: PyUntypedBuffer,
    /// Whether they are in Ray's store, and not in an object of this process's.
    stored: bool,
}

/// How many loans of Ray's store this process has.
static STORED: AtomicUsize = AtomicUsize::new(0);

/// How many loans of Ray's store this process has: they end when it leaves the cluster, whoever reads them still.
pub(crate) fn loans() -> usize {
    STORED.load(Ordering::Acquire)
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.stored {
            STORED.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        if self.buffer.len_bytes() == 0 {
            return &[];
        }
        // SAFETY: the buffer is contiguous and read-only (checked in `borrow`), and its exporter has to keep the `len_bytes`
        // bytes at `buf_ptr` where they are until the buffer is released, which happens when `self` is dropped. They
        // do not change: `borrow` is given immutable `bytes`, and objects of Ray's store, which are sealed, that is,
        // written by nobody any more until this process leaves the cluster, which it does not as long as there are `loans`,
        // unless the store ends with it. The store is mapped writable in each process all the same, so a wild write could
        // reach them; weights are protected against that, see `protect`.
        unsafe { std::slice::from_raw_parts(self.buffer.buf_ptr().cast::<u8>(), self.buffer.len_bytes()) }
    }
}

/// The bytes of an immutable Python object: `bytes`, or an object of Ray's store. Holds the object.
///
/// # Errors
/// If it does not lend its bytes, or not in one piece, or would let others change them.
pub(crate) fn borrow(object: &Bound<'_, PyAny>) -> PyResult<bytes::Bytes> {
    let buffer = PyUntypedBuffer::get(object)?;
    if !buffer.is_c_contiguous() || !buffer.readonly() {
        return Err(PyBufferError::new_err("a read-only buffer in one piece is expected"));
    }
    let stored = !object.is_instance_of::<PyBytes>();
    if stored {
        STORED.fetch_add(1, Ordering::AcqRel);
    }
    Ok(bytes::Bytes::from_owner(Borrowed { buffer, stored }))
}

/// Bytes of a Python object that others may write to, when nothing of Rust looks at them.
struct Held(PyUntypedBuffer);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        if self.0.len_bytes() == 0 {
            return &[];
        }
        // SAFETY: the buffer is contiguous (checked in `hold`), and its exporter has to keep the `len_bytes` bytes at
        // `buf_ptr` where they are until the buffer is released, which happens when `self` is dropped. A buffer that is
        // read-only does not change. Others do not change while they are held by the contract that `hold` states, which
        // is that of every Python function that works on an array without the interpreter's lock: who calls it does not
        // write to the array from another thread until it returns. It is passed on to the users of the module.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast::<u8>(), self.0.len_bytes()) }
    }
}

/// The bytes of a buffer, in place, without the right to write to them.
///
/// A buffer that is not read-only has to be given back before Python code goes on that may write to it: it is to be held
/// for the time of a call.
///
/// # Errors
/// If it is not in one piece, in the order of C.
pub fn hold(buffer: PyUntypedBuffer) -> PyResult<bytes::Bytes> {
    match buffer.is_c_contiguous() {
        true => Ok(bytes::Bytes::from_owner(Held(buffer))),
        false => Err(PyBufferError::new_err("a buffer in one piece is expected")),
    }
}

/// Bytes of Rust as a Python object that lends them.
#[pyclass(frozen, module = "_ray_zerocopy")]
pub(crate) struct Lent(pub(crate) bytes::Bytes);

#[pymethods]
impl Lent {
    /// # Safety
    /// Called by Python alone, with a `view` that it wants filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = &slf.get().0;
        let (start, len) = (bytes.as_ptr().cast_mut().cast(), bytes.len() as ffi::Py_ssize_t);
        // SAFETY: `view` is Python's to fill. The bytes are at `start` as long as the object lives, which the view holds
        // a reference to, and the view is read-only (the fifth argument), so nobody writes them through it.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 1, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// A Python object with the bytes, which are not copied.
pub fn lend<'py>(py: Python<'py>, bytes: bytes::Bytes) -> PyResult<Bound<'py, PyAny>> {
    Ok(Bound::new(py, Lent(bytes))?.into_any())
}
