//! Attention: `softmax(q · kᵀ · scale) · v` of each head.
//!
//! The scores of some rows of `q` are computed at a time, so their size grows with the number of keys alone.

use std::ops::Range;

use rayon::prelude::*;

use super::isa::Isa;
use super::linear::multiply;
use super::packed::{PANEL, Packed};
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

    /// Finds the keys that are left out, from the index of the first element on.
    fn left_out(&self, first: usize, keys: usize, out: &mut Vec<usize>) {
        out.clear();
        out.extend((0..keys).filter(|key| self.elements[first + key * self.strides[3]] != 0));
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
    /// The keys that are left out.
    out: Vec<usize>,
}

/// Packs the transpose of some rows, which are at a distance of `stride`: each row becomes a column.
fn pack_transposed(panels: &mut Vec<f32>, rows: &[f32], stride: usize, [count, width]: [usize; 2]) {
    panels.resize(count.next_multiple_of(PANEL) * width, 0.0);
    for (at, panel) in panels.chunks_exact_mut((PANEL * width).max(1)).enumerate() {
        let inside = (count - at * PANEL).min(PANEL);
        for lane in 0..inside {
            let row = &rows[(at * PANEL + lane) * stride..][..width];
            for (place, element) in panel.iter_mut().skip(lane).step_by(PANEL).zip(row) {
                *place = *element;
            }
        }
        // The memory has been used before.
        for row in panel.chunks_exact_mut(PANEL) {
            row[inside..].fill(0.0);
        }
    }
}

/// Packs some rows, which are at a distance of `stride`.
fn pack_rows(panels: &mut Vec<f32>, rows: &[f32], stride: usize, [count, width]: [usize; 2]) {
    panels.resize(width.next_multiple_of(PANEL) * count, 0.0);
    for (at, panel) in panels.chunks_exact_mut((PANEL * count).max(1)).enumerate() {
        let columns = at * PANEL..((at + 1) * PANEL).min(width);
        for (row, place) in panel.chunks_exact_mut(PANEL).enumerate() {
            let elements = &rows[row * stride..][columns.clone()];
            place[..elements.len()].copy_from_slice(elements);
            place[elements.len()..].fill(0.0);
        }
    }
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
        // Rows of scores are whole panels, which a kernel writes in place.
        let stride = keys.next_multiple_of(PANEL);
        let Scratch { keys: transposed, values, scores, out } = scratch;
        pack_transposed(transposed, self.rows(k, sequence, head), heads * width, [keys, width]);
        pack_rows(values, self.rows(v, sequence, head), heads * v.width, [keys, v.width]);
        let (Some(transposed), Some(values)) =
            (Packed::new(transposed, width, stride), Packed::new(values, keys, v.width))
        else {
            unreachable!("the lengths are those of the shapes")
        };
        scores.resize(BLOCK.min(q.rows) * stride, 0.0);
        let x = self.rows(q, sequence, head);
        for begin in (0..q.rows).step_by(BLOCK) {
            let block: Range<usize> = begin..(begin + BLOCK).min(q.rows);
            let scores = &mut scores[..block.len() * stride];
            multiply(isa, &x[begin * heads * width..], heads * width, &transposed, Columns::new(scores, stride));
            if keys == 0 {
                // Nothing is added up.
            } else if let Some(mask) = mask {
                let is_same = mask.strides[2] == 0;
                // A row at a time, unless the same keys are left out for all of them.
                let rows = if is_same { block.len() } else { 1 };
                for (row, scores) in block.clone().step_by(rows).zip(scores.chunks_mut(rows * stride)) {
                    if !is_same || row == begin {
                        mask.left_out(mask.at(sequence, head, row), keys, out);
                    }
                    sys::scaled_softmax(isa, scores, stride, keys, scale, Some((out, mask.fill)));
                }
            } else {
                sys::scaled_softmax(isa, scores, stride, keys, scale, None);
            }
            multiply(isa, scores, stride, &values, y.part(begin, 0, block.len(), v.width));
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
