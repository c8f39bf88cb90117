//! Kernels of tiles of `f32`: each instruction set has one for each number of rows and type of weights.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::tile::MOST_ROWS;
use crate::bf16::widen;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::packed::PANEL;

/// A kernel for a number of rows: the first row of `x`, the distance between its rows, a panel, the distance between
/// its rows and their number, the result, the distance between its rows, and whether the product is added to it.
pub(crate) type Kernel<T> = unsafe fn(*const f32, usize, *const T, [usize; 2], *mut f32, usize, bool);

/// The type of the elements of a panel. The kernels are those for 1 to [`MOST_ROWS`] rows.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    #[cfg(target_arch = "x86_64")]
    const AVX512: &[Kernel<Self>; MOST_ROWS];
    #[cfg(target_arch = "x86_64")]
    const AVX2: &[Kernel<Self>; MOST_ROWS];
    #[cfg(target_arch = "aarch64")]
    const NEON: &[Kernel<Self>; MOST_ROWS];

    /// Returns the element as `f32`.
    fn widen(self) -> f32;
}

/// A kernel for 1 to `MOST_ROWS` rows.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! all_rows {
    ($module:ident::$kernel:ident) => {
        [
            $module::$kernel::<1>,
            $module::$kernel::<2>,
            $module::$kernel::<3>,
            $module::$kernel::<4>,
            $module::$kernel::<5>,
            $module::$kernel::<6>,
            $module::$kernel::<7>,
            $module::$kernel::<8>,
            $module::$kernel::<9>,
            $module::$kernel::<10>,
            $module::$kernel::<11>,
            $module::$kernel::<12>,
        ]
    };
}

/// The kernels for 16 columns of `f32`.
#[cfg(target_arch = "x86_64")]
pub(super) const AVX512_16: &[Kernel<f32>; MOST_ROWS] = &all_rows!(x86::avx512_16);
#[cfg(target_arch = "x86_64")]
pub(super) const AVX2_16: &[Kernel<f32>; MOST_ROWS] = &all_rows!(x86::avx2_16);
#[cfg(target_arch = "aarch64")]
pub(super) const NEON_16: &[Kernel<f32>; MOST_ROWS] = &all_rows!(aarch64::neon_16);

impl Element for f32 {
    #[cfg(target_arch = "x86_64")]
    const AVX512: &[Kernel<Self>; MOST_ROWS] = &all_rows!(x86::avx512);
    #[cfg(target_arch = "x86_64")]
    const AVX2: &[Kernel<Self>; MOST_ROWS] = &all_rows!(x86::avx2);
    #[cfg(target_arch = "aarch64")]
    const NEON: &[Kernel<Self>; MOST_ROWS] = &all_rows!(aarch64::neon);

    fn widen(self) -> f32 {
        self
    }
}

/// The bits of a bf16: the upper half of those of an `f32`.
impl Element for u16 {
    #[cfg(target_arch = "x86_64")]
    const AVX512: &[Kernel<Self>; MOST_ROWS] = &all_rows!(x86::avx512_bf16);
    #[cfg(target_arch = "x86_64")]
    const AVX2: &[Kernel<Self>; MOST_ROWS] = &all_rows!(x86::avx2_bf16);
    #[cfg(target_arch = "aarch64")]
    const NEON: &[Kernel<Self>; MOST_ROWS] = &all_rows!(aarch64::neon_bf16);

    fn widen(self) -> f32 {
        widen(self)
    }
}

/// Requests the elements of a row of a panel that is multiplied later.
///
/// A processor looks ahead by itself, but not beyond a page of 4 KiB. With one or two rows of `x`, it waits for the
/// panel alone and reaches the next page early enough; and panels of `f32` take so long to read that it does not
/// matter. Products of 4 to 12 rows with bf16 took 1.3 to 2 times as long without it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn prefetch<T, const COUNT: usize>(row: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LATER: usize = 32;
        const LINE: usize = 64;
        for at in (0..COUNT).step_by(LINE / size_of::<T>()) {
            // Not `add`: it may be behind the panel.
            let pointer = row.wrapping_add(LATER * PANEL + at);
            // SAFETY: an address that cannot be read is ignored.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer.cast()) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    let _ = row;
}

