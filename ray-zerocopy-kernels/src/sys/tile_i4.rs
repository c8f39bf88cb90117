//! A tile of a product of 8-bit and 4-bit numbers: some rows of `x`, and a panel.

use crate::bf16::widen;
use crate::isa::Isa;
use crate::packed::PANEL;
use crate::packed_i4::I4_BLOCK;
use crate::quantised_rows::QuantisedRows;

/// The most rows of a tile: with 32 columns, their sums take 24 of the 32 vectors of AVX-512.
pub(crate) const MOST_ROWS_I4: usize = 6;
/// Bytes of a block of a panel.
const BYTES: usize = I4_BLOCK * PANEL / 2;

/// The elements of a tile.
pub(crate) type ElementsI4 = [[f32; PANEL]; MOST_ROWS_I4];

/// Rows of `x` and a panel.
pub(crate) struct TileI4<'a> {
    /// Signed numbers.
    pub(crate) x: &'a QuantisedRows,
    /// The first row of `x`.
    pub(crate) row: usize,
    /// The blocks of the panel.
    pub(crate) panel: &'a [[u8; BYTES]],
    /// The scales of each block.
    pub(crate) scales: &'a [[u16; PANEL]],
    /// Number of rows of `x`: from 1 to [`MOST_ROWS_I4`].
    pub(crate) rows: usize,
}

