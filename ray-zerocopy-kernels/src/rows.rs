//! Functions of rows: softmax and layer norm.

use super::isa::Isa;
use super::sys;

/// Parameters of a layer norm.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// One factor for each column.
    pub gamma: &'a [f32],
    /// One summand for each column.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Replaces each row of `width` elements by its softmax.
///
/// # Panics
/// If the elements are not whole rows, or the processor does not have the instructions.
pub fn softmax(isa: Isa, elements: &mut [f32], width: usize) {
    assert!(isa.is_present(), "this processor does not have {isa}");
    assert!(elements.is_empty() || (width > 0 && elements.len().is_multiple_of(width)), "the rows are not whole");
    sys::softmax(isa, elements, width.max(1));
}

/// Computes `(x - mean) / sqrt(variance + epsilon) · gamma + beta` of each row.
///
/// # Panics
/// If the elements are not whole rows, the result has another length, or the processor does not have the
/// instructions.
pub fn layer_norm(isa: Isa, x: &[f32], norm: &LayerNorm<'_>, y: &mut [f32]) {
    assert!(isa.is_present(), "this processor does not have {isa}");
    let width = norm.gamma.len();
    let is_whole = x.is_empty() || (width > 0 && x.len().is_multiple_of(width));
    assert!(is_whole && x.len() == y.len(), "x has {} elements and y {}, in rows of {width}", x.len(), y.len());
    assert!(norm.beta.is_none_or(|beta| beta.len() == width), "beta has another length than gamma");
    sys::layer_norm(isa, x, norm, y);
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::{LayerNorm, layer_norm, softmax};

    fn present() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_present())
    }

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 7919 % 1009) as f32 - 500.0) / 100.0).collect()
    }

    #[test]
    fn softmax_is_that_of_a_plain_loop() {
        for isa in present() {
            for width in [1, 3, 16, 33, 100] {
                let x = numbers(4 * width);
                let mut found = x.clone();
                softmax(isa, &mut found, width);
                for (row, found) in x.chunks(width).zip(found.chunks(width)) {
                    let most = row.iter().copied().fold(f32::MIN, f32::max);
                    let powers: Vec<f64> = row.iter().map(|x| f64::from(x - most).exp()).collect();
                    let sum: f64 = powers.iter().sum();
                    for (found, power) in found.iter().zip(powers) {
                        assert!((f64::from(*found) - power / sum).abs() < 1e-6, "{isa} {width}");
                    }
                }
            }
        }
    }

    #[test]
    fn masked_and_broken_rows_of_a_softmax() {
        for isa in present() {
            let mut row = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.0];
            softmax(isa, &mut row, 4);
            assert_eq!(row, [0.0, 0.5, 0.0, 0.5]);
            let mut row = [0.0, f32::NAN, 1.0];
            softmax(isa, &mut row, 3);
            assert!(row.iter().all(|x| x.is_nan()), "{isa} {row:?}");
            softmax(isa, &mut [], 7);
        }
    }

    #[test]
    fn layer_norm_is_that_of_a_plain_loop() {
        for isa in present() {
            for width in [1, 5, 16, 47, 384] {
                let (x, gamma, beta) = (numbers(3 * width), numbers(width), numbers(width));
                let mut y = vec![0.0; x.len()];
                let norm = LayerNorm { gamma: &gamma, beta: Some(&beta), epsilon: 1e-5 };
                layer_norm(isa, &x, &norm, &mut y);
                for (row, y) in x.chunks(width).zip(y.chunks(width)) {
                    let mean = row.iter().copied().map(f64::from).sum::<f64>() / width as f64;
                    let squares = row.iter().map(|x| (f64::from(*x) - mean).powi(2));
                    let variance = squares.sum::<f64>() / width as f64;
                    for (at, found) in y.iter().enumerate() {
                        let normal = (f64::from(row[at]) - mean) / (variance + 1e-5).sqrt();
                        let expected = normal * f64::from(gamma[at]) + f64::from(beta[at]);
                        assert!((f64::from(*found) - expected).abs() < 1e-4, "{isa} {width}: {found} {expected}");
                    }
                }
            }
        }
    }
}
