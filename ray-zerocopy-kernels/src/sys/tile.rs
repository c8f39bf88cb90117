//! A tile of a product: some rows of `x`, and the columns of a panel.

use super::columns::Columns;
use crate::bf16::widen;
use crate::isa::Isa;
use crate::packed::PANEL;

/// The most rows of a tile: with 32 columns, their sums take 24 of the 32 vectors of AVX-512.
pub(crate) const MOST_ROWS: usize = 12;

/// Rows of `x` and a part of a panel.
pub(crate) struct Tile<'a, T> {
    /// The first row of `x`, and those behind it.
    pub(crate) x: &'a [f32],
    /// Distance between rows of `x`.
    pub(crate) stride: usize,
    /// Rows of a panel. Each of them belongs to a column of `x`.
    pub(crate) panel: &'a [T],
    /// Number of rows of `x`: from 1 to [`MOST_ROWS`].
    pub(crate) rows: usize,
    /// Number of columns that are wanted: from 1 to [`PANEL`].
    pub(crate) columns: usize,
    /// Whether the product is added to what the result has.
    pub(crate) adds: bool,
}

impl<T: Element> Tile<'_, T> {
    /// Computes the product.
    pub(crate) fn multiply(&self, isa: Isa, y: &mut Columns<'_>) {
        let depth = self.panel.len() / PANEL;
        let reads = (self.rows - 1) * self.stride + depth;
        assert!((1..=MOST_ROWS).contains(&self.rows) && self.panel.len() == depth * PANEL);
        assert!(depth == 0 || self.x.len() >= reads, "a row of x is outside of it");
        assert!(y.rows() == self.rows && y.columns() == self.columns && self.columns <= PANEL);
        if self.columns == PANEL {
            return self.whole(isa, depth, y);
        }
        // The kernels write whole panels.
        let mut wide = [0.0; MOST_ROWS * PANEL];
        if self.adds {
            for row in 0..self.rows {
                wide[row * PANEL..][..self.columns].copy_from_slice(y.row(row));
            }
        }
        self.whole(isa, depth, &mut Columns::new(&mut wide[..self.rows * PANEL], PANEL));
        for row in 0..self.rows {
            y.row(row).copy_from_slice(&wide[row * PANEL..][..self.columns]);
        }
    }

    /// The same for a result that has all columns of the panel.
    fn whole(&self, isa: Isa, depth: usize, y: &mut Columns<'_>) {
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 && isa.is_present() {
            let (pointer, stride) = y.raw();
            let kernels = if isa >= Isa::Avx512 { &T::AVX512 } else { &T::AVX2 };
            let kernel = kernels[self.rows - 1];
            // SAFETY: `multiply` has asserted that the rows of `x` are inside of it, that the panel has `depth` rows,
            // and that `y` has these rows and the columns of a panel. The processor has the instructions.
            return unsafe {
                kernel(self.x.as_ptr(), self.stride, self.panel.as_ptr(), depth, pointer, stride, self.adds)
            };
        }
        let _ = isa;
        self.portable(depth, y);
    }

    fn portable(&self, depth: usize, y: &mut Columns<'_>) {
        for row in 0..self.rows {
            let y = y.row(row);
            if !self.adds {
                y.fill(0.0);
            }
            for at in 0..depth {
                let x = self.x[row * self.stride + at];
                let weights = &self.panel[at * PANEL..(at + 1) * PANEL];
                y.iter_mut().zip(weights).for_each(|(y, weight)| *y += x * weight.widen());
            }
        }
    }
}

/// The type of the elements of a panel.
pub(crate) trait Element: Copy + Default + Send + Sync {
    /// The kernels for 1 to [`MOST_ROWS`] rows.
    #[cfg(target_arch = "x86_64")]
    const AVX512: [Kernel<Self>; MOST_ROWS];
    /// The same for AVX2.
    #[cfg(target_arch = "x86_64")]
    const AVX2: [Kernel<Self>; MOST_ROWS];

    /// Returns the element as `f32`.
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[cfg(target_arch = "x86_64")]
    const AVX512: [Kernel<Self>; MOST_ROWS] = x86::all_rows!(avx512);
    #[cfg(target_arch = "x86_64")]
    const AVX2: [Kernel<Self>; MOST_ROWS] = x86::all_rows!(avx2);

    fn widen(self) -> f32 {
        self
    }
}

/// The bits of a bf16: the upper half of those of an `f32`.
impl Element for u16 {
    #[cfg(target_arch = "x86_64")]
    const AVX512: [Kernel<Self>; MOST_ROWS] = x86::all_rows!(avx512_bf16);
    #[cfg(target_arch = "x86_64")]
    const AVX2: [Kernel<Self>; MOST_ROWS] = x86::all_rows!(avx2_bf16);

    fn widen(self) -> f32 {
        widen(self)
    }
}

