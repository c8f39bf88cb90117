//! The bytes of a tensor in a file: as they are, or transposed, or cast.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use burn::tensor::{Bytes, DType, Device, Tensor};

use crate::arena::copy::{read_at, stream_file};
use crate::arena::{BlobSource, SAMPLE};
use crate::pipeline::{bytes_of, tensor_of};

/// What has to be done to the bytes of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// PyTorch's `[out, in]` becomes burn's `[in, out]`.
    pub transpose: bool,
    /// The floating point type that is wanted, if the file has another.
    pub cast: Option<DType>,
}

impl Change {
    pub(crate) fn is_none(&self) -> bool {
        !self.transpose && self.cast.is_none()
    }
}

/// A tensor in a file.
pub(crate) struct FromFile {
    pub fd: Arc<OwnedFd>,
    pub offset: u64,
    pub len: u64,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub change: Change,
}

impl FromFile {
    fn read(&self) -> Result<Bytes, String> {
        let mut bytes = vec![0; self.len as usize];
        read_at(&*self.fd, &mut bytes, self.offset).map_err(|error| error.to_string())?;
        Ok(Bytes::from_bytes_vec(bytes))
    }

    fn changed(&self) -> Result<Bytes, String> {
        let bytes = self.read()?;
        let device = Device::flex();
        // Only a tensor of rank two is transposed; a cast does not look at the shape.
        let shape = match self.change.transpose {
            true => self.shape.clone(),
            false => vec![1, self.shape.iter().product()],
        };
        let mut tensor: Tensor<2> = tensor_of(bytes, &shape, self.dtype, &device)?;
        if self.change.transpose {
            tensor = tensor.transpose();
        }
        if let Some(dtype) = self.change.cast {
            tensor = tensor.cast(dtype);
        }
        bytes_of(&tensor)
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
        match self.change.is_none() {
            true => stream_file(&*self.fd, self.offset, self.len, sink),
            false => sink(&self.changed()?),
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
