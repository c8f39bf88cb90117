//! The weight of a linear layer, and its packed forms.

use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData, bf16, f16};
use bytemuck::cast_slice;
use ray_zerocopy_kernels::{pack, pack_bf16, quantise_i4, quantise_i8_by};

use crate::arena::arena::Arena;
use crate::arena::manifest::TensorEntry;
use crate::jit::graph::weight_format::{WeightFormat, is_float};
use crate::tensor::quantised::{Scales, dequantised};
use crate::tensor::source::Sink;

/// A matrix of an arena, of `k` rows and `n` columns.
#[derive(Clone)]
pub(crate) struct Weight {
    bytes: bytes::Bytes,
    dtype: DType,
    /// Rows and columns as they are stored.
    stored: [usize; 2],
    /// Whether the matrix is stored by columns.
    is_transposed: bool,
}

impl Weight {
    /// The tensor of an entry. `None` if it is not a matrix of floats, or of integers that stand for floats.
    pub(crate) fn of(arena: &Arena, entry: &TensorEntry) -> Option<Self> {
        let stored = <[usize; 2]>::try_from(&entry.shape[..]).ok()?;
        (is_float(entry.dtype) || matches!(entry.dtype, DType::QFloat(_))).then(|| Self {
            bytes: arena.slice(entry.blob),
            dtype: entry.dtype,
            stored,
            is_transposed: false,
        })
    }

    /// The same elements, taken as the columns of the matrix if `is_transposed`.
    pub(crate) fn stored_by_columns(self, is_transposed: bool) -> Self {
        Self { is_transposed, ..self }
    }

    /// The form that holds the elements as they are, where `format` asks for 32 bits.
    pub(crate) fn lossless(&self, format: WeightFormat) -> WeightFormat {
        if format == WeightFormat::F32 && self.dtype == DType::BF16 { WeightFormat::Bf16 } else { format }
    }

    /// Number of rows.
    pub(crate) fn k(&self) -> usize {
        self.stored[usize::from(self.is_transposed)]
    }

    /// Number of columns.
    pub(crate) fn n(&self) -> usize {
        self.stored[usize::from(!self.is_transposed)]
    }

    /// The elements as they are stored: a copy where they are not 32-bit floats.
    ///
    /// # Errors
    /// If burn cannot read a quantised tensor.
    fn elements(&self) -> Result<Cow<'_, [f32]>, String> {
        Ok(match self.dtype {
            DType::BF16 => widened(&self.bytes, |bits| bf16::from_bits(bits).to_f32()),
            DType::F16 => widened(&self.bytes, |bits| f16::from_bits(bits).to_f32()),
            DType::QFloat(_) => {
                let bytes = Bytes::from_shared(self.bytes.clone(), AllocationProperty::Native);
                let floats = dequantised(TensorData::from_bytes(bytes, self.stored.to_vec(), self.dtype))?;
                Cow::Owned(bytemuck::pod_collect_to_vec(floats.as_bytes()))
            }
            _ => bytemuck::try_cast_slice(&self.bytes)
                .map_or_else(|_| Cow::Owned(bytemuck::pod_collect_to_vec(&self.bytes)), Cow::Borrowed),
        })
    }

    /// Calls a function with the function that returns the element in a row and a column.
    ///
    /// # Errors
    /// If burn cannot read a quantised tensor.
    pub(crate) fn with<R>(&self, function: impl FnOnce(&dyn Fn(usize, usize) -> f32) -> R) -> Result<R, String> {
        let (elements, [_, width]) = (self.elements()?, self.stored);
        Ok(if self.is_transposed {
            function(&|row, column| elements[column * width + row])
        } else {
            function(&|row, column| elements[row * width + column])
        })
    }

    /// Returns the function that returns the scale that all of some rows of a column have been quantised with, or
    /// `None` if there is no such scale.
    fn scales(&self) -> impl Fn(Range<usize>, usize) -> Option<f32> {
        let scales = match self.dtype {
            DType::QFloat(scheme) => Scales::of(&self.bytes, self.stored, scheme),
            _ => None,
        };
        let is_transposed = self.is_transposed;
        move |mut rows, column| {
            let scales = scales.as_ref()?;
            let at = |row| if is_transposed { scales.at(column, row) } else { scales.at(row, column) };
            let first = at(rows.start);
            rows.all(|row| at(row) == first).then_some(first)
        }
    }

    /// Computes a part of the packed form: see [`WeightFormat::parts`].
    ///
    /// # Errors
    /// That of the sink, or if burn cannot read a quantised tensor.
    pub(crate) fn pack(&self, format: WeightFormat, part: usize, sink: Sink<'_>) -> Result<(), String> {
        let (k, n) = (self.k(), self.n());
        match format {
            WeightFormat::F32 => sink(cast_slice(&self.with(|at| pack(k, n, at))?)),
            WeightFormat::Bf16 => sink(cast_slice(&self.with(|at| pack_bf16(k, n, at))?)),
            WeightFormat::Int4 => {
                let quantised = self.with(|at| quantise_i4(k, n, at))?;
                if part == 0 { sink(&quantised.panels) } else { sink(cast_slice(&quantised.scales)) }
            }
            WeightFormat::Int8 { block } => {
                let quantised = self.with(|at| quantise_i8_by(k, n, block, self.scales(), at))?;
                match part {
                    0 => sink(cast_slice(&quantised.panels)),
                    1 => sink(cast_slice(&quantised.scales)),
                    _ => sink(cast_slice(&quantised.sums)),
                }
            }
        }
    }
}

