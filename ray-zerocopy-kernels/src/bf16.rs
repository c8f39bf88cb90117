//! Matrix products with packed weights of bf16, which have the upper half of the bits of an `f32`.
//!
//! The elements are extended in registers: products and sums are those of `f32`, and the processor reads half of the
//! bytes. That is what a product of few rows takes its time for.

use super::epilogue::Epilogue;
use super::isa::Isa;
use super::linear::product;
use super::packed::{Packed, pack_into};

/// A packed matrix of bf16, as bits. Its shape is the [`packed_shape`](super::packed_shape).
pub type PackedBf16<'a> = Packed<'a, u16>;

/// Packs a matrix as bf16. `at` returns the element in a row and a column; it is rounded if it is not a bf16.
pub fn pack_bf16(k: usize, n: usize, at: impl Fn(usize, usize) -> f32) -> Vec<u16> {
    let mut panels = Vec::new();
    pack_into(&mut panels, k, n, |row, column| round(at(row, column)));
    panels
}

/// The bits of the next bf16. Ties go to the even one.
#[inline(always)]
pub(crate) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        // The lower half may have all of the bits that make it NaN.
        return (bits >> 16) as u16 | 0x40;
    }
    // A number behind the greatest one becomes infinite.
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The `f32` of the bits of a bf16.
#[inline(always)]
pub(crate) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Computes `activation(x · weight + bias) + residual` like [`linear`](super::linear()), with weights of bf16. `x` is
/// not rounded.
///
/// # Panics
/// If a length does not fit the weight, or the processor does not have the instructions.
pub fn linear_bf16(isa: Isa, x: &[f32], weight: &PackedBf16<'_>, epilogue: &Epilogue<'_>, y: &mut [f32]) {
    product(isa, x, weight, epilogue, y);
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::{Activation, Epilogue};
    use super::super::isa::Isa;
    use super::super::packed::{PANEL, Packed, pack};
    use super::super::testing::{numbers, present};
    use super::{PackedBf16, linear_bf16, pack_bf16, round, widen};

    /// Compares with the product of the same weights as `f32`, to the last bit.
    fn check(m: usize, k: usize, n: usize, epilogue: &Epilogue<'_>) {
        let (x, weight) = (numbers(m * k, 1), numbers(k * n, 2));
        let panels = pack_bf16(k, n, |row, column| weight[row * n + column]);
        let wide = pack(k, n, |row, column| widen(round(weight[row * n + column])));
        let packed = PackedBf16::new(&panels, k, n).unwrap();
        for isa in present() {
            let (mut y, mut expected) = (vec![f32::NAN; m * n], vec![0.0; m * n]);
            linear_bf16(isa, &x, &packed, epilogue, &mut y);
            super::super::linear(isa, &x, &Packed::new(&wide, k, n).unwrap(), epilogue, &mut expected);
            assert_eq!(y, expected, "{isa} {m}×{k}×{n}");
            if epilogue.activation.is_some() {
                continue;
            }
            for (at, found) in y.iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let weight = |at: usize| f64::from(weight[at * n + column]);
                let exact: f64 = (0..k).map(|at| f64::from(x[row * k + at]) * weight(at)).sum();
                let most: f64 = (0..k).map(|at| (f64::from(x[row * k + at]) * weight(at)).abs()).sum();
                let bound = most / 256.0 + 1e-5;
                assert!((f64::from(*found) - exact).abs() <= bound, "{isa} {row} {column}: {found} {exact}");
            }
        }
    }

    #[test]
    fn products_are_those_of_the_same_weights_as_f32() {
        for m in [0, 1, 2, 11, 12, 13, 25, 97] {
            for (k, n) in [(0, 5), (1, 1), (3, PANEL), (4, PANEL - 1), (5, PANEL + 1), (40, 2 * PANEL)] {
                check(m, k, n, &Epilogue::default());
            }
        }
        check(14, 1100, 40, &Epilogue::default());
        let bias = numbers(40, 3);
        let epilogue = Epilogue { bias: Some(&bias), activation: Some(Activation::Silu), residual: None };
        check(14, 20, 40, &epilogue);
    }

    #[test]
    fn divided_products_are_the_same() {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        threads.install(|| {
            check(200, 128, 70, &Epilogue::default());
            check(2, 1024, 600, &Epilogue::default());
        });
    }

    #[test]
    fn numbers_are_rounded_to_the_next_one() {
        for x in numbers(10_000, 7) {
            let (found, bits) = (widen(round(x)), x.to_bits());
            let neighbours = [bits & 0xffff_0000, (bits & 0xffff_0000) + 0x1_0000].map(f32::from_bits);
            let least = neighbours.map(|other| (other - x).abs()).into_iter().fold(f32::MAX, f32::min);
            assert!((found - x).abs() == least, "{x} {found}");
        }
        // Ties, the greatest numbers, and those that have no neighbours.
        let cases = [
            (0x3f80_8000, 0x3f80),
            (0x3f81_8000, 0x3f82),
            (0xbf81_8000, 0xbf82),
            (0x7f7f_ffff, 0x7f80),
            (0x7f80_0000, 0x7f80),
            (0xff80_0000, 0xff80),
            (0x8000_0000, 0x8000),
            (0x0000_0001, 0x0000),
        ];
        for (bits, expected) in cases {
            assert_eq!(round(f32::from_bits(bits)), expected, "{bits:x}");
        }
        assert!(widen(round(f32::NAN)).is_nan() && widen(round(f32::from_bits(0xff80_0001))).is_nan());
    }

    #[test]
    fn nan_and_infinity_reach_their_column() {
        let (m, k, n) = (3, 5, PANEL + 3);
        for isa in present() {
            for value in [f32::NAN, f32::INFINITY] {
                let panels = pack_bf16(k, n, |row, column| if (row, column) == (2, PANEL) { value } else { 1.0 });
                let mut y = vec![0.0; m * n];
                let packed = PackedBf16::new(&panels, k, n).unwrap();
                linear_bf16(isa, &vec![1.0; m * k], &packed, &Epilogue::default(), &mut y);
                for (at, found) in y.iter().enumerate() {
                    let expected = if at % n == PANEL { value } else { k as f32 };
                    assert!(found.total_cmp(&expected).is_eq(), "{isa} {at}: {found}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "x has 5 elements")]
    fn wrong_lengths_are_refused() {
        let panels = pack_bf16(3, 2, |_, _| 0.0);
        assert!(PackedBf16::new(&panels[1..], 3, 2).is_none());
        let packed = PackedBf16::new(&panels, 3, 2).unwrap();
        linear_bf16(Isa::Portable, &[0.0; 5], &packed, &Epilogue::default(), &mut [0.0; 4]);
    }
}
