//! Transposition of some rows into a panel: each row becomes a column.

use super::attention_tile::Lanes;
use crate::isa::Isa;
use crate::packed::PANEL;

/// Columns that are transposed at a time.
#[cfg(target_arch = "x86_64")]
const COLUMNS: usize = 8;

/// Writes the products of a factor with some rows, which are at a distance of `stride`, as columns of a panel. Its rows
/// are those of `panel`. Of its columns, the first `lanes` are written; those behind the last row repeat it.
pub(crate) fn transpose(
    isa: Isa,
    rows: &[f32],
    stride: usize,
    [count, lanes]: [usize; 2],
    factor: f32,
    panel: &mut [Lanes],
) {
    let width = panel.len();
    assert!(count > 0 && rows.len() >= (count - 1) * stride + width, "a row is outside of the elements");
    assert!(count <= lanes && lanes <= PANEL && lanes.is_multiple_of(PANEL / 2), "the panel has other columns");
    let done = transpose_columns(isa, rows, stride, [count, lanes], factor, panel);
    for (column, panel) in panel.iter_mut().enumerate().skip(done) {
        for (lane, place) in panel.0[..lanes].iter_mut().enumerate() {
            *place = rows[lane.min(count - 1) * stride + column] * factor;
        }
    }
}

/// Transposes the columns that the kernels of an instruction set can, and returns their number.
#[cfg(target_arch = "x86_64")]
fn transpose_columns(
    isa: Isa,
    rows: &[f32],
    stride: usize,
    [count, lanes]: [usize; 2],
    factor: f32,
    panel: &mut [Lanes],
) -> usize {
    if isa < Isa::Avx2 || !isa.is_present() {
        return 0;
    }
    let columns = panel.len() - panel.len() % COLUMNS;
    let start = |row: usize| rows[row.min(count - 1) * stride..][..columns].as_ptr();
    let mut lane = 0;
    while lane < lanes {
        let to = panel.as_mut_ptr().cast::<f32>().wrapping_add(lane);
        if isa >= Isa::Avx512 {
            let rows: [_; 16] = std::array::from_fn(|row| start(lane + row));
            // SAFETY: the processor has the instructions. `columns` elements are at the start of each row, and the
            // panel has as many rows. It has `PANEL` columns, and `lanes`, which are at most that, are 16 each time.
            unsafe { x86::transpose_512(&rows, columns, factor, to) };
            lane += rows.len();
        } else {
            let rows: [_; 8] = std::array::from_fn(|row| start(lane + row));
            // SAFETY: as above, with 8 of them.
            unsafe { x86::transpose_256(&rows, columns, factor, to) };
            lane += rows.len();
        }
    }
    columns
}

/// There are no such kernels.
#[cfg(not(target_arch = "x86_64"))]
fn transpose_columns(_: Isa, _: &[f32], _: usize, _: [usize; 2], _: f32, _: &mut [Lanes]) -> usize {
    0
}

