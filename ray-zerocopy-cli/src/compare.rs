//! Compares the bytes and the values of two tensors in files, in chunks.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::{DType, bf16, f16};
use ray_zerocopy::Checkpoint;

use crate::weights::Tensor;

/// Bytes of a tensor that are read at once.
const CHUNK: u64 = 1 << 20;
/// Values of a tensor that are read at once.
const VALUES: u64 = 1 << 17;

/// Open files, and the last gathered tensor of each side.
#[derive(Default)]
pub(crate) struct Files {
    open: HashMap<PathBuf, File>,
    gathered: [Option<(PathBuf, String, Vec<u8>)>; 2],
}

impl Files {
    fn read(&mut self, tensor: &Tensor, from: u64, bytes: &mut [u8]) -> Result<()> {
        let named = || format!("`{}` in {}", tensor.path, tensor.file.display());
        if let Some(checkpoint) = &tensor.gathered {
            let whole = self.gather(tensor, checkpoint).with_context(named)?;
            let part = whole.get(from as usize..from as usize + bytes.len()).with_context(named)?;
            bytes.copy_from_slice(part);
            return Ok(());
        }
        if !self.open.contains_key(&tensor.file) {
            self.open.insert(tensor.file.clone(), File::open(&tensor.file).with_context(named)?);
        }
        self.open[&tensor.file].read_exact_at(bytes, tensor.offset + from).with_context(named)
    }

    /// Reads a tensor whose bytes are not contiguous into memory.
    fn gather(&mut self, tensor: &Tensor, checkpoint: &Checkpoint) -> Result<&[u8]> {
        let known = |(file, path, _): &(PathBuf, String, Vec<u8>)| *file == tensor.file && *path == tensor.path;
        let at = self.gathered.iter().position(|gathered| gathered.as_ref().is_some_and(known));
        let at = match at {
            Some(at) => at,
            None => {
                let mut bytes = Vec::with_capacity(tensor.bytes as usize);
                checkpoint.stream(&tensor.path, &mut |some| {
                    bytes.extend_from_slice(some);
                    Ok(())
                })?;
                self.gathered.swap(0, 1);
                self.gathered[0] = Some((tensor.file.clone(), tensor.path.clone(), bytes));
                0
            }
        };
        Ok(self.gathered[at].as_ref().map_or(&[], |(.., bytes)| bytes))
    }

    /// Returns whether two tensors of equal size have equal bytes. Stops at the first difference.
    pub(crate) fn equal(&mut self, left: &Tensor, right: &Tensor, read: &mut dyn FnMut(u64)) -> Result<bool> {
        let [mut one, mut other] = [vec![0; CHUNK as usize], vec![0; CHUNK as usize]];
        let mut at = 0;
        while at < left.bytes {
            let size = CHUNK.min(left.bytes - at) as usize;
            self.read(left, at, &mut one[..size])?;
            self.read(right, at, &mut other[..size])?;
            read(size as u64);
            if one[..size] != other[..size] {
                return Ok(false);
            }
            at += size as u64;
        }
        Ok(true)
    }

    /// Computes the distance of two floating-point tensors of equal shape.
    pub(crate) fn distance(&mut self, left: &Tensor, right: &Tensor, read: &mut dyn FnMut(u64)) -> Result<Distance> {
        let mut distance = Distance { max: 0.0, values: 0 };
        let elements = left.elements();
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < elements {
            let count = VALUES.min(elements - at);
            self.values(left, at, count, &mut one)?;
            self.values(right, at, count, &mut other)?;
            for (&left, &right) in one.iter().zip(&other) {
                distance.add(left, right);
            }
            read(count * left.bytes / elements);
            at += count;
        }
        Ok(distance)
    }

    fn values(&mut self, tensor: &Tensor, at: u64, count: u64, values: &mut Vec<f64>) -> Result<()> {
        let size = tensor.bytes / tensor.elements();
        let mut bytes = vec![0; (count * size) as usize];
        self.read(tensor, at * size, &mut bytes)?;
        values.clear();
        match tensor.dtype {
            Some(DType::F64) => values.extend(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b))),
            Some(DType::F16) => values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f64())),
            Some(DType::BF16) => values.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f64())),
            _ => values.extend(bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b)))),
        }
        Ok(())
    }
}

/// The distance of two tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Distance {
    /// The largest absolute difference of two values; NaN if one of them is NaN and the other is
    /// not.
    pub max: f64,
    /// Number of values that differ.
    pub values: u64,
}

impl Distance {
    fn add(&mut self, left: f64, right: f64) {
        if left == right || (left.is_nan() && right.is_nan()) {
            return;
        }
        self.values += 1;
        let difference = (left - right).abs();
        // NaN is kept as the maximum: it compares as larger than any number.
        if difference.is_nan() || difference > self.max {
            self.max = difference;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Distance;

    fn distance(pairs: &[(f64, f64)]) -> Distance {
        let mut distance = Distance { max: 0.0, values: 0 };
        for &(left, right) in pairs {
            distance.add(left, right);
        }
        distance
    }

    #[test]
    fn nan_is_the_largest_distance() {
        assert_eq!(distance(&[(1.0, 1.5), (0.0, -0.0), (3.0, 2.0)]), Distance { max: 1.0, values: 2 });
        assert_eq!(distance(&[(f64::NAN, f64::NAN), (f64::INFINITY, f64::INFINITY)]).values, 0);
        assert_eq!(distance(&[(f64::INFINITY, 1.0)]), Distance { max: f64::INFINITY, values: 1 });
        let nan = distance(&[(f64::NAN, 1.0), (1.0, 9.0)]);
        assert!(nan.max.is_nan() && nan.values == 2);
    }
}
