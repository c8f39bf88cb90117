//! Matrix products with packed weights, and what follows them.

use super::divide::{divide, tile_rows};
use super::epilogue::Epilogue;
use super::isa::Isa;
use super::packed::{PANEL, Packed};
use super::sys::{Columns, Element, Elements, MOST_ROWS, Tile};

/// Rows of `x` that are multiplied with all panels before the next ones: they stay in the cache.
const BLOCK: usize = 8 * MOST_ROWS;
/// Rows of a panel that are read at a time: 64 KiB, which stays in the second level cache.
const DEPTH: usize = 512;

/// Computes `activation(x · weight + bias) + residual`. `x` has as many columns as the weight has rows, `y` as many
/// as it has columns; both are stored row by row. Uses the threads of rayon's current pool.
///
/// # Panics
/// If a length does not fit the weight, or the processor does not have the instructions.
pub fn linear(isa: Isa, x: &[f32], weight: &Packed<'_>, epilogue: &Epilogue<'_>, y: &mut [f32]) {
    product(isa, x, weight, epilogue, y);
}

/// [`linear`] for each type of weights.
pub(crate) fn product<T: Element>(isa: Isa, x: &[f32], weight: &Packed<'_, T>, epilogue: &Epilogue<'_>, y: &mut [f32]) {
    let (k, n) = (weight.k(), weight.n());
    let m = y.len().checked_div(n).unwrap_or(0);
    assert!(y.len() == m * n && x.len() == m * k, "x has {} elements and y {}, for {k} × {n}", x.len(), y.len());
    assert!(epilogue.fits(m, n), "the bias or the residual does not have the size of the result");
    assert!(isa.is_present(), "this processor does not have {isa}");
    let product = Product { isa, x, weight, epilogue };
    divide([m, k, n], y, |part, first, panels| product.compute(part, first, panels));
}

struct Product<'a, T> {
    isa: Isa,
    x: &'a [f32],
    weight: &'a Packed<'a, T>,
    epilogue: &'a Epilogue<'a>,
}

