//! Rows of `x` as 8-bit numbers or bf16, in memory that each thread keeps for its next product.

use std::cell::Cell;

use rayon::prelude::*;

use super::isa::Isa;
use super::sys;

/// Elements from which rows are quantised by several threads.
const PARALLEL: usize = 1 << 16;
/// Bytes of a cache line.
const LINE: usize = 64;

/// What the numbers of a row mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Unsigned numbers, from the least element of a block (or 0) to its greatest (or 0). The offset is the number that
    /// stands for 0.
    ///
    /// After an activation such as GELU most elements are positive, and signed numbers would leave almost half of the
    /// range unused. 0 is exact. A product has the sum of a column times the offset subtracted from it: one
    /// multiplication for each element of the result.
    Unsigned,
    /// Signed numbers from -127 to 127, as bits. The offset is the sum of the numbers times -8: weights of 4 bits are
    /// stored with 8 added to them.
    Signed,
    /// bf16 of two bytes each. There is neither a scale nor an offset.
    Rounded,
}

impl Form {
    /// Bytes of a number.
    fn bytes(self) -> usize {
        match self {
            Self::Unsigned | Self::Signed => 1,
            Self::Rounded => 2,
        }
    }
}

/// Rows of numbers of a form. Each block of a row has a scale and an offset.
#[derive(Debug, Default)]
pub(crate) struct QuantisedRows {
    values: Vec<u8>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
    stride: usize,
    blocks: usize,
}

