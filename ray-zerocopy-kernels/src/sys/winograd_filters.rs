//! The transform of filters of 3 × 3 to 4 × 4 points.

use super::row_functions::for_each_isa;
use super::winograd::POINTS;
use crate::isa::Isa;

/// Filters at a time.
const WIDE: usize = 16;

/// Transforms filters: `rows` rows of `channels` filters of 9 elements. Writes point after point, each with the channels
/// of all rows.
pub(crate) fn transform_filters(isa: Isa, x: &[f32], rows: usize, channels: usize, y: &mut [f32]) {
    let count = rows * channels;
    assert!(x.len() == 9 * count && y.len() >= POINTS * count, "the filters do not have their size");
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 && isa.is_present() && count.is_multiple_of(WIDE) {
        // SAFETY: there are `count` filters and 16 times as many points, as was just asserted, and their number is a
        // multiple of 16. The processor has the instructions.
        return unsafe { x86::filters(x.as_ptr(), count, y.as_mut_ptr()) };
    }
    transform_any(isa, x, rows, channels, y);
}

for_each_isa!(
    /// See [`transform_filters`].
    transform_any = plain_transform_filters(x: &[f32], rows: usize, channels: usize, y: &mut [f32])
);

#[inline(always)]
fn plain_transform_filters(x: &[f32], rows: usize, channels: usize, y: &mut [f32]) {
    let plane = rows * channels;
    for row in 0..rows {
        for begin in (0..channels).step_by(WIDE) {
            let count = WIDE.min(channels - begin);
            let first = row * channels + begin;
            let filters = &x[first * 9..(first + count) * 9];
            let mut taps = [[0.0; WIDE]; 9];
            for (at, filter) in filters.as_chunks::<9>().0.iter().enumerate() {
                for tap in 0..9 {
                    taps[tap][at] = filter[tap];
                }
            }
            // Columns of three to columns of four, then rows.
            let mut columns = [[[0.0; WIDE]; 3]; 4];
            for column in 0..3 {
                let [upper, middle, lower] = [0, 1, 2].map(|row| taps[row * 3 + column]);
                for lane in 0..WIDE {
                    let (even, odd) = (0.5 * (upper[lane] + lower[lane]), 0.5 * middle[lane]);
                    columns[0][column][lane] = upper[lane];
                    columns[1][column][lane] = even + odd;
                    columns[2][column][lane] = even - odd;
                    columns[3][column][lane] = lower[lane];
                }
            }
            for (at, [left, middle, right]) in columns.iter().enumerate() {
                let mut points = [[0.0; WIDE]; 4];
                for lane in 0..WIDE {
                    let (even, odd) = (0.5 * (left[lane] + right[lane]), 0.5 * middle[lane]);
                    points[0][lane] = left[lane];
                    points[1][lane] = even + odd;
                    points[2][lane] = even - odd;
                    points[3][lane] = right[lane];
                }
                for (point, numbers) in points.iter().enumerate() {
                    let to = &mut y[(at * 4 + point) * plane + first..];
                    match to.first_chunk_mut::<WIDE>() {
                        Some(to) if count == WIDE => *to = *numbers,
                        _ => to[..count].copy_from_slice(&numbers[..count]),
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512, __m512i, _mm512_add_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_permutex2var_ps,
        _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
    };

    use super::WIDE;

    /// Elements of a filter.
    const TAPS: usize = 9;

    /// For each element of a filter, and each vector of filters but the first one: which elements of the two vectors
    /// are taken, of those that were collected and of the next vector.
    const CHOICES: [[[i32; WIDE]; TAPS - 1]; TAPS] = choices();

    const fn choices() -> [[[i32; WIDE]; TAPS - 1]; TAPS] {
        let mut all = [[[0; WIDE]; TAPS - 1]; TAPS];
        let mut at = 0;
        while at < TAPS * (TAPS - 1) * WIDE {
            let (tap, step, lane) = (at / WIDE / (TAPS - 1), at / WIDE % (TAPS - 1), at % WIDE);
            let place = TAPS * lane + tap;
            let (vector, inside) = (place / WIDE, place % WIDE);
            all[tap][step][lane] = if vector == step + 1 {
                (WIDE + inside) as i32
            } else if step == 0 && vector == 0 {
                inside as i32
            } else {
                lane as i32
            };
            at += 1;
        }
        all
    }

    /// Elements of three to four.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transform([first, second, third]: [__m512; 3]) -> [__m512; 4] {
        let half = _mm512_set1_ps(0.5);
        let (even, odd) = (_mm512_mul_ps(half, _mm512_add_ps(first, third)), _mm512_mul_ps(half, second));
        [first, _mm512_add_ps(even, odd), _mm512_sub_ps(even, odd), third]
    }

    /// Transforms a multiple of 16 filters.
    ///
    /// # Safety
    /// The processor has the instructions. At `x` are `count` filters, and at `y` 16 times as many elements may be written.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn filters(x: *const f32, count: usize, y: *mut f32) {
        for filter in (0..count).step_by(WIDE) {
            // SAFETY: 16 filters are 9 vectors.
            let first = unsafe { x.add(TAPS * filter) };
            let mut taps = [_mm512_set1_ps(0.0); TAPS];
            for (tap, choices) in taps.iter_mut().zip(&CHOICES) {
                // SAFETY: as above.
                *tap = unsafe { _mm512_loadu_ps(first) };
                for (step, choice) in choices.iter().enumerate() {
                    // SAFETY: as above.
                    let next = unsafe { _mm512_loadu_ps(first.wrapping_add((step + 1) * WIDE)) };
                    // SAFETY: a choice has 16 elements.
                    let choice: __m512i = unsafe { _mm512_loadu_si512(choice.as_ptr().cast()) };
                    *tap = _mm512_permutex2var_ps(*tap, choice, next);
                }
            }
            let columns = [0, 1, 2].map(|column| transform([taps[column], taps[column + 3], taps[column + 6]]));
            for row in 0..4 {
                let points = transform(columns.map(|column| column[row]));
                for (column, point) in points.into_iter().enumerate() {
                    let to = y.wrapping_add((row * 4 + column) * count + filter);
                    // SAFETY: each point has an element for each filter.
                    unsafe { _mm512_storeu_ps(to, point) };
                }
            }
        }
    }
}
