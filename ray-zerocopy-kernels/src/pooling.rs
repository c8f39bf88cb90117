//! Max pooling: the largest elements of windows of an image.

use rayon::prelude::*;

use super::isa::Isa;
use super::sys::max_pool_plane;

/// Elements from which planes are divided among threads.
const PARALLEL: usize = 1 << 16;

/// A max pooling. The first element of each pair is about rows, the second about columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool {
    /// Size of an image.
    pub size: [usize; 2],
    /// Size of a window.
    pub kernel: [usize; 2],
    /// Distance between windows.
    pub stride: [usize; 2],
    /// Places before the first element, which count as `-∞`. Those behind the last one do as well.
    pub padding: [usize; 2],
    /// Distance between the elements of a window.
    pub dilation: [usize; 2],
    /// Size of the result.
    pub result: [usize; 2],
}

impl MaxPool {
    /// Elements that a row takes twice: those that are read of it, with those outside of the image. Returns `None` if a
    /// number is 0, or too large.
    pub(crate) fn memory(&self) -> Option<usize> {
        let pairs = [self.size, self.kernel, self.stride, self.dilation, self.result];
        let extent = |at: usize| {
            let window = self.kernel[at].checked_sub(1)?.checked_mul(self.dilation[at])?;
            let places = self.result[at].checked_sub(1)?.checked_mul(self.stride[at])?;
            Some(places.checked_add(window)?.checked_add(1)?.max(self.size[at].checked_add(self.padding[at])?))
        };
        let [Some(_), Some(columns)] = [extent(0), extent(1)] else { return None };
        let twice = columns.checked_next_multiple_of(2)?.checked_mul(2)?;
        (!pairs.iter().flatten().any(|number| *number == 0)).then_some(twice)
    }
}

/// Computes the largest element of each window. `x` and `y` consist of planes: images and channels. A window with NaN
/// gets NaN, and one outside of the image `-∞`. Uses the threads of rayon's current pool.
///
/// # Panics
/// If a length does not fit, or the processor does not have the instructions.
pub fn max_pool(isa: Isa, x: &[f32], pool: &MaxPool, y: &mut [f32]) {
    assert!(isa.is_present(), "this processor does not have {isa}");
    let elements = pool.memory().unwrap_or_else(|| panic!("{pool:?} has a number that is 0 or too large"));
    let area = |[rows, columns]: [usize; 2]| rows.saturating_mul(columns);
    let (from, to) = (area(pool.size), area(pool.result));
    let fits = x.len().is_multiple_of(from) && y.len().is_multiple_of(to) && x.len() / from == y.len() / to;
    assert!(fits, "images have {} elements and the result {}, with {pool:?}", x.len(), y.len());
    // AVX-512 compares by way of mask registers, which takes 1.5 times as long.
    let isa = isa.min(Isa::Avx2);
    let one = |memory: &mut Vec<f32>, (x, y): (&[f32], &mut [f32])| {
        memory.resize(elements, 0.0);
        max_pool_plane(isa, pool, x, memory, y);
    };
    if x.len() < PARALLEL || rayon::current_num_threads() == 1 {
        let mut memory = Vec::new();
        for planes in x.chunks_exact(from).zip(y.chunks_exact_mut(to)) {
            one(&mut memory, planes);
        }
    } else {
        x.par_chunks_exact(from).zip(y.par_chunks_exact_mut(to)).for_each_init(Vec::new, one);
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::super::testing::{numbers, present};
    use super::{MaxPool, max_pool};

    fn pool(size: [usize; 2], kernel: [usize; 2], stride: [usize; 2], result: [usize; 2]) -> MaxPool {
        MaxPool { size, kernel, stride, padding: [0, 0], dilation: [1, 1], result }
    }

    /// Compares with plain loops.
    fn check(isa: Isa, planes: usize, pool: &MaxPool, x: &[f32]) {
        let ([height, width], [rows, columns]) = (pool.size, pool.result);
        let mut y = vec![0.0; planes * rows * columns];
        max_pool(isa, x, pool, &mut y);
        for (at, found) in y.iter().enumerate() {
            let (column, row, plane) = (at % columns, at / columns % rows, at / columns / rows);
            let mut window = Vec::new();
            for tap in 0..pool.kernel[0] * pool.kernel[1] {
                let (down, across) = (tap / pool.kernel[1], tap % pool.kernel[1]);
                let row = (row * pool.stride[0] + down * pool.dilation[0]).checked_sub(pool.padding[0]);
                let column = (column * pool.stride[1] + across * pool.dilation[1]).checked_sub(pool.padding[1]);
                if let (Some(row), Some(column)) = (row.filter(|at| *at < height), column.filter(|at| *at < width)) {
                    window.push(x[(plane * height + row) * width + column]);
                }
            }
            let most = window.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let has_nan = window.iter().any(|x| x.is_nan());
            assert!(if has_nan { found.is_nan() } else { *found == most }, "{isa} {pool:?} {at}: {found}, not {most}");
        }
    }

    #[test]
    fn windows_of_all_kinds_are_right() {
        for isa in present() {
            for pool in [
                pool([1, 1], [1, 1], [1, 1], [1, 1]),
                pool([9, 40], [3, 3], [1, 1], [7, 38]),
                MaxPool { padding: [1, 1], ..pool([13, 37], [3, 3], [2, 2], [7, 19]) },
                // The last windows are in part outside, and one is as a whole.
                pool([6, 5], [3, 2], [2, 3], [3, 3]),
                MaxPool { padding: [2, 1], dilation: [3, 2], ..pool([11, 12], [2, 3], [3, 4], [5, 4]) },
            ] {
                let mut x = numbers(3 * pool.size[0] * pool.size[1], 1);
                check(isa, 3, &pool, &x);
                let last = x.len() - 1;
                (x[0], x[last], x[last / 2]) = (f32::NEG_INFINITY, f32::NAN, f32::INFINITY);
                check(isa, 3, &pool, &x);
            }
            check(isa, 0, &pool([4, 4], [2, 2], [2, 2], [2, 2]), &[]);
        }
    }

    #[test]
    fn divided_planes_are_right() {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        threads.install(|| {
            let pool = pool([60, 70], [2, 2], [2, 2], [30, 35]);
            check(Isa::best(), 20, &pool, &numbers(20 * 60 * 70, 1));
        });
    }

    #[test]
    #[should_panic(expected = "is 0 or too large")]
    fn window_without_elements_is_refused() {
        max_pool(Isa::Portable, &[0.0; 16], &pool([4, 4], [0, 2], [2, 2], [2, 2]), &mut [0.0; 4]);
    }
}
