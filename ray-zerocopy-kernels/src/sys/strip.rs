//! A tile of a product with a matrix that is stored row by row: some rows of `x`, and 16 or 32 columns.

use super::columns::Columns;
use super::kernels::Kernel;
use super::tile::MOST_ROWS;
use crate::isa::Isa;
use crate::packed::PANEL;

/// Columns of the narrower tiles.
pub(crate) const HALF: usize = PANEL / 2;

/// Rows of `x` and some columns of a matrix.
pub(crate) struct Strip<'a> {
    /// The first row of `x`, and those behind it.
    pub(crate) x: &'a [f32],
    /// Distance between rows of `x`.
    pub(crate) stride: usize,
    /// The first column of the matrix, and what is behind it.
    pub(crate) matrix: &'a [f32],
    /// Distance between rows of the matrix.
    pub(crate) width: usize,
    /// Rows of the matrix. Each of them belongs to a column of `x`.
    pub(crate) depth: usize,
    /// Whether the product is added to what the result has.
    pub(crate) adds: bool,
}

impl Strip<'_> {
    /// Computes the product: from 1 to [`MOST_ROWS`] rows of [`PANEL`] or [`HALF`] columns.
    pub(crate) fn multiply(&self, isa: Isa, y: &mut Columns<'_>) {
        let (rows, columns) = (y.rows(), y.columns());
        let reads = |count: usize, stride: usize, width: usize| (count - 1) * stride + width;
        assert!((1..=MOST_ROWS).contains(&rows) && [PANEL, HALF].contains(&columns), "the tile has another size");
        assert!(self.depth == 0 || self.x.len() >= reads(rows, self.stride, self.depth), "a row of x is outside of it");
        let fits = self.depth == 0 || self.matrix.len() >= reads(self.depth, self.width, columns);
        assert!(fits, "a row of the matrix is outside of it");
        let Some(kernels) = kernels(isa, columns) else {
            return if columns == PANEL { self.portable::<PANEL>(y) } else { self.portable::<HALF>(y) };
        };
        let (pointer, stride) = y.raw();
        let kernel = kernels[rows - 1];
        let (x, matrix) = (self.x.as_ptr(), self.matrix.as_ptr());
        // SAFETY: the rows of `x` and of the matrix are inside of them, as was just asserted, and `y` has as many rows
        // and columns as the kernel writes. The processor has the instructions.
        unsafe { kernel(x, self.stride, matrix, [self.width, self.depth], pointer, stride, self.adds) }
    }

    /// The same without special instructions. `COLUMNS` is the number of columns.
    fn portable<const COLUMNS: usize>(&self, y: &mut Columns<'_>) {
        for row in 0..y.rows() {
            let Some(y) = y.row(row).first_chunk_mut::<COLUMNS>() else { return };
            let mut sums = if self.adds { *y } else { [0.0; COLUMNS] };
            let others = self.matrix.chunks(self.width).filter_map(|others| others.first_chunk::<COLUMNS>());
            for (x, others) in self.x[row * self.stride..][..self.depth].iter().zip(others) {
                for (sum, other) in sums.iter_mut().zip(others) {
                    *sum += x * other;
                }
            }
            *y = sums;
        }
    }
}

/// The kernels for a number of columns, if the processor has the instructions.
fn kernels(isa: Isa, columns: usize) -> Option<&'static [Kernel<f32>; MOST_ROWS]> {
    let kernels: Option<&[Kernel<f32>; MOST_ROWS]> = match (isa, columns) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Vnni, HALF) => Some(super::kernels::AVX512_16),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Vnni, _) => Some(<f32 as super::kernels::Element>::AVX512),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, HALF) => Some(super::kernels::AVX2_16),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, _) => Some(<f32 as super::kernels::Element>::AVX2),
        #[cfg(target_arch = "aarch64")]
        (Isa::Neon, HALF) => Some(super::kernels::NEON_16),
        #[cfg(target_arch = "aarch64")]
        (Isa::Neon, _) => Some(<f32 as super::kernels::Element>::NEON),
        _ => None,
    };
    kernels.filter(|_| isa.is_present())
}
