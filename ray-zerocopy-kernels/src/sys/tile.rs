//! A tile of a product: some rows of `x`, and the columns of a panel.

use super::columns::Columns;
use super::kernels::{Element, Kernel};
use crate::isa::Isa;
use crate::packed::PANEL;

/// The most rows of a tile: with 32 columns, their sums take 24 of the 32 vectors of AVX-512.
pub(crate) const MOST_ROWS: usize = 12;

/// The elements of a tile beside the result, where an epilogue is applied to them.
///
/// They are in the first level cache, and each vector is in one of its lines: what was just written there can be read
/// at once. Elements of the result may lie across two lines, and have to come from memory first.
#[repr(align(64))]
pub(crate) struct Elements(pub(crate) [[f32; PANEL]; MOST_ROWS]);

impl Default for Elements {
    fn default() -> Self {
        Self([[0.0; PANEL]; MOST_ROWS])
    }
}

impl Elements {
    /// Some of the rows.
    pub(crate) fn rows(&mut self, rows: usize) -> Columns<'_> {
        Columns::new(self.0[..rows].as_flattened_mut(), PANEL)
    }
}

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
    /// Computes the product in `elements`. If it is added to what the result has, that is read from `y`.
    pub(crate) fn multiply_aside(&self, isa: Isa, y: &mut Columns<'_>, elements: &mut Elements) {
        let depth = self.check(y);
        if self.adds {
            for (row, elements) in elements.0.iter_mut().enumerate().take(self.rows) {
                elements[..self.columns].copy_from_slice(y.row(row));
            }
        }
        self.whole(isa, depth, &mut elements.rows(self.rows));
    }

    /// Computes the product.
    pub(crate) fn multiply(&self, isa: Isa, y: &mut Columns<'_>) {
        let depth = self.check(y);
        if self.columns == PANEL {
            return self.whole(isa, depth, y);
        }
        // The kernels write whole panels.
        let mut elements = Elements::default();
        self.multiply_aside(isa, y, &mut elements);
        for (row, elements) in elements.0.iter().enumerate().take(self.rows) {
            y.row(row).copy_from_slice(&elements[..self.columns]);
        }
    }

    /// Asserts that all sizes fit, and returns the number of rows of the panel.
    fn check(&self, y: &Columns<'_>) -> usize {
        let depth = self.panel.len() / PANEL;
        let reads = (self.rows - 1) * self.stride + depth;
        assert!((1..=MOST_ROWS).contains(&self.rows) && self.panel.len() == depth * PANEL);
        assert!(depth == 0 || self.x.len() >= reads, "a row of x is outside of it");
        assert!(y.rows() == self.rows && y.columns() == self.columns && self.columns <= PANEL);
        depth
    }

    /// The same for a result that has all columns of the panel.
    fn whole(&self, isa: Isa, depth: usize, y: &mut Columns<'_>) {
        let Some(kernels) = kernels::<T>(isa) else {
            return self.portable(depth, y);
        };
        let (pointer, stride) = y.raw();
        let kernel = kernels[self.rows - 1];
        // SAFETY: `check` has asserted that the rows of `x` are inside of it, that the panel has `depth` rows, and
        // that `y` has these rows and the columns of a panel. The processor has the instructions.
        unsafe {
            kernel(self.x.as_ptr(), self.stride, self.panel.as_ptr(), [PANEL, depth], pointer, stride, self.adds);
        }
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

/// The kernels for 1 to [`MOST_ROWS`] rows, if the processor has the instructions, and they have kernels.
fn kernels<T: Element>(isa: Isa) -> Option<&'static [Kernel<T>; MOST_ROWS]> {
    let kernels = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni => Some(T::AVX512),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(T::AVX2),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(T::NEON),
        _ => None,
    };
    kernels.filter(|_| isa.is_present())
}
