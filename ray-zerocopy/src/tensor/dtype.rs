//! Validation of untrusted combinations of dtype, shape and length.
//!
//! They come from a file or another process. burn multiplies dimensions unchecked and accepts
//! quantised data of any length, and its `Debug` of a quantisation scheme panics on schemes that it
//! would not create itself.

use burn::tensor::DType;
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use serde::Deserialize;

/// Name of the dtype for error messages. Never panics.
pub(crate) fn name(dtype: DType) -> String {
    match dtype {
        DType::QFloat(scheme) if block(&scheme).is_err() => "QFloat of an impossible scheme".to_owned(),
        dtype => format!("{dtype:?}"),
    }
}

/// Checks that `len` bytes can be a tensor of this dtype and shape.
///
/// # Errors
/// Describes the mismatch.
pub(crate) fn fits(dtype: DType, shape: &[usize], len: usize) -> Result<(), String> {
    if let DType::QFloat(scheme) = dtype {
        return quantised(&scheme, shape, len);
    }
    let elements = elements(shape)?;
    if elements.checked_mul(dtype.size()) != Some(len) {
        return Err(format!("{dtype:?} of shape {shape:?} does not fit its {len} bytes"));
    }
    Ok(())
}

/// Size in bytes of this many elements. Of quantised ones, without their scales.
pub(crate) fn bytes_of(dtype: DType, elements: u64) -> Option<u64> {
    match dtype {
        DType::QFloat(scheme) => elements.checked_mul(scheme.size_bits_value() as u64).map(|bits| bits.div_ceil(8)),
        dtype => elements.checked_mul(dtype.size() as u64),
    }
}

fn elements(shape: &[usize]) -> Result<usize, String> {
    let product = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    product.ok_or_else(|| format!("shape {shape:?} has more elements than there can be"))
}

/// Checks quantised data: the values, then the scales of the blocks, then the scale of the tensor
/// if there are two levels.
fn quantised(scheme: &QuantScheme, shape: &[usize], len: usize) -> Result<(), String> {
    let elements = elements(shape)?;
    let too_large = || format!("shape {shape:?} has more elements than there can be");
    let blocks = match block(scheme)? {
        None => 1,
        Some(block) => {
            // A block may omit leading dimensions of extent 1.
            let extents = std::iter::repeat_n(1, shape.len().saturating_sub(block.len())).chain(block.iter().copied());
            let extents = extents.skip(block.len().saturating_sub(shape.len()));
            let mut dims = shape.iter().zip(extents).map(|(&dim, extent)| dim.div_ceil(extent.into()));
            dims.try_fold(1_usize, |product, dim| product.checked_mul(dim)).ok_or_else(too_large)?
        }
    };
    let global = match (scheme.block_scale(), scheme.tensor_scale()) {
        (Some(_), Some(dtype)) => size(dtype),
        _ => 0,
    };
    let scales = blocks.checked_mul(size(scheme.scale_dtype())).and_then(|bytes| bytes.checked_add(global));
    let scales = scales.ok_or_else(too_large)?;
    let plain = elements.checked_add(scales).ok_or_else(too_large)?;
    let mut lengths = vec![plain];
    if let Some(values) = packed(scheme, shape, elements) {
        lengths.extend(values.into_iter().flatten().filter_map(|values| values.checked_add(scales)));
    }
    lengths.sort_unstable();
    lengths.dedup();
    if !lengths.contains(&len) {
        let lengths = lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
        return Err(format!("{scheme:?} of shape {shape:?} takes {lengths} bytes, and there are {len}"));
    }
    Ok(())
}

/// Possible sizes of values that are packed into words: packed over the whole tensor, or line by
/// line.
fn packed(scheme: &QuantScheme, shape: &[usize], elements: usize) -> Option<[Option<usize>; 2]> {
    let (dim, word) = match scheme.store {
        QuantStore::Native => return None,
        QuantStore::PackedU32(dim) => (dim, 4),
        QuantStore::PackedNative(dim) if scheme.value == QuantValue::E2M1 => (dim, 1),
        QuantStore::PackedNative(_) => return None,
    };
    let in_word = scheme.num_quants().max(1);
    let flat = elements.div_ceil(in_word).checked_mul(word);
    let lines = shape.len().checked_sub(dim)?.checked_sub(1)?;
    let dims = shape.iter().enumerate().map(|(at, &size)| if at == lines { size.div_ceil(in_word) } else { size });
    let by_line = dims.into_iter().try_fold(word, |product, dim| product.checked_mul(dim));
    Some([flat, by_line])
}

fn size(dtype: ScaleDtype) -> usize {
    match dtype {
        ScaleDtype::F32 => 4,
        ScaleDtype::F16 | ScaleDtype::BF16 => 2,
        ScaleDtype::UE8M0 | ScaleDtype::UE4M3 => 1,
    }
}

