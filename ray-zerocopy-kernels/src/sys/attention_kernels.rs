//! Kernels of an attention: products, softmax and transposition, generic in their vectors.
//!
//! Scores are stored by keys: a row has the scores of one key with 32 rows of `q` side by side. So a softmax computes
//! with whole vectors, without sums or maxima inside of one, and neither the keys nor the values are packed.

#![expect(clippy::multiple_unsafe_ops_per_block, reason = "one proof is about all addresses of a kernel")]

use super::vector::Vector;
use crate::packed::PANEL;

/// Computes `ROWS` rows and `VECTORS` vectors of columns of a product of `x` and `panel`, each row of which is
/// multiplied with one column of `x`. The rows of `panel` and `y` are at distances of `panel_stride` and `y_stride`.
///
/// Rows of `x` are at a distance of `stride`. If `x` is `TRANSPOSED`, its columns are at a distance of [`PANEL`]
/// instead, with the elements of all rows side by side, and each row of the result is multiplied with its factor.
///
/// # Safety
/// The processor has the instructions. All addresses are those of elements: `ROWS` rows and `depth` columns of `x`,
/// `depth` rows of `panel` and `ROWS` rows of `y` with the columns of the vectors, and `ROWS` factors if `x` is
/// `TRANSPOSED`. Those of `y` may be written.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices, a result and their distances")]
pub(super) unsafe fn product<V: Vector, const ROWS: usize, const VECTORS: usize, const TRANSPOSED: bool>(
    x: *const f32,
    stride: usize,
    panel: *const f32,
    panel_stride: usize,
    depth: usize,
    y: *mut f32,
    y_stride: usize,
    factors: *const f32,
) {
    // SAFETY: the addresses are those of rows below `ROWS`, columns of `x` below `depth`, and columns of `panel` and
    // `y` below those of `VECTORS` vectors.
    unsafe {
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        for at in 0..depth {
            let from = panel.add(at * panel_stride);
            let mut vectors = [V::splat(0.0); VECTORS];
            for (part, vector) in vectors.iter_mut().enumerate() {
                *vector = V::load(from.add(part * V::LANES));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let place = if TRANSPOSED { at * PANEL + row } else { row * stride + at };
                let element = V::splat(*x.add(place));
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = element.multiply_add(vector, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (part, sum) in sums.iter().enumerate() {
                let sum = if TRANSPOSED { sum.mul(V::splat(*factors.add(row))) } else { *sum };
                sum.store(y.add(row * y_stride + part * V::LANES));
            }
        }
    }
}

/// `2^x` of numbers that are not greater than 0. Results below the smallest normal number are 0, and NaN remains NaN.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
unsafe fn power<V: Vector>(x: V) -> V {
    /// Added to a number, it leaves the next integer in the last bits, with the bias of an exponent.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    const LEAST: f32 = -126.0;
    /// Those of Cephes' `exp2f`, for -0.5 to 0.5.
    const SERIES: [f32; 6] =
        [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1];
    // SAFETY: the caller guarantees it.
    unsafe {
        let rounded = x.add(V::splat(ROUND));
        let rest = x.sub(rounded.sub(V::splat(ROUND)));
        let mut series = V::splat(SERIES[0]);
        for coefficient in &SERIES[1..] {
            series = series.multiply_add(rest, V::splat(*coefficient));
        }
        series = series.multiply_add(rest, V::splat(1.0));
        series.mul(rounded.shift_mantissa()).zero_if_less(x, V::splat(LEAST))
    }
}

/// Replaces the scores of some rows of `q` by powers of 2, and finds the factors that make their sums 1. The score of
/// a key that is left out is `fill`: of those in `out` for all rows, and of those whose byte in `mask` is not 0. If
/// all scores of a row are `-∞`, its powers and its factor are 0.
///
/// # Safety
/// The processor has the instructions. At `scores` are `keys` rows of [`PANEL`] elements, at `factors` are `lanes`
/// elements, and at `mask` are `keys` rows of [`PANEL`] bytes, unless it is null. `lanes` are whole vectors, and at
/// most [`PANEL`]. The elements of `out` are below `keys`.
#[inline(always)]
pub(super) unsafe fn softmax<V: Vector>(
    scores: *mut f32,
    keys: usize,
    lanes: usize,
    out: &[usize],
    mask: *const u8,
    fill: f32,
    factors: *mut f32,
) {
    // SAFETY: all keys are below `keys`, and all lanes below `lanes`.
    unsafe {
        for lane in (0..lanes).step_by(V::LANES) {
            let (scores, factors) = (scores.add(lane), factors.add(lane));
            for key in out {
                V::splat(fill).store(scores.add(key * PANEL));
            }
            if mask.is_null() {
                softmax_of_vectors::<V, false>(scores, keys, mask, fill, factors);
            } else {
                softmax_of_vectors::<V, true>(scores, keys, mask.add(lane), fill, factors);
            }
        }
    }
}

/// [`softmax`] of the rows of `q` in one vector.
///
/// # Safety
/// That of [`softmax`], for the elements of a vector. If it is `MASKED`, there is a mask.
#[inline(always)]
unsafe fn softmax_of_vectors<V: Vector, const MASKED: bool>(
    scores: *mut f32,
    keys: usize,
    mask: *const u8,
    fill: f32,
    factors: *mut f32,
) {
    // SAFETY: all keys are below `keys`.
    unsafe {
        // Two of them: an instruction waits for the one before it with the same result.
        let mut most = [V::splat(f32::NEG_INFINITY); 2];
        let mut key = 0;
        while key < keys {
            // The last one again, if their number is odd.
            let next = (key + 1).min(keys - 1);
            for (most, key) in most.iter_mut().zip([key, next]) {
                *most = score::<V, MASKED>(scores, key, mask, fill).max(*most);
            }
            key += 2;
        }
        // If all scores are `-∞`, the differences are not NaN.
        let most = most[0].max(most[1]).max(V::splat(f32::MIN));
        let mut sum = V::splat(0.0);
        for key in 0..keys {
            let power = power(score::<V, MASKED>(scores, key, mask, fill).sub(most));
            power.store(scores.add(key * PANEL));
            sum = sum.add(power);
        }
        let factor = V::splat(1.0).div(sum).zero_if_less(sum, V::splat(f32::MIN_POSITIVE));
        factor.store(factors);
    }
}

/// Reads the scores of a key. A mask is applied each time: if its result was stored, compilers would use a masked
/// store, which took longer with AVX2 than everything else in a softmax.
///
/// # Safety
/// That of [`softmax_of_vectors`], for this key.
#[inline(always)]
unsafe fn score<V: Vector, const MASKED: bool>(scores: *const f32, key: usize, mask: *const u8, fill: f32) -> V {
    // SAFETY: the caller guarantees it.
    unsafe {
        let score = V::load(scores.add(key * PANEL));
        if MASKED { score.replace(mask.add(key * PANEL), V::splat(fill)) } else { score }
    }
}
