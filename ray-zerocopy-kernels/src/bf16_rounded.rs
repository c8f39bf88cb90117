//! Matrix products with packed weights of bf16, whose rows of `x` are rounded to bf16 as well.

use super::bf16::{PackedBf16, linear_bf16};
use super::epilogue::Epilogue;
use super::isa::Isa;
use super::packed::PANEL;
use super::quantised_product::QuantisedProduct;
use super::quantised_rows::Form;
use super::sys::{MOST_ROWS, TileBf16, multiplies_bf16};

/// Rows from which the products take more time than reading the weight.
const MANY: usize = 16;

/// Computes `activation(x · weight + bias) + residual` like [`linear_bf16`], but may round `x` to bf16, which has 8
/// bits of precision: if the processor multiplies bf16 (AVX512-BF16) and `x` has at least 16 rows. Then it computes
/// two products in the time of one. The sums are those of `f32`.
///
/// # Panics
/// If a length does not fit the weight, or the processor does not have the instructions.
pub fn linear_bf16_rounded(isa: Isa, x: &[f32], weight: &PackedBf16<'_>, epilogue: &Epilogue<'_>, y: &mut [f32]) {
    let (k, n) = (weight.k(), weight.n());
    if y.len() < MANY.saturating_mul(n) || k == 0 || !multiplies_bf16(isa) {
        return linear_bf16(isa, x, weight, epilogue, y);
    }
    let (form, shape) = (Form::Rounded, [k, n]);
    let product = QuantisedProduct { isa, form, block: k, shape, most_rows: MOST_ROWS, epilogue };
    product.compute(x, y, |rows, row, panel, y| {
        let mut elements = [[0.0; PANEL]; MOST_ROWS];
        let (x, stride, panel) = (rows.values(row, 0), rows.stride(), weight.panel(panel, 0..k));
        TileBf16 { x, stride, panel, rows: y.rows() }.multiply(isa, &mut elements);
        for (row, elements) in elements.iter().take(y.rows()).enumerate() {
            let y = y.row(row);
            y.copy_from_slice(&elements[..y.len()]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::bf16::{PackedBf16, linear_bf16, pack_bf16, round, widen};
    use super::super::epilogue::{Activation, Epilogue};
    use super::super::isa::Isa;
    use super::super::packed::PANEL;
    use super::super::testing::{numbers, present};
    use super::{MANY, linear_bf16_rounded, multiplies_bf16};

    /// Compares with the product of rows that were rounded before, which differs in the order of additions alone.
    fn check(m: usize, k: usize, n: usize, epilogue: &Epilogue<'_>) {
        let (x, weight) = (numbers(m * k, 1), numbers(k * n, 2));
        let panels = pack_bf16(k, n, |row, column| weight[row * n + column]);
        let packed = PackedBf16::new(&panels, k, n).unwrap();
        let rounded: Vec<f32> = x.iter().map(|x| widen(round(*x))).collect();
        for isa in present() {
            let (mut y, mut expected) = (vec![f32::NAN; m * n], vec![0.0; m * n]);
            linear_bf16_rounded(isa, &x, &packed, epilogue, &mut y);
            let rounds = multiplies_bf16(isa) && m >= MANY;
            linear_bf16(isa, if rounds { &rounded } else { &x }, &packed, epilogue, &mut expected);
            for (at, (found, expected)) in y.iter().zip(&expected).enumerate() {
                let bound = if rounds { 1e-5 * (k as f32).sqrt().max(1.0) } else { 0.0 };
                assert!((found - expected).abs() <= bound, "{isa} {m}×{k}×{n} at {at}: {found} {expected}");
            }
        }
    }

    #[test]
    fn products_are_those_of_rounded_rows() {
        for m in [0, 1, 15, 16, 23, 24, 25, 97] {
            for (k, n) in [(0, 5), (1, 1), (2, PANEL), (3, PANEL - 1), (4, PANEL + 1), (41, 2 * PANEL), (600, 40)] {
                check(m, k, n, &Epilogue::default());
            }
        }
        let (bias, residual) = (numbers(40, 3), numbers(20 * 40, 4));
        check(
            20,
            21,
            40,
            &Epilogue { bias: Some(&bias), activation: Some(Activation::Gelu), residual: Some(&residual) },
        );
    }

    #[test]
    fn divided_products_are_the_same() {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        threads.install(|| {
            check(200, 129, 70, &Epilogue::default());
            check(17, 1024, 600, &Epilogue::default());
        });
    }

    #[test]
    fn nan_and_infinity_reach_their_row() {
        let (m, k, n) = (20, 7, PANEL + 3);
        let panels = pack_bf16(k, n, |_, _| 1.0);
        let packed = PackedBf16::new(&panels, k, n).unwrap();
        for isa in present() {
            for value in [f32::NAN, f32::INFINITY, f32::MAX] {
                let mut x = vec![1.0; m * k];
                x[13 * k + 6] = value;
                let mut y = vec![0.0; m * n];
                linear_bf16_rounded(isa, &x, &packed, &Epilogue::default(), &mut y);
                for (at, found) in y.iter().enumerate() {
                    let is_hit = at / n == 13;
                    assert!(is_hit == (*found != 7.0) && (found.is_nan() == (is_hit && value.is_nan())), "{isa} {at}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "x has 5 elements")]
    fn wrong_lengths_are_refused() {
        let panels = pack_bf16(3, 2, |_, _| 0.0);
        let packed = PackedBf16::new(&panels, 3, 2).unwrap();
        linear_bf16_rounded(Isa::best(), &[0.0; 5], &packed, &Epilogue::default(), &mut [0.0; 40]);
    }
}
