//! Products of the rows of a matrix with a few columns, of which each is stored by itself: vectors are along both.

use crate::isa::Isa;

/// Rows at a time.
const ROWS: usize = 4;

/// Computes the products of the rows of `matrix`, which are at a distance of `stride`, with `columns`. All have `depth`
/// elements. `y` has a row for each row of the matrix, with an element for each column.
pub(crate) fn dot_rows(isa: Isa, matrix: &[f32], stride: usize, columns: &[f32], depth: usize, y: &mut [f32]) {
    let count = columns.len().checked_div(depth).unwrap_or(0);
    let rows = y.len().checked_div(count).unwrap_or(0);
    assert!(columns.len() == count * depth && y.len() == rows * count, "there is not an element for each product");
    assert!(rows == 0 || matrix.len() >= (rows - 1) * stride + depth, "a row of the matrix is outside of it");
    let kernel: Kernel = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni if isa.is_present() => x86::products_512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.is_present() => x86::products_256,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if isa.is_present() => aarch64::products_neon,
        _ => portable::products,
    };
    // SAFETY: the matrix has `rows` rows at a distance of `stride`, and `columns` has `count` columns of `depth` elements, and `y` has an element for
    // each pair of them, as was just asserted. The processor has the instructions.
    unsafe { kernel(matrix.as_ptr(), [rows, stride], columns.as_ptr(), count, depth, y.as_mut_ptr()) }
}

/// See [`dot_rows`]: the matrix, its rows and the distance between them, the columns, their number, the elements of each, and the result.
type Kernel = unsafe fn(*const f32, [usize; 2], *const f32, usize, usize, *mut f32);