impl QuantisedRows {
    /// Calls a function with this thread's memory. A call inside of it, on the same thread, gets new memory.
    pub(crate) fn with<R>(function: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static ROWS: Cell<QuantisedRows> = Cell::default();
        }
        let mut rows = ROWS.take();
        let result = function(&mut rows);
        ROWS.set(rows);
        result
    }

    /// Quantises rows of `k` elements in blocks of `block`. Rows are filled up with zeros to a multiple of 4 bytes.
    pub(crate) fn quantise(&mut self, isa: Isa, form: Form, x: &[f32], k: usize, block: usize, threads: usize) {
        let rows = x.len().checked_div(k).unwrap_or(0);
        // An odd number of cache lines: rows at a distance of a power of two would compete for the same lines.
        (self.stride, self.blocks) = (((k * form.bytes()).div_ceil(LINE) | 1) * LINE, k.div_ceil(block));
        self.values.resize(rows * self.stride, 0);
        self.scales.resize(rows * self.blocks, 0.0);
        self.offsets.resize(rows * self.blocks, 0);
        if rows == 0 {
            return;
        }
        let quantise = match form {
            Form::Unsigned => sys::quantise_u8,
            Form::Signed => sys::quantise_i8,
            Form::Rounded => sys::round_bf16,
        };
        if threads == 1 || x.len() < PARALLEL {
            let values = self.values.chunks_exact_mut(self.stride);
            let scales = self.scales.chunks_exact_mut(self.blocks);
            let offsets = self.offsets.chunks_exact_mut(self.blocks);
            for (((x, values), scales), offsets) in x.chunks_exact(k).zip(values).zip(scales).zip(offsets) {
                quantise(isa, x, block, values, scales, offsets);
            }
        } else {
            let values = self.values.par_chunks_exact_mut(self.stride);
            let scales = self.scales.par_chunks_exact_mut(self.blocks);
            let offsets = self.offsets.par_chunks_exact_mut(self.blocks);
            x.par_chunks_exact(k).zip(values).zip(scales).zip(offsets).for_each(|(((x, values), scales), offsets)| {
                quantise(isa, x, block, values, scales, offsets);
            });
        }
    }

    /// The bytes of a row from one of them on, and those behind them.
    pub(crate) fn values(&self, row: usize, from: usize) -> &[u8] {
        &self.values[row * self.stride + from..]
    }

    /// Distance between rows, in bytes.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The scales and offsets of the blocks of a row, and those of the rows behind it.
    pub(crate) fn blocks(&self, row: usize) -> (&[f32], &[i32]) {
        (&self.scales[row * self.blocks..], &self.offsets[row * self.blocks..])
    }

    /// The scale and the offset of a block of a row.
    pub(crate) fn scale(&self, row: usize, block: usize) -> (f32, i32) {
        (self.scales[row * self.blocks + block], self.offsets[row * self.blocks + block])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{numbers, present};
    use super::{Form, QuantisedRows};

    fn quantised(isa: super::Isa, x: &[f32], k: usize, block: usize, threads: usize) -> QuantisedRows {
        let mut rows = QuantisedRows::default();
        rows.quantise(isa, Form::Unsigned, x, k, block, threads);
        rows
    }

    #[test]
    fn values_are_within_half_a_step() {
        let (m, k, block) = (3, 53, 16);
        for isa in present() {
            for shift in [0.0, 0.9, -5.0] {
                let x: Vec<f32> = numbers(m * k, 5).iter().map(|x| x + shift).collect();
                let rows = quantised(isa, &x, k, block, 1);
                assert_eq!((rows.stride(), rows.blocks), (64, 4));
                for (at, x) in x.iter().enumerate() {
                    let (row, at) = (at / k, at % k);
                    let (scale, zero) = rows.scale(row, at / block);
                    let found = scale * (i32::from(rows.values(row, at)[0]) - zero) as f32;
                    assert!((found - x).abs() <= 0.5001 * scale, "{isa} {row} {at}: {found} {x}, a step is {scale}");
                    assert!(scale <= 2.0 * (1.0 + shift.abs()) / 255.0);
                }
                assert_eq!(rows.values(m - 1, k)[..3], [0; 3]);
            }
        }
    }

    #[test]
    fn all_instruction_sets_and_threads_give_the_same() {
        let (m, k) = (97, 1001);
        let x = numbers(m * k, 6);
        let first = quantised(super::Isa::Portable, &x, k, 128, 1);
        for isa in present() {
            for threads in [1, 2] {
                let other = quantised(isa, &x, k, 128, threads);
                assert_eq!(
                    (&first.values, &first.scales, &first.offsets),
                    (&other.values, &other.scales, &other.offsets)
                );
            }
        }
    }

    #[test]
    fn special_rows() {
        let most = f32::MAX;
        for isa in present() {
            let one = |x: &[f32]| {
                let rows = quantised(isa, x, x.len(), 1024, 1);
                (rows.values[..x.len()].to_vec(), rows.scales[0], rows.offsets[0])
            };
            assert_eq!(one(&[0.0; 20]), (vec![0; 20], f32::MIN_POSITIVE, 0));
            assert_eq!(one(&[255.0, 1.0, 0.0]), (vec![255, 1, 0], 1.0, 0));
            assert_eq!(one(&[-255.0, -1.0, 0.0]), (vec![0, 254, 255], 1.0, 255));
            // Ties go to the even number.
            assert_eq!(one(&[255.0, 0.5, 1.5, 2.5]), (vec![255, 0, 2, 2], 1.0, 0));
            // The range is larger than the largest number.
            let (values, scale, _) = one(&[most, -most, 0.0]);
            assert!(values == [255, 0, 128] && scale.is_finite(), "{values:?} {scale}");
            // The smallest number.
            let (values, scale, zero) = one(&[f32::from_bits(1), 0.0]);
            assert_eq!((values, scale, zero), (vec![0, 0], f32::MIN_POSITIVE, 0));
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 16, 36] {
                    let mut x = [1.0; 37];
                    x[at] = value;
                    let (values, scale, zero) = one(&x);
                    assert!(scale.is_nan() && zero == 0 && values == [0; 37], "{isa} {value} {at}");
                }
            }
        }
    }

    #[test]
    fn signed_rows() {
        for isa in present() {
            let mut rows = QuantisedRows::default();
            let x = [127.0, -1.0, 0.5, 1.5, 0.0, -254.0, 2.0];
            rows.quantise(isa, Form::Signed, &x, 7, 4, 1);
            let values: Vec<i8> = rows.values(0, 0)[..9].iter().map(|value| *value as i8).collect();
            assert_eq!(values, [127, -1, 0, 2, 0, -127, 1, 0, 0]);
            assert_eq!((rows.scale(0, 0), rows.scale(0, 1)), ((1.0, -8 * 128), (2.0, 8 * 126)));
            rows.quantise(isa, Form::Signed, &[f32::INFINITY, 1.0, 0.0, 0.0, 0.0], 5, 4, 1);
            assert!(rows.scale(0, 0).0.is_nan() && rows.scale(0, 0).1 == 0);
            assert_eq!(rows.scale(0, 1), (f32::MIN_POSITIVE, 0));
        }
    }

    #[test]
    fn a_call_inside_gets_its_own_memory() {
        QuantisedRows::with(|outer| {
            outer.quantise(super::Isa::Portable, Form::Unsigned, &[1.0, 2.0], 2, 4, 1);
            QuantisedRows::with(|inner| assert!(inner.values.is_empty()));
            assert_eq!(outer.values(0, 0)[1], 255);
        });
        QuantisedRows::with(|again| assert_eq!(again.values.len(), 64));
    }
}