/// Returns the block shape of a scheme. burn deserialises any bytes as a block, and each of its
/// accessors panics on some of them. So the block is serialised again and the result is inspected.
pub(super) fn block(scheme: &QuantScheme) -> Result<Option<Vec<u8>>, String> {
    #[derive(Deserialize)]
    struct Block {
        storage: Vec<u8>,
        len: usize,
    }
    let Some(scale) = scheme.block_scale() else { return Ok(None) };
    let written = serde_json::to_value(scale.size).and_then(serde_json::from_value::<Block>);
    let Block { storage, len } = written.map_err(|error| format!("its quantisation has an unknown block: {error}"))?;
    match storage.get(..len) {
        Some(dims) if !dims.contains(&0) => Ok(Some(dims.to_vec())),
        _ => Err(format!("its quantisation has a block of the first {len} dimensions of {storage:?}")),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;
    use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};

    use super::fits;
    use super::name;

    fn native() -> QuantScheme {
        QuantScheme::default().with_value(QuantValue::Q8S).with_store(QuantStore::Native)
    }

    fn error(scheme: QuantScheme, shape: &[usize], len: usize) -> String {
        fits(DType::QFloat(scheme), shape, len).unwrap_err()
    }

    #[test]
    fn plain_data_is_shape_times_size() {
        assert_eq!(fits(DType::F16, &[2, 3], 12), Ok(()));
        assert_eq!(fits(DType::I64, &[0, 3], 0), Ok(()));
        assert_eq!(fits(DType::F64, &[], 8), Ok(()));
        assert_eq!(fits(DType::F32, &[2, 3], 12), Err("F32 of shape [2, 3] does not fit its 12 bytes".to_owned()));
        let error = fits(DType::U8, &[1 << 32, 1 << 32], 0).unwrap_err();
        assert_eq!(error, "shape [4294967296, 4294967296] has more elements than there can be");
        // The product of the dimensions fits into `usize`, but the number of bytes does not.
        assert!(fits(DType::F64, &[1 << 61], 0).is_err());
    }

    #[test]
    fn quantised_data_is_values_and_scales() {
        assert_eq!(fits(DType::QFloat(native()), &[2, 3], 10), Ok(()));
        let by_block = native().per_block([2], ScaleDtype::F16);
        assert_eq!(fits(DType::QFloat(by_block), &[2, 3], 6 + 4 * 2), Ok(()));
        let two_levels = native().per_block([2, 2], ScaleDtype::UE4M3).per_tensor(ScaleDtype::F32);
        assert_eq!(fits(DType::QFloat(two_levels), &[5], 5 + 3 + 4), Ok(()));
        let packed = native().with_value(QuantValue::Q4S).with_store(QuantStore::PackedU32(0));
        assert_eq!(fits(DType::QFloat(packed), &[3, 3], 2 * 4 + 4), Ok(()), "over all");
        assert_eq!(fits(DType::QFloat(packed), &[3, 3], 3 * 4 + 4), Ok(()), "line by line");
        assert_eq!(fits(DType::QFloat(packed.with_store(QuantStore::PackedU32(9))), &[2], 2 + 4), Ok(()));
        let error = error(native(), &[2, 3], 9);
        assert!(error.ends_with("of shape [2, 3] takes 10 bytes, and there are 9"), "{error}");
    }

    #[test]
    fn overflowing_shapes_are_refused() {
        let packed = native().with_value(QuantValue::Q2S).with_store(QuantStore::PackedU32(0));
        for scheme in [native(), packed, native().per_block([1], ScaleDtype::F32)] {
            assert!(error(scheme, &[usize::MAX, 2], 8).contains("more elements than there can be"));
            assert!(fits(DType::QFloat(scheme), &[usize::MAX], 8).is_err());
        }
    }

    #[test]
    fn invalid_block_is_refused_and_not_displayed() {
        for (storage, len) in [([2, 1, 1, 1, 1], 200), ([0, 1, 1, 1, 1], 1), ([1, 0, 1, 1, 1], 2)] {
            let mut json = serde_json::to_value(native().per_block([2], ScaleDtype::F32)).unwrap();
            json["block"]["size"] = serde_json::json!({"storage": storage, "len": len});
            let scheme: QuantScheme = serde_json::from_value(json).unwrap();
            let error = error(scheme, &[4], 8);
            assert!(error.starts_with("its quantisation has a block of the first"), "{error}");
            assert_eq!(name(DType::QFloat(scheme)), "QFloat of an impossible scheme");
        }
        assert_eq!(name(DType::F32), "F32");
    }
}
