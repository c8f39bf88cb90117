//! A tile of a product of 8-bit numbers: some rows of `x`, and a block of a panel.

use super::tile::MOST_ROWS;
use crate::isa::Isa;
use crate::packed::PANEL;
use crate::packed_i8::GROUP;

/// The sums of a tile.
pub(crate) type SumsI8 = [[i32; PANEL]; MOST_ROWS];

/// Rows of `x` and a block of a panel.
pub(crate) struct TileI8<'a> {
    /// The first row of `x`, and those behind it.
    pub(crate) x: &'a [u8],
    /// Distance between rows of `x`.
    pub(crate) stride: usize,
    /// Groups of a panel. Each of them belongs to 4 columns of `x`.
    pub(crate) panel: &'a [i8],
    /// Number of rows of `x`: from 1 to [`MOST_ROWS`].
    pub(crate) rows: usize,
}

impl TileI8<'_> {
    /// Computes the sums of the products of each row and column. They are exact in blocks of up to 65,536 rows.
    pub(crate) fn multiply(&self, isa: Isa, sums: &mut SumsI8) {
        let groups = self.panel.len() / (PANEL * GROUP);
        let reads = (self.rows - 1) * self.stride + groups * GROUP;
        assert!((1..=MOST_ROWS).contains(&self.rows) && self.panel.len() == groups * PANEL * GROUP);
        assert!(self.x.len() >= reads, "a row of x is outside of it");
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 && isa.is_present() {
            let kernels = if isa >= Isa::Avx512Vnni { &x86::VNNI } else { &x86::AVX2 };
            let kernel = kernels[self.rows - 1];
            // SAFETY: the rows of `x` are inside of it, the panel has these groups, and `sums` the rows of the tile.
            // The processor has the instructions.
            return unsafe {
                kernel(self.x.as_ptr(), self.stride, self.panel.as_ptr(), groups, sums.as_mut_ptr().cast())
            };
        }
        #[cfg(target_arch = "aarch64")]
        if isa == Isa::Neon && isa.is_present() {
            let kernel = aarch64::NEON[self.rows - 1];
            // SAFETY: as above.
            return unsafe {
                kernel(self.x.as_ptr(), self.stride, self.panel.as_ptr(), groups, sums.as_mut_ptr().cast())
            };
        }
        let _ = isa;
        self.portable(groups, sums);
    }

    fn portable(&self, groups: usize, sums: &mut SumsI8) {
        for (row, sums) in sums.iter_mut().take(self.rows).enumerate() {
            sums.fill(0);
            let x = &self.x[row * self.stride..][..groups * GROUP];
            let (x, _) = x.as_chunks::<GROUP>();
            let (panel, _) = self.panel.as_chunks::<GROUP>();
            for (x, weights) in x.iter().zip(panel.chunks_exact(PANEL)) {
                let x = x.map(i32::from);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    let [a, b, c, d] = weights.map(i32::from);
                    *sum += x[0] * a + x[1] * b + x[2] * c + x[3] * d;
                }
            }
        }
    }
}

/// A kernel for a number of rows: the first row of `x`, the distance between its rows, a panel with its number of
/// groups, and the sums.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Kernel = unsafe fn(*const u8, usize, *const i8, usize, *mut i32);

#[cfg(target_arch = "x86_64")]
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "one proof is about all addresses of a kernel")]
mod x86 {
    use std::arch::x86_64::{
        __m512i, _mm_loadu_si128, _mm_set1_epi32, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_cvtepu8_epi16,
        _mm256_hadd_epi32, _mm256_madd_epi16, _mm256_permute4x64_epi64, _mm256_setzero_si256, _mm256_storeu_si256,
        _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
        _mm512_storeu_si512,
    };

    use super::{GROUP, Kernel, MOST_ROWS, PANEL};

    /// The kernels for 1 to [`MOST_ROWS`] rows.
    pub(super) const VNNI: [Kernel; MOST_ROWS] = [
        vnni::<1, 4>,
        vnni::<2, 4>,
        vnni::<3, 2>,
        vnni::<4, 2>,
        vnni::<5, 1>,
        vnni::<6, 1>,
        vnni::<7, 1>,
        vnni::<8, 1>,
        vnni::<9, 1>,
        vnni::<10, 1>,
        vnni::<11, 1>,
        vnni::<12, 1>,
    ];

    pub(super) const AVX2: [Kernel; MOST_ROWS] = [
        avx2::<1>, avx2::<2>, avx2::<3>, avx2::<4>, avx2::<5>, avx2::<6>, avx2::<7>, avx2::<8>, avx2::<9>, avx2::<10>,
        avx2::<11>, avx2::<12>,
    ];

