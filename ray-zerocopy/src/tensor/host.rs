//! Conversion between tensors and bytes in host memory, without a copy where the backend allows it.

use std::sync::Arc;

use burn::backend::flex::{FlexQTensor, FlexTensor};
use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn::tensor::kind::Basic;
use burn::tensor::quantization::{QuantStore, QuantizedBytes};
use burn::tensor::{AllocationProperty, BoolStore, Bytes, DType, Device, Tensor, TensorData};

use super::convert::fit;
use super::dtype;
use super::kind::{Kind, TensorKind};
use super::source::{BlobSource, sample};

/// Whether tensors of a device are not in host memory, so that bytes are copied to it and back.
#[cfg_attr(feature = "libtorch", allow(deprecated, reason = "burn marks LibTorch as on its way out"))]
pub(crate) fn is_apart(device: &Device) -> bool {
    if *device == Device::flex() {
        return false;
    }
    #[cfg(feature = "libtorch")]
    if *device == Device::libtorch() {
        return false;
    }
    true
}

/// A flex tensor's storage as the owner of a byte slice.
struct Storage(Arc<Bytes>, usize);

impl AsRef<[u8]> for Storage {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// Returns the flex tensor behind a tensor, or `None` if it is on another backend.
fn flex<const D: usize, K: Basic>(tensor: &Tensor<D, K>) -> Option<FlexTensor> {
    match tensor.clone().into_dispatch().kind {
        DispatchTensorKind::Flex(tensor) => match tensor {
            BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor) => Some(tensor),
            BackendTensor::Quantized(tensor) => Some(tensor.tensor().clone()),
            #[allow(unreachable_patterns, reason = "burn's feature `autodiff` adds a variant")]
            _ => None,
        },
        #[allow(unreachable_patterns, reason = "each backend that is compiled in adds a variant")]
        _ => None,
    }
}

/// Returns the address of the storage that a tensor reads, or `None` if it is not in host memory.
pub(crate) fn address<const D: usize, K: Basic>(tensor: &Tensor<D, K>) -> Option<*const u8> {
    #[cfg(feature = "libtorch")]
    if let Some(address) = super::libtorch::device::address(tensor) {
        return Some(address);
    }
    flex(tensor).map(|tensor| tensor.bytes().as_ptr())
}

/// Returns the bytes of a tensor, little-endian and contiguous. Borrowed if the tensor has this
/// layout in memory, otherwise copied.
pub(crate) fn bytes<const D: usize, K: Kind>(tensor: &Tensor<D, K>) -> Result<Bytes, String> {
    if let Some(flex) = flex(tensor)
        && !matches!(tensor.dtype(), DType::QFloat(_))
        && flex.is_contiguous()
        && flex.layout().start_offset() == 0
    {
        let len = flex.layout().num_elements() * tensor.dtype().size();
        let storage = Storage(flex.data_arc(), len);
        return Ok(Bytes::from_shared(bytes::Bytes::from_owner(storage), AllocationProperty::Native));
    }
    let data = tensor.clone().try_into_data().map_err(|error| error.to_string())?;
    let data = match data.dtype() {
        words @ DType::Bool(BoolStore::U32) if words != dtype(tensor) => data.try_cast(dtype(tensor)),
        _ => Ok(data),
    };
    data.map(TensorData::into_bytes).map_err(|error| error.to_string())
}

/// Element type of the data returned by [`bytes()`]. Booleans are stored as one byte each, whatever
/// the device's encoding, since every reader supports that. Flex reports a boolean tensor as plain
/// integers after some operations, such as `select`.
pub(crate) fn dtype<const D: usize, K: Kind>(tensor: &Tensor<D, K>) -> DType {
    match (K::STORED, tensor.dtype()) {
        (TensorKind::Bool, DType::U8) => DType::Bool(BoolStore::U8),
        (_, DType::Bool(BoolStore::U32)) => DType::Bool(BoolStore::Native),
        (_, dtype) => dtype,
    }
}

/// A tensor as a source for the arena builder.
pub(crate) struct Stored<const D: usize, K: Kind>(pub(crate) Tensor<D, K>);

impl<const D: usize, K: Kind> BlobSource for Stored<D, K> {
    fn len(&self) -> usize {
        match dtype(&self.0) {
            // The scales are stored after the values.
            DType::QFloat(_) => bytes(&self.0).map_or(0, |bytes| bytes.len()),
            dtype => self.0.dims().iter().product::<usize>() * dtype.size(),
        }
    }

    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        sink(&bytes(&self.0)?)
    }

    fn sample(&self) -> Result<Vec<u8>, String> {
        Ok(sample(&bytes(&self.0)?))
    }

    fn identity(&self) -> Option<(usize, usize)> {
        // A quantised tensor consists of values and scales, and only the values have an address
        // here.
        if let DType::QFloat(_) = self.0.dtype() {
            return None;
        }
        let flex = flex(&self.0)?;
        // A transposed view has the same storage but another order of elements.
        flex.is_contiguous().then(|| (flex.bytes().as_ptr() as usize, flex.layout().start_offset()))
    }
}

