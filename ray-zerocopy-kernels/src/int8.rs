//! Matrix products with packed 8-bit weights. Rows of `x` are quantised when they are multiplied.

use super::epilogue::Epilogue;
use super::isa::Isa;
use super::packed::PANEL;
use super::packed_i8::PackedI8;
use super::quantised_product::QuantisedProduct;
use super::quantised_rows::{Form, QuantisedRows};
use super::sys::{self, Columns, MOST_ROWS, Scaling, TileI8};

/// Computes `activation(x · weight + bias) + residual` with 8-bit numbers. `x` has as many columns as the weight has
/// rows, `y` as many as it has columns; both are stored row by row. Uses the threads of rayon's current pool.
///
/// Each row of `x` is quantised to 256 steps from its least element (or 0) to its greatest (or 0), separately for each
/// block of rows of the weight. Sums of a block are exact, and the result without the activation is the same to the
/// last bit for all instruction sets and numbers of threads. A row with NaN or infinity becomes NaN.
///
/// # Panics
/// If a length does not fit the weight, or the processor does not have the instructions.
pub fn linear_i8(isa: Isa, x: &[f32], weight: &PackedI8<'_>, epilogue: &Epilogue<'_>, y: &mut [f32]) {
    let (form, block, shape) = (Form::Unsigned, weight.block(), [weight.k(), weight.n()]);
    let product = QuantisedProduct { isa, form, block, shape, most_rows: MOST_ROWS, epilogue };
    product.compute(x, y, |rows, row, panel, y| tile(isa, rows, weight, row, panel, y));
}