#[cfg(target_arch = "x86_64")]
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "one proof is about all addresses of a kernel")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_castps_pd, _mm256_loadu_ps, _mm256_mul_ps, _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_castpd_ps,
        _mm512_castpd256_pd512, _mm512_insertf64x4, _mm512_mul_ps, _mm512_permutex2var_ps, _mm512_set1_ps,
        _mm512_setr_epi32, _mm512_setzero_ps, _mm512_shuffle_ps, _mm512_storeu_ps, _mm512_unpackhi_ps,
        _mm512_unpacklo_ps,
    };

    use super::{COLUMNS, PANEL};

    /// Transposes some columns of 16 rows.
    ///
    /// # Safety
    /// The processor has the instructions. `columns` elements, a multiple of 8, are at each address of a row, and at
    /// `to` are as many rows of a panel with 16 columns each, which may be written.
    #[target_feature(enable = "avx512f,avx2")]
    pub(super) unsafe fn transpose_512(rows: &[*const f32; 16], columns: usize, factor: f32, to: *mut f32) {
        let factor = _mm512_set1_ps(factor);
        let first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
        let second = _mm512_setr_epi32(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
        for begin in (0..columns).step_by(COLUMNS) {
            // Rows 0 to 7 in the lower halves, and rows 8 to 15 in the upper ones.
            let mut all = [_mm512_setzero_ps(); 8];
            for (row, both) in all.iter_mut().enumerate() {
                // SAFETY: 8 elements from `begin` on are those of each row.
                let (low, high) =
                    unsafe { (_mm256_loadu_ps(rows[row].add(begin)), _mm256_loadu_ps(rows[row + 8].add(begin))) };
                let low = _mm512_castpd256_pd512(_mm256_castps_pd(low));
                let halves = _mm512_insertf64x4::<1>(low, _mm256_castps_pd(high));
                *both = _mm512_mul_ps(_mm512_castpd_ps(halves), factor);
            }
            // Within each quarter of the vectors: 4 rows and 4 columns are transposed.
            let mut quarters = [_mm512_setzero_ps(); 8];
            for (all, quarters) in all.as_chunks::<4>().0.iter().zip(quarters.as_chunks_mut::<4>().0) {
                let low = [_mm512_unpacklo_ps(all[0], all[1]), _mm512_unpacklo_ps(all[2], all[3])];
                let high = [_mm512_unpackhi_ps(all[0], all[1]), _mm512_unpackhi_ps(all[2], all[3])];
                quarters[0] = _mm512_shuffle_ps::<0b01_00_01_00>(low[0], low[1]);
                quarters[1] = _mm512_shuffle_ps::<0b11_10_11_10>(low[0], low[1]);
                quarters[2] = _mm512_shuffle_ps::<0b01_00_01_00>(high[0], high[1]);
                quarters[3] = _mm512_shuffle_ps::<0b11_10_11_10>(high[0], high[1]);
            }
            for column in 0..4 {
                let (one, other) = (quarters[column], quarters[column + 4]);
                // SAFETY: both rows of the panel are below `columns`.
                unsafe {
                    let to = to.add((begin + column) * PANEL);
                    _mm512_storeu_ps(to, _mm512_permutex2var_ps(one, first, other));
                    _mm512_storeu_ps(to.add(4 * PANEL), _mm512_permutex2var_ps(one, second, other));
                }
            }
        }
    }

    /// Transposes some columns of 8 rows.
    ///
    /// # Safety
    /// That of [`transpose_512`], with 8 rows, and 8 columns of the panel.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn transpose_256(rows: &[*const f32; 8], columns: usize, factor: f32, to: *mut f32) {
        let factor = _mm256_set1_ps(factor);
        for begin in (0..columns).step_by(COLUMNS) {
            let mut all = [_mm256_setzero_ps(); 8];
            for (all, row) in all.iter_mut().zip(rows) {
                // SAFETY: 8 elements from `begin` on are those of each row.
                *all = _mm256_mul_ps(unsafe { _mm256_loadu_ps(row.add(begin)) }, factor);
            }
            // Within each half of the vectors: 4 rows and 4 columns are transposed.
            let mut halves = [_mm256_setzero_ps(); 8];
            for (all, halves) in all.as_chunks::<4>().0.iter().zip(halves.as_chunks_mut::<4>().0) {
                let low = [_mm256_unpacklo_ps(all[0], all[1]), _mm256_unpacklo_ps(all[2], all[3])];
                let high = [_mm256_unpackhi_ps(all[0], all[1]), _mm256_unpackhi_ps(all[2], all[3])];
                halves[0] = _mm256_shuffle_ps::<0b01_00_01_00>(low[0], low[1]);
                halves[1] = _mm256_shuffle_ps::<0b11_10_11_10>(low[0], low[1]);
                halves[2] = _mm256_shuffle_ps::<0b01_00_01_00>(high[0], high[1]);
                halves[3] = _mm256_shuffle_ps::<0b11_10_11_10>(high[0], high[1]);
            }
            for column in 0..4 {
                let (one, other) = (halves[column], halves[column + 4]);
                // SAFETY: both rows of the panel are below `columns`.
                unsafe {
                    let to = to.add((begin + column) * PANEL);
                    _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x20>(one, other));
                    _mm256_storeu_ps(to.add(4 * PANEL), _mm256_permute2f128_ps::<0x31>(one, other));
                }
            }
        }
    }
}
