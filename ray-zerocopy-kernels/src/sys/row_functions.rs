//! Functions of rows, compiled for each instruction set.
//!
//! Each is a plain loop. A function with `target_feature` contains it, so that the compiler vectorises it with
//! these instructions.

use super::columns::Columns;
use super::tile::Elements;
use crate::convolution::OfChannel;
use crate::epilogue::{Activation, Epilogue, activate};
use crate::isa::Isa;
use crate::math::exp;
use crate::rows::LayerNorm;

/// Defines a function that calls `$plain` compiled for an instruction set. The caller has checked that the processor
/// has it.
macro_rules! for_each_isa {
    ($(#[$doc:meta])* $name:ident = $plain:ident($($argument:ident: $type:ty),*)) => {
        $(#[$doc])*
        pub(crate) fn $name(isa: Isa, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn with_avx2($($argument: $type),*) {
                    $plain($($argument),*);
                }

                #[target_feature(enable = "avx512f,avx2,fma")]
                fn with_avx512($($argument: $type),*) {
                    $plain($($argument),*);
                }

                if isa >= Isa::Avx512 && isa.is_present() {
                    // SAFETY: the processor has the instructions, as `is_present` says.
                    return unsafe { with_avx512($($argument),*) };
                }
                if isa >= Isa::Avx2 && isa.is_present() {
                    // SAFETY: as above.
                    return unsafe { with_avx2($($argument),*) };
                }
            }
            let _ = isa;
            $plain($($argument),*);
        }
    };
}

pub(super) use for_each_isa;

for_each_isa!(
    /// Writes a tile with an epilogue to a part of a result. The place is the row and the column of its first element,
    /// and the number of columns of the result.
    finish = plain_finish(epilogue: &Epilogue<'_>, tile: &mut Elements, part: &mut Columns<'_>, place: [usize; 3])
);
for_each_isa!(
    /// Writes a part of a channel of a convolution, with what follows it. The lengths are equal.
    finish_channel = plain_finish_channel(sums: &[f32], epilogue: OfChannel<'_>, y: &mut [f32])
);
for_each_isa!(
    /// Adds the bias of each channel to its sums in `y`, and applies what follows. Without a bias, `y` is not divided.
    finish_channels = plain_finish_channels(
        bias: Option<&[f32]>,
        activation: Option<Activation>,
        residual: Option<(&[f32], bool)>,
        y: &mut [f32]
    )
);
for_each_isa!(
    /// Applies a filter to one channel, at positions from `start` on. Each of its elements reads at an offset from the
    /// position. Positions that read behind the end get nothing.
    depthwise = plain_depthwise(x: &[f32], start: usize, taps: &[usize], filter: &[f32], y: &mut [f32])
);
for_each_isa!(
    /// Replaces each row by its softmax. The rows are whole.
    softmax = plain_softmax(elements: &mut [f32], width: usize)
);
for_each_isa!(
    /// Normalises each row. The lengths fit.
    layer_norm = plain_layer_norm(x: &[f32], norm: &LayerNorm<'_>, y: &mut [f32])
);

/// Number of partial sums: as many as a vector has elements, so that the compiler can use vectors.
const LANES: usize = 16;

#[inline(always)]
fn plain_finish(epilogue: &Epilogue<'_>, tile: &mut Elements, part: &mut Columns<'_>, [row, column, n]: [usize; 3]) {
    for at in 0..part.rows() {
        let y = part.row(at);
        // Their number is not a constant: loops of a known length are unrolled before they could become vectors.
        let elements = &mut tile.0[at][..y.len()];
        epilogue.apply(elements, row + at, column, n);
        let ((to, last_to), (from, last_from)) = (y.as_chunks_mut::<LANES>(), elements.as_chunks::<LANES>());
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        last_to.copy_from_slice(last_from);
    }
}

#[inline(always)]
fn plain_finish_channel(sums: &[f32], OfChannel { bias, activation, residual }: OfChannel<'_>, y: &mut [f32]) {
    match residual {
        Some((residual, true)) => {
            for ((y, sum), residual) in y.iter_mut().zip(sums).zip(residual) {
                *y = sum + bias + residual;
            }
        }
        _ => y.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum + bias),
    }
    if let Some(activation) = activation {
        activate(y, activation);
    }
    if let Some((residual, false)) = residual {
        y.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
    }
}

#[inline(always)]
fn plain_finish_channels(
    bias: Option<&[f32]>,
    activation: Option<Activation>,
    residual: Option<(&[f32], bool)>,
    y: &mut [f32],
) {
    if let Some(bias) = bias {
        let pixels = y.len().checked_div(bias.len()).unwrap_or(0).max(1);
        for (y, bias) in y.chunks_mut(pixels).zip(bias) {
            y.iter_mut().for_each(|y| *y += bias);
        }
    }
    if let Some((residual, true)) = residual {
        y.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
    }
    if let Some(activation) = activation {
        activate(y, activation);
    }
    if let Some((residual, false)) = residual {
        y.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
    }
}

#[inline(always)]
fn plain_depthwise(x: &[f32], start: usize, taps: &[usize], filter: &[f32], y: &mut [f32]) {
    /// Positions at a time, whose sums are in registers.
    const WIDE: usize = 4 * LANES;
    let mut position = start;
    for y in y.chunks_mut(WIDE) {
        let mut sums = [0.0; WIDE];
        for (tap, weight) in taps.iter().zip(filter) {
            let x = x.get(position + tap..).unwrap_or_default();
            if let Some(x) = x.first_chunk::<WIDE>() {
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * x);
            } else {
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * x);
            }
        }
        y.copy_from_slice(&sums[..y.len()]);
        position += WIDE;
    }
}

