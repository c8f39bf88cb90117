//! Conversion of rows to 8-bit numbers and back, and to bf16, compiled for each instruction set.
//!
//! The operations are the same for all instruction sets, so the results are the same to the last bit.

use super::columns::Columns;
use super::row_functions::{for_each_isa, reduce};
use super::tile_i8::SumsI8;
use crate::bf16::round;
use crate::isa::Isa;
use crate::packed::PANEL;
use crate::packed_i8::scale;
use crate::quantised_rows::QuantisedRows;

for_each_isa!(
    /// Quantises the blocks of a row to unsigned numbers. The lengths fit.
    quantise_u8 = plain_quantise_u8(x: &[f32], block: usize, values: &mut [u8], scales: &mut [f32], zeros: &mut [i32])
);
for_each_isa!(
    /// Quantises the blocks of a row to signed numbers, as bits. The lengths fit.
    quantise_i8 = plain_quantise_i8(x: &[f32], block: usize, values: &mut [u8], scales: &mut [f32], offsets: &mut [i32])
);
for_each_isa!(
    /// Rounds a row to bf16. The lengths fit.
    round_bf16 = plain_round_bf16(x: &[f32], block: usize, values: &mut [u8], scales: &mut [f32], offsets: &mut [i32])
);
for_each_isa!(
    /// Converts the sums of a tile to elements of the result.
    dequantise_u8 = plain_dequantise_u8(sums: &SumsI8, scaling: &Scaling<'_>, y: &mut Columns<'_>)
);

/// What makes elements of the sums of a tile.
pub(crate) struct Scaling<'a> {
    /// The rows of `x`.
    pub(crate) rows: &'a QuantisedRows,
    /// The first row of the tile.
    pub(crate) row: usize,
    /// The block of the rows.
    pub(crate) block: usize,
    /// The scale and the sum of each column.
    pub(crate) columns: (&'a [f32; PANEL], &'a [i32; PANEL]),
}

/// 1.5 · 2^23. A number in this range has no fraction, so an addition rounds to an integer, ties to the even one.
const ROUND: f32 = 12_582_912.0;

/// The integer next to `x`, which is between -2^22 and 2^22.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

#[inline(always)]
fn plain_quantise_u8(x: &[f32], block: usize, values: &mut [u8], scales: &mut [f32], zeros: &mut [i32]) {
    let blocks = x.chunks(block).zip(values.chunks_mut(block)).zip(scales).zip(zeros);
    for (((x, values), scale_of_block), zero) in blocks {
        // A comparison with NaN is false. The sum of the products with 0 has NaN for NaN and infinity.
        let least = reduce(x, 0.0, |all, one| if one < all { one } else { all });
        let most = reduce(x, 0.0, |all, one| if one > all { one } else { all });
        let broken = reduce(x, 0.0, |all, one| all + one * 0.0);
        if broken.is_nan() {
            values.fill(0);
            (*scale_of_block, *zero) = (f32::NAN, 0);
            continue;
        }
        // Half of the range, which is finite.
        let step = scale(most * 0.5 - least * 0.5, 127.5);
        let inverse = 1.0 / step;
        let offset = nearest(-least * inverse);
        let (values, rest) = values.split_at_mut(x.len());
        for (value, x) in values.iter_mut().zip(x) {
            *value = nearest(x * inverse + offset as f32).clamp(0, 255) as u8;
        }
        rest.fill(0);
        (*scale_of_block, *zero) = (step, offset);
    }
}

#[inline(always)]
fn plain_quantise_i8(x: &[f32], block: usize, values: &mut [u8], scales: &mut [f32], offsets: &mut [i32]) {
    let blocks = x.chunks(block).zip(values.chunks_mut(block)).zip(scales).zip(offsets);
    for (((x, values), scale_of_block), offset) in blocks {
        let most = reduce(x, 0.0, |all, one| if one.abs() > all { one.abs() } else { all });
        let broken = reduce(x, 0.0, |all, one| all + one * 0.0);
        if broken.is_nan() {
            values.fill(0);
            (*scale_of_block, *offset) = (f32::NAN, 0);
            continue;
        }
        let step = scale(most, 127.0);
        let inverse = 1.0 / step;
        let (values, rest) = values.split_at_mut(x.len());
        let mut sum = 0;
        for (value, x) in values.iter_mut().zip(x) {
            let number = nearest(x * inverse).clamp(-127, 127);
            sum += number;
            *value = number as u8;
        }
        rest.fill(0);
        (*scale_of_block, *offset) = (step, -8 * sum);
    }
}

#[inline(always)]
fn plain_round_bf16(x: &[f32], _block: usize, values: &mut [u8], _scales: &mut [f32], _offsets: &mut [i32]) {
    let (values, rest) = values.split_at_mut(x.len() * 2);
    for (value, x) in values.as_chunks_mut().0.iter_mut().zip(x) {
        *value = round(*x).to_ne_bytes();
    }
    rest.fill(0);
}

#[inline(always)]
fn plain_dequantise_u8(sums: &SumsI8, scaling: &Scaling<'_>, y: &mut Columns<'_>) {
    let adds = scaling.block > 0;
    let (scales, column_sums) = scaling.columns;
    for (at, sums) in sums.iter().enumerate().take(y.rows()) {
        let (row_scale, zero) = scaling.rows.scale(scaling.row + at, scaling.block);
        let element = |column: usize| {
            // The difference fits, but the column sum may be any number of a damaged file.
            let difference = sums[column].wrapping_sub(zero.wrapping_mul(column_sums[column]));
            difference as f32 * (row_scale * scales[column])
        };
        let row = y.row(at);
        if let Some(row) = row.as_mut_array::<PANEL>() {
            // The number of columns is a constant here, so the compiler uses vectors alone.
            store(row, adds, element);
        } else {
            store(row, adds, element);
        }
    }
}

/// Writes the elements of a row, or adds them to it.
#[inline(always)]
fn store(row: &mut [f32], adds: bool, element: impl Fn(usize) -> f32) {
    if adds {
        row.iter_mut().enumerate().for_each(|(column, y)| *y += element(column));
    } else {
        row.iter_mut().enumerate().for_each(|(column, y)| *y = element(column));
    }
}