/// A kernel that computes `ROWS` rows and some vectors of columns.
///
/// # Safety
/// The processor has the instructions. At `x` are `ROWS` rows at a distance of `stride` with `depth` elements each,
/// at `panel` `depth` rows at a distance of `width` with the columns, and at `y` `ROWS` rows at a distance of `y_stride`
/// with the columns, which may be written.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernel {
    (
        $(#[$attribute:meta])*
        $name:ident, $element:ty, $load_weights:ident, $vectors:literal, $lanes:literal, $zero:ident, $broadcast:ident,
        $load:ident,
        $store:ident, $multiply_add:ident
    ) => {
        $(#[$attribute])*
        pub(super) unsafe fn $name<const ROWS: usize>(
            x: *const f32,
            stride: usize,
            panel: *const $element,
            [width, depth]: [usize; 2],
            y: *mut f32,
            y_stride: usize,
            adds: bool,
        ) {
            let mut sums = [[$zero(); $vectors]; ROWS];
            // SAFETY: all addresses are inside of what the caller guarantees: rows below `ROWS`, elements of `x`
            // and rows of the panel below `depth`, columns below `$vectors` vectors.
            unsafe {
                if adds {
                    for (row, sums) in sums.iter_mut().enumerate() {
                        for (part, sum) in sums.iter_mut().enumerate() {
                            *sum = $load(y.add(row * y_stride + part * $lanes));
                        }
                    }
                }
                for at in 0..depth {
                    let weights = panel.add(at * width);
                    if ROWS > 2 && size_of::<$element>() < 4 {
                        super::prefetch::<_, { $vectors * $lanes }>(weights);
                    }
                    let mut vectors = [$zero(); $vectors];
                    for (part, vector) in vectors.iter_mut().enumerate() {
                        *vector = $load_weights(weights.add(part * $lanes));
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let element = $broadcast(*x.add(row * stride + at));
                        for (sum, weights) in sums.iter_mut().zip(vectors) {
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

/// Computes `ROWS` rows and `$all` columns: some rows and columns at a time, whose sums fit into the registers.
///
/// # Safety
/// That of `kernel!`, with `$all` columns.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! in_parts {
    (
        $(#[$attribute:meta])*
        $name:ident, $element:ty, $part:ident, $all:expr, $columns:literal, $most:literal, [$($count:literal),+]
    ) => {
        $(#[$attribute])*
        pub(super) unsafe fn $name<const ROWS: usize>(
            x: *const f32,
            stride: usize,
            panel: *const $element,
            [width, depth]: [usize; 2],
            y: *mut f32,
            y_stride: usize,
            adds: bool,
        ) {
            for column in (0..$all).step_by($columns) {
                let mut row = 0;
                while row < ROWS {
                    let count = (ROWS - row).min($most);
                    // SAFETY: these are rows and columns of those that the caller guarantees.
                    unsafe {
                        let (x, panel) = (x.add(row * stride), panel.add(column));
                        let y = y.add(row * y_stride + column);
                        match count {
                            $($count => $part::<$count>(x, stride, panel, [width, depth], y, y_stride, adds),)+
                            _ => $part::<$most>(x, stride, panel, [width, depth], y, y_stride, adds),
                        }
                    }
                    row += count;
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_loadu_si256, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
        _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
    };

    use super::PANEL;

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

    kernel! {
        /// `kernel!` for AVX-512: 32 columns.
        #[target_feature(enable = "avx512f")]
        avx512, f32, _mm512_loadu_ps, 2, 16, _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps,
        _mm512_fmadd_ps
    }

    kernel! {
        /// `kernel!` for AVX-512: 16 columns.
        #[target_feature(enable = "avx512f")]
        avx512_16, f32, _mm512_loadu_ps, 1, 16, _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps,
        _mm512_storeu_ps, _mm512_fmadd_ps
    }

    kernel! {
        /// `kernel!` for AVX-512 and weights of bf16: 32 columns.
        #[target_feature(enable = "avx512f")]
        avx512_bf16, u16, load_bf16_512, 2, 16, _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps,
        _mm512_fmadd_ps
    }

    kernel! {
        /// `kernel!` for AVX2: 16 columns.
        #[target_feature(enable = "avx2,fma")]
        avx2_half, f32, _mm256_loadu_ps, 2, 8, _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
        _mm256_fmadd_ps
    }

    kernel! {
        /// `kernel!` for AVX2 and weights of bf16: 16 columns.
        #[target_feature(enable = "avx2,fma")]
        avx2_bf16_half, u16, load_bf16_256, 2, 8, _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
        _mm256_fmadd_ps
    }

    in_parts! {
        /// `in_parts!` for AVX2 and `f32`: the sums take 8 of the 16 vectors.
        #[target_feature(enable = "avx2,fma")]
        avx2, f32, avx2_half, PANEL, 16, 4, [1, 2, 3]
    }

    in_parts! {
        /// `in_parts!` for AVX2 and `f32`: 16 columns.
        #[target_feature(enable = "avx2,fma")]
        avx2_16, f32, avx2_half, 16, 16, 4, [1, 2, 3]
    }

    in_parts! {
        /// `in_parts!` for AVX2 and bf16.
        #[target_feature(enable = "avx2,fma")]
        avx2_bf16, u16, avx2_bf16_half, PANEL, 16, 4, [1, 2, 3]
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::{
        float32x4_t, vdupq_n_f32, vfmaq_f32, vld1_u16, vld1q_f32, vreinterpretq_f32_u32, vshll_n_u16, vst1q_f32,
    };

    use super::PANEL;

    /// Returns zeros.
    #[inline]
    #[target_feature(enable = "neon")]
    fn zero() -> float32x4_t {
        vdupq_n_f32(0.0)
    }

    /// Returns `a · b + sum`.
    #[inline]
    #[target_feature(enable = "neon")]
    fn multiply_add(a: float32x4_t, b: float32x4_t, sum: float32x4_t) -> float32x4_t {
        vfmaq_f32(sum, a, b)
    }

    /// Loads 4 elements of bf16 as `f32`.
    ///
    /// # Safety
    /// The elements are at `pointer`.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load_bf16(pointer: *const u16) -> float32x4_t {
        // SAFETY: the caller guarantees it.
        let bits = unsafe { vld1_u16(pointer) };
        vreinterpretq_f32_u32(vshll_n_u16::<16>(bits))
    }

    kernel! {
        /// `kernel!` for NEON: 16 columns.
        #[target_feature(enable = "neon")]
        neon_half, f32, vld1q_f32, 4, 4, zero, vdupq_n_f32, vld1q_f32, vst1q_f32, multiply_add
    }

    kernel! {
        /// `kernel!` for NEON and weights of bf16: 16 columns.
        #[target_feature(enable = "neon")]
        neon_bf16_half, u16, load_bf16, 4, 4, zero, vdupq_n_f32, vld1q_f32, vst1q_f32, multiply_add
    }

    in_parts! {
        /// `in_parts!` for NEON and `f32`: the sums take 24 of the 32 vectors.
        #[target_feature(enable = "neon")]
        neon, f32, neon_half, PANEL, 16, 6, [1, 2, 3, 4, 5]
    }

    in_parts! {
        /// `in_parts!` for NEON and `f32`: 16 columns.
        #[target_feature(enable = "neon")]
        neon_16, f32, neon_half, 16, 16, 6, [1, 2, 3, 4, 5]
    }

    in_parts! {
        /// `in_parts!` for NEON and bf16.
        #[target_feature(enable = "neon")]
        neon_bf16, u16, neon_bf16_half, PANEL, 16, 6, [1, 2, 3, 4, 5]
    }
}