    /// Computes `ROWS` rows and 32 columns in two vectors. An instruction must wait for the one before it that adds to
    /// the same sums, so few rows have `CHAINS` sums for each column, of a group each.
    ///
    /// # Safety
    /// The processor has the instructions. At `x` are `ROWS` rows at a distance of `stride` with 4 elements for each
    /// group, at `panel` are `groups` groups of 32 columns, and at `sums` are `ROWS` rows of 32 sums, which may be
    /// written.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn vnni<const ROWS: usize, const CHAINS: usize>(
        x: *const u8,
        stride: usize,
        panel: *const i8,
        groups: usize,
        sums: *mut i32,
    ) {
        /// Adds the products of a group.
        ///
        /// # Safety
        /// That of [`vnni`], with the elements of one group at `x` and `panel`.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        unsafe fn group<const ROWS: usize>(
            all: &mut [[__m512i; 2]; ROWS],
            x: *const u8,
            stride: usize,
            panel: *const i8,
        ) {
            // SAFETY: the addresses are those of two vectors of the panel, and of 4 elements of each row.
            unsafe {
                let weights = [_mm512_loadu_si512(panel.cast()), _mm512_loadu_si512(panel.add(64).cast())];
                for (row, all) in all.iter_mut().enumerate() {
                    let four = _mm512_set1_epi32(x.add(row * stride).cast::<i32>().read_unaligned());
                    for (sum, weights) in all.iter_mut().zip(weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, four, weights);
                    }
                }
            }
        }

        let mut chains = [[[_mm512_setzero_si512(); 2]; ROWS]; CHAINS];
        let mut at = 0;
        // SAFETY: all groups are below `groups`, and the addresses of the sums are those of `ROWS` rows.
        unsafe {
            while at + CHAINS <= groups {
                for (chain, all) in chains.iter_mut().enumerate() {
                    group(all, x.add((at + chain) * GROUP), stride, panel.add((at + chain) * PANEL * GROUP));
                }
                at += CHAINS;
            }
            for at in at..groups {
                group(&mut chains[0], x.add(at * GROUP), stride, panel.add(at * PANEL * GROUP));
            }
            for row in 0..ROWS {
                for part in 0..2 {
                    let sum =
                        chains.iter().fold(_mm512_setzero_si512(), |sum, all| _mm512_add_epi32(sum, all[row][part]));
                    _mm512_storeu_si512(sums.add(row * PANEL + part * 16).cast(), sum);
                }
            }
        }
    }

    /// Computes `ROWS` rows and 4 · `PARTS` columns. The numbers are extended to 16 bits: the instruction that
    /// multiplies numbers of 8 bits saturates.
    ///
    /// # Safety
    /// That of [`vnni`], with 4 · `PARTS` columns; `PARTS` is even.
    #[target_feature(enable = "avx2")]
    unsafe fn avx2_part<const ROWS: usize, const PARTS: usize>(
        x: *const u8,
        stride: usize,
        panel: *const i8,
        groups: usize,
        sums: *mut i32,
    ) {
        // Two sums for each column: of the rows 0 and 1 of the groups, and of the rows 2 and 3.
        let mut all = [[_mm256_setzero_si256(); PARTS]; ROWS];
        // SAFETY: all addresses are inside of what the caller guarantees: rows below `ROWS`, groups below `groups`,
        // columns below 4 · `PARTS`.
        unsafe {
            for at in 0..groups {
                let mut fours = [_mm256_setzero_si256(); ROWS];
                for (row, four) in fours.iter_mut().enumerate() {
                    let element = x.add(row * stride + at * GROUP).cast::<i32>().read_unaligned();
                    *four = _mm256_cvtepu8_epi16(_mm_set1_epi32(element));
                }
                for part in 0..PARTS {
                    let weights = panel.add(at * PANEL * GROUP + part * 16);
                    let weights = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.cast()));
                    for (all, four) in all.iter_mut().zip(fours) {
                        all[part] = _mm256_add_epi32(all[part], _mm256_madd_epi16(four, weights));
                    }
                }
            }
            for (row, all) in all.iter().enumerate() {
                for (part, two) in all.chunks_exact(2).enumerate() {
                    // The halves of vectors are added separately, so the columns 2 to 5 are in another order.
                    let added = _mm256_hadd_epi32(two[0], two[1]);
                    let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(added);
                    _mm256_storeu_si256(sums.add(row * PANEL + part * 8).cast(), ordered);
                }
            }
        }
    }

    /// Computes `ROWS` rows and 32 columns: two rows and 16 columns at a time, or one row and all columns, whose sums
    /// take 8 of the 16 vectors.
    ///
    /// # Safety
    /// That of [`vnni`].
    #[target_feature(enable = "avx2")]
    unsafe fn avx2<const ROWS: usize>(x: *const u8, stride: usize, panel: *const i8, groups: usize, sums: *mut i32) {
        for row in (0..ROWS).step_by(2) {
            // SAFETY: these are rows and columns of those that the caller guarantees.
            unsafe {
                let (x, sums) = (x.add(row * stride), sums.add(row * PANEL));
                if row + 1 == ROWS {
                    avx2_part::<1, 8>(x, stride, panel, groups, sums);
                } else {
                    avx2_part::<2, 4>(x, stride, panel, groups, sums);
                    avx2_part::<2, 4>(x, stride, panel.add(PANEL * GROUP / 2), groups, sums.add(PANEL / 2));
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "one proof is about all addresses of a kernel")]
mod aarch64 {
    use std::arch::aarch64::{
        vaddvq_s32, vdup_n_u32, vdupq_n_s16, vdupq_n_s32, vget_low_s16, vld1_s8, vmlal_high_s16, vmlal_s16, vmovl_s8,
        vmovl_u8, vreinterpret_u8_u32, vreinterpretq_s16_u16,
    };

    use super::{GROUP, Kernel, MOST_ROWS, PANEL};

    /// The kernels for 1 to [`MOST_ROWS`] rows.
    pub(super) const NEON: [Kernel; MOST_ROWS] = [
        neon::<1>, neon::<2>, neon::<3>, neon::<4>, neon::<5>, neon::<6>, neon::<7>, neon::<8>, neon::<9>, neon::<10>,
        neon::<11>, neon::<12>,
    ];

    /// Computes `ROWS` rows and `COLUMNS` columns, an even number. The numbers are extended to 16 bits.
    ///
    /// # Safety
    /// At `x` are `ROWS` rows at a distance of `stride` with 4 elements for each group, at `panel` are `groups` groups
    /// at a distance of 128 with these columns, and at `sums` are `ROWS` rows at a distance of 32 with these columns,
    /// which may be written.
    #[target_feature(enable = "neon")]
    unsafe fn part<const ROWS: usize, const COLUMNS: usize>(
        x: *const u8,
        stride: usize,
        panel: *const i8,
        groups: usize,
        sums: *mut i32,
    ) {
        // 4 sums for each column: one for each row of the groups.
        let mut all = [[vdupq_n_s32(0); COLUMNS]; ROWS];
        // SAFETY: all addresses are inside of what the caller guarantees: rows below `ROWS`, groups below `groups`,
        // columns below `COLUMNS`.
        unsafe {
            for at in 0..groups {
                let mut fours = [vdupq_n_s16(0); ROWS];
                for (row, four) in fours.iter_mut().enumerate() {
                    // The 4 elements, twice.
                    let elements = vdup_n_u32(x.add(row * stride + at * GROUP).cast::<u32>().read_unaligned());
                    *four = vreinterpretq_s16_u16(vmovl_u8(vreinterpret_u8_u32(elements)));
                }
                for column in (0..COLUMNS).step_by(2) {
                    let weights = vmovl_s8(vld1_s8(panel.add(at * PANEL * GROUP + column * GROUP)));
                    for (all, four) in all.iter_mut().zip(fours) {
                        all[column] = vmlal_s16(all[column], vget_low_s16(weights), vget_low_s16(four));
                        all[column + 1] = vmlal_high_s16(all[column + 1], weights, four);
                    }
                }
            }
            for (row, all) in all.iter().enumerate() {
                for (column, four) in all.iter().enumerate() {
                    *sums.add(row * PANEL + column) = vaddvq_s32(*four);
                }
            }
        }
    }

    /// Computes `ROWS` rows and 32 columns: two rows and 8 columns at a time, or one row and 16 columns, whose sums
    /// take 16 of the 32 vectors.
    ///
    /// # Safety
    /// That of [`part`], with 32 columns.
    #[target_feature(enable = "neon")]
    unsafe fn neon<const ROWS: usize>(x: *const u8, stride: usize, panel: *const i8, groups: usize, sums: *mut i32) {
        for row in (0..ROWS).step_by(2) {
            // SAFETY: these are rows and columns of those that the caller guarantees.
            unsafe {
                let (x, sums) = (x.add(row * stride), sums.add(row * PANEL));
                if row + 1 == ROWS {
                    for column in (0..PANEL).step_by(16) {
                        part::<1, 16>(x, stride, panel.add(column * GROUP), groups, sums.add(column));
                    }
                } else {
                    for column in (0..PANEL).step_by(8) {
                        part::<2, 8>(x, stride, panel.add(column * GROUP), groups, sums.add(column));
                    }
                }
            }
        }
    }
}
