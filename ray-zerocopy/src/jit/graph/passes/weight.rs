//! The weight of a linear layer, and its packed forms.

use std::borrow::Cow;

use burn::tensor::{DType, bf16, f16};
use bytemuck::cast_slice;
use ray_zerocopy_kernels::{pack, pack_bf16, quantise_i4, quantise_i8};

use crate::arena::arena::Arena;
use crate::arena::manifest::TensorEntry;
use crate::jit::graph::weight_format::{WeightFormat, is_float};
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
    /// The tensor of an entry. `None` if it is not a matrix of floats.
    pub(crate) fn of(arena: &Arena, entry: &TensorEntry) -> Option<Self> {
        let stored = <[usize; 2]>::try_from(&entry.shape[..]).ok()?;
        is_float(entry.dtype).then(|| Self {
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
    fn elements(&self) -> Cow<'_, [f32]> {
        match self.dtype {
            DType::BF16 => widened(&self.bytes, |bits| bf16::from_bits(bits).to_f32()),
            DType::F16 => widened(&self.bytes, |bits| f16::from_bits(bits).to_f32()),
            _ => bytemuck::try_cast_slice(&self.bytes)
                .map_or_else(|_| Cow::Owned(bytemuck::pod_collect_to_vec(&self.bytes)), Cow::Borrowed),
        }
    }

    /// Calls a function with the function that returns the element in a row and a column.
    pub(crate) fn with<R>(&self, function: impl FnOnce(&dyn Fn(usize, usize) -> f32) -> R) -> R {
        let (elements, [_, width]) = (self.elements(), self.stored);
        if self.is_transposed {
            function(&|row, column| elements[column * width + row])
        } else {
            function(&|row, column| elements[row * width + column])
        }
    }

    /// Computes a part of the packed form: see [`WeightFormat::parts`].
    ///
    /// # Errors
    /// That of the sink.
    pub(crate) fn pack(&self, format: WeightFormat, part: usize, sink: Sink<'_>) -> Result<(), String> {
        let (k, n) = (self.k(), self.n());
        match format {
            WeightFormat::F32 => sink(cast_slice(&self.with(|at| pack(k, n, at)))),
            WeightFormat::Bf16 => sink(cast_slice(&self.with(|at| pack_bf16(k, n, at)))),
            WeightFormat::Int4 => {
                let quantised = self.with(|at| quantise_i4(k, n, at));
                if part == 0 { sink(&quantised.panels) } else { sink(cast_slice(&quantised.scales)) }
            }
            WeightFormat::Int8 { block } => {
                let quantised = self.with(|at| quantise_i8(k, n, block, at));
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
