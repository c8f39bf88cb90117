//! Tiles of an attention: the kernels of each instruction set, and the checks that their addresses are inside.

use super::attention_kernels::{product, softmax};
use super::columns::Columns;
use super::vector::Portable;
use crate::divide::tile_rows;
use crate::isa::Isa;
use crate::packed::PANEL;

/// Elements of 32 rows of `q` side by side, in whole lines of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(128))]
pub(crate) struct Lanes(pub(crate) [f32; PANEL]);

impl Lanes {
    /// All elements are 0.
    pub(crate) const ZERO: Self = Self([0.0; PANEL]);

    /// All elements, one after the other.
    pub(crate) fn elements(all: &mut [Self]) -> &mut [f32] {
        let count = all.len() * PANEL;
        // SAFETY: they consist of `PANEL` elements each, and `all` is borrowed for as long as the result. Their
        // alignment is their size, so there is nothing between them.
        unsafe { std::slice::from_raw_parts_mut(all.as_mut_ptr().cast(), count) }
    }
}

/// Columns of the narrowest products.
pub(crate) const NARROW: usize = PANEL / 2;

/// A kernel for a number of rows and columns, with the arguments of [`product`].
type Product = unsafe fn(*const f32, usize, *const f32, usize, usize, *mut f32, usize, *const f32);
/// A kernel for all lanes, with the arguments of [`softmax`].
type Softmax = unsafe fn(*mut f32, usize, usize, &[usize], *const u8, f32, *mut f32);

