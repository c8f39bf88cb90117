//! Max pooling of one plane, compiled for each instruction set.

use super::row_functions::for_each_isa;
use crate::isa::Isa;
use crate::pooling::MaxPool;

for_each_isa!(
    /// Computes the largest elements of one plane. `memory` has [`MaxPool::memory`] elements, and the result whole
    /// rows.
    max_pool_plane = plain_max_pool_plane(pool: &MaxPool, x: &[f32], memory: &mut [f32], y: &mut [f32])
);

#[inline(always)]
fn plain_max_pool_plane(pool: &MaxPool, x: &[f32], memory: &mut [f32], y: &mut [f32]) {
    let ([height, width], [kernel_rows, kernel_columns]) = (pool.size, pool.kernel);
    let ([_, columns], left) = (pool.result, pool.padding[1]);
    let (maxima, phases) = memory.split_at_mut(memory.len() / 2);
    let (even, odd) = phases.split_at_mut(phases.len() / 2);
    // Those outside of the image stay so.
    maxima.fill(f32::NEG_INFINITY);
    for (row, y) in y.chunks_exact_mut(columns).enumerate() {
        // The largest elements of the rows of the window, then those of its columns.
        let rows = (0..kernel_rows).filter_map(|tap| {
            let place = (row * pool.stride[0] + tap * pool.dilation[0]).checked_sub(pool.padding[0])?;
            (place < height).then(|| &x[place * width..(place + 1) * width])
        });
        largest(&mut maxima[left..left + width], rows);
        let taps = (0..kernel_columns).map(|tap| tap * pool.dilation[1]);
        match pool.stride[1] {
            1 => largest(y, taps.map(|first| &maxima[first..])),
            2 => {
                // Elements that are read side by side, so that they are loaded as vectors.
                for ((even, odd), pair) in even.iter_mut().zip(&mut *odd).zip(maxima.as_chunks::<2>().0) {
                    [*even, *odd] = *pair;
                }
                let (even, odd) = (&*even, &*odd);
                largest(y, taps.map(|first| if first % 2 == 0 { &even[first / 2..] } else { &odd[first / 2..] }));
            }
            stride => {
                y.fill(f32::NEG_INFINITY);
                for first in taps {
                    let elements = maxima[first..].iter().step_by(stride);
                    y.iter_mut().zip(elements).for_each(|(most, x)| *most = larger(*most, *x));
                }
            }
        }
    }
}

/// Writes the largest of the elements of some rows, or `-∞` if there are none.
#[inline(always)]
fn largest<'a>(y: &mut [f32], mut rows: impl Iterator<Item = &'a [f32]>) {
    let count = y.len();
    let Some(first) = rows.next().map(|row| &row[..count]) else {
        return y.fill(f32::NEG_INFINITY);
    };
    // Up to three at a time: what is written is not read again.
    match (rows.next().map(|row| &row[..count]), rows.next().map(|row| &row[..count])) {
        (Some(second), Some(third)) => {
            for (((y, first), second), third) in y.iter_mut().zip(first).zip(second).zip(third) {
                *y = larger(larger(*first, *second), *third);
            }
        }
        (Some(second), None) => {
            y.iter_mut().zip(first).zip(second).for_each(|((y, first), second)| *y = larger(*first, *second));
        }
        _ => y.copy_from_slice(first),
    }
    for row in rows {
        y.iter_mut().zip(row).for_each(|(y, x)| *y = larger(*y, *x));
    }
}

/// The larger number. NaN is larger than all numbers.
#[inline(always)]
fn larger(most: f32, x: f32) -> f32 {
    if (x > most) | x.is_nan() { x } else { most }
}
