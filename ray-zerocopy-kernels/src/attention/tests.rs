use super::{Heads, Mask, attention};
use crate::isa::Isa;
use crate::testing::{numbers, present};

/// Batch, heads, rows of `q`, keys, width of `q` and `k`, width of `v`.
type Shape = [usize; 6];

const SCALE: f32 = 0.25;

/// The inputs of an attention.
struct Inputs {
    shape: Shape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Inputs {
    fn new(shape @ [batch, heads, rows, keys, width, wide]: Shape) -> Self {
        Self {
            shape,
            q: numbers(batch * rows * heads * width, 1),
            k: numbers(batch * keys * heads * width, 2),
            v: numbers(batch * keys * heads * wide, 3),
        }
    }

    /// Scores that are greater by a factor.
    fn sharpened(mut self, factor: f32) -> Self {
        self.q.iter_mut().for_each(|q| *q *= factor);
        self
    }

    fn compute(&self, isa: Isa, mask: Option<&Mask<'_>>) -> Vec<f32> {
        let [batch, heads, rows, keys, width, wide] = self.shape;
        let mut y = vec![f32::NAN; batch * rows * heads * wide];
        let part = |elements, rows, width| Heads { elements, rows, width };
        let (q, k, v) = (part(&self.q[..], rows, width), part(&self.k[..], keys, width), part(&self.v[..], keys, wide));
        attention(isa, [batch, heads], &q, &k, &v, mask, SCALE, &mut y);
        y
    }

    /// Compares with plain loops in double precision.
    fn check(&self, isa: Isa, mask: Option<&Mask<'_>>) {
        self.check_within(isa, mask, 1e-6);
    }

    fn check_within(&self, isa: Isa, mask: Option<&Mask<'_>>, precision: f64) {
        let [batch, heads, rows, keys, width, wide] = self.shape;
        let found = self.compute(isa, mask);
        let element =
            |all: &[f32], [row, head, at]: [usize; 3], width: usize| f64::from(all[(row * heads + head) * width + at]);
        for b in 0..batch {
            for h in 0..heads {
                for row in 0..rows {
                    let score = |key: usize| {
                        if let Some(mask) = mask {
                            let [s0, s1, s2, s3] = mask.strides;
                            if mask.elements[mask.start + b * s0 + h * s1 + row * s2 + key * s3] != 0 {
                                return f64::from(mask.fill);
                            }
                        }
                        let products = (0..width).map(|at| {
                            element(&self.q, [b * rows + row, h, at], width)
                                * element(&self.k, [b * keys + key, h, at], width)
                        });
                        products.sum::<f64>() * f64::from(SCALE)
                    };
                    let scores: Vec<f64> = (0..keys).map(score).collect();
                    let most = scores.iter().copied().fold(f64::MIN, f64::max);
                    let powers: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                    let sum: f64 = powers.iter().sum();
                    for at in 0..wide {
                        let weighted = |key: usize| powers[key] * element(&self.v, [b * keys + key, h, at], wide);
                        let total: f64 = (0..keys).map(weighted).sum();
                        let size: f64 = (0..keys).map(|key| weighted(key).abs()).sum();
                        let expected = if sum == 0.0 { 0.0 } else { total / sum };
                        let bound = if sum == 0.0 { 0.0 } else { precision * size / sum };
                        let found = element(&found, [b * rows + row, h, at], wide);
                        assert!(
                            (found - expected).abs() <= bound,
                            "{isa} {:?} at {b} {row} {h} {at}: {found} {expected}",
                            self.shape
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn result_is_that_of_plain_loops() {
    let shapes: [Shape; 6] = [
        [2, 3, 5, 7, 4, 6],
        [1, 1, 100, 70, 32, 32],
        [1, 2, 1, 1, 1, 40],
        [3, 2, 12, 12, 32, 32],
        [1, 2, 40, 200, 64, 64],
        [1, 1, 3, 600, 80, 80],
    ];
    for isa in present() {
        for shape in shapes {
            Inputs::new(shape).check(isa, None);
        }
    }
}

#[test]
fn attention_of_all_edge_shapes_is_right() {
    for isa in present() {
        for rows in [0, 1, 2, 11, 12, 13, 15, 16, 17, 31, 32, 33, 65] {
            for keys in [0, 1, 2, 6, 7, 12, 13, 25] {
                for (width, wide) in [(0, 3), (1, 1), (7, 16), (8, 15), (9, 17), (31, 32), (32, 31), (33, 48), (16, 0)]
                {
                    Inputs::new([1, 2, rows, keys, width, wide]).check(isa, None);
                }
            }
        }
        for (batch, heads) in [(0, 2), (2, 0)] {
            Inputs::new([batch, heads, 3, 3, 4, 4]).check(isa, None);
        }
    }
}

#[test]
fn masks_of_keys_and_of_rows_are_applied() {
    for isa in present() {
        for fill in [f32::NEG_INFINITY, -3.0, 2.0, f32::MIN] {
            for (rows, keys) in [(1, 5), (3, 5), (16, 12), (33, 17)] {
                let inputs = Inputs::new([2, 2, rows, keys, 8, 20]);
                let elements: Vec<u8> = (0..4 * rows * keys + 3).map(|at| u8::from(at % 3 == 0)).collect();
                let masks = [
                    // For each sequence, head, row, and all of them.
                    [keys, 0, 0, 1],
                    [2 * keys, keys, 0, 1],
                    [0, 0, keys, 1],
                    [2 * rows * keys, rows * keys, keys, 1],
                    // The same keys for all, rows whose elements are side by side, and keys of the same element.
                    [0, 0, 0, 1],
                    [0, rows * keys, 1, rows],
                    [0, 0, 1, 0],
                    [0; 4],
                ];
                for strides in masks {
                    inputs.check(isa, Some(&Mask { elements: &elements, start: 3, strides, fill }));
                }
            }
        }
    }
}

#[test]
fn row_that_leaves_out_all_keys_is_zero() {
    let (rows, keys) = (18, 13);
    // The row 17 leaves out all of them, and the second sequence.
    let by_row: Vec<u8> = (0..rows * keys).map(|at| u8::from(at / keys == 17)).collect();
    let by_sequence: Vec<u8> = (0..2 * keys).map(|at| u8::from(at >= keys)).collect();
    let inputs = Inputs::new([2, 2, rows, keys, 32, 32]);
    for isa in present() {
        for (elements, strides) in [(&by_row, [0, 0, keys, 1]), (&by_sequence, [keys, 0, 0, 1])] {
            let is_zero = |fill: f32| -> Vec<bool> {
                let mask = Mask { elements, start: 0, strides, fill };
                inputs.check(isa, Some(&mask));
                inputs.compute(isa, Some(&mask)).chunks(2 * 32).map(|row| row.iter().all(|y| *y == 0.0)).collect()
            };
            let expected: Vec<_> =
                (0..2 * rows).map(|row| if strides[2] > 0 { row % rows == 17 } else { row >= rows }).collect();
            assert_eq!(is_zero(f32::NEG_INFINITY), expected, "{isa}");
            // The mean of the values.
            assert!(is_zero(f32::MIN).iter().all(|is_zero| !is_zero), "{isa}");
        }
    }
}

#[test]
fn attention_divided_among_threads_is_right() {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let (rows, keys) = (100, 128);
    let causal: Vec<u8> = (0..rows * keys).map(|at| u8::from(at % keys > at / keys)).collect();
    let mask = Mask { elements: &causal, start: 0, strides: [0, 0, keys, 1], fill: f32::NEG_INFINITY };
    threads.install(|| {
        for isa in present() {
            for mask in [None, Some(&mask)] {
                Inputs::new([2, 3, rows, keys, 32, 32]).check(isa, mask);
            }
        }
    });
}

/// Which elements of the result are NaN, if one element of an input has another value.
fn broken(isa: Isa, mut inputs: Inputs, change: impl Fn(&mut Inputs)) -> Vec<bool> {
    change(&mut inputs);
    inputs.compute(isa, None).into_iter().map(f32::is_nan).collect()
}

#[test]
fn nan_and_infinity_reach_what_depends_on_them() {
    for isa in present() {
        for (rows, keys) in [(5, 3), (14, 13), (40, 33)] {
            let shape = [2, 2, rows, keys, 12, 16];
            let place = |at: usize| [at / 16 / 2 / rows, at / 16 / 2 % rows, at / 16 % 2, at % 16];
            let all = |is_broken: &dyn Fn([usize; 4]) -> bool| -> Vec<bool> {
                (0..2 * rows * 2 * 16).map(|at| is_broken(place(at))).collect()
            };
            // The row 2 of the second head of `q` in the first sequence.
            let found = broken(isa, Inputs::new(shape), |inputs| inputs.q[(2 * 2 + 1) * 12 + 5] = f32::NAN);
            assert_eq!(found, all(&|[b, row, h, _]| [b, row, h] == [0, 2, 1]), "{isa} q");
            // A key is part of all rows of its head.
            let found = broken(isa, Inputs::new(shape), |inputs| inputs.k[((keys + 1) * 2) * 12] = f32::NAN);
            assert_eq!(found, all(&|[b, _, h, _]| [b, h] == [1, 0]), "{isa} k");
            // A column of a value.
            let found = broken(isa, Inputs::new(shape), |inputs| inputs.v[(2 * 2) * 16 + 7] = f32::NAN);
            assert_eq!(found, all(&|[b, _, h, at]| [b, h, at] == [0, 0, 7]), "{isa} v");
            let changed = |inputs: &mut Inputs| inputs.v[(2 * 2) * 16 + 7] = f32::INFINITY;
            let mut inputs = Inputs::new(shape);
            changed(&mut inputs);
            let found: Vec<bool> = inputs.compute(isa, None).into_iter().map(|y| y == f32::INFINITY).collect();
            assert_eq!(found, all(&|[b, _, h, at]| [b, h, at] == [0, 0, 7]), "{isa} v");
            // Scores of `∞` give NaN, and scores of `-∞` leave a key out.
            let inputs = Inputs::new(shape);
            let first = |row: usize| inputs.q[(row * 2) * 12] > 0.0;
            let found = broken(isa, Inputs::new(shape), |inputs| inputs.k[2 * 2 * 12] = f32::INFINITY);
            assert_eq!(found, all(&|[b, row, h, _]| [b, h] == [0, 0] && first(row)), "{isa} ∞");
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    for isa in present() {
        // The errors of the scores, which are sums in 32 bits, grow with them.
        for factor in [3.0, 10.0, 100.0] {
            let inputs = Inputs::new([1, 2, 35, 40, 16, 16]).sharpened(factor);
            inputs.check_within(isa, None, f64::from(factor) * 2e-6);
        }
        let inputs = Inputs::new([1, 1, 4, 9, 4, 4]).sharpened(1e4);
        let y = inputs.compute(isa, None);
        assert!(y.iter().all(|y| y.is_finite()), "{isa} {y:?}");
        // Each row has the value of one key.
        assert!(y.chunks(4).all(|row| inputs.v.chunks(4).any(|v| v == row)), "{isa} {y:?}");
    }
}

#[test]
#[should_panic(expected = "the mask does not have an element")]
fn mask_that_is_too_small_is_refused() {
    let part = Heads { elements: &[0.0; 4], rows: 2, width: 2 };
    let mask = Mask { elements: &[0; 3], start: 0, strides: [0, 0, 2, 1], fill: 0.0 };
    attention(Isa::Portable, [1, 1], &part, &part, &part, Some(&mask), 1.0, &mut [0.0; 4]);
}