impl TileI4<'_> {
    /// Computes the product. The order of the operations is the same for all instruction sets.
    pub(crate) fn multiply(&self, isa: Isa, y: &mut ElementsI4) {
        let blocks = self.panel.len();
        if blocks == 0 {
            return y.as_flattened_mut().fill(0.0);
        }
        let values = self.x.values(self.row, 0);
        let (scales, offsets) = self.x.blocks(self.row);
        let reads = (self.rows - 1) * self.x.stride() + blocks * I4_BLOCK;
        assert!((1..=MOST_ROWS_I4).contains(&self.rows) && self.scales.len() == blocks);
        assert!(values.len() >= reads, "a row of x is outside of it");
        assert!(scales.len() >= self.rows * blocks && offsets.len() >= self.rows * blocks);
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 && isa.is_present() {
            let kernels = if isa >= Isa::Avx512Vnni { &x86::VNNI } else { &x86::AVX2 };
            let operands = x86::Operands {
                x: values.as_ptr().cast(),
                stride: self.x.stride(),
                x_scales: scales.as_ptr(),
                offsets: offsets.as_ptr(),
                panel: self.panel.as_ptr().cast(),
                scales: self.scales.as_ptr().cast(),
                blocks,
            };
            // SAFETY: the rows of `x` have these blocks, with scales and offsets, as has the panel, and `y` has the
            // rows of the tile. The processor has the instructions.
            return unsafe { kernels[self.rows - 1](&operands, y.as_mut_ptr().cast()) };
        }
        let _ = isa;
        for (row, y) in y.iter_mut().take(self.rows).enumerate() {
            let values = &values[row * self.x.stride()..];
            self.portable(values, &scales[row * blocks..], &offsets[row * blocks..], y);
        }
    }

    fn portable(&self, x: &[u8], x_scales: &[f32], offsets: &[i32], y: &mut [f32; PANEL]) {
        y.fill(0.0);
        let x = x.as_chunks::<I4_BLOCK>().0.iter().zip(x_scales).zip(offsets);
        for (((x, x_scale), offset), (panel, scales)) in x.zip(self.panel.iter().zip(self.scales)) {
            let mut sums = [*offset; PANEL];
            for (x, panel) in x.as_chunks::<8>().0.iter().zip(panel.chunks_exact(PANEL * 4)) {
                let x = x.map(|value| i32::from(value as i8));
                for (sum, bytes) in sums.iter_mut().zip(panel.as_chunks::<4>().0) {
                    for (place, byte) in bytes.iter().enumerate() {
                        *sum += x[place] * i32::from(byte & 15) + x[4 + place] * i32::from(byte >> 4);
                    }
                }
            }
            for ((y, sum), scale) in y.iter_mut().zip(sums).zip(scales) {
                *y += sum as f32 * (x_scale * widen(*scale));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "one proof is about all addresses of a kernel")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
        _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_ps, _mm512_add_ps,
        _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_srli_epi16, _mm512_storeu_ps,
    };

    use super::super::kernels::x86::{load_bf16_256, load_bf16_512};
    use super::{BYTES, I4_BLOCK, MOST_ROWS_I4, PANEL};

    /// What a kernel reads.
    pub(super) struct Operands {
        pub(super) x: *const i8,
        /// Distance between rows of `x`.
        pub(super) stride: usize,
        /// A scale for each block of each row of `x`.
        pub(super) x_scales: *const f32,
        /// An offset for each block of each row of `x`.
        pub(super) offsets: *const i32,
        pub(super) panel: *const u8,
        /// 32 scales for each block of the panel.
        pub(super) scales: *const u16,
        pub(super) blocks: usize,
    }

    /// A kernel for a number of rows: what it reads, and the elements of the result.
    type Kernel = unsafe fn(&Operands, *mut f32);

    /// The kernels for 1 to [`MOST_ROWS_I4`] rows.
    pub(super) const VNNI: [Kernel; MOST_ROWS_I4] = [vnni::<1>, vnni::<2>, vnni::<3>, vnni::<4>, vnni::<5>, vnni::<6>];
    pub(super) const AVX2: [Kernel; MOST_ROWS_I4] = [avx2::<1>, avx2::<2>, avx2::<3>, avx2::<4>, avx2::<5>, avx2::<6>];

    /// Computes `ROWS` rows and 32 columns in two vectors.
    ///
    /// # Safety
    /// The processor has the instructions. The operands have the blocks of `ROWS` rows and of a panel. At `y` are
    /// `ROWS` rows of 32 elements, which may be written.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn vnni<const ROWS: usize>(operands: &Operands, y: *mut f32) {
        let Operands { x, stride, x_scales, offsets, panel, scales, blocks } = *operands;
        let half = _mm512_set1_epi8(15);
        let mut all = [[_mm512_setzero_ps(); 2]; ROWS];
        // SAFETY: all addresses are inside of what the caller guarantees: rows below `ROWS`, blocks below `blocks`,
        // columns below two vectors.
        unsafe {
            for block in 0..blocks {
                let mut sums = [[_mm512_set1_epi32(0); 2]; ROWS];
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = [_mm512_set1_epi32(*offsets.add(row * blocks + block)); 2];
                }
                for part in 0..I4_BLOCK / 8 {
                    let bytes = panel.add(block * BYTES + part * PANEL * 4);
                    let bytes = [_mm512_loadu_si512(bytes.cast()), _mm512_loadu_si512(bytes.add(64).cast())];
                    let lower = bytes.map(|bytes| _mm512_and_si512(bytes, half));
                    let upper = bytes.map(|bytes| _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), half));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let x = x.add(row * stride + block * I4_BLOCK + part * 8).cast::<i32>();
                        let first = _mm512_set1_epi32(x.read_unaligned());
                        let second = _mm512_set1_epi32(x.add(1).read_unaligned());
                        for (side, sum) in sums.iter_mut().enumerate() {
                            *sum = _mm512_dpbusd_epi32(*sum, lower[side], first);
                            *sum = _mm512_dpbusd_epi32(*sum, upper[side], second);
                        }
                    }
                }
                let scales = scales.add(block * PANEL);
                let scales = [load_bf16_512(scales), load_bf16_512(scales.add(16))];
                for (row, (all, sums)) in all.iter_mut().zip(sums).enumerate() {
                    let x_scale = _mm512_set1_ps(*x_scales.add(row * blocks + block));
                    for side in 0..2 {
                        let factor = _mm512_mul_ps(x_scale, scales[side]);
                        let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[side]), factor);
                        all[side] = _mm512_add_ps(all[side], product);
                    }
                }
            }
            for (row, all) in all.iter().enumerate() {
                for (side, elements) in all.iter().enumerate() {
                    _mm512_storeu_ps(y.add(row * PANEL + side * 16), *elements);
                }
            }
        }
    }

    /// Computes `ROWS` rows and 8 · `PARTS` columns, from the column `first` on. The sums of the 8 products of a block
    /// that are added as 16-bit numbers are at most 8 · 2 · 15 · 127 = 30,480, so they do not saturate.
    ///
    /// # Safety
    /// That of [`vnni`], with the rows from `row` on, and these columns.
    #[target_feature(enable = "avx2")]
    unsafe fn avx2_part<const ROWS: usize, const PARTS: usize>(
        operands: &Operands,
        row: usize,
        first: usize,
        y: *mut f32,
    ) {
        let Operands { x, stride, x_scales, offsets, panel, scales, blocks } = *operands;
        let (half, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
        let mut all = [[_mm256_setzero_ps(); PARTS]; ROWS];
        // SAFETY: all addresses are inside of what the caller guarantees: rows below `ROWS`, blocks below `blocks`,
        // columns below 8 · `PARTS`.
        unsafe {
            for block in 0..blocks {
                let mut sums = [[_mm256_setzero_si256(); PARTS]; ROWS];
                for part in 0..I4_BLOCK / 8 {
                    let mut fours = [[_mm256_setzero_si256(); 2]; ROWS];
                    for (at, fours) in fours.iter_mut().enumerate() {
                        let x = x.add((row + at) * stride + block * I4_BLOCK + part * 8).cast::<i32>();
                        *fours = [_mm256_set1_epi32(x.read_unaligned()), _mm256_set1_epi32(x.add(1).read_unaligned())];
                    }
                    for side in 0..PARTS {
                        let bytes = panel.add(block * BYTES + part * PANEL * 4 + first * 4 + side * 32);
                        let bytes = _mm256_loadu_si256(bytes.cast());
                        let lower = _mm256_and_si256(bytes, half);
                        let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), half);
                        for (sums, fours) in sums.iter_mut().zip(fours) {
                            let products = _mm256_maddubs_epi16(lower, fours[0]);
                            sums[side] = _mm256_add_epi16(sums[side], products);
                            let products = _mm256_maddubs_epi16(upper, fours[1]);
                            sums[side] = _mm256_add_epi16(sums[side], products);
                        }
                    }
                }
                for (at, (all, sums)) in all.iter_mut().zip(sums).enumerate() {
                    let place = (row + at) * blocks + block;
                    let (x_scale, offset) = (_mm256_set1_ps(*x_scales.add(place)), *offsets.add(place));
                    for side in 0..PARTS {
                        let sum = _mm256_add_epi32(_mm256_madd_epi16(sums[side], ones), _mm256_set1_epi32(offset));
                        let scales = load_bf16_256(scales.add(block * PANEL + first + side * 8));
                        let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(x_scale, scales));
                        all[side] = _mm256_add_ps(all[side], product);
                    }
                }
            }
            for (at, all) in all.iter().enumerate() {
                for (side, elements) in all.iter().enumerate() {
                    _mm256_storeu_ps(y.add((row + at) * PANEL + first + side * 8), *elements);
                }
            }
        }
    }

    /// Computes `ROWS` rows and 32 columns: two rows and 16 columns at a time, or one row and all columns.
    ///
    /// # Safety
    /// That of [`vnni`].
    #[target_feature(enable = "avx2")]
    unsafe fn avx2<const ROWS: usize>(operands: &Operands, y: *mut f32) {
        for row in (0..ROWS).step_by(2) {
            // SAFETY: these are rows and columns of those that the caller guarantees.
            unsafe {
                if row + 1 == ROWS {
                    avx2_part::<1, 4>(operands, row, 0, y);
                } else {
                    avx2_part::<2, 2>(operands, row, 0, y);
                    avx2_part::<2, 2>(operands, row, PANEL / 2, y);
                }
            }
        }
    }
}
