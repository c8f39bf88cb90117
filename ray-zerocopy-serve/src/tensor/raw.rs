//! Elements as little-endian bytes, and checks of shapes that clients have sent.

use burn::tensor::{AllocationProperty, BoolStore, DType, TensorData};
use bytes::Bytes;

use crate::error::ServeError;

/// Most dimensions of a tensor.
const RANK: usize = 8;

/// Checks the shape of an input, and returns it with its number of elements.
///
/// # Errors
/// If a dimension is negative, there are none or too many, or the number of elements overflows.
pub(crate) fn checked_shape(input: &str, shape: &[i64]) -> Result<(Vec<usize>, usize), ServeError> {
    if shape.is_empty() || shape.len() > RANK {
        return Err(ServeError::invalid(format!(
            "input `{input}` has {} dimensions, expected 1 to {RANK}; a single number has the shape [1]",
            shape.len()
        )));
    }
    let dims: Option<Vec<usize>> = shape.iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let dims = dims.ok_or_else(|| {
        ServeError::invalid(format!("input `{input}` has the shape {shape:?}, expected no negative dimension"))
    })?;
    let elements = dims.iter().try_fold(1_usize, |all, &extent| all.checked_mul(extent));
    let elements = elements.filter(|&elements| elements <= isize::MAX as usize / 8).ok_or_else(|| {
        ServeError::invalid(format!("input `{input}` has the shape {shape:?}, which has too many elements"))
    })?;
    Ok((dims, elements))
}

/// Makes a tensor of raw bytes. They are not copied if their address is a multiple of the element's size.
///
/// # Errors
/// If the number of bytes does not fit the shape.
pub(crate) fn tensor(input: &str, dtype: DType, shape: &[i64], bytes: Bytes) -> Result<TensorData, ServeError> {
    let (dims, elements) = checked_shape(input, shape)?;
    let expected = elements * dtype.size();
    if bytes.len() != expected {
        return Err(ServeError::invalid(format!(
            "input `{input}` has {} bytes of data, expected {expected} for the shape {dims:?}",
            bytes.len()
        )));
    }
    if matches!(dtype, DType::Bool(_))
        && let Some(byte) = bytes.iter().find(|byte| **byte > 1)
    {
        return Err(ServeError::invalid(format!("input `{input}` has a boolean of value {byte}, expected 0 or 1")));
    }
    let is_aligned = (bytes.as_ptr() as usize).is_multiple_of(dtype.size().max(1));
    let bytes = if is_aligned {
        burn::tensor::Bytes::from_shared(bytes, AllocationProperty::Native)
    } else {
        aligned(&bytes, dtype)
    };
    Ok(TensorData::from_bytes(bytes, dims, dtype))
}

/// Copies bytes to memory that is aligned for the elements.
fn aligned(bytes: &[u8], dtype: DType) -> burn::tensor::Bytes {
    fn words<T: bytemuck::Pod + Send + Sync>(bytes: &[u8]) -> burn::tensor::Bytes {
        let mut words = vec![T::zeroed(); bytes.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut words).copy_from_slice(bytes);
        burn::tensor::Bytes::from_elems(words)
    }
    match dtype.size() {
        2 => words::<u16>(bytes),
        4 => words::<u32>(bytes),
        8 => words::<u64>(bytes),
        _ => words::<u8>(bytes),
    }
}

/// Returns the little-endian bytes of an output. Booleans have one byte each.
pub(crate) fn bytes(data: TensorData) -> Bytes {
    let data = match data.dtype() {
        DType::Bool(BoolStore::U32) => data.convert_dtype(DType::Bool(BoolStore::Native)),
        _ => data,
    };
    Bytes::from_owner(Owned(data.into_bytes()))
}

/// Burn's bytes as the owner of a slice.
struct Owned(burn::tensor::Bytes);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{BoolStore, DType};
    use bytes::Bytes;

    use super::{bytes, checked_shape, tensor};

    #[test]
    fn raw_bytes_become_a_tensor_at_any_address() {
        let all: Vec<u8> = [0.0_f32, 1.5, -2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        let padded = Bytes::from([&[7_u8][..], &all].concat());
        for offset in [0, 1] {
            let slice = if offset == 0 { Bytes::from(all.clone()) } else { padded.slice(1..) };
            let data = tensor("x", DType::F32, &[3, 1], slice).unwrap();
            assert_eq!(data.iter::<f32>().collect::<Vec<_>>(), [0.0, 1.5, -2.0]);
            assert_eq!(bytes(data), all);
        }
    }

    #[test]
    fn bytes_that_do_not_fit_the_shape_are_refused() {
        let error = |shape: &[i64], len| tensor("x", DType::F32, shape, vec![0; len].into()).unwrap_err().to_string();
        assert_eq!(error(&[2, 2], 12), "input `x` has 12 bytes of data, expected 16 for the shape [2, 2]");
        assert_eq!(error(&[-1], 4), "input `x` has the shape [-1], expected no negative dimension");
        assert!(error(&[i64::MAX, 2], 4).ends_with("which has too many elements"));
        assert!(checked_shape("x", &[]).is_err() && checked_shape("x", &[1; 9]).is_err());
        let bools = tensor("x", DType::Bool(BoolStore::Native), &[2], vec![0, 2].into()).unwrap_err();
        assert_eq!(bools.to_string(), "input `x` has a boolean of value 2, expected 0 or 1");
    }
}
