//! The transforms of Winograd's convolution with filters of 3 × 3: F(2×2, 3×3).
//!
//! A tile of 2 × 2 pixels reads 4 × 4 elements. They and the filter are transformed to 16 numbers each, whose products
//! are transformed to the 4 pixels: 16 multiplications in place of 36. The matrices are those of Lavin and Gray, *Fast
//! Algorithms for Convolutional Neural Networks*, 2015.

use super::row_functions::for_each_isa;
use crate::convolution::OfChannel;
use crate::epilogue::activate;
use crate::isa::Isa;

/// Numbers of a transformed tile, and of a transformed filter.
pub(crate) const POINTS: usize = 16;
/// Tiles are transformed in groups of this number at most.
pub(crate) const GROUP: usize = 16;

/// Elements of a row of [`transform_elements`] that are read.
pub(crate) fn row_width(tiles: usize) -> usize {
    2 * tiles.next_multiple_of(GROUP) + 2
}

/// Transforms the elements of tiles, which are in `rows` rows of `columns`. `x` has two rows for each row of tiles and
/// two more, at a distance of `width`. Writes point after point, at a distance of `plane`. What is behind the tiles, up
/// to a multiple of [`GROUP`], is overwritten too.
pub(crate) fn transform_elements(
    isa: Isa,
    x: &[f32],
    width: usize,
    [rows, columns]: [usize; 2],
    y: &mut [f32],
    plane: usize,
) {
    assert!(rows > 0 && columns > 0 && width >= row_width(columns) && x.len() >= (2 * rows + 2) * width);
    let end = (rows - 1) * columns + columns.next_multiple_of(GROUP);
    assert!(y.len() >= (POINTS - 1) * plane + end, "the transformed tiles do not fit");
    let transform = transforms(isa).0;
    // SAFETY: all rows that are read, and all points that are written, are inside, as was just asserted. The processor
    // has the instructions.
    unsafe { transform(x.as_ptr(), width, rows, columns, y.as_mut_ptr(), plane) }
}

/// Transforms products to pixels. `x` has the points one after the other, at a distance of `plane`. `upper` and `lower`
/// get the two rows of each tile. The number of tiles is half the length of these, a multiple of [`GROUP`].
pub(crate) fn transform_products(isa: Isa, x: &[f32], plane: usize, upper: &mut [f32], lower: &mut [f32]) {
    let tiles = upper.len() / 2;
    assert!(upper.len() == lower.len() && tiles.is_multiple_of(GROUP) && upper.len() == 2 * tiles);
    assert!(x.len() >= (POINTS - 1) * plane + tiles, "the products are not those of all tiles");
    let transform = transforms(isa).1;
    // SAFETY: all points that are read, and all pixels that are written, are inside, as was just asserted. The
    // processor has the instructions.
    unsafe { transform(x.as_ptr(), plane, tiles, upper.as_mut_ptr(), lower.as_mut_ptr()) }
}

for_each_isa!(
    /// Writes a channel of a part of a convolution, with what follows it. The rows are alternately those of `upper` and
    /// `lower`, at a distance of `pitch`. Clears `is_finite` if a sum is not a finite number.
    finish_tiles = plain_finish_tiles(
        rows: [&mut [f32]; 2],
        widths: [usize; 2],
        epilogue: OfChannel<'_>,
        y: &mut [f32],
        is_finite: &mut bool
    )
);

