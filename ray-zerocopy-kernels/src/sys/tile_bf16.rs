//! A tile of a product of bf16: some rows of `x`, which are rounded, and a panel.

use super::tile::MOST_ROWS;
use crate::isa::Isa;
use crate::packed::PANEL;

/// Returns `true` if the processor multiplies bf16.
pub(crate) fn multiplies_bf16(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa >= Isa::Avx512Vnni && isa.is_present() && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        false
    }
}

/// Rows of `x` and a panel.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "other processors have no kernel"))]
pub(crate) struct TileBf16<'a> {
    /// The first row of `x`, and those behind it: 2 bytes for each element, and two more zeros if their number is odd.
    pub(crate) x: &'a [u8],
    /// Distance between rows of `x`, in bytes.
    pub(crate) stride: usize,
    /// Rows of a panel. Each of them belongs to a column of `x`.
    pub(crate) panel: &'a [u16],
    /// Number of rows of `x`: from 1 to [`MOST_ROWS`].
    pub(crate) rows: usize,
}

impl TileBf16<'_> {
    /// Computes the product.
    ///
    /// # Panics
    /// If the processor does not have the instructions.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn multiply(&self, isa: Isa, y: &mut [[f32; PANEL]; MOST_ROWS]) {
        let depth = self.panel.len() / PANEL;
        let reads = (self.rows - 1) * self.stride + depth.next_multiple_of(2) * 2;
        assert!((1..=MOST_ROWS).contains(&self.rows) && self.panel.len() == depth * PANEL);
        assert!(self.x.len() >= reads, "a row of x is outside of it");
        assert!(multiplies_bf16(isa), "this processor does not multiply bf16");
        let kernel = x86::KERNELS[self.rows - 1];
        // SAFETY: the rows of `x` are inside of it, the panel has these rows, and `y` the rows of the tile. The
        // processor has the instructions.
        unsafe { kernel(self.x.as_ptr(), self.stride, self.panel.as_ptr(), depth, y.as_mut_ptr().cast()) }
    }

    /// Processors of other architectures do not have the instructions.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn multiply(&self, isa: Isa, _y: &mut [[f32; PANEL]; MOST_ROWS]) {
        assert!(multiplies_bf16(isa), "this processor does not multiply bf16");
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "one proof is about all addresses of a kernel")]
mod x86 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_permutex2var_epi16, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
    };

    use super::{MOST_ROWS, PANEL};

    /// A kernel for a number of rows: the first row of `x`, the distance between its rows, a panel with its number of
    /// rows, and the result.
    type Kernel = unsafe fn(*const u8, usize, *const u16, usize, *mut f32);

    /// The kernels for 1 to [`MOST_ROWS`] rows.
    pub(super) const KERNELS: [Kernel; MOST_ROWS] = [
        kernel::<1>,
        kernel::<2>,
        kernel::<3>,
        kernel::<4>,
        kernel::<5>,
        kernel::<6>,
        kernel::<7>,
        kernel::<8>,
        kernel::<9>,
        kernel::<10>,
        kernel::<11>,
        kernel::<12>,
    ];

    /// Where the columns from `first` on of two rows come from, one row after the other: the instruction takes both
    /// elements of a column at a time.
    const fn pairs(first: u16) -> [u16; PANEL] {
        let mut places = [0; PANEL];
        let mut at = 0;
        while at < PANEL {
            places[at] = first + at as u16 / 2 + at as u16 % 2 * PANEL as u16;
            at += 1;
        }
        places
    }

    const PAIRS: [[u16; PANEL]; 2] = [pairs(0), pairs(16)];

    /// Adds the products of two elements of each row and column.
    ///
    /// # Safety
    /// The processor has the instructions, and at `x` are `ROWS` rows at a distance of `stride` with two elements.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn add<const ROWS: usize>(sums: &mut [[__m512; 2]; ROWS], x: *const u8, stride: usize, rows: [__m512i; 2]) {
        // SAFETY: the addresses are those of the constants, and of two elements of each row. All bits are elements.
        unsafe {
            let pairs = PAIRS.each_ref().map(|places| {
                let places = _mm512_loadu_si512(places.as_ptr().cast());
                let pairs = _mm512_permutex2var_epi16(rows[0], places, rows[1]);
                std::mem::transmute::<__m512i, __m512bh>(pairs)
            });
            for (row, sums) in sums.iter_mut().enumerate() {
                let two = _mm512_set1_epi32(x.add(row * stride).cast::<i32>().read_unaligned());
                let two = std::mem::transmute::<__m512i, __m512bh>(two);
                for (sum, pairs) in sums.iter_mut().zip(pairs) {
                    *sum = _mm512_dpbf16_ps(*sum, two, pairs);
                }
            }
        }
    }

    /// Computes `ROWS` rows and 32 columns.
    ///
    /// # Safety
    /// The processor has the instructions. At `x` are `ROWS` rows at a distance of `stride` with `depth` elements, or
    /// one more if it is odd, at `panel` are `depth` rows of 32 elements, and at `y` are `ROWS` rows of 32 elements,
    /// which may be written.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn kernel<const ROWS: usize>(x: *const u8, stride: usize, panel: *const u16, depth: usize, y: *mut f32) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        // SAFETY: all addresses are inside of what the caller guarantees: rows below `ROWS`, rows of the panel below
        // `depth`, columns below two vectors.
        unsafe {
            for at in (0..depth & !1).step_by(2) {
                let row = panel.add(at * PANEL);
                let rows = [_mm512_loadu_si512(row.cast()), _mm512_loadu_si512(row.add(PANEL).cast())];
                add(&mut sums, x.add(at * 2), stride, rows);
            }
            if depth % 2 == 1 {
                let row = _mm512_loadu_si512(panel.add((depth - 1) * PANEL).cast());
                add(&mut sums, x.add((depth - 1) * 2), stride, [row, _mm512_setzero_si512()]);
            }
            for (row, sums) in sums.iter().enumerate() {
                for (part, sum) in sums.iter().enumerate() {
                    _mm512_storeu_ps(y.add(row * PANEL + part * 16), *sum);
                }
            }
        }
    }
}
