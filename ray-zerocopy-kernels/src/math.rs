//! `exp`, `erf` and `tanh` for whole vectors: without branches, so that the compiler can vectorise their loops.
//!
//! Their errors are a few units in the last place of `f32`, and NaN and infinities have the results of the
//! standard functions.

#![expect(clippy::excessive_precision, reason = "the coefficients are those of the sources")]

/// `e^x`. Results below the smallest normal number are 0.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // The natural logarithm of 2 as a sum, whose first part is exact in products with small integers.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// 1.5 · 2^23.
    const ROUND: f32 = 12_582_912.0;
    const LEAST: f32 = -87.336_54;
    const MOST: f32 = 88.722_83;
    let clamped = x.clamp(LEAST, MOST);
    // The next integer is in the last bits of the sum. A conversion would not be vectorised, since it saturates.
    let rounded = clamped * LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let rest = whole.mul_add(-LN2_LOW, whole.mul_add(-LN2_HIGH, clamped));
    let mut series = 1.987_569_1e-4_f32;
    series = series.mul_add(rest, 1.398_2e-3);
    series = series.mul_add(rest, 8.333_452e-3);
    series = series.mul_add(rest, 4.166_579_6e-2);
    series = series.mul_add(rest, 1.666_666_5e-1);
    series = series.mul_add(rest, 5e-1);
    series = series.mul_add(rest * rest, rest) + 1.0;
    // Two factors, since 2^128 is not a number.
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = exponent >> 1;
    let power = |exponent: i32| f32::from_bits((exponent.wrapping_add(127) as u32) << 23);
    let result = series * power(half) * power(exponent.wrapping_sub(half));
    let result = if x > MOST { f32::INFINITY } else { result };
    let result = if x < LEAST { 0.0 } else { result };
    if x.is_nan() { x } else { result }
}

/// The error function, as a quotient of two polynomials.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let clamped = x.clamp(-4.0, 4.0);
    let square = clamped * clamped;
    let mut above = -2.726_142_2e-10_f32;
    above = above.mul_add(square, 2.770_681_4e-8);
    above = above.mul_add(square, -2.101_024e-6);
    above = above.mul_add(square, -5.692_506_4e-5);
    above = above.mul_add(square, -7.349_906_3e-4);
    above = above.mul_add(square, -2.954_599_8e-3);
    above = above.mul_add(square, -1.609_603_3e-2);
    let mut below = -1.456_607_2e-5_f32;
    below = below.mul_add(square, -2.133_740_5e-4);
    below = below.mul_add(square, -1.682_827e-3);
    below = below.mul_add(square, -7.373_329e-3);
    below = below.mul_add(square, -1.426_473_9e-2);
    let result = clamped * above / below;
    if x.is_nan() { x } else { result }
}

/// The hyperbolic tangent, as a quotient of two polynomials.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    const MOST: f32 = 7.905_311;
    let clamped = x.clamp(-MOST, MOST);
    let square = clamped * clamped;
    let mut above = -2.760_768_5e-16_f32;
    above = above.mul_add(square, 2.000_188e-13);
    above = above.mul_add(square, -8.604_672e-11);
    above = above.mul_add(square, 5.122_297e-8);
    above = above.mul_add(square, 1.485_722_4e-5);
    above = above.mul_add(square, 6.372_619e-4);
    above = above.mul_add(square, 4.893_524_6e-3);
    let mut below = 1.198_258_4e-6_f32;
    below = below.mul_add(square, 1.185_347_06e-4);
    below = below.mul_add(square, 2.268_434_6e-3);
    below = below.mul_add(square, 4.893_525e-3);
    let result = clamped * above / below;
    let result = if x.abs() < 4e-4 { x } else { result };
    if x.is_nan() { x } else { result }
}

#[cfg(test)]
mod tests {
    use super::{erf, exp, tanh};

    /// The largest difference, in units of the last place of the greater one of the result and `least`.
    fn worst(own: fn(f32) -> f32, exact: fn(f64) -> f64, from: f32, to: f32, least: f32) -> f64 {
        let count = 200_000;
        let error = |at: i32| {
            let x = from + (to - from) * at as f32 / count as f32;
            let (found, expected) = (f64::from(own(x)), exact(f64::from(x)));
            (found - expected).abs() / (expected.abs().max(f64::from(least)) * f64::from(f32::EPSILON))
        };
        (0..=count).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn results_are_exact_to_a_few_units() {
        let worst_exp = worst(exp, f64::exp, -87.0, 88.7, 0.0);
        let worst_tanh = worst(tanh, f64::tanh, -10.0, 10.0, 1e-3);
        let worst_erf = worst(erf, libm::erf, -6.0, 6.0, 1e-3);
        assert!(worst_exp < 3.0 && worst_tanh < 8.0 && worst_erf < 8.0, "{worst_exp} {worst_tanh} {worst_erf}");
    }

    #[test]
    fn special_values_are_those_of_the_standard_functions() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for function in [exp, erf, tanh] {
            assert!(function(nan).is_nan());
        }
        assert_eq!((exp(inf), exp(-inf), exp(0.0), exp(-200.0), exp(89.0)), (inf, 0.0, 1.0, 0.0, inf));
        assert_eq!((erf(0.0), tanh(0.0), tanh(1e-5)), (0.0, 0.0, 1e-5));
        for function in [erf, tanh] {
            assert!((function(inf) - 1.0).abs() < 1e-6 && (function(-inf) + 1.0).abs() < 1e-6);
        }
    }
}
