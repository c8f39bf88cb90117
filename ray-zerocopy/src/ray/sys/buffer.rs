//! Buffers that are shared between Rust and Python without a copy.

use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Bytes of a Python object, which keeps them in place.
struct Borrowed {
    buffer: PyUntypedBuffer,
    /// Whether the bytes are in Ray's object store, and not in an object of this process.
    stored: bool,
}

/// Number of borrowed buffers in Ray's object store.
static BORROWED: AtomicUsize = AtomicUsize::new(0);

/// Number of borrowed buffers in Ray's object store. They become invalid when this process
/// disconnects, even if they are still in use.
pub(crate) fn borrow_count() -> usize {
    BORROWED.load(Ordering::Acquire)
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.stored {
            BORROWED.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        if self.buffer.len_bytes() == 0 {
            return &[];
        }
        // SAFETY: the buffer is contiguous and read-only (checked in `borrow`), and its exporter
        // has to keep the `len_bytes` bytes at `buf_ptr` in place until the buffer is released,
        // which happens when `self` is dropped. They do not change: `borrow` is given immutable
        // `bytes`, and objects of Ray's store, which are sealed, that is, not written by any
        // process until this process disconnects. It does not do so while `borrow_count` is not 0,
        // unless the store ends with the connection. The store is nevertheless mapped writable in
        // each process, so a wild write could reach the bytes; weights are protected against that,
        // see `protect`.
        unsafe { std::slice::from_raw_parts(self.buffer.buf_ptr().cast::<u8>(), self.buffer.len_bytes()) }
    }
}

/// Borrows the bytes of an immutable Python object: `bytes`, or an object of Ray's store. Keeps the
/// object alive.
///
/// # Errors
/// If the object does not export a buffer, or the buffer is not contiguous or is writable.
pub(crate) fn borrow(object: &Bound<'_, PyAny>) -> PyResult<bytes::Bytes> {
    let buffer = PyUntypedBuffer::get(object)?;
    if !buffer.is_c_contiguous() || !buffer.readonly() {
        return Err(PyBufferError::new_err("expected a contiguous, read-only buffer"));
    }
    let stored = !object.is_instance_of::<PyBytes>();
    if stored {
        BORROWED.fetch_add(1, Ordering::AcqRel);
    }
    Ok(bytes::Bytes::from_owner(Borrowed { buffer, stored }))
}

/// Buffers of one object that are next to each other in memory.
struct Joined {
    parts: Vec<bytes::Bytes>,
    len: usize,
}

impl AsRef<[u8]> for Joined {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the parts are next to each other (checked in `join`), in one mapping of Ray's store, and
        // together have `len` bytes. Each is valid for reads and does not change as long as it is held, by
        // `borrow`, and `self` holds all of them.
        unsafe { std::slice::from_raw_parts(self.parts[0].as_ptr(), self.len) }
    }
}

/// Joins buffers of one object of Ray's store, from [`borrow`]. Returns `None` unless there is one, and each begins
/// where the one before it ends.
pub(crate) fn join(parts: &[bytes::Bytes]) -> Option<bytes::Bytes> {
    let begins_at_the_end = |pair: &[bytes::Bytes]| pair[1].as_ptr() == pair[0].as_ptr().wrapping_add(pair[0].len());
    match parts {
        [] => None,
        [one] => Some(one.clone()),
        _ if parts.windows(2).all(begins_at_the_end) => {
            let len = parts.iter().map(bytes::Bytes::len).sum();
            Some(bytes::Bytes::from_owner(Joined { parts: parts.to_vec(), len }))
        }
        _ => None,
    }
}

/// Bytes of a Python object that may be writable. No Rust code reads them while they are written.
struct Held(PyUntypedBuffer);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        if self.0.len_bytes() == 0 {
            return &[];
        }
        // SAFETY: the buffer is contiguous (checked in `hold`), and its exporter has to keep the
        // `len_bytes` bytes at `buf_ptr` in place until the buffer is released, which happens when
        // `self` is dropped. A read-only buffer does not change. Other buffers do not change while
        // they are held, by the contract that `hold` states. It is the contract of every Python
        // function that works on an array without holding the interpreter's lock: the caller does
        // not write to the array from another thread until the function returns. The contract is
        // passed on to the users of the module.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast::<u8>(), self.0.len_bytes()) }
    }
}

/// Borrows the bytes of a buffer in place, for reading only.
///
/// A writable buffer must be released before Python code that may write to it continues: it may
/// only be held for the duration of a call.
///
/// # Errors
/// If the buffer is not contiguous in row-major order.
pub fn hold(buffer: PyUntypedBuffer) -> PyResult<bytes::Bytes> {
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("expected a contiguous buffer"));
    }
    Ok(bytes::Bytes::from_owner(Held(buffer)))
}

/// A Python object that exports bytes of Rust as a buffer.
#[pyclass(frozen, module = "_ray_zerocopy")]
pub(crate) struct Lent(pub(crate) bytes::Bytes);

#[pymethods]
impl Lent {
    /// # Safety
    /// Only called by Python, with a `view` to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = &slf.get().0;
        let (start, len) = (bytes.as_ptr().cast_mut().cast(), bytes.len() as ffi::Py_ssize_t);
        // SAFETY: `view` is provided by Python to be filled. The bytes are valid as long as the
        // object lives, to which the view holds a reference. The view is read-only (the fifth
        // argument), so the bytes are not written through it.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 1, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// Creates a Python object that exports the bytes without a copy.
pub fn lend<'py>(py: Python<'py>, bytes: bytes::Bytes) -> PyResult<Bound<'py, PyAny>> {
    Ok(Bound::new(py, Lent(bytes))?.into_any())
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn only_adjacent_buffers_are_joined() {
        let object = bytes::Bytes::from((0..100).collect::<Vec<u8>>());
        let part = |range: std::ops::Range<usize>| object.slice(range);
        assert_eq!(join(&[part(10..20), part(20..64), part(64..100)]), Some(object.slice(10..)));
        assert_eq!(join(&[part(3..5)]), Some(object.slice(3..5)));
        assert_eq!(join(&[part(10..20), part(21..30)]), None, "a gap");
        assert_eq!(join(&[part(20..30), part(10..20)]), None, "reverse order");
        assert_eq!(join(&[]), None);
    }
}
