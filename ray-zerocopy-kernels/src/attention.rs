//! Attention: `softmax(q · kᵀ · scale) · v` of each head.
//!
//! The scores of some rows of `q` are computed at a time, so their size grows with the number of keys alone.

use std::ops::Range;

use rayon::prelude::*;

use super::isa::Isa;
use super::linear::multiply;
use super::packed::pack_into;
use super::sys::{self, Columns, MOST_ROWS};

/// Rows of `q` whose scores are computed at a time.
const BLOCK: usize = 4 * MOST_ROWS;
/// Multiplications from which the heads are divided among threads.
const PARALLEL: usize = 1 << 20;

/// The rows of several heads: a tensor with the dimensions batch, rows, heads, width.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// The elements, in the order of the dimensions.
    pub elements: &'a [f32],
    /// Number of rows of a sequence.
    pub rows: usize,
    /// Number of elements of a row of a head.
    pub width: usize,
}

/// Which keys each row of `q` leaves out: a tensor with the dimensions batch, heads, rows of `q`, keys.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    /// Elements other than 0 leave a key out.
    pub elements: &'a [u8],
    /// The index of the first one.
    pub start: usize,
    /// Distance between elements along each dimension: 0 where they are the same.
    pub strides: [usize; 4],
    /// The score of a key that is left out: `-∞`, or another number.
    pub fill: f32,
}

impl Mask<'_> {
    fn at(&self, batch: usize, head: usize, row: usize) -> usize {
        self.start + batch * self.strides[0] + head * self.strides[1] + row * self.strides[2]
    }

    /// Returns `true` if all elements of these dimensions are inside.
    fn covers(&self, dimensions: [usize; 4]) -> bool {
        let last = dimensions.iter().zip(self.strides).try_fold(self.start, |last, (&count, stride)| {
            count.checked_sub(1)?.checked_mul(stride)?.checked_add(last)
        });
        dimensions.contains(&0) || last.is_some_and(|last| last < self.elements.len())
    }
}

/// Computes the attention of `heads` heads in each of `batch` sequences. `y` has the dimensions batch, rows of `q`,
/// heads, width of `v`. A row whose scores are all `-∞` gets zeros. Uses the threads of rayon's current pool.
///
/// # Panics
/// If a length does not fit, or the processor does not have the instructions.
#[expect(clippy::too_many_arguments, reason = "they are those of an attention")]
pub fn attention(
    isa: Isa,
    [batch, heads]: [usize; 2],
    q: &Heads<'_>,
    k: &Heads<'_>,
    v: &Heads<'_>,
    mask: Option<&Mask<'_>>,
    scale: f32,
    y: &mut [f32],
) {
    assert!(isa.is_present(), "this processor does not have {isa}");
    let fits = |part: &Heads<'_>| part.elements.len() == batch * part.rows * heads * part.width;
    assert!(fits(q) && fits(k) && fits(v), "q, k or v does not have the elements of its dimensions");
    assert!(q.width == k.width && k.rows == v.rows, "q, k and v do not fit each other");
    assert!(y.len() == batch * q.rows * heads * v.width, "the result has another length");
    let covers = mask.is_none_or(|mask| mask.covers([batch, heads, q.rows, k.rows]));
    assert!(covers, "the mask does not have an element for each row and key");
    if y.is_empty() {
        return;
    }
    let one = OneHead { isa, heads, q, k, v, mask, scale };
    let products = y.len().saturating_mul(k.rows);
    let threads = if products < PARALLEL { 1 } else { rayon::current_num_threads() };
    let parts = y.chunks_mut(q.rows * heads * v.width).map(|sequence| Columns::new(sequence, heads * v.width));
    let parts = parts.enumerate().flat_map(|(sequence, part)| {
        part.divide(v.width).into_iter().enumerate().map(move |(head, part)| (sequence, head, part))
    });
    if threads == 1 {
        let mut scratch = Scratch::default();
        parts.for_each(|(sequence, head, part)| one.compute(sequence, head, part, &mut scratch));
    } else {
        let parts: Vec<_> = parts.collect();
        parts.into_par_iter().for_each_init(Scratch::default, |scratch, (sequence, head, part)| {
            one.compute(sequence, head, part, scratch);
        });
    }
}

/// Memory that is used for one head after the other.
#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

struct OneHead<'a> {
    isa: Isa,
    heads: usize,
    q: &'a Heads<'a>,
    k: &'a Heads<'a>,
    v: &'a Heads<'a>,
    mask: Option<&'a Mask<'a>>,
    scale: f32,
}