impl<T: Element> Product<'_, T> {
    /// Computes a part of the result: the rows from `first` on, and the columns of some panels.
    fn compute(&self, mut y: Columns<'_>, first: usize, panels: std::ops::Range<usize>) {
        let (k, n) = (self.weight.k(), self.weight.n());
        let rows = y.rows();
        let mut aside = Elements::default();
        // A tile alone reads each panel once, from its begin to its end.
        let depth = if rows <= MOST_ROWS { k.max(1) } else { DEPTH };
        for block in (0..rows).step_by(BLOCK) {
            let end = (block + BLOCK).min(rows);
            // At least once, so that a weight without rows gives the epilogue of zeros.
            for begin in (0..k.max(1)).step_by(depth) {
                let depth = begin..(begin + depth).min(k);
                for panel in panels.clone() {
                    let columns = (n - panel * PANEL).min(PANEL);
                    let mut row = block;
                    while row < end {
                        let count = tile_rows(end - row, MOST_ROWS);
                        let begin = (first + row) * k + depth.start;
                        let tile = Tile {
                            x: &self.x[begin..],
                            stride: k,
                            panel: self.weight.panel(panel, depth.clone()),
                            rows: count,
                            columns,
                            adds: depth.start > 0,
                        };
                        let mut part = y.part(row, (panel - panels.start) * PANEL, count, columns);
                        let place = [first + row, panel * PANEL, n];
                        part.request(self.epilogue, place);
                        if depth.end == k && !self.epilogue.is_empty() {
                            tile.multiply_aside(self.isa, &mut part, &mut aside);
                            part.write(self.isa, self.epilogue, &mut aside, place);
                        } else {
                            tile.multiply(self.isa, &mut part);
                        }
                        row += count;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::{Activation, Epilogue};
    use super::super::isa::Isa;
    use super::super::packed::{PANEL, Packed, pack};
    use super::super::testing::{activated, numbers, present};
    use super::linear;

    /// Compares with a plain loop in double precision.
    fn check(isa: Isa, m: usize, k: usize, n: usize, epilogue: &Epilogue<'_>) {
        let (x, weight) = (numbers(m * k, 1), numbers(k * n, 2));
        let panels = pack(k, n, |row, column| weight[row * n + column]);
        let packed = Packed::new(&panels, k, n).unwrap();
        let mut y = vec![f32::NAN; m * n];
        linear(isa, &x, &packed, epilogue, &mut y);
        for row in 0..m {
            for column in 0..n {
                let products = (0..k).map(|at| f64::from(x[row * k + at]) * f64::from(weight[at * n + column]));
                let sum = products.sum::<f64>() + epilogue.bias.map_or(0.0, |bias| f64::from(bias[column]));
                let residual = epilogue.residual.map_or(0.0, |all| f64::from(all[row * n + column]));
                let expected = activated(sum, epilogue.activation) + residual;
                let found = f64::from(y[row * n + column]);
                let bound = 1e-5 * (k as f64).sqrt().max(1.0);
                assert!((found - expected).abs() <= bound, "{isa} {m}×{k}×{n} at {row} {column}: {found} {expected}");
            }
        }
    }

    #[test]
    fn products_of_all_edge_shapes_are_right() {
        for isa in present() {
            for m in [0, 1, 2, 11, 12, 13, 23, 24, 25, 97] {
                for (k, n) in [(1, 1), (3, PANEL), (17, PANEL - 1), (16, PANEL + 1), (0, 5), (40, 2 * PANEL)] {
                    check(isa, m, k, n, &Epilogue::default());
                }
            }
            // More rows than are read at a time.
            check(isa, 14, 1100, 40, &Epilogue::default());
        }
    }

    #[test]
    fn epilogues_are_applied_to_each_element() {
        let (m, k, n) = (13, 20, PANEL + 7);
        let (bias, residual) = (numbers(n, 3), numbers(m * n, 4));
        let kinds = [Activation::Relu, Activation::Gelu, Activation::Silu, Activation::Sigmoid, Activation::Tanh];
        for isa in present() {
            for activation in kinds.into_iter().map(Some).chain([None]) {
                for (bias, residual) in [(None, None), (Some(&bias[..]), None), (Some(&bias[..]), Some(&residual[..]))]
                {
                    check(isa, m, k, n, &Epilogue { bias, activation, residual });
                }
            }
        }
    }

    #[test]
    fn divided_products_are_right() {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        threads.install(|| {
            for isa in present() {
                // By rows, and by columns.
                check(isa, 200, 128, 70, &Epilogue::default());
                let bias = numbers(600, 3);
                check(isa, 2, 1024, 600, &Epilogue { bias: Some(&bias), ..Epilogue::default() });
            }
        });
    }

    #[test]
    fn nan_and_infinity_reach_their_row_and_column() {
        let (m, k, n) = (3, 5, PANEL + 3);
        for isa in present() {
            for (value, column) in [(f32::NAN, 1), (f32::INFINITY, PANEL + 1)] {
                let mut weight = vec![1.0; k * n];
                weight[2 * n + column] = value;
                let panels = pack(k, n, |row, column| weight[row * n + column]);
                let packed = Packed::new(&panels, k, n).unwrap();
                let mut y = vec![0.0; m * n];
                linear(isa, &vec![1.0; m * k], &packed, &Epilogue::default(), &mut y);
                for (at, found) in y.iter().enumerate() {
                    let is_hit = at % n == column;
                    assert_eq!(found.is_finite(), !is_hit, "{isa} {at}: {found}");
                    assert_eq!(found.is_nan(), is_hit && value.is_nan());
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "x has 5 elements")]
    fn wrong_lengths_are_refused() {
        let panels = pack(3, 2, |_, _| 0.0);
        let packed = Packed::new(&panels, 3, 2).unwrap();
        linear(Isa::Portable, &[0.0; 5], &packed, &Epilogue::default(), &mut [0.0; 4]);
    }
}