/// Creates a tensor on `device` over shared bytes. Flex and LibTorch's CPU device read them in
/// place.
///
/// # Errors
/// If the bytes cannot be a tensor of this dtype and shape, or the device rejects them.
pub(crate) fn tensor<const D: usize, K: Kind>(
    bytes: Bytes,
    shape: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Tensor<D, K>, String> {
    if shape.len() != D {
        return Err(format!("a tensor of rank {D} is expected, and shape {shape:?} was found"));
    }
    // burn multiplies the dimensions unchecked, and its check of the length skips quantised data.
    dtype::fits(dtype, shape, bytes.len())?;
    // burn would create such a tensor, and panic in the first operation.
    if TensorKind::of(dtype) != K::STORED {
        return Err(format!("a tensor of kind {} has no elements of {}", K::STORED, dtype::name(dtype)));
    }
    let make = || {
        if let DType::QFloat(_) = dtype
            && *device == Device::flex()
            && let Some(tensor) = quantised(&bytes, shape, dtype)
        {
            return Ok(tensor);
        }
        let data = TensorData::try_from_bytes(bytes, shape.to_vec(), dtype).map_err(|error| error.to_string())?;
        let data = fit(data, device)?;
        #[cfg(feature = "libtorch")]
        if super::libtorch::device::borrows(&data, device) {
            return super::libtorch::device::borrowed(data);
        }
        let dtype = data.dtype();
        Ok(Tensor::from_data(data, (device, dtype)))
    };
    // burn panics if a device is out of memory, or does not support the quantisation.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)).map_err(|panic| {
        format!("{dtype:?} of shape {shape:?} cannot be made on this device: {}", crate::panics::message(&*panic))
    })?
}

/// Creates a quantised flex tensor over borrowed values. burn's own constructor unpacks them into a
/// new buffer. Stored values that are plain `i8`, the type that flex computes with, can be
/// borrowed. The scales are copied.
fn quantised<const D: usize, K: Basic>(bytes: &Bytes, shape: &[usize], dtype: DType) -> Option<Tensor<D, K>> {
    let DType::QFloat(scheme) = dtype else { return None };
    let elements: usize = shape.iter().product();
    let packed = QuantizedBytes { bytes: bytes.clone(), shape: shape.to_vec().into(), scheme };
    let (values, scales) = packed.into_vec_i8();
    let values: &[u8] = bytemuck::cast_slice(&values);
    if elements == 0 || bytes.len() < elements || bytes[..elements] != *values {
        return None;
    }
    let values = bytes.view(0, elements).ok()?;
    let values = FlexTensor::from_data(TensorData::try_from_bytes(values, shape.to_vec(), DType::I8).ok()?);
    let tensor = FlexQTensor::new(values, scheme.with_store(QuantStore::Native), scales.block, scales.global);
    let kind = DispatchTensorKind::Flex(BackendTensor::Quantized(tensor));
    Some(Tensor::from_dispatch(DispatchTensor { kind, autodiff: Default::default() }))
}

#[cfg(test)]
mod tests {
    use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue};
    use burn::tensor::{Bool, Bytes, DType, Device, Float, Tensor};

    use super::bytes;
    use super::dtype;
    use super::tensor;

    fn quantised(bytes: usize, shape: [usize; 2]) -> Result<Tensor<2, Float>, String> {
        let scheme = QuantScheme::default().with_value(QuantValue::Q8S).with_store(QuantStore::Native);
        tensor(Bytes::from_bytes_vec(vec![1; bytes]), &shape, DType::QFloat(scheme), &Device::flex())
    }

    #[test]
    fn booleans_that_are_called_bytes_are_booleans() {
        let bools = Tensor::<1, Bool>::from_data([true, false, true], &Device::flex());
        let picked = bools.select(0, Tensor::from_ints([2, 1], &Device::flex()));
        let found = tensor::<1, Bool>(bytes(&picked).unwrap(), &[2], dtype(&picked), &Device::flex()).unwrap();
        assert_eq!(found.into_data().iter::<bool>().collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn tensor_kind_must_match_its_elements() {
        let made = tensor::<1, Float>(Bytes::from_bytes_vec(vec![0; 8]), &[2], DType::I32, &Device::flex());
        assert_eq!(made.map(|tensor| tensor.dims()), Err("a tensor of kind float has no elements of I32".to_owned()));
    }

    #[test]
    fn quantised_bytes_must_fit_their_shape() {
        // Six values, and a scale of four bytes.
        assert_eq!(quantised(10, [2, 3]).map(|tensor| tensor.dims()), Ok([2, 3]));
        for bytes in [0, 3, 4, 9, 11, 100] {
            let error = quantised(bytes, [2, 3]).map(|tensor| tensor.dims()).unwrap_err();
            assert!(error.ends_with(&format!("of shape [2, 3] takes 10 bytes, and there are {bytes}")), "{error}");
        }
        let error = quantised(10, [usize::MAX, 3]).map(|tensor| tensor.dims()).unwrap_err();
        assert!(error.contains("more elements than there can be"), "{error}");
    }
}