/// The products for one type of vectors, with 4 rows and up to `$most` columns at a time. `$some` loads fewer elements
/// than a vector has, and zeros. `$sums` returns the sums of the elements of 4 vectors.
///
/// # Safety
/// The processor has the instructions, and the addresses are as [`dot_rows`] asserts.
macro_rules! products {
    (
        $(#[$attribute:meta])*
        $name:ident, $part:ident, $lanes:literal, $most:literal, $zero:path, $load:path, $some:path,
        $multiply_add:path, $sums:path
    ) => {
        $(#[$attribute])*
        #[inline]
        unsafe fn $part<const COUNT: usize, const COLUMNS: usize>(
            matrix: *const f32,
            stride: usize,
            columns: *const f32,
            depth: usize,
            y: *mut f32,
            y_stride: usize,
        ) {
            let mut sums = [[$zero(); ROWS]; COLUMNS];
            // SAFETY: the caller guarantees that these rows, columns and elements are inside.
            unsafe {
                let whole = depth / $lanes * $lanes;
                for at in (0..whole).step_by($lanes) {
                    let mut rows = [$zero(); COUNT];
                    for (row, elements) in rows.iter_mut().enumerate() {
                        *elements = $load(matrix.add(row * stride + at));
                    }
                    for (column, sums) in sums.iter_mut().enumerate() {
                        let elements = $load(columns.add(column * depth + at));
                        for (sum, row) in sums.iter_mut().zip(rows) {
                            *sum = $multiply_add(row, elements, *sum);
                        }
                    }
                }
                if whole < depth {
                    for (column, sums) in sums.iter_mut().enumerate() {
                        let elements = $some(columns.add(column * depth + whole), depth - whole);
                        for (row, sum) in sums.iter_mut().take(COUNT).enumerate() {
                            let row = $some(matrix.add(row * stride + whole), depth - whole);
                            *sum = $multiply_add(row, elements, *sum);
                        }
                    }
                }
                for (column, sums) in sums.into_iter().enumerate() {
                    let sums = $sums(sums);
                    for (row, sum) in sums.iter().take(COUNT).enumerate() {
                        *y.add(row * y_stride + column) = *sum;
                    }
                }
            }
        }

        $(#[$attribute])*
        pub(super) unsafe fn $name(
            matrix: *const f32,
            [rows, stride]: [usize; 2],
            columns: *const f32,
            count: usize,
            depth: usize,
            y: *mut f32,
        ) {
            let mut row = 0;
            while row < rows {
                let is_whole = rows - row >= ROWS;
                let mut column = 0;
                while column < count {
                    let left = (count - column).min($most);
                    // SAFETY: these are rows and columns of those that the caller guarantees.
                    unsafe {
                        let (matrix, columns) = (matrix.add(row * stride), columns.add(column * depth));
                        let y = y.add(row * count + column);
                        match (is_whole, left) {
                            (true, 4..) => $part::<ROWS, 4>(matrix, stride, columns, depth, y, count),
                            (true, 2..) => $part::<ROWS, 2>(matrix, stride, columns, depth, y, count),
                            (true, _) => $part::<ROWS, 1>(matrix, stride, columns, depth, y, count),
                            (false, 2..) => $part::<1, 2>(matrix, stride, columns, depth, y, count),
                            (false, _) => $part::<1, 1>(matrix, stride, columns, depth, y, count),
                        }
                    }
                    column += match (is_whole, left) {
                        (true, 4..) => 4,
                        (_, 2..) => 2,
                        _ => 1,
                    };
                }
                row += if is_whole { ROWS } else { 1 };
            }
        }
    };
}

mod portable {
    use super::ROWS;

    fn zero() -> f32 {
        0.0
    }

    unsafe fn load(from: *const f32) -> f32 {
        // SAFETY: the caller guarantees that the element can be read.
        unsafe { from.read() }
    }

    unsafe fn some(from: *const f32, _: usize) -> f32 {
        // SAFETY: as above.
        unsafe { from.read() }
    }

    fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
        a * b + sum
    }

    fn sums(sums: [f32; ROWS]) -> [f32; ROWS] {
        sums
    }

    products! {
        /// One element at a time.
        products, part, 1, 2, zero, load, some, multiply_add, sums
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m256i, __m512, _mm_add_ps, _mm_storeu_ps, _mm256_add_ps, _mm256_castpd_ps, _mm256_castps256_ps128,
        _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_maskload_ps, _mm256_setzero_ps, _mm512_castps_pd, _mm512_castps512_ps256, _mm512_extractf64x4_pd,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_setzero_ps,
    };

    use super::ROWS;

    /// # Safety
    /// `count` elements, fewer than 16, can be read.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn some_512(from: *const f32, count: usize) -> __m512 {
        // SAFETY: what the mask leaves out is not read.
        unsafe { _mm512_maskz_loadu_ps((1 << count) - 1, from) }
    }

    /// # Safety
    /// `count` elements, fewer than 8, can be read.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn some_256(from: *const f32, count: usize) -> __m256 {
        const MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        let mask: *const __m256i = MASKS[8 - count..][..8].as_ptr().cast();
        // SAFETY: these are 8 of the masks.
        let mask = unsafe { _mm256_loadu_si256(mask) };
        // SAFETY: what the mask leaves out is not read.
        unsafe { _mm256_maskload_ps(from, mask) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn sums_256([a, b, c, d]: [__m256; ROWS]) -> [f32; ROWS] {
        let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
        let mut all = [0.0; ROWS];
        // SAFETY: there are 4 elements.
        unsafe { _mm_storeu_ps(all.as_mut_ptr(), sums) };
        all
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx2")]
    fn sums_512(vectors: [__m512; ROWS]) -> [f32; ROWS] {
        let mut halves = [_mm256_setzero_ps(); ROWS];
        for (half, vector) in halves.iter_mut().zip(vectors) {
            let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(vector)));
            *half = _mm256_add_ps(_mm512_castps512_ps256(vector), upper);
        }
        sums_256(halves)
    }

    products! {
        /// 16 elements at a time: the sums of 4 rows and 4 columns take 16 of the 32 vectors.
        #[target_feature(enable = "avx512f,avx2")]
        products_512, part_512, 16, 4, _mm512_setzero_ps, _mm512_loadu_ps, some_512, _mm512_fmadd_ps, sums_512
    }

    products! {
        /// 8 elements at a time: the sums of 4 rows and 2 columns take 8 of the 16 vectors.
        #[target_feature(enable = "avx2,fma")]
        products_256, part_256, 8, 2, _mm256_setzero_ps, _mm256_loadu_ps, some_256, _mm256_fmadd_ps, sums_256
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::{
        float32x4_t, vaddq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vst1q_f32, vuzp1q_f32, vuzp2q_f32,
    };

    use super::ROWS;

    #[inline]
    #[target_feature(enable = "neon")]
    fn zero() -> float32x4_t {
        vdupq_n_f32(0.0)
    }

    /// # Safety
    /// `count` elements, fewer than 4, can be read.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn some(from: *const f32, count: usize) -> float32x4_t {
        let mut all = [0.0; ROWS];
        for (at, element) in all.iter_mut().enumerate().take(count) {
            // SAFETY: the caller guarantees that it can be read.
            *element = unsafe { *from.wrapping_add(at) };
        }
        // SAFETY: there are 4 elements.
        unsafe { vld1q_f32(all.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn multiply_add(a: float32x4_t, b: float32x4_t, sum: float32x4_t) -> float32x4_t {
        vfmaq_f32(sum, a, b)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn sums([a, b, c, d]: [float32x4_t; ROWS]) -> [f32; ROWS] {
        let pairs = |a, b| vaddq_f32(vuzp1q_f32(a, b), vuzp2q_f32(a, b));
        let sums = pairs(pairs(a, b), pairs(c, d));
        let mut all = [0.0; ROWS];
        // SAFETY: there are 4 elements.
        unsafe { vst1q_f32(all.as_mut_ptr(), sums) };
        all
    }

    products! {
        /// 4 elements at a time.
        #[target_feature(enable = "neon")]
        products_neon, part_neon, 4, 4, zero, vld1q_f32, some, multiply_add, sums
    }
}