fn widened(bytes: &[u8], widen: impl Fn(u16) -> f32) -> Cow<'_, [f32]> {
    let (pairs, _) = bytes.as_chunks::<2>();
    Cow::Owned(pairs.iter().map(|pair| widen(u16::from_le_bytes(*pair))).collect())
}

#[cfg(test)]
mod tests {
    use burn::tensor::quantization::{
        Calibration, QuantScheme, QuantStore, QuantValue, ScaleDtype, compute_q_params, compute_range,
    };
    use burn::tensor::{Device, Tensor, TensorData};
    use ray_zerocopy_kernels::MOST_BLOCK;

    use super::Weight;
    use crate::jit::graph::weight_format::WeightFormat;

    const K: usize = 16;
    const N: usize = 32;

    /// The integers of burn by rows, its scale for each of them, and the weight.
    fn quantised(scheme: QuantScheme) -> (Vec<i8>, Weight) {
        let scheme = scheme.with_store(QuantStore::Native);
        let elements: Vec<_> = (0..K * N).map(|at| (at as f32 * 0.7).sin() * (1 + at / 9 % 5) as f32).collect();
        let tensor = Tensor::<2>::from_data(TensorData::new(elements, [K, N]), &Device::flex());
        let range = compute_range(&scheme, &tensor, &Calibration::MinMax);
        let data = tensor.quantize(&scheme, compute_q_params(&scheme, range)).into_data();
        let integers = data.as_bytes()[..K * N].iter().map(|byte| byte.cast_signed()).collect();
        let bytes = data.as_bytes().to_vec().into();
        (integers, Weight { bytes, dtype: data.dtype(), stored: [K, N], is_transposed: false })
    }

    fn pack(weight: &Weight, part: usize) -> Vec<u8> {
        let mut packed = Vec::new();
        let format = WeightFormat::Int8 { block: if weight.is_transposed { 16 } else { MOST_BLOCK } };
        weight
            .pack(format, part, &mut |bytes| {
                packed.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        packed
    }

    #[test]
    fn integers_of_burn_stay_as_they_are() {
        let scheme = QuantScheme::default().with_value(QuantValue::Q8S);
        let (integers, weight) = quantised(scheme);
        let packed = pack(&weight, 0);
        let at = |row: usize, column: usize| packed[row / 4 * N * 4 + column * 4 + row % 4].cast_signed();
        for (index, integer) in integers.iter().enumerate() {
            assert_eq!(at(index / N, index % N), *integer, "{index}");
        }
        // The last bytes of a quantised tensor are its scale.
        let scale = &weight.bytes[K * N..];
        assert!(pack(&weight, 1).chunks(4).all(|found| found == scale));

        // Blocks of a row are those of a column of the transposed matrix.
        let (integers, weight) = quantised(scheme.per_block([16], ScaleDtype::F32));
        let packed = pack(&weight.clone().stored_by_columns(true), 0);
        for (index, integer) in integers.iter().enumerate() {
            let (column, row) = (index / N, index % N);
            assert_eq!(packed[row / 4 * 32 * 4 + column * 4 + row % 4].cast_signed(), *integer, "{index}");
        }
        assert_ne!(pack(&weight, 0), packed, "columns have no such scales, and are quantised again");
    }
}