/// Combines the elements by several partial results.
#[inline(always)]
pub(super) fn reduce(elements: &[f32], begin: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = elements.as_chunks::<LANES>();
    let mut partial = [begin; LANES];
    for chunk in chunks {
        for (partial, element) in partial.iter_mut().zip(chunk) {
            *partial = combine(*partial, *element);
        }
    }
    partial.iter().chain(rest).fold(begin, |all, &one| combine(all, one))
}

#[inline(always)]
fn plain_softmax(elements: &mut [f32], width: usize) {
    for row in elements.chunks_exact_mut(width) {
        // A comparison with NaN is false. The sum below has the NaN.
        let most = reduce(row, f32::NEG_INFINITY, |all, one| if one > all { one } else { all });
        row.iter_mut().for_each(|x| *x = exp(*x - most));
        let factor = 1.0 / reduce(row, 0.0, |all, one| all + one);
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

#[inline(always)]
fn plain_layer_norm(x: &[f32], norm: &LayerNorm<'_>, y: &mut [f32]) {
    let LayerNorm { gamma, beta, epsilon } = *norm;
    let width = gamma.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let mean = reduce(x, 0.0, |all, one| all + one) / width as f32;
        for (y, x) in y.iter_mut().zip(x) {
            *y = x - mean;
        }
        let (chunks, rest) = y.as_chunks::<LANES>();
        let mut partial = [0.0; LANES];
        for chunk in chunks {
            for (partial, element) in partial.iter_mut().zip(chunk) {
                *partial = element.mul_add(*element, *partial);
            }
        }
        let squares: f32 = partial.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>();
        let factor = 1.0 / (squares / width as f32 + epsilon).sqrt();
        match beta {
            Some(beta) => {
                for ((y, gamma), beta) in y.iter_mut().zip(gamma).zip(beta) {
                    *y = (*y * factor).mul_add(*gamma, *beta);
                }
            }
            None => y.iter_mut().zip(gamma).for_each(|(y, gamma)| *y = *y * factor * gamma),
        }
    }
}