#[inline(always)]
fn plain_finish_tiles(
    rows: [&mut [f32]; 2],
    [pitch, width]: [usize; 2],
    OfChannel { bias, activation, residual }: OfChannel<'_>,
    y: &mut [f32],
    is_finite: &mut bool,
) {
    /// The bits of the exponent: all of them are set in infinity and NaN.
    const EXPONENT: u32 = 0x7f80_0000;
    let (before, after) = match residual {
        Some((residual, true)) => (Some(residual), None),
        Some((residual, false)) => (None, Some(residual)),
        None => (None, None),
    };
    for (half, rows) in rows.into_iter().enumerate() {
        let not_finite = rows.iter().fold(0, |all, x| all | u32::from(x.to_bits() & EXPONENT == EXPONENT));
        *is_finite &= not_finite == 0;
        rows.iter_mut().for_each(|x| *x += bias);
        let mut places = (half * width..y.len()).step_by(2 * width);
        if let Some(residual) = before {
            for (row, place) in rows.chunks_mut(pitch).zip(places.clone()) {
                row.iter_mut().zip(&residual[place..place + width]).for_each(|(x, residual)| *x += residual);
            }
        }
        if let Some(activation) = activation {
            activate(rows, activation);
        }
        for row in rows.chunks(pitch) {
            let Some(place) = places.next() else { break };
            let y = &mut y[place..place + width];
            match after {
                Some(residual) => {
                    let residual = &residual[place..place + width];
                    y.iter_mut().zip(row.iter().zip(residual)).for_each(|(y, (x, residual))| *y = x + residual);
                }
                None => y.copy_from_slice(&row[..width]),
            }
        }
    }
}

/// See [`transform_elements`].
type OfElements = unsafe fn(*const f32, usize, usize, usize, *mut f32, usize);
/// See [`transform_products`]. The second number is that of tiles.
type OfProducts = unsafe fn(*const f32, usize, usize, *mut f32, *mut f32);

/// The transforms for an instruction set.
fn transforms(isa: Isa) -> (OfElements, OfProducts) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni if isa.is_present() => (x86::elements_512, x86::products_512),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.is_present() => (x86::elements_256, x86::products_256),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if isa.is_present() => (aarch64::elements_neon, aarch64::products_neon),
        _ => (portable::elements, portable::products),
    }
}

