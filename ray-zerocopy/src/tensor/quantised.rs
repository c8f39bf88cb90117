//! burn's quantised tensors: integers with scales, and the floats that they stand for.
//!
//! burn's capture device has no quantised tensors. A pipeline that is loaded there gets floats in their place, which are
//! remembered: the graph has the quantised tensor.

use std::cell::RefCell;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::tensor::quantization::{QuantScheme, QuantValue, QuantizedBytes};
use burn::tensor::{AllocationProperty, Bytes, DType, FloatDType, TensorData};
use burn_backend::ops::QTensorOps;

use super::dtype;
use crate::panics;

/// Returns the floats that a quantised tensor stands for, as burn computes them.
///
/// # Errors
/// If the tensor is not quantised, or burn cannot read it.
pub(crate) fn dequantised(data: TensorData) -> Result<TensorData, String> {
    let DType::QFloat(_) = data.dtype() else { return Err("it is not quantised".to_owned()) };
    dtype::fits(data.dtype(), &data.shape().to_vec(), data.as_bytes().len())?;
    panics::caught(|| {
        let tensor = <Flex as QTensorOps<Flex>>::q_from_data(data, &FlexDevice);
        <Flex as QTensorOps<Flex>>::dequantize(tensor, FloatDType::F32).into_data()
    })
}

/// Address and length of a tensor's bytes.
pub(crate) type Place = (usize, usize);

thread_local! {
    static REPLACED: RefCell<Option<Vec<(Place, Place)>>> = const { RefCell::new(None) };
}

/// The place of bytes.
pub(crate) fn place(bytes: &[u8]) -> Place {
    (bytes.as_ptr() as usize, bytes.len())
}

/// Calls a function. Returns what [`replaced`] has made in it: the places of floats, and of the quantised tensors that
/// they stand for.
pub(crate) fn recorded<R>(function: impl FnOnce() -> R) -> (R, Vec<(Place, Place)>) {
    REPLACED.set(Some(Vec::new()));
    let result = function();
    (result, REPLACED.take().unwrap_or_default())
}

/// The owner of shared bytes.
struct Floats(Bytes);

impl AsRef<[u8]> for Floats {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Returns floats for a quantised tensor, for a device that has none.
///
/// # Errors
/// As [`dequantised`].
pub(super) fn replaced(data: TensorData) -> Result<TensorData, String> {
    let from = place(data.as_bytes());
    let floats = dequantised(data)?;
    let shape = floats.shape().to_vec();
    // Shared bytes stay where they are.
    let bytes = bytes::Bytes::from_owner(Floats(floats.into_bytes()));
    let to = place(&bytes);
    REPLACED.with_borrow_mut(|made| made.iter_mut().for_each(|made| made.push((to, from))));
    Ok(TensorData::from_bytes(Bytes::from_shared(bytes, AllocationProperty::Native), shape, DType::F32))
}

/// The scales of a quantised matrix.
pub(crate) struct Scales {
    scales: Vec<f32>,
    global: f32,
    /// Extents of the blocks that have one scale each.
    block: [usize; 2],
    /// Number of blocks in a row.
    blocks: usize,
}

impl Scales {
    /// The scales of a matrix whose integers are at most 127 in absolute value. `None` for others.
    pub(crate) fn of(bytes: &[u8], shape: [usize; 2], scheme: QuantScheme) -> Option<Self> {
        if !matches!(scheme.value, QuantValue::Q8S | QuantValue::Q4S | QuantValue::Q2S) {
            return None;
        }
        dtype::fits(DType::QFloat(scheme), &shape, bytes.len()).ok()?;
        let block = match dtype::block(&scheme).ok()? {
            None => shape.map(|extent| extent.max(1)),
            // A block may omit leading dimensions of extent 1.
            Some(extents) => match extents[..] {
                [columns] => [1, columns.into()],
                [rows, columns] => [rows.into(), columns.into()],
                _ => return None,
            },
        };
        let packed = QuantizedBytes { bytes: Bytes::from_bytes_vec(bytes.to_vec()), shape: shape.into(), scheme };
        let (_, decoded) = panics::caught(|| packed.into_vec_i8()).ok()?;
        let blocks = shape[1].div_ceil(block[1]);
        let is_whole = decoded.block.len() == blocks * shape[0].div_ceil(block[0]);
        is_whole.then_some(Self { scales: decoded.block, global: decoded.global.unwrap_or(1.0), block, blocks })
    }

    /// The scale of an element.
    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        self.global * self.scales[row / self.block[0] * self.blocks + column / self.block[1]]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::quantization::{
        Calibration, QuantScheme, QuantStore, QuantValue, ScaleDtype, compute_q_params, compute_range,
    };
    use burn::tensor::{DType, Device, Tensor, TensorData};

    use super::{Scales, dequantised};

    fn quantised(scheme: QuantScheme) -> (Tensor<2>, TensorData) {
        let elements: Vec<_> = (0..64).map(|number| (number as f32 * 0.7).sin() * (1 + number % 5) as f32).collect();
        let tensor = Tensor::<2>::from_data(TensorData::new(elements, [4, 16]), &Device::flex());
        let range = compute_range(&scheme, &tensor, &Calibration::MinMax);
        let quantised = tensor.quantize(&scheme, compute_q_params(&scheme, range));
        (quantised.clone().dequantize(), quantised.into_data())
    }

    #[test]
    fn floats_are_those_of_burn_and_products_of_the_scales() {
        let whole = QuantScheme::default().with_value(QuantValue::Q8S).with_store(QuantStore::Native);
        for scheme in [whole, whole.per_block([8], ScaleDtype::F32), whole.per_block([2, 4], ScaleDtype::F32)] {
            let (expected, data) = quantised(scheme);
            let DType::QFloat(found) = data.dtype() else { panic!("{:?}", data.dtype()) };
            let scales = Scales::of(data.as_bytes(), [4, 16], found).unwrap();
            let integers: Vec<i8> = data.as_bytes()[..64].iter().map(|byte| byte.cast_signed()).collect();
            let products: Vec<_> = (0..64).map(|at| scales.at(at / 16, at % 16) * f32::from(integers[at])).collect();
            let floats = dequantised(data).unwrap();
            assert_eq!(floats, expected.into_data());
            assert_eq!(floats, TensorData::new(products, [4, 16]));
        }
    }

    #[test]
    fn other_tensors_are_an_error() {
        assert_eq!(dequantised(TensorData::from([1.0_f32])).unwrap_err(), "it is not quantised");
        let (_, data) = quantised(QuantScheme::default().with_value(QuantValue::Q8F).with_store(QuantStore::Native));
        let DType::QFloat(scheme) = data.dtype() else { panic!("{:?}", data.dtype()) };
        assert!(Scales::of(data.as_bytes(), [4, 16], scheme).is_none(), "-128 is one of its integers");
        let scheme = scheme.with_value(QuantValue::Q8S);
        assert!(Scales::of(&data.as_bytes()[1..], [4, 16], scheme).is_none(), "a byte is missing");
    }
}
