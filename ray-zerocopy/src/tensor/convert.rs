//! Conversion of element types that a device does not support into types that it does, without
//! changing any value.
//!
//! Depends on tensor data and devices, but not on pipelines or arenas.

use burn::backend::DispatchDevice;
use burn::tensor::quantization::{QuantStore, QuantValue};
use burn::tensor::{DType, Device, TensorData};

use super::dtype;
use super::quantised::replaced;

/// Converts data to an element type that `device` supports. The data is returned unchanged if the
/// device supports its type, otherwise it gets another type that represents the same values.
/// Booleans and integers have several encodings; a floating-point number of another width would
/// give another result. For the device that records graphs, quantised tensors become floats.
///
/// # Errors
/// If there is no such type.
pub(crate) fn fit(data: TensorData, device: &Device) -> Result<TensorData, String> {
    let dtype = data.dtype();
    // Supported by all devices. Nearly every weight takes this path.
    if dtype == DType::F32 || device.supports_dtype(dtype) {
        return Ok(data);
    }
    let settings = device.settings();
    let target = match dtype {
        DType::Bool(_) => DType::from(settings.bool_dtype),
        // Flex stores types that it does not compute with, and converts them for other devices.
        DType::QFloat(_) if *device == Device::flex() => return Ok(data),
        DType::QFloat(_) if matches!(device.as_dispatch(), DispatchDevice::Capture(_)) => return replaced(data),
        DType::QFloat(_) => return packed(data, device),
        _ if dtype.is_int() || dtype.is_uint() => {
            let target = DType::from(settings.int_dtype);
            if let Some(value) = too_large(&data, target) {
                let found = dtype::name(dtype);
                return Err(format!(
                    "the device computes with {target:?} and not with {found}, and {value} does not fit"
                ));
            }
            target
        }
        _ => return Err(refusal(dtype, device)),
    };
    data.try_cast(target).map_err(|error| error.to_string())
}

/// Returns the element type that [`fit`] gives to plain elements of this type, or `None` if it fails or
/// the elements are quantised.
#[cfg(all(any(feature = "cuda", feature = "libtorch"), target_os = "linux"))]
pub(crate) fn fitted(dtype: DType, device: &Device) -> Option<DType> {
    if let DType::QFloat(_) = dtype {
        return None;
    }
    if dtype == DType::F32 || device.supports_dtype(dtype) {
        return Some(dtype);
    }
    match dtype {
        DType::Bool(_) => Some(DType::from(device.settings().bool_dtype)),
        _ if dtype.is_int() || dtype.is_uint() => Some(DType::from(device.settings().int_dtype)),
        _ => None,
    }
}

/// Error text that lists the floating-point types that the device supports.
fn refusal(dtype: DType, device: &Device) -> String {
    let known = [DType::F64, DType::F32, DType::F16, DType::BF16];
    let known: Vec<_> = known.into_iter().filter(|&known| device.supports_dtype(known)).map(dtype::name).collect();
    format!(
        "the device does not compute with {}, but with {}; cast it before it is shared",
        dtype::name(dtype),
        known.join(", ")
    )
}

/// Reinterprets quantised values of one byte each as words of four bytes, for devices without 8-bit
/// integers.
fn packed(data: TensorData, device: &Device) -> Result<TensorData, String> {
    let DType::QFloat(scheme) = data.dtype() else { return Ok(data) };
    let words = DType::QFloat(scheme.with_store(QuantStore::PackedU32(0)));
    let bytes = matches!(scheme.value, QuantValue::Q8F | QuantValue::Q8S) && scheme.store == QuantStore::Native;
    let rows = data.shape().last().is_some_and(|columns| columns.is_multiple_of(4));
    if !bytes || !rows || !device.supports_dtype(words) {
        return Err(format!("the device does not compute with {}", dtype::name(data.dtype())));
    }
    let (bytes, shape, _) = data.into_parts();
    TensorData::try_from_bytes(bytes, shape, words).map_err(|error| error.to_string())
}

/// Returns the first integer that the target type cannot represent.
fn too_large(data: &TensorData, target: DType) -> Option<i128> {
    let bits = target.size() as u32 * 8;
    let signed = target.is_int();
    let least = if signed { -(1_i128 << (bits - 1)) } else { 0 };
    let most = if signed { (1_i128 << (bits - 1)) - 1 } else { (1_i128 << bits) - 1 };
    let outside = |value: &i128| !(least..=most).contains(value);
    match data.dtype() {
        DType::U64 => data.iter::<u64>().map(i128::from).find(outside),
        _ => data.iter::<i64>().map(i128::from).find(outside),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{BoolStore, DType, Device, TensorData};

    use super::fit;
    use super::too_large;

    #[test]
    fn supported_dtypes_are_not_converted() {
        for dtype in [DType::F64, DType::F16, DType::I64, DType::U8, DType::Bool(BoolStore::U8)] {
            let data = TensorData::new(vec![0.0_f64, 1.0], [2]).convert_dtype(dtype);
            let before = data.as_bytes().as_ptr();
            let fitted = fit(data, &Device::flex()).unwrap();
            assert_eq!((fitted.dtype(), fitted.as_bytes().as_ptr()), (dtype, before));
        }
    }

    #[test]
    fn booleans_of_u32_are_converted() {
        let data = TensorData::new(vec![1_u32, 0, 1], [3]);
        let data = TensorData::try_from_bytes(data.into_bytes(), [3], DType::Bool(BoolStore::U32)).unwrap();
        assert_eq!(fit(data, &Device::flex()).unwrap(), TensorData::new(vec![true, false, true], [3]));
    }

    #[test]
    fn an_integer_that_does_not_fit_is_found() {
        let wide = TensorData::new(vec![1_i64, i64::from(i32::MIN), 1 << 31], [3]);
        assert_eq!(too_large(&wide, DType::I32), Some(1 << 31));
        assert_eq!(too_large(&wide, DType::I64), None);
        assert_eq!(too_large(&wide, DType::U32), Some(i128::from(i32::MIN)));
        let large = TensorData::new(vec![u64::MAX], [1]);
        assert_eq!(too_large(&large, DType::I64), Some(i128::from(u64::MAX)));
        assert_eq!(too_large(&large, DType::U64), None);
        assert_eq!(too_large(&TensorData::new(vec![255_u8], [1]), DType::I32), None);
    }
}
