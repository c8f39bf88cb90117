//! Functions of rows, compiled for each instruction set.
//!
//! Each is a plain loop. A function with `target_feature` contains it, so that the compiler vectorises it with
//! these instructions.

use crate::epilogue::Epilogue;
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
    /// Applies an epilogue to a part of a row.
    finish = plain_finish(epilogue: &Epilogue<'_>, elements: &mut [f32], row: usize, column: usize, n: usize)
);
for_each_isa!(
    /// Replaces each row by its softmax. The rows are whole.
    softmax = plain_softmax(elements: &mut [f32], width: usize)
);
for_each_isa!(
    /// Replaces a row by its softmax. A row of `-∞` becomes zeros.
    masked_softmax = plain_masked_softmax(row: &mut [f32])
);
for_each_isa!(
    /// Normalises each row. The lengths fit.
    layer_norm = plain_layer_norm(x: &[f32], norm: &LayerNorm<'_>, y: &mut [f32])
);

/// Number of partial sums: as many as a vector has elements, so that the compiler can use vectors.
const LANES: usize = 16;

#[inline(always)]
fn plain_finish(epilogue: &Epilogue<'_>, elements: &mut [f32], row: usize, column: usize, n: usize) {
    epilogue.apply(elements, row, column, n);
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
fn plain_masked_softmax(row: &mut [f32]) {
    let most = reduce(row, f32::NEG_INFINITY, |all, one| if one > all { one } else { all });
    if most == f32::NEG_INFINITY && !row.iter().any(|x| x.is_nan()) {
        return row.fill(0.0);
    }
    row.iter_mut().for_each(|x| *x = exp(*x - most));
    let factor = 1.0 / reduce(row, 0.0, |all, one| all + one);
    row.iter_mut().for_each(|x| *x *= factor);
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