/// A kernel for a number of rows: the first row of `x`, the distance between its rows, a panel with its number of
/// rows, the result, the distance between its rows, and whether the product is added to it.
#[cfg(target_arch = "x86_64")]
pub(crate) type Kernel<T> = unsafe fn(*const f32, usize, *const T, usize, *mut f32, usize, bool);

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_loadu_si256, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
        _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
    };

    use crate::packed::PANEL;

    /// A kernel for 1 to `MOST_ROWS` rows.
    macro_rules! all_rows {
        ($kernel:ident) => {
            [
                x86::$kernel::<1>,
                x86::$kernel::<2>,
                x86::$kernel::<3>,
                x86::$kernel::<4>,
                x86::$kernel::<5>,
                x86::$kernel::<6>,
                x86::$kernel::<7>,
                x86::$kernel::<8>,
                x86::$kernel::<9>,
                x86::$kernel::<10>,
                x86::$kernel::<11>,
                x86::$kernel::<12>,
            ]
        };
    }

    pub(super) use all_rows;

    /// Loads 16 elements of bf16 as `f32`.
    ///
    /// # Safety
    /// The processor has the instructions, and the elements are at `pointer`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::sys) unsafe fn load_bf16_512(pointer: *const u16) -> __m512 {
        // SAFETY: the caller guarantees it.
        let bits = unsafe { _mm256_loadu_si256(pointer.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
    }

    /// Loads 8 elements of bf16 as `f32`.
    ///
    /// # Safety
    /// That of [`load_bf16_512`].
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(in crate::sys) unsafe fn load_bf16_256(pointer: *const u16) -> __m256 {
        // SAFETY: the caller guarantees it.
        let bits = unsafe { _mm_loadu_si128(pointer.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }

    /// A kernel that computes `ROWS` rows and two vectors of columns.
    ///
    /// # Safety
    /// The processor has the instructions. At `x` are `ROWS` rows at a distance of `stride` with `depth` elements each,
    /// at `panel` `depth` rows at a distance of 32 with the columns, and at `y` `ROWS` rows at a distance of `y_stride`
    /// with the columns, which may be written.
    macro_rules! kernel {
        (
            $(#[$attribute:meta])*
            $name:ident, $element:ty, $load_weights:ident, $lanes:literal, $zero:ident, $broadcast:ident, $load:ident,
            $store:ident, $multiply_add:ident
        ) => {
            $(#[$attribute])*
            pub(super) unsafe fn $name<const ROWS: usize>(
                x: *const f32,
                stride: usize,
                panel: *const $element,
                depth: usize,
                y: *mut f32,
                y_stride: usize,
                adds: bool,
            ) {
                let mut sums = [[$zero(); 2]; ROWS];
                // SAFETY: all addresses are inside of what the caller guarantees: rows below `ROWS`, elements of `x`
                // and rows of the panel below `depth`, columns below two vectors.
                unsafe {
                    if adds {
                        for (row, sums) in sums.iter_mut().enumerate() {
                            for (part, sum) in sums.iter_mut().enumerate() {
                                *sum = $load(y.add(row * y_stride + part * $lanes));
                            }
                        }
                    }
                    for at in 0..depth {
                        let weights = panel.add(at * PANEL);
                        let weights = [$load_weights(weights), $load_weights(weights.add($lanes))];
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let element = $broadcast(*x.add(row * stride + at));
                            for (sum, weights) in sums.iter_mut().zip(weights) {
                                *sum = $multiply_add(element, weights, *sum);
                            }
                        }
                    }
                    for (row, sums) in sums.iter().enumerate() {
                        for (part, sum) in sums.iter().enumerate() {
                            $store(y.add(row * y_stride + part * $lanes), *sum);
                        }
                    }
                }
            }
        };
    }

    kernel! {
        /// `kernel!` for AVX-512: 32 columns.
        #[target_feature(enable = "avx512f")]
        avx512, f32, _mm512_loadu_ps, 16, _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps,
        _mm512_fmadd_ps
    }

    kernel! {
        /// `kernel!` for AVX-512 and weights of bf16: 32 columns.
        #[target_feature(enable = "avx512f")]
        avx512_bf16, u16, load_bf16_512, 16, _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps,
        _mm512_fmadd_ps
    }

    kernel! {
        /// `kernel!` for AVX2: 16 columns.
        #[target_feature(enable = "avx2,fma")]
        avx2_half, f32, _mm256_loadu_ps, 8, _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
        _mm256_fmadd_ps
    }

    kernel! {
        /// `kernel!` for AVX2 and weights of bf16: 16 columns.
        #[target_feature(enable = "avx2,fma")]
        avx2_bf16_half, u16, load_bf16_256, 8, _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
        _mm256_fmadd_ps
    }

    /// Computes `ROWS` rows and 32 columns with vectors of 8 elements: 4 rows and 16 columns at a time, whose sums
    /// take 8 of the 16 vectors.
    ///
    /// # Safety
    /// That of `kernel!`, with 32 columns.
    macro_rules! in_parts {
        ($(#[$attribute:meta])* $name:ident, $element:ty, $half:ident) => {
            $(#[$attribute])*
            #[target_feature(enable = "avx2,fma")]
            pub(super) unsafe fn $name<const ROWS: usize>(
                x: *const f32,
                stride: usize,
                panel: *const $element,
                depth: usize,
                y: *mut f32,
                y_stride: usize,
                adds: bool,
            ) {
                for half in [0, PANEL / 2] {
                    let mut row = 0;
                    while row < ROWS {
                        let count = (ROWS - row).min(4);
                        // SAFETY: these are rows and columns of those that the caller guarantees.
                        unsafe {
                            let (x, panel) = (x.add(row * stride), panel.add(half));
                            let y = y.add(row * y_stride + half);
                            match count {
                                1 => $half::<1>(x, stride, panel, depth, y, y_stride, adds),
                                2 => $half::<2>(x, stride, panel, depth, y, y_stride, adds),
                                3 => $half::<3>(x, stride, panel, depth, y, y_stride, adds),
                                _ => $half::<4>(x, stride, panel, depth, y, y_stride, adds),
                            }
                        }
                        row += count;
                    }
                }
            }
        };
    }

    in_parts! {
        /// `in_parts!` for `f32`.
        avx2, f32, avx2_half
    }

    in_parts! {
        /// `in_parts!` for bf16.
        avx2_bf16, u16, avx2_bf16_half
    }
}
