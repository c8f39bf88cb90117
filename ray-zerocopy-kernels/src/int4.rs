//! Matrix products with packed 4-bit weights. Rows of `x` are quantised to 8 bits when they are multiplied.

use super::epilogue::Epilogue;
use super::isa::Isa;
use super::packed::PANEL;
use super::packed_i4::{I4_BLOCK, PackedI4};
use super::quantised_product::QuantisedProduct;
use super::quantised_rows::Form;
use super::sys::{MOST_ROWS_I4, TileI4};

/// Computes `activation(x · weight + bias) + residual` with 4-bit weights. `x` has as many columns as the weight has
/// rows, `y` as many as it has columns; both are stored row by row. Uses the threads of rayon's current pool.
///
/// Each [`I4_BLOCK`] elements of a row of `x` are quantised to 8 bits, with a scale of their own: their error is a
/// fraction of that of the weights, and processors multiply 8-bit numbers several times as fast as `f32`. Sums of a
/// block are exact, and the result without the activation is the same to the last bit for all instruction sets and
/// numbers of threads. A row with NaN or infinity becomes NaN.
///
/// # Panics
/// If a length does not fit the weight, or the processor does not have the instructions.
pub fn linear_i4(isa: Isa, x: &[f32], weight: &PackedI4<'_>, epilogue: &Epilogue<'_>, y: &mut [f32]) {
    let (form, block, shape) = (Form::Signed, I4_BLOCK, [weight.k(), weight.n()]);
    let product = QuantisedProduct { isa, form, block, shape, most_rows: MOST_ROWS_I4, epilogue };
    product.compute(x, y, |x, row, panel, y| {
        let mut elements = [[0.0; PANEL]; MOST_ROWS_I4];
        let (panel, scales) = weight.panel(panel);
        TileI4 { x, row, panel, scales, rows: y.rows() }.multiply(isa, &mut elements);
        for (row, elements) in elements.iter().take(y.rows()).enumerate() {
            let y = y.row(row);
            y.copy_from_slice(&elements[..y.len()]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::bf16::widen;
    use super::super::epilogue::{Activation, Epilogue};
    use super::super::isa::Isa;
    use super::super::packed::PANEL;
    use super::super::packed_i4::{I4_BLOCK, PackedI4, QuantisedI4, quantise_i4};
    use super::super::quantised_rows::{Form, QuantisedRows};
    use super::super::testing::{activated, numbers, present};
    use super::linear_i4;

    /// A weight, and the numbers that it was made of.
    struct Weight {
        elements: Vec<f32>,
        quantised: QuantisedI4,
        shape: [usize; 2],
    }

    impl Weight {
        fn new(elements: Vec<f32>, [k, n]: [usize; 2]) -> Self {
            let quantised = quantise_i4(k, n, |row, column| elements[row * n + column]);
            Self { elements, quantised, shape: [k, n] }
        }

        fn packed(&self) -> PackedI4<'_> {
            PackedI4::new(&self.quantised.panels, &self.quantised.scales, self.shape).unwrap()
        }

        /// The number in a row and a column, and its scale.
        fn number(&self, row: usize, column: usize) -> (i32, f32) {
            let (blocks, scales) = self.packed().panel(column / PANEL);
            let byte = blocks[row / I4_BLOCK][(row % I4_BLOCK / 8 * PANEL + column % PANEL) * 4 + row % 4];
            let number = i32::from(if row % 8 < 4 { byte & 15 } else { byte >> 4 }) - 8;
            (number, widen(scales[row / I4_BLOCK][column % PANEL]))
        }
    }

    /// The product by plain loops over the same quantised numbers, and the bound of the difference to the exact one.
    fn plain(x: &[f32], weight: &Weight, m: usize) -> (Vec<f32>, Vec<f64>) {
        let [k, n] = weight.shape;
        let mut rows = QuantisedRows::default();
        rows.quantise(Isa::Portable, Form::Signed, x, k, I4_BLOCK, 1);
        let (mut y, mut bounds) = (Vec::new(), Vec::new());
        for row in 0..m {
            for column in 0..n {
                let (mut sum, mut bound) = (0.0_f32, 0.0);
                for (block, begin) in (0..k).step_by(I4_BLOCK).enumerate() {
                    let (scale, _) = rows.scale(row, block);
                    let (mut exact, mut weight_scale) = (0, 0.0);
                    for at in begin..(begin + I4_BLOCK).min(k) {
                        let value = i32::from(rows.values(row, at)[0] as i8);
                        let (number, its_scale) = weight.number(at, column);
                        exact += value * number;
                        weight_scale = its_scale;
                        // Half a step of the row, and what the number differs from the element of the weight.
                        let element = f64::from(weight.elements[at * n + column]);
                        bound += 0.502 * f64::from(scale) * element.abs();
                        let error = (f64::from(number) * f64::from(its_scale) - element).abs();
                        bound += error * f64::from(scale) * f64::from(value).abs();
                    }
                    sum += exact as f32 * (scale * weight_scale);
                }
                y.push(sum);
                bounds.push(bound + 1e-5 + 1e-6 * f64::from(sum).abs());
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
            linear_i4(isa, x, &weight.packed(), &Epilogue::default(), &mut y);
            assert_eq!(y, expected, "{isa} {m}×{k}×{n}");
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
        for m in [1, 2, 5, 6, 7, 11, 12, 13, 97] {
            for (k, n) in [(1, 1), (3, PANEL), (4, 5), (5, PANEL - 1), (33, PANEL + 1), (131, 2 * PANEL), (64, 3)] {
                check(&numbers(m * k, 1), &Weight::new(numbers(k * n, 2), [k, n]));
            }
        }
    }

    #[test]
    fn greatest_sums_do_not_saturate() {
        for x in [1.0, -1.0] {
            // Each scale is 1, and all numbers of a column are 7, -8 or -7, or 7 and a -8.
            let columns: [fn(usize) -> f32; 4] =
                [|_| 7.0, |_| -8.0, |_| -7.0, |row| if row == 40 { -8.0 } else { 7.0 }];
            let weight: Vec<f32> = (0..64).flat_map(|row| columns.map(|column| column(row))).collect();
            let weight = Weight::new(weight, [64, 4]);
            assert_eq!(
                [0, 1, 2, 3].map(|column| weight.number(33, column)),
                [(7, 1.0), (-8, 1.0), (-7, 1.0), (7, 1.0)]
            );
            check(&[x; 2 * 64], &weight);
        }
    }

    #[test]
    fn one_huge_element_costs_the_others_of_its_block() {
        let (k, n) = (100, 5);
        for huge in [1e30, -1e30] {
            let mut x = numbers(2 * k, 1);
            x[17] = huge;
            check(&x, &Weight::new(numbers(k * n, 2), [k, n]));
            let mut weight = numbers(k * n, 2);
            weight[7] = huge * 1e-25;
            check(&numbers(2 * k, 1), &Weight::new(weight, [k, n]));
        }
    }

    #[test]
    fn empty_products_are_the_epilogue_of_zeros() {
        for isa in present() {
            let mut y = [f32::NAN; 6];
            let epilogue = Epilogue { bias: Some(&[1.0, 2.0, 3.0]), ..Epilogue::default() };
            linear_i4(isa, &[], &Weight::new(Vec::new(), [0, 3]).packed(), &epilogue, &mut y);
            assert_eq!(y, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
            linear_i4(isa, &[], &Weight::new(vec![1.0; 15], [5, 3]).packed(), &epilogue, &mut []);
            linear_i4(isa, &[], &Weight::new(Vec::new(), [5, 0]).packed(), &Epilogue::default(), &mut []);
        }
    }

    #[test]
    fn zeros_nan_and_infinity_reach_their_row_or_column() {
        let (m, k, n) = (14, 70, PANEL + 3);
        for isa in present() {
            for value in [0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let is_hit = |y: f32| if value == 0.0 { y == 0.0 } else { y.is_nan() };
                let mut x = numbers(m * k, 1);
                match value {
                    0.0 => x[12 * k..13 * k].fill(0.0),
                    _ => x[12 * k + 3] = value,
                }
                let mut y = vec![0.5; m * n];
                let weight = Weight::new(numbers(k * n, 2), [k, n]);
                linear_i4(isa, &x, &weight.packed(), &Epilogue::default(), &mut y);
                assert!(y.iter().enumerate().all(|(at, y)| is_hit(*y) == (at / n == 12)), "{isa} {value}");
                let mut elements = numbers(k * n, 2);
                match value {
                    0.0 => (0..k).for_each(|row| elements[row * n + PANEL] = 0.0),
                    _ => elements[66 * n + PANEL] = value,
                }
                let weight = Weight::new(elements, [k, n]);
                linear_i4(isa, &numbers(m * k, 1), &weight.packed(), &Epilogue::default(), &mut y);
                assert!(y.iter().enumerate().all(|(at, y)| is_hit(*y) == (at % n == PANEL)), "{isa} {value}");
            }
        }
    }

    #[test]
    fn epilogues_and_threads() {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for (m, k, n) in [(13, 20, PANEL + 7), (200, 128, 70), (2, 1024, 600)] {
            let (x, weight) = (numbers(m * k, 1), Weight::new(numbers(k * n, 2), [k, n]));
            let (bias, residual) = (numbers(n, 3), numbers(m * n, 4));
            let (products, _) = plain(&x, &weight, m);
            for isa in present() {
                let mut y = vec![f32::NAN; m * n];
                let activation = Some(Activation::Gelu);
                let epilogue = Epilogue { bias: Some(&bias), activation, residual: Some(&residual) };
                threads.install(|| linear_i4(isa, &x, &weight.packed(), &epilogue, &mut y));
                for (at, (found, product)) in y.iter().zip(&products).enumerate() {
                    let sum = f64::from(*product) + f64::from(bias[at % n]);
                    let expected = activated(sum, activation) + f64::from(residual[at]);
                    let bound = 1e-6 * expected.abs().max(10.0);
                    assert!((f64::from(*found) - expected).abs() < bound, "{isa} {at}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "x has 5 elements")]
    fn wrong_lengths_are_refused() {
        let weight = Weight::new(vec![0.0; 6], [3, 2]);
        linear_i4(Isa::Portable, &[0.0; 5], &weight.packed(), &Epilogue::default(), &mut [0.0; 4]);
    }
}
