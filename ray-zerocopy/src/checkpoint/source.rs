//! The bytes of a tensor in a file: as they are, or transposed, or cast.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{AllocationProperty, Bytes, DType, Device, Tensor};

use super::transpose::transpose;
use crate::arena::copy::{read_at, stream_file};
use crate::arena::{BlobSource, SAMPLE};
use crate::engine::message::aligned;
use crate::pipeline::{bytes_of, tensor_of};

/// What has to be done to the bytes of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// PyTorch's `[out, in]` becomes burn's `[in, out]`.
    pub transpose: bool,
    /// The floating point type that is wanted, if the file has another.
    pub cast: Option<DType>,
}

/// A tensor in a file.
pub(crate) struct FromFile {
    pub fd: Arc<OwnedFd>,
    pub offset: u64,
    pub len: u64,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub change: Change,
    /// Memory for matrices, which all tensors of a checkpoint share.
    pub scratch: Arc<Mutex<Vec<u8>>>,
}

impl FromFile {
    /// The bytes in the file, in memory that the next tensor uses again: to give it back and get it anew would cost more
    /// than to transpose a matrix.
    fn with_bytes<T>(&self, work: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, String> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let len = self.len as usize;
        if scratch.len() < len {
            scratch.resize(len, 0);
        }
        let bytes = &mut scratch[..len];
        read_at(&*self.fd, bytes, self.offset).map_err(|error| error.to_string())?;
        work(bytes)
    }

    /// Casts some elements, of which the shape does not matter.
    fn cast(&self, bytes: &[u8], dtype: DType) -> Result<Bytes, String> {
        let elements = bytes.len() / self.dtype.size();
        let bytes = Bytes::from_shared(aligned(bytes), AllocationProperty::Native);
        let tensor: Tensor<1> = tensor_of(bytes, &[elements], self.dtype, &Device::flex())?;
        bytes_of(&tensor.cast(dtype))
    }
}

impl BlobSource for FromFile {
    fn len(&self) -> usize {
        match self.change.cast {
            Some(dtype) => self.shape.iter().product::<usize>() * dtype.size(),
            None => self.len as usize,
        }
    }

    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        let mut cast = |bytes: &[u8]| match self.change.cast {
            Some(dtype) => sink(&self.cast(bytes, dtype)?),
            None => sink(bytes),
        };
        match self.change.transpose {
            true => {
                let [rows, columns] = self.shape[..] else { return Err(format!("{:?} is no matrix", self.shape)) };
                self.with_bytes(|bytes| transpose(bytes, [rows, columns], self.dtype.size(), &mut cast))
            }
            false => stream_file(&*self.fd, self.offset, self.len, &mut cast),
        }
    }

    fn identity(&self) -> Option<(usize, usize)> {
        None
    }

    /// Of the bytes in the file, and what becomes of them: equal tensors have that in common.
    fn sample(&self) -> Result<Vec<u8>, String> {
        let size = self.len.min(SAMPLE as u64);
        let mut sample = vec![0; 2 * size as usize];
        let (start, end) = sample.split_at_mut(size as usize);
        read_at(&*self.fd, start, self.offset).map_err(|error| error.to_string())?;
        read_at(&*self.fd, end, self.offset + self.len - size).map_err(|error| error.to_string())?;
        sample.extend(format!("{:?}{:?}", self.change, self.dtype).into_bytes());
        Ok(sample)
    }
}
