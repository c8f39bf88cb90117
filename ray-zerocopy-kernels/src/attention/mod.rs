//! Attention: `softmax(q · kᵀ · scale) · v` of each head.
//!
//! The scores of 32 rows of `q` are computed at a time, so their size grows with the number of keys alone. A row of
//! them belongs to a key, and its elements to the rows of `q`. So the vectors of a kernel have elements of different
//! rows of `q`: a softmax computes sums and maxima of whole vectors, the number of keys is not rounded up, and keys are
//! read where they are. Only the rows of `q` are transposed, and values are copied if they are read several times.
//!
//! | file | what |
//! | --- | --- |
//! | `mask` | which keys are left out |
//! | `tests` | comparison with plain loops |

mod mask;
#[cfg(test)]
mod tests;

use std::f32::consts::LOG2_E;

use rayon::prelude::*;

use self::mask::HeadMask;
pub use self::mask::Mask;
use crate::isa::Isa;
use crate::packed::PANEL;
use crate::sys::{self, Columns, Lanes, LeftOut, NARROW};

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
        parts.for_each(|(sequence, head, part)| one.compute([sequence, head], part, &mut scratch));
    } else {
        let parts: Vec<_> = parts.collect();
        parts.into_par_iter().for_each_init(Scratch::default, |scratch, (sequence, head, part)| {
            one.compute([sequence, head], part, scratch);
        });
    }
}

/// Memory that is used for one head after the other.
#[derive(Default)]
struct Scratch {
    /// The transpose of some rows of `q`.
    queries: Vec<Lanes>,
    /// The scores of each key, and the powers that they become.
    scores: Vec<Lanes>,
    /// The values, if they are copied.
    values: Vec<Lanes>,
    /// Rows of the result, if they are copied.
    result: Vec<Lanes>,
    mask: HeadMask,
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
    /// The first row of a head, and what is behind it. Empty if there is no such sequence.
    fn rows<'a>(&self, part: &Heads<'a>, [sequence, head]: [usize; 2]) -> &'a [f32] {
        part.elements.get((sequence * part.rows * self.heads + head) * part.width..).unwrap_or_default()
    }

    fn compute(&self, [sequence, head]: [usize; 2], mut y: Columns<'_>, scratch: &mut Scratch) {
        let Self { isa, heads, q, k, v, mask, scale } = *self;
        let Scratch { queries, scores, values: copied, result, mask: left_out } = scratch;
        let (width, keys) = (q.width, k.rows);
        queries.resize(width, Lanes::ZERO);
        scores.resize(keys, Lanes::ZERO);
        if let Some(mask) = mask {
            left_out.read(mask, [sequence, head], [q.rows, keys]);
        }
        let [x, weights, values] = [q, k, v].map(|part| self.rows(part, [sequence, head]));
        // The kernels write a multiple of these columns.
        let padded = v.width.next_multiple_of(NARROW);
        let is_padded = padded > v.width;
        // Rows at a large distance are in few sets of the cache, which cannot hold them until they are read again.
        let (values, stride) = if is_padded || q.rows > PANEL {
            (&*copy_rows(copied, values, heads * v.width, [keys, v.width], padded), padded)
        } else {
            (values, heads * v.width)
        };
        let mut factors = Lanes::ZERO;
        for begin in (0..q.rows).step_by(PANEL) {
            self.request_next([sequence, head], begin);
            let count = (q.rows - begin).min(PANEL);
            let lanes = count.next_multiple_of(NARROW);
            let x = &x[begin * heads * width..];
            sys::transpose(isa, x, heads * width, [count, lanes], scale * LOG2_E, queries);
            sys::scores(isa, weights, heads * width, queries, lanes, scores);
            let out = mask.map_or(LeftOut::NOTHING, |mask| left_out.tile(mask, begin / PANEL, keys));
            sys::softmax_columns(isa, scores, lanes, &out, &mut factors);
            let mut y = y.part(begin, 0, count, v.width);
            if !is_padded {
                sys::weighted(isa, scores, &factors, values, stride, &mut y);
                continue;
            }
            result.resize(count * padded.div_ceil(PANEL), Lanes::ZERO);
            let mut aside = Columns::new(&mut Lanes::elements(result)[..count * padded], padded);
            sys::weighted(isa, scores, &factors, values, stride, &mut aside);
            for row in 0..count {
                y.row(row).copy_from_slice(&aside.row(row)[..v.width]);
            }
        }
    }

    /// Requests the rows of the next head, from `begin` on: they come from memory while this one is computed. A
    /// processor does not request them by itself, since each row is in another page or in the middle of one.
    fn request_next(&self, [sequence, head]: [usize; 2], begin: usize) {
        let next = if head + 1 < self.heads { [sequence, head + 1] } else { [sequence + 1, 0] };
        for part in [self.q, self.k, self.v] {
            let count = part.rows.saturating_sub(begin).min(PANEL);
            let stride = self.heads * part.width;
            let rows = self.rows(part, next).get(begin * stride..).unwrap_or_default();
            sys::request_rows(rows, stride, count, part.width);
        }
    }
}

/// Copies some rows of `width` elements, which are at a distance of `stride`, to a distance of `padded`.
fn copy_rows<'a>(
    to: &'a mut Vec<Lanes>,
    rows: &[f32],
    stride: usize,
    [count, width]: [usize; 2],
    padded: usize,
) -> &'a mut [f32] {
    to.resize((count * padded).div_ceil(PANEL), Lanes::ZERO);
    let to = Lanes::elements(to);
    for (row, to) in to.chunks_exact_mut(padded.max(1)).enumerate().take(count) {
        let row = &rows[row * stride..][..width];
        // In vectors: most rows are too short for a call of `memcpy`.
        let (to, (from, last_from)) = (to.as_chunks_mut::<NARROW>().0, row.as_chunks::<NARROW>());
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
        if let Some(to) = to.get_mut(from.len()) {
            to[..last_from.len()].copy_from_slice(last_from);
        }
    }
    to
}