/// The kernels of an instruction set.
struct Kernels {
    /// Those of the scores, and those of the products with values: for 1, 2 … rows.
    narrow: [&'static [Product]; 2],
    /// The same for [`PANEL`] columns, if their sums fit into the registers.
    wide: Option<[&'static [Product]; 2]>,
    softmax: Softmax,
}

/// Defines the kernels of an instruction set: a vector, the number of vectors of [`NARROW`] and of [`PANEL`] columns,
/// and numbers of rows.
macro_rules! kernels {
    (
        $(#[$attribute:meta])*
        $name:ident, $vector:ty, $narrow:literal, [$($wide:literal)?], $rows:tt
    ) => {
        mod $name {
            use super::*;

            /// [`product`] with these instructions.
            ///
            /// # Safety
            /// That of [`product`].
            $(#[$attribute])*
            #[expect(clippy::too_many_arguments, reason = "those of `product`")]
            unsafe fn tile<const ROWS: usize, const VECTORS: usize, const TRANSPOSED: bool>(
                x: *const f32,
                stride: usize,
                panel: *const f32,
                panel_stride: usize,
                depth: usize,
                y: *mut f32,
                y_stride: usize,
                factors: *const f32,
            ) {
                // SAFETY: the caller guarantees it.
                unsafe {
                    product::<$vector, ROWS, VECTORS, TRANSPOSED>(
                        x, stride, panel, panel_stride, depth, y, y_stride, factors,
                    );
                }
            }

            /// [`softmax`] with these instructions.
            ///
            /// # Safety
            /// That of [`softmax`].
            $(#[$attribute])*
            unsafe fn softmax_columns(
                scores: *mut f32,
                keys: usize,
                lanes: usize,
                out: &[usize],
                mask: *const u8,
                fill: f32,
                factors: *mut f32,
            ) {
                // SAFETY: the caller guarantees it.
                unsafe { softmax::<$vector>(scores, keys, lanes, out, mask, fill, factors) }
            }

            pub(super) const KERNELS: Kernels = Kernels {
                narrow: [tiles!($narrow, false, $rows), tiles!($narrow, true, $rows)],
                wide: wide!([$($wide)?], $rows),
                softmax: softmax_columns,
            };
        }
    };
}

macro_rules! tiles {
    ($vectors:literal, $transposed:literal, [$($rows:literal),+]) => {
        &[$(tile::<$rows, $vectors, $transposed>),+]
    };
}

macro_rules! wide {
    ([], $rows:tt) => {
        None
    };
    ([$vectors:literal], $rows:tt) => {
        Some([tiles!($vectors, false, $rows), tiles!($vectors, true, $rows)])
    };
}

kernels!(portable, Portable, 4, [], [1, 2]);

#[cfg(target_arch = "x86_64")]
kernels!(
    #[target_feature(enable = "avx512f,avx2,fma")]
    avx512,
    std::arch::x86_64::__m512,
    1,
    [2],
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
);

#[cfg(target_arch = "x86_64")]
kernels!(
    #[target_feature(enable = "avx2,fma")]
    avx2,
    std::arch::x86_64::__m256,
    2,
    [],
    [1, 2, 3, 4, 5, 6]
);

#[cfg(target_arch = "aarch64")]
kernels!(
    #[target_feature(enable = "neon")]
    neon,
    std::arch::aarch64::float32x4_t,
    4,
    [],
    [1, 2, 3, 4, 5, 6]
);

impl Kernels {
    /// The kernels of an instruction set, or portable ones if the processor does not have it.
    fn of(isa: Isa) -> &'static Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni if isa.is_present() => &const { avx512::KERNELS },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if isa.is_present() => &const { avx2::KERNELS },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon if isa.is_present() => &const { neon::KERNELS },
            _ => &const { portable::KERNELS },
        }
    }

    /// Computes [`product`] for any number of rows, and columns that are a multiple of [`NARROW`].
    ///
    /// # Safety
    /// That of [`product`]. The processor has the instructions of these kernels.
    #[expect(clippy::too_many_arguments, reason = "those of `product`")]
    #[inline(always)]
    unsafe fn product<const TRANSPOSED: bool>(
        &self,
        [rows, columns]: [usize; 2],
        x: *const f32,
        stride: usize,
        panel: *const f32,
        panel_stride: usize,
        depth: usize,
        y: *mut f32,
        y_stride: usize,
        factors: *const f32,
    ) {
        let mut column = 0;
        while column < columns {
            let (tiles, width) = match self.wide {
                Some(wide) if columns - column >= PANEL => (wide, PANEL),
                _ => (self.narrow, NARROW),
            };
            let tiles = tiles[usize::from(TRANSPOSED)];
            let mut row = 0;
            while row < rows {
                let count = tile_rows(rows - row, tiles.len());
                let skipped = if TRANSPOSED { row } else { row * stride };
                let to = y.wrapping_add(row * y_stride + column);
                let (x, panel) = (x.wrapping_add(skipped), panel.wrapping_add(column));
                let (tile, factors) = (tiles[count - 1], factors.wrapping_add(row));
                // SAFETY: these are rows and columns of those that the caller guarantees.
                unsafe { tile(x, stride, panel, panel_stride, depth, to, y_stride, factors) }
                row += count;
            }
            column += width;
        }
    }
}

/// Computes the products of some rows of `k`, which are at a distance of `stride`, with the columns of a panel. There
/// is a row of `scores` for each of them, and one of `panel` for each of their elements. The first `lanes` columns are
/// computed.
pub(crate) fn scores(isa: Isa, k: &[f32], stride: usize, panel: &[Lanes], lanes: usize, scores: &mut [Lanes]) {
    let (keys, width) = (scores.len(), panel.len());
    assert!(keys == 0 || k.len() >= (keys - 1) * stride + width, "a key is outside of the elements");
    assert!(lanes <= PANEL && lanes.is_multiple_of(NARROW), "the panel has other columns");
    let (x, y) = (k.as_ptr(), scores.as_mut_ptr().cast());
    let panel = panel.as_ptr().cast();
    let kernels = Kernels::of(isa);
    // SAFETY: the rows of `k` are inside of it, `panel` has `width` rows, and `scores` has a row for each key. Both
    // have `lanes` columns. The processor has the instructions.
    unsafe { kernels.product::<false>([keys, lanes], x, stride, panel, PANEL, width, y, PANEL, std::ptr::null()) }
}

/// Keys that are left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeftOut<'a> {
    /// For all rows of `q`.
    pub(crate) keys: &'a [usize],
    /// For each row of `q`: a byte other than 0.
    pub(crate) mask: Option<&'a [[u8; PANEL]]>,
    /// Their score.
    pub(crate) fill: f32,
}

impl LeftOut<'_> {
    /// No key is left out.
    pub(crate) const NOTHING: Self = Self { keys: &[], mask: None, fill: 0.0 };
}

/// Replaces scores by powers of 2, and finds the factors that make the sum of each column 1, or 0 if all scores of a
/// column are `-∞`.
pub(crate) fn softmax_columns(isa: Isa, scores: &mut [Lanes], lanes: usize, out: &LeftOut<'_>, factors: &mut Lanes) {
    let keys = scores.len();
    assert!(out.mask.is_none_or(|mask| mask.len() == keys), "the mask has another number of keys");
    assert!(out.keys.iter().all(|key| *key < keys), "a key is outside of the scores");
    assert!(lanes <= PANEL && lanes.is_multiple_of(NARROW), "the scores have other columns");
    let mask = out.mask.map_or(std::ptr::null(), |mask| mask.as_ptr().cast());
    let kernel = Kernels::of(isa).softmax;
    let (scores, factors) = (scores.as_mut_ptr().cast(), factors.0.as_mut_ptr());
    // SAFETY: there are `keys` scores of `PANEL` columns, and as many elements of the mask. `lanes` are at most `PANEL`
    // and whole vectors. The processor has the instructions.
    unsafe { kernel(scores, keys, lanes, out.keys, mask, out.fill, factors) }
}

/// Computes the sums of the rows of `v`, which are at a distance of `stride`, with the weights in each column of
/// `powers`, and multiplies them with the factor of the column. There is a row of the result for each of its columns.
pub(crate) fn weighted(isa: Isa, powers: &[Lanes], factors: &Lanes, v: &[f32], stride: usize, y: &mut Columns<'_>) {
    let (rows, columns, keys) = (y.rows(), y.columns(), powers.len());
    assert!(rows <= PANEL && columns.is_multiple_of(NARROW), "the result has other dimensions");
    assert!(keys == 0 || v.len() >= (keys - 1) * stride + columns, "a value is outside of the elements");
    let (to, y_stride) = y.raw();
    let (x, factors) = (powers.as_ptr().cast(), factors.0.as_ptr());
    let kernels = Kernels::of(isa);
    // SAFETY: there are `keys` powers with at least `rows` columns, and as many factors. `v` has `keys` rows and `y`
    // has `rows` of them, with `columns` columns. The processor has the instructions.
    unsafe { kernels.product::<true>([rows, columns], x, PANEL, v.as_ptr(), stride, keys, to, y_stride, factors) }
}