/// Computes the product of some rows and a panel.
fn tile(isa: Isa, rows: &QuantisedRows, weight: &PackedI8<'_>, row: usize, panel: usize, y: &mut Columns<'_>) {
    let mut sums = [[0; PANEL]; MOST_ROWS];
    // Adds the product of a block to those of the blocks before it.
    let mut add = |block: usize, y: &mut Columns<'_>| {
        let tile = TileI8 {
            x: rows.values(row, block * weight.block()),
            stride: rows.stride(),
            panel: weight.panel(panel, block),
            rows: y.rows(),
        };
        tile.multiply(isa, &mut sums);
        let columns = weight.columns(panel, block);
        sys::dequantise_u8(isa, &sums, &Scaling { rows, row, block, columns }, y);
    };
    match weight.blocks() {
        0 => (0..y.rows()).for_each(|row| y.row(row).fill(0.0)),
        blocks => (0..blocks).for_each(|block| add(block, y)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::{Activation, Epilogue};
    use super::super::isa::Isa;
    use super::super::packed::PANEL;
    use super::super::packed_i8::{MOST_BLOCK, PackedI8, QuantisedI8, quantise_i8};
    use super::super::quantised_product::KEPT;
    use super::super::quantised_rows::{Form, QuantisedRows};
    use super::super::testing::{activated, numbers, present};
    use super::linear_i8;

    /// A weight, and the numbers that it was made of.
    struct Weight {
        elements: Vec<f32>,
        quantised: QuantisedI8,
        shape: [usize; 2],
        block: usize,
    }

    impl Weight {
        fn new(elements: Vec<f32>, [k, n]: [usize; 2], block: usize) -> Self {
            let quantised = quantise_i8(k, n, block, |row, column| elements[row * n + column]);
            Self { elements, quantised, shape: [k, n], block }
        }

        fn packed(&self) -> PackedI8<'_> {
            let QuantisedI8 { panels, scales, sums } = &self.quantised;
            PackedI8::new(panels, scales, sums, self.shape, self.block).unwrap()
        }

        fn number(&self, row: usize, column: usize) -> i32 {
            let groups = self.shape[0].div_ceil(4);
            let at = (((column / PANEL) * groups + row / 4) * PANEL + column % PANEL) * 4 + row % 4;
            i32::from(self.quantised.panels[at])
        }

        fn scale(&self, block: usize, column: usize) -> f32 {
            let blocks = self.shape[0].div_ceil(self.block);
            self.quantised.scales[((column / PANEL) * blocks + block) * PANEL + column % PANEL]
        }
    }

    /// The product by plain loops over the same quantised numbers, and the bound of the difference to the exact one.
    fn plain(x: &[f32], weight: &Weight, m: usize) -> (Vec<f32>, Vec<f64>) {
        let [k, n] = weight.shape;
        let mut rows = QuantisedRows::default();
        rows.quantise(Isa::Portable, Form::Unsigned, x, k, weight.block, 1);
        let (mut y, mut bounds) = (Vec::new(), Vec::new());
        for row in 0..m {
            for column in 0..n {
                let (mut sum, mut bound) = (0.0_f32, 0.0);
                for (block, begin) in (0..k).step_by(weight.block).enumerate() {
                    let ((scale, zero), weight_scale) = (rows.scale(row, block), weight.scale(block, column));
                    let mut exact = 0_i64;
                    for at in begin..(begin + weight.block).min(k) {
                        let value = i32::from(rows.values(row, at)[0]) - zero;
                        exact += i64::from(value * weight.number(at, column));
                        // Half a step of each factor, times the other one.
                        bound += 0.502 * f64::from(scale) * f64::from(weight.elements[at * n + column]).abs()
                            + 0.502 * f64::from(weight_scale) * f64::from(scale) * f64::from(value).abs();
                    }
                    sum += i32::try_from(exact).unwrap() as f32 * (scale * weight_scale);
                }
                y.push(sum);
                bounds.push(bound + 1e-6 * f64::from(sum).abs());
            }
        }
        (y, bounds)
    }

    /// Compares with the plain loops, and with the exact product in double precision.
    fn check(x: &[f32], weight: &Weight) {
        let [k, n] = weight.shape;
        let m = x.len() / k;
        let (expected, bounds) = plain(x, weight, m);
        for isa in present() {
            let mut y = vec![f32::NAN; m * n];
            linear_i8(isa, x, &weight.packed(), &Epilogue::default(), &mut y);
            assert_eq!(y, expected, "{isa} {m}×{k}×{n} in blocks of {}", weight.block);
        }
        for (at, (found, bound)) in expected.iter().zip(bounds).enumerate() {
            let (row, column) = (at / n, at % n);
            let products = (0..k).map(|at| f64::from(x[row * k + at]) * f64::from(weight.elements[at * n + column]));
            let exact = products.sum::<f64>();
            assert!((f64::from(*found) - exact).abs() <= bound, "{row} {column}: {found} {exact} {bound}");
        }
    }

    #[test]
    fn products_of_all_edge_shapes_are_exact() {
        for m in [1, 2, 3, 11, 12, 13, 23, 24, 25, 97] {
            for (k, n) in [(1, 1), (3, PANEL), (4, 5), (5, PANEL - 1), (16, PANEL + 1), (131, 2 * PANEL)] {
                for block in [4, 64, MOST_BLOCK] {
                    check(&numbers(m * k, 1), &Weight::new(numbers(k * n, 2), [k, n], block));
                }
            }
        }
    }

    #[test]
    fn empty_products_are_the_epilogue_of_zeros() {
        for isa in present() {
            let weight = Weight::new(Vec::new(), [0, 3], MOST_BLOCK);
            let mut y = [f32::NAN; 6];
            let epilogue = Epilogue { bias: Some(&[1.0, 2.0, 3.0]), ..Epilogue::default() };
            linear_i8(isa, &[], &weight.packed(), &epilogue, &mut y);
            assert_eq!(y, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
            linear_i8(isa, &[], &Weight::new(vec![1.0; 15], [5, 3], 4).packed(), &epilogue, &mut []);
            linear_i8(isa, &[], &Weight::new(Vec::new(), [5, 0], 4).packed(), &Epilogue::default(), &mut []);
        }
    }

    #[test]
    fn greatest_sums_do_not_overflow() {
        // More rows than a block may have, and all products have the greatest value of one sign.
        for (x, weight) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
            let k = MOST_BLOCK + 37;
            check(&vec![x; 2 * k], &Weight::new(vec![weight; k * 3], [k, 3], MOST_BLOCK));
        }
    }

    #[test]
    fn one_huge_element_costs_the_others_of_its_block() {
        let (k, n) = (300, 5);
        for huge in [1e30, -1e30, f32::MAX] {
            let mut x = numbers(2 * k, 1);
            x[17] = huge;
            check(&x, &Weight::new(numbers(k * n, 2), [k, n], MOST_BLOCK));
            check(&x, &Weight::new(numbers(k * n, 2), [k, n], 128));
            let mut weight = numbers(k * n, 2);
            weight[7] = huge * 1e-25;
            check(&numbers(2 * k, 1), &Weight::new(weight, [k, n], MOST_BLOCK));
        }
    }

    #[test]
    fn rows_of_zeros_give_zeros() {
        let (k, n) = (77, PANEL + 1);
        let weight = Weight::new(numbers(k * n, 2), [k, n], MOST_BLOCK);
        let mut x = numbers(3 * k, 1);
        x[k..2 * k].fill(0.0);
        for isa in present() {
            let mut y = vec![f32::NAN; 3 * n];
            linear_i8(isa, &x, &weight.packed(), &Epilogue::default(), &mut y);
            assert!(y[n..2 * n].iter().all(|y| *y == 0.0) && y.iter().filter(|y| **y == 0.0).count() == n, "{isa}");
        }
    }

    #[test]
    fn nan_and_infinity_reach_their_row_or_column() {
        let (m, k, n) = (14, 70, PANEL + 3);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for isa in present() {
                let mut y = vec![0.0; m * n];
                let mut x = numbers(m * k, 1);
                x[12 * k + 3] = value;
                let weight = Weight::new(numbers(k * n, 2), [k, n], 64);
                linear_i8(isa, &x, &weight.packed(), &Epilogue::default(), &mut y);
                assert!(y.iter().enumerate().all(|(at, y)| y.is_nan() == (at / n == 12)), "{isa} {value}");
                let mut elements = numbers(k * n, 2);
                elements[66 * n + PANEL] = value;
                let weight = Weight::new(elements, [k, n], 64);
                linear_i8(isa, &numbers(m * k, 1), &weight.packed(), &Epilogue::default(), &mut y);
                assert!(y.iter().enumerate().all(|(at, y)| y.is_nan() == (at % n == PANEL)), "{isa} {value}");
            }
        }
    }

    #[test]
    fn epilogues_are_applied_to_each_element() {
        let (m, k, n) = (13, 20, PANEL + 7);
        let (x, weight) = (numbers(m * k, 1), Weight::new(numbers(k * n, 2), [k, n], MOST_BLOCK));
        let (bias, residual) = (numbers(n, 3), numbers(m * n, 4));
        let (products, _) = plain(&x, &weight, m);
        for isa in present() {
            for activation in [None, Some(Activation::Relu), Some(Activation::Gelu)] {
                let mut y = vec![f32::NAN; m * n];
                let epilogue = Epilogue { bias: Some(&bias), activation, residual: Some(&residual) };
                linear_i8(isa, &x, &weight.packed(), &epilogue, &mut y);
                for (at, (found, product)) in y.iter().zip(&products).enumerate() {
                    let sum = f64::from(*product) + f64::from(bias[at % n]);
                    let expected = activated(sum, activation) + f64::from(residual[at]);
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{isa} {at}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn divided_products_are_exact() {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        threads.install(|| {
            // By rows, by columns, and with more rows than are quantised at a time.
            check(&numbers(200 * 128, 1), &Weight::new(numbers(128 * 70, 2), [128, 70], MOST_BLOCK));
            check(&numbers(2 * 1024, 1), &Weight::new(numbers(1024 * 600, 2), [1024, 600], 128));
            let (m, k, n) = (KEPT / 4096 + 50, 4096, 2);
            let weight = Weight::new(numbers(k * n, 2), [k, n], MOST_BLOCK);
            check(&numbers(m * k, 1), &weight);
            // Each row of the residual belongs to its row.
            let residual: Vec<f32> = (0..m * n).map(|at| at as f32).collect();
            let mut y = vec![f32::NAN; m * n];
            let epilogue = Epilogue { residual: Some(&residual), ..Epilogue::default() };
            linear_i8(Isa::best(), &vec![0.0; m * k], &weight.packed(), &epilogue, &mut y);
            assert_eq!(y, residual);
        });
    }

    #[test]
    #[should_panic(expected = "x has 5 elements")]
    fn wrong_lengths_are_refused() {
        let weight = Weight::new(vec![0.0; 6], [3, 2], 4);
        linear_i8(Isa::Portable, &[0.0; 5], &weight.packed(), &Epilogue::default(), &mut [0.0; 4]);
    }
}