/// The two transforms for one type of vectors. `$split` divides the elements of two vectors into the even and the odd
/// ones, and `$merge` is its inverse.
///
/// # Safety
/// The processor has the instructions, and the addresses are as the functions above assert.
macro_rules! transforms {
    (
        $(#[$attribute:meta])*
        $elements:ident, $products:ident, $lanes:literal, $load:path, $store:path, $add:path, $subtract:path,
        $split:path, $merge:path
    ) => {
        $(#[$attribute])*
        pub(super) unsafe fn $elements(
            x: *const f32,
            width: usize,
            rows: usize,
            columns: usize,
            y: *mut f32,
            plane: usize,
        ) {
            for row in 0..rows {
                for column in (0..columns).step_by($lanes) {
                    // SAFETY: the caller guarantees that these elements are inside.
                    unsafe {
                        let first = x.add(2 * row * width + 2 * column);
                        // Elements of two tiles, one tile further, and the same two places to the right.
                        let places = [0, $lanes, 2, $lanes + 2];
                        let [a, b, c, d] = [0, 1, 2, 3].map(|row| {
                            let row = first.add(row * width);
                            [
                                $load(row.add(places[0])),
                                $load(row.add(places[1])),
                                $load(row.add(places[2])),
                                $load(row.add(places[3])),
                            ]
                        });
                        let of_rows = [
                            [$subtract(a[0], c[0]), $subtract(a[1], c[1]), $subtract(a[2], c[2]), $subtract(a[3], c[3])],
                            [$add(b[0], c[0]), $add(b[1], c[1]), $add(b[2], c[2]), $add(b[3], c[3])],
                            [$subtract(c[0], b[0]), $subtract(c[1], b[1]), $subtract(c[2], b[2]), $subtract(c[3], b[3])],
                            [$subtract(b[0], d[0]), $subtract(b[1], d[1]), $subtract(b[2], d[2]), $subtract(b[3], d[3])],
                        ];
                        let to = y.add(row * columns + column);
                        for (at, [first, second, third, fourth]) in of_rows.into_iter().enumerate() {
                            let (a, b) = $split(first, second);
                            let (c, d) = $split(third, fourth);
                            let to = to.add(4 * at * plane);
                            $store(to, $subtract(a, c));
                            $store(to.add(plane), $add(b, c));
                            $store(to.add(2 * plane), $subtract(c, b));
                            $store(to.add(3 * plane), $subtract(b, d));
                        }
                    }
                }
            }
        }

        $(#[$attribute])*
        pub(super) unsafe fn $products(
            x: *const f32,
            plane: usize,
            tiles: usize,
            upper: *mut f32,
            lower: *mut f32,
        ) {
            for tile in (0..tiles).step_by($lanes) {
                // SAFETY: the caller guarantees that these elements are inside.
                unsafe {
                    let of_rows = [0, 1, 2, 3].map(|column| {
                        let first = x.add(column * plane + tile);
                        let (a, b) = ($load(first), $load(first.add(4 * plane)));
                        let (c, d) = ($load(first.add(8 * plane)), $load(first.add(12 * plane)));
                        [$add($add(a, b), c), $subtract($subtract(b, c), d)]
                    });
                    for (row, to) in [upper, lower].into_iter().enumerate() {
                        let [a, b, c, d] = of_rows.map(|rows| rows[row]);
                        let (left, right) = $merge($add($add(a, b), c), $subtract($subtract(b, c), d));
                        $store(to.add(2 * tile), left);
                        $store(to.add(2 * tile + $lanes), right);
                    }
                }
            }
        }
    };
}

mod portable {
    unsafe fn load(from: *const f32) -> f32 {
        // SAFETY: the caller guarantees that the element can be read.
        unsafe { from.read() }
    }

    unsafe fn store(to: *mut f32, x: f32) {
        // SAFETY: the caller guarantees that the element can be written.
        unsafe { to.write(x) }
    }

    fn add(a: f32, b: f32) -> f32 {
        a + b
    }

    fn subtract(a: f32, b: f32) -> f32 {
        a - b
    }

    fn same(a: f32, b: f32) -> (f32, f32) {
        (a, b)
    }

    transforms! {
        /// One tile at a time.
        elements, products, 1, load, store, add, subtract, same, same
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_add_ps, _mm256_castpd_ps, _mm256_castps_pd, _mm256_loadu_ps, _mm256_permute2f128_ps,
        _mm256_permute4x64_pd, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps, _mm512_add_ps, _mm512_loadu_ps, _mm512_permutex2var_ps, _mm512_setr_epi32,
        _mm512_storeu_ps, _mm512_sub_ps,
    };

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn split_512(a: __m512, b: __m512) -> (__m512, __m512) {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        (_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn merge_512(a: __m512, b: __m512) -> (__m512, __m512) {
        let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        (_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, second, b))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn split_256(a: __m256, b: __m256) -> (__m256, __m256) {
        // In each half, two elements of `a` and two of `b`.
        let halves = [_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b)];
        let [even, odd] = halves.map(|half| _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(half))));
        (even, odd)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn merge_256(a: __m256, b: __m256) -> (__m256, __m256) {
        let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
    }

    transforms! {
        /// 16 tiles at a time.
        #[target_feature(enable = "avx512f")]
        elements_512, products_512, 16, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_sub_ps, split_512,
        merge_512
    }

    transforms! {
        /// 8 tiles at a time.
        #[target_feature(enable = "avx2")]
        elements_256, products_256, 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_sub_ps, split_256,
        merge_256
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::{
        float32x4_t, vaddq_f32, vld1q_f32, vst1q_f32, vsubq_f32, vuzp1q_f32, vuzp2q_f32, vzip1q_f32, vzip2q_f32,
    };

    #[inline]
    #[target_feature(enable = "neon")]
    fn split(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        (vuzp1q_f32(a, b), vuzp2q_f32(a, b))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn merge(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        (vzip1q_f32(a, b), vzip2q_f32(a, b))
    }

    transforms! {
        /// 4 tiles at a time.
        #[target_feature(enable = "neon")]
        elements_neon, products_neon, 4, vld1q_f32, vst1q_f32, vaddq_f32, vsubq_f32, split, merge
    }
}