impl OneHead<'_> {
    /// The elements of a head in a sequence: the first row, and those behind it.
    fn rows<'a>(&self, part: &Heads<'a>, sequence: usize, head: usize) -> &'a [f32] {
        &part.elements[(sequence * part.rows * self.heads + head) * part.width..]
    }

    fn compute(&self, sequence: usize, head: usize, mut y: Columns<'_>, scratch: &mut Scratch) {
        let Self { isa, heads, q, k, v, mask, scale } = *self;
        let (keys, width) = (k.rows, q.width);
        let Scratch { keys: packed_keys, values: packed_values, scores } = scratch;
        let rows = self.rows(k, sequence, head);
        let at = |column: usize, key: usize| rows[key * heads * width + column];
        let transposed = pack_into(packed_keys, width, keys, at);
        let rows = self.rows(v, sequence, head);
        let at = |key: usize, column: usize| rows[key * heads * v.width + column];
        let values = pack_into(packed_values, keys, v.width, at);
        scores.resize(BLOCK.min(q.rows) * keys, 0.0);
        let x = self.rows(q, sequence, head);
        for begin in (0..q.rows).step_by(BLOCK) {
            let block: Range<usize> = begin..(begin + BLOCK).min(q.rows);
            let scores = &mut scores[..block.len() * keys];
            multiply(isa, &x[begin * heads * width..], heads * width, &transposed, Columns::new(scores, keys));
            for (row, scores) in block.clone().zip(scores.chunks_exact_mut(keys.max(1))) {
                scores.iter_mut().for_each(|score| *score *= scale);
                if let Some(mask) = mask {
                    let at = mask.at(sequence, head, row);
                    for (key, score) in scores.iter_mut().enumerate() {
                        if mask.elements[at + key * mask.strides[3]] != 0 {
                            *score = mask.fill;
                        }
                    }
                }
                sys::masked_softmax(isa, scores);
            }
            multiply(isa, scores, keys, &values, y.part(begin, 0, block.len(), v.width));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::{Heads, Mask, attention};

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| (((at + seed) * 7919 % 1009) as f32 - 500.0) / 300.0).collect()
    }

    /// Compares with plain loops in double precision.
    fn check(isa: Isa, [batch, heads, rows, keys, width, wide]: [usize; 6], mask: Option<&Mask<'_>>) {
        let q = numbers(batch * rows * heads * width, 1);
        let k = numbers(batch * keys * heads * width, 2);
        let v = numbers(batch * keys * heads * wide, 3);
        let mut y = vec![f32::NAN; batch * rows * heads * wide];
        let part = |elements, rows, width| Heads { elements, rows, width };
        let (qs, ks, vs) = (part(&q[..], rows, width), part(&k[..], keys, width), part(&v[..], keys, wide));
        attention(isa, [batch, heads], &qs, &ks, &vs, mask, 0.25, &mut y);
        for b in 0..batch {
            for h in 0..heads {
                for row in 0..rows {
                    let element = |all: &[f32], rows: usize, width: usize, row: usize, at: usize| {
                        f64::from(all[((b * rows + row) * heads + h) * width + at])
                    };
                    let is_out = |key: usize| {
                        mask.is_some_and(|mask| {
                            let [s0, s1, s2, s3] = mask.strides;
                            mask.elements[mask.start + b * s0 + h * s1 + row * s2 + key * s3] != 0
                        })
                    };
                    let score = |key: usize| {
                        let products =
                            (0..width).map(|at| element(&q, rows, width, row, at) * element(&k, keys, width, key, at));
                        let score = products.sum::<f64>() * 0.25;
                        if is_out(key) { f64::from(mask.unwrap().fill).exp() } else { score.exp() }
                    };
                    let powers: Vec<f64> = (0..keys).map(score).collect();
                    let sum: f64 = powers.iter().sum();
                    for at in 0..wide {
                        let weighted = (0..keys).map(|key| powers[key] * element(&v, keys, wide, key, at));
                        let expected = if sum == 0.0 { 0.0 } else { weighted.sum::<f64>() / sum };
                        let found = element(&y, rows, wide, row, at);
                        assert!((found - expected).abs() < 1e-5, "{isa} {b} {h} {row} {at}: {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn result_is_that_of_plain_loops() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_present()) {
            check(isa, [2, 3, 5, 7, 4, 6], None);
            check(isa, [1, 1, 100, 70, 32, 32], None);
            check(isa, [1, 2, 1, 1, 1, 40], None);
            // The same keys are left out for each row, and for one sequence all of them.
            let elements = [0, 1, 0, 0, 1, 1, 1, 1, 1, 1];
            for fill in [f32::NEG_INFINITY, -3.0] {
                check(
                    isa,
                    [2, 2, 3, 5, 8, 8],
                    Some(&Mask { elements: &elements, start: 0, strides: [5, 0, 0, 1], fill }),
                );
            }
            // A mask for each row.
            let fill = f32::NEG_INFINITY;
            let elements: Vec<u8> = (0..40).map(|at| u8::from(at % 3 == 0)).collect();
            check(
                isa,
                [1, 2, 4, 5, 8, 8],
                Some(&Mask { elements: &elements, start: 0, strides: [40, 20, 5, 1], fill }),
            );
        }
    }

    #[test]
    #[should_panic(expected = "the mask does not have an element")]
    fn mask_that_is_too_small_is_refused() {
        let part = Heads { elements: &[0.0; 4], rows: 2, width: 2 };
        let mask = Mask { elements: &[0; 3], start: 0, strides: [0, 0, 2, 1], fill: 0.0 };
        attention(Isa::Portable, [1, 1], &part, &part, &part, Some(&mask), 1.0, &mut [0.0; 4]);
    }
}
