//! Comparison of outputs.

use anyhow::{Result, ensure};
use ray_zerocopy::jit::Values;

/// Returns the numbers of a graph's output.
pub fn numbers(outputs: &Values) -> Result<Vec<f64>> {
    Ok(outputs.data("output")?.iter().collect())
}

/// The largest difference, in units of the largest number of `own`.
///
/// # Errors
/// If the lists have different lengths.
pub fn difference(own: &[f64], other: &[f64]) -> Result<f64> {
    ensure!(own.len() == other.len(), "an output has {} numbers, another one {}", own.len(), other.len());
    let largest = own.iter().map(|own| own.abs()).fold(0.0, f64::max);
    let distance = |(own, other): (&f64, &f64)| {
        let distance = (own - other).abs();
        if distance.is_nan() { f64::INFINITY } else { distance }
    };
    Ok(own.iter().zip(other).map(distance).fold(0.0, f64::max) / largest)
}

/// The cosine of the angle between two lists of numbers. Of unit vectors, it is the mean of their cosines.
pub fn cosine(own: &[f64], other: &[f64]) -> f64 {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    product(own, other) / (product(own, own) * product(other, other)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::{cosine, difference};

    #[test]
    fn difference_is_in_units_of_the_largest_number() {
        assert_eq!(difference(&[1.0, -4.0], &[2.0, -4.0]).unwrap(), 0.25);
        assert_eq!(difference(&[1.0], &[f64::NAN]).unwrap(), f64::INFINITY);
        let error = difference(&[1.0], &[]).unwrap_err().to_string();
        assert_eq!(error, "an output has 1 numbers, another one 0");
    }

    #[test]
    fn cosine_is_that_of_the_angle() {
        assert_eq!(cosine(&[1.0, 0.0], &[3.0, 0.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
    }
}
