//! Bytes of a tensor in files: unchanged, gathered, transposed or cast.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes, DType, Device, Tensor};

use super::entry::{Entry, Part};
use super::gather::gather;
use super::transpose::transpose;
use crate::arena::io::{read_at, stream_file};
use crate::os::sync::Mutex;
use crate::tensor::align::aligned;
use crate::tensor::host;
use crate::tensor::source::{BlobSource, SAMPLE};

/// Conversion to apply to the bytes of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// Transposes PyTorch's `[out, in]` to burn's `[in, out]`.
    pub transpose: bool,
    /// Target floating-point type, if it differs from the file's.
    pub cast: Option<DType>,
}

/// A buffer for matrices, shared by all tensors of a checkpoint.
pub(crate) type Scratch = Arc<Mutex<Vec<u8>>>;

type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

/// A tensor in files.
pub(crate) struct FromFile {
    /// The parts, each with its file.
    parts: Vec<(Arc<OwnedFd>, Part)>,
    len: u64,
    /// Size of an element. Unknown for quantised tensors, which always are one contiguous part.
    size: usize,
    dtype: DType,
    shape: Vec<usize>,
    change: Change,
    scratch: Scratch,
}

impl FromFile {
    /// Creates the source of an entry. `fds` are the checkpoint's files.
    pub(crate) fn new(entry: &Entry, fds: &[Arc<OwnedFd>], dtype: DType, change: Change, scratch: &Scratch) -> Self {
        let parts = entry.places().into_iter().map(|part| (Arc::clone(&fds[part.file]), part)).collect();
        let (len, size, shape) = (entry.len, dtype.size(), entry.shape.clone());
        Self { parts, len, size, dtype, shape, change, scratch: Arc::clone(scratch) }
    }

    /// Runs `work` with the shared buffer. Reusing it matters: freeing and allocating it for each
    /// tensor would cost more than transposing a matrix.
    fn with_scratch<T>(&self, len: usize, work: impl FnOnce(&mut [u8]) -> Result<T, String>) -> Result<T, String> {
        let mut scratch = self.scratch.lock();
        if scratch.len() < len {
            scratch.resize(len, 0);
        }
        work(&mut scratch[..len])
    }

    /// Streams the elements of a part in row-major order.
    fn part(&self, fd: &OwnedFd, part: &Part, sink: Sink<'_>) -> Result<(), String> {
        let Some(strides) = &part.strides else { return stream_file(fd, part.offset, part.len, sink) };
        if part.len == 0 {
            return Ok(());
        }
        self.with_scratch(part.span(self.size), |bytes| {
            read_at(fd, bytes, part.offset).map_err(|error| error.to_string())?;
            match (&part.shape[..], &strides[..]) {
                // The transpose of a whole matrix.
                (&[rows, columns], &[1, stride]) if stride == rows => {
                    transpose(bytes, [columns, rows], self.size, sink)
                }
                (shape, strides) => gather(bytes, shape, strides, self.size, sink),
            }
        })
    }

    /// Passes the whole tensor in memory to `work`.
    fn whole(&self, work: impl FnOnce(&[u8]) -> Result<(), String>) -> Result<(), String> {
        if let [(fd, part)] = &self.parts[..]
            && part.strides.is_none()
        {
            return self.with_scratch(self.len as usize, |bytes| {
                read_at(&**fd, bytes, part.offset).map_err(|error| error.to_string())?;
                work(bytes)
            });
        }
        let mut bytes = Vec::with_capacity(self.len as usize);
        for (fd, part) in &self.parts {
            self.part(fd, part, &mut |some| {
                bytes.extend_from_slice(some);
                Ok(())
            })?;
        }
        work(&bytes)
    }

    /// Casts a chunk of elements. The shape does not matter.
    fn cast(&self, bytes: &[u8], dtype: DType) -> Result<Bytes, String> {
        let elements = bytes.len() / self.dtype.size();
        let bytes = Bytes::from_shared(aligned(bytes), AllocationProperty::Native);
        let tensor: Tensor<1> = host::tensor(bytes, &[elements], self.dtype, &Device::flex())?;
        host::bytes(&tensor.cast(dtype))
    }
}

impl BlobSource for FromFile {
    fn len(&self) -> usize {
        match self.change.cast {
            Some(dtype) => self.shape.iter().product::<usize>() * dtype.size(),
            None => self.len as usize,
        }
    }

    fn stream(&self, sink: Sink<'_>) -> Result<(), String> {
        let mut cast = |bytes: &[u8]| match self.change.cast {
            Some(dtype) => sink(&self.cast(bytes, dtype)?),
            None => sink(bytes),
        };
        if self.change.transpose {
            let [rows, columns] = self.shape[..] else { return Err(format!("{:?} is not a matrix", self.shape)) };
            return self.whole(|bytes| transpose(bytes, [rows, columns], self.size, &mut cast));
        }
        self.parts.iter().try_for_each(|(fd, part)| self.part(fd, part, &mut cast))
    }

    /// Location of the tensor, if its bytes are used unchanged: tied tensors are recognised as
    /// equal without reading them.
    fn identity(&self) -> Option<(usize, usize)> {
        self.range()?;
        self.parts.first().map(|(fd, part)| (Arc::as_ptr(fd) as usize, part.offset as usize))
    }

    fn range(&self) -> Option<(BorrowedFd<'_>, u64)> {
        let is_unchanged = !self.change.transpose && self.change.cast.is_none();
        match &self.parts[..] {
            [(fd, part)] if is_unchanged && part.strides.is_none() => Some((fd.as_fd(), part.offset)),
            _ => None,
        }
    }

    /// Sample of the bytes in the file, and the conversion applied to them: both are the same for
    /// equal tensors.
    fn sample(&self) -> Result<Vec<u8>, String> {
        let ([(first, start), ..], [.., (last, end)]) = (&self.parts[..], &self.parts[..]) else {
            return Ok(Vec::new());
        };
        let bytes = |part: &Part| if part.strides.is_some() { part.span(self.size) as u64 } else { part.len };
        let (front, back) = (bytes(start).min(SAMPLE as u64), bytes(end).min(SAMPLE as u64));
        let mut sample = vec![0; (front + back) as usize];
        let (one, other) = sample.split_at_mut(front as usize);
        read_at(&**first, one, start.offset).map_err(|error| error.to_string())?;
        read_at(&**last, other, end.offset + bytes(end) - back).map_err(|error| error.to_string())?;
        let strides: Vec<_> = self.parts.iter().map(|(_, part)| (&part.shape, &part.strides)).collect();
        let strides = if self.parts.len() == 1 && start.strides.is_none() { Vec::new() } else { strides };
        sample.extend(format!("{:?}{:?}{strides:?}", self.change, self.dtype).into_bytes());
        Ok(sample)
    }
}
