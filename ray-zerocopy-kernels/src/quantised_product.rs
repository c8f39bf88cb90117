//! Products of quantised rows: the rows of `x` are quantised once, then multiplied with all panels.

use std::ops::Range;

use super::divide::{divide, threads, tile_rows};
use super::epilogue::Epilogue;
use super::isa::Isa;
use super::packed::PANEL;
use super::quantised_rows::{Form, QuantisedRows};
use super::sys::{Columns, Elements, MOST_ROWS};

/// Bytes of quantised rows at a time: what a thread keeps for its next product.
pub(crate) const KEPT: usize = 4 << 20;
/// Bytes of quantised rows that are multiplied with all panels before the next ones: they stay in the cache.
const CACHED: usize = 256 << 10;

/// A product whose rows of `x` are quantised.
pub(crate) struct QuantisedProduct<'a> {
    pub(crate) isa: Isa,
    /// How rows are quantised.
    pub(crate) form: Form,
    /// Rows of a block of the weight.
    pub(crate) block: usize,
    /// Rows and columns of the weight.
    pub(crate) shape: [usize; 2],
    /// The most rows of a tile.
    pub(crate) most_rows: usize,
    pub(crate) epilogue: &'a Epilogue<'a>,
}

impl QuantisedProduct<'_> {
    /// Computes `y`. `tile` writes the product of some rows and a panel: it gets the index of the first row, that of
    /// the panel, and a part of the result or of a tile.
    ///
    /// # Panics
    /// If a length does not fit the weight, or the processor does not have the instructions.
    pub(crate) fn compute(
        &self,
        x: &[f32],
        y: &mut [f32],
        tile: impl Fn(&QuantisedRows, usize, usize, &mut Columns<'_>) + Sync,
    ) {
        let Self { isa, form, block, shape: [k, n], epilogue, .. } = *self;
        let m = y.len().checked_div(n).unwrap_or(0);
        assert!(y.len() == m * n && x.len() == m * k, "x has {} elements and y {}, for {k} × {n}", x.len(), y.len());
        assert!(epilogue.fits(m, n), "the bias or the residual does not have the size of the result");
        assert!(isa.is_present(), "this processor does not have {isa}");
        let most = (KEPT / k.max(1)).max(MOST_ROWS).next_multiple_of(MOST_ROWS);
        QuantisedRows::with(|rows| {
            for begin in (0..m).step_by(most) {
                let end = (begin + most).min(m);
                rows.quantise(isa, form, &x[begin * k..end * k], k, block, threads(end - begin, k, n));
                divide([end - begin, k, n], &mut y[begin * n..end * n], |mut part, first, panels| {
                    self.part(rows, begin, first, panels, &mut part, &tile);
                });
            }
        });
    }

    /// Computes a part of the result: the columns of some panels, and the rows from `first` on. The first one of all
    /// quantised rows is `begin`.
    fn part(
        &self,
        rows: &QuantisedRows,
        begin: usize,
        first: usize,
        panels: Range<usize>,
        y: &mut Columns<'_>,
        tile: &impl Fn(&QuantisedRows, usize, usize, &mut Columns<'_>),
    ) {
        let [_, n] = self.shape;
        let mut aside = Elements::default();
        let cached = (CACHED / rows.stride().max(1)).clamp(1, 8) * MOST_ROWS;
        for from in (0..y.rows()).step_by(cached) {
            let to = (from + cached).min(y.rows());
            for panel in panels.clone() {
                let columns = (n - panel * PANEL).min(PANEL);
                let mut row = from;
                while row < to {
                    let count = tile_rows(to - row, self.most_rows);
                    let mut part = y.part(row, (panel - panels.start) * PANEL, count, columns);
                    let place = [begin + first + row, panel * PANEL, n];
                    part.request(self.epilogue, place);
                    if self.epilogue.is_empty() {
                        tile(rows, first + row, panel, &mut part);
                    } else {
                        tile(rows, first + row, panel, &mut aside.rows(count));
                        part.write(self.isa, self.epilogue, &mut aside, place);
                    }
                    row += count;
                }
            }
        }
    }
}
