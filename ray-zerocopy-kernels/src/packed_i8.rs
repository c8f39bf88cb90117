//! The packed form of a matrix of signed 8-bit numbers with scales: panels of 32 columns in groups of 4 rows.
//!
//! The 4 numbers of a column in a group are adjacent, since the instructions for dot products take 32 bits of each
//! column at a time. The last group and the last panel are filled up with zeros.
//!
//! Each column has a scale for every block of rows. The numbers are those of the matrix, divided by the scale and
//! rounded: from -127 to 127. The sum of the numbers of each block is stored with it, because rows of `x` are
//! quantised with an offset, whose product with the sum is subtracted from the result.

use std::ops::Range;

use super::packed::PANEL;

/// Rows of a group.
pub(crate) const GROUP: usize = 4;

/// The most rows of a block. Each column of a matrix that has fewer gets one scale if the blocks have this size. With
/// more rows, a sum of products of 8-bit numbers could exceed 32 bits.
pub const MOST_BLOCK: usize = 1 << 16;

/// A packed matrix of 8-bit numbers with `k` rows and `n` columns.
#[derive(Debug, Clone, Copy)]
pub struct PackedI8<'a> {
    panels: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i32],
    k: usize,
    n: usize,
    block: usize,
}

/// The tensors of a [`PackedI8`].
#[derive(Debug, Clone, PartialEq)]
pub struct QuantisedI8 {
    /// The numbers, in the shape [`packed_i8_shape`].
    pub panels: Vec<i8>,
    /// The scale of each column of each block, in the shape [`blocks_i8_shape`].
    pub scales: Vec<f32>,
    /// The sum of the numbers of each column of each block, in the same shape.
    pub sums: Vec<i32>,
}

/// The shape of the numbers of a packed matrix of `k` rows and `n` columns: panels, groups of 4 rows, [`PANEL`], 4.
pub fn packed_i8_shape(k: usize, n: usize) -> [usize; 4] {
    [n.div_ceil(PANEL), k.div_ceil(GROUP), PANEL, GROUP]
}

/// The shape of the scales, and of the sums: panels, blocks of `block` rows, [`PANEL`].
///
/// # Panics
/// If `block` is 0.
pub fn blocks_i8_shape(k: usize, n: usize, block: usize) -> [usize; 3] {
    [n.div_ceil(PANEL), k.div_ceil(block), PANEL]
}

/// Returns `true` for the sizes that a block may have: multiples of 4, up to [`MOST_BLOCK`].
fn is_block(block: usize) -> bool {
    block > 0 && block <= MOST_BLOCK && block.is_multiple_of(GROUP)
}

impl<'a> PackedI8<'a> {
    /// Takes the elements of three tensors. Returns `None` if their lengths are not those of [`packed_i8_shape`] and
    /// [`blocks_i8_shape`], or if `block` is not a multiple of 4 from 4 to [`MOST_BLOCK`].
    pub fn new(panels: &'a [i8], scales: &'a [f32], sums: &'a [i32], [k, n]: [usize; 2], block: usize) -> Option<Self> {
        if !is_block(block) {
            return None;
        }
        let elements = |shape: &[usize]| shape.iter().try_fold(1_usize, |all, count| all.checked_mul(*count));
        let numbers = elements(&packed_i8_shape(k, n))?;
        let columns = elements(&blocks_i8_shape(k, n, block))?;
        let fits = panels.len() == numbers && scales.len() == columns && sums.len() == columns;
        fits.then_some(Self { panels, scales, sums, k, n, block })
    }

    /// Number of rows.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Rows of a block.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    /// The groups of a block of a panel.
    pub(crate) fn panel(&self, panel: usize, block: usize) -> &'a [i8] {
        let groups = self.k.div_ceil(GROUP);
        let begin = block * (self.block / GROUP);
        let end = (begin + self.block / GROUP).min(groups);
        &self.panels[(panel * groups + begin) * PANEL * GROUP..(panel * groups + end) * PANEL * GROUP]
    }

    /// The scales and the sums of a block of a panel.
    pub(crate) fn columns(&self, panel: usize, block: usize) -> (&'a [f32; PANEL], &'a [i32; PANEL]) {
        let at = panel * self.blocks() + block;
        (&self.scales.as_chunks().0[at], &self.sums.as_chunks().0[at])
    }
}

/// Quantises and packs a matrix, with a scale for each column of each block of `block` rows. `at` returns the element
/// in a row and a column, and is called twice for each. A block with an element that is NaN or infinite gets NaN as
/// its scale, so that the results of its column are NaN.
///
/// # Panics
/// If `block` is not a multiple of 4 from 4 to [`MOST_BLOCK`].
pub fn quantise_i8(k: usize, n: usize, block: usize, at: impl Fn(usize, usize) -> f32) -> QuantisedI8 {
    quantise_i8_by(k, n, block, |_, _| None, at)
}

/// Quantises and packs a matrix as [`quantise_i8`] does, with scales that are known for some columns of some blocks:
/// `known` gets the rows of a block and a column. The elements of a matrix that was quantised before are products of
/// its integers with its scale, and with that scale they become the same integers again.
///
/// # Panics
/// If `block` is not a multiple of 4 from 4 to [`MOST_BLOCK`].
pub fn quantise_i8_by(
    k: usize,
    n: usize,
    block: usize,
    known: impl Fn(Range<usize>, usize) -> Option<f32>,
    at: impl Fn(usize, usize) -> f32,
) -> QuantisedI8 {
    assert!(is_block(block), "a block of {block} rows, expected a multiple of 4 from 4 to {MOST_BLOCK}");
    let ([count, groups, ..], [_, blocks, _]) = (packed_i8_shape(k, n), blocks_i8_shape(k, n, block));
    let mut panels = vec![0; count * groups * PANEL * GROUP];
    let (mut scales, mut sums) = (vec![0.0; count * blocks * PANEL], vec![0; count * blocks * PANEL]);
    for panel in 0..count {
        let columns = panel * PANEL..((panel + 1) * PANEL).min(n);
        for (index, begin) in (0..k).step_by(block).enumerate() {
            let rows = begin..(begin + block).min(k);
            let first = (panel * blocks + index) * PANEL;
            let scales = &mut scales[first..first + PANEL];
            for row in rows.clone() {
                for (most, column) in scales.iter_mut().zip(columns.clone()) {
                    *most = greater(*most, at(row, column).abs());
                }
            }
            scales.iter_mut().for_each(|most| *most = scale(*most, 127.0));
            for (scale, column) in scales.iter_mut().zip(columns.clone()) {
                // An infinite element stays one.
                *scale = known(rows.clone(), column).filter(|_| scale.is_finite()).unwrap_or(*scale);
            }
            let sums = &mut sums[first..first + PANEL];
            for row in rows {
                let begin = (panel * groups + row / GROUP) * PANEL * GROUP + row % GROUP;
                for (lane, column) in columns.clone().enumerate() {
                    // NaN becomes 0.
                    let number = (at(row, column) / scales[lane]).round_ties_even().clamp(-127.0, 127.0) as i8;
                    panels[begin + lane * GROUP] = number;
                    sums[lane] += i32::from(number);
                }
            }
        }
    }
    QuantisedI8 { panels, scales, sums }
}

/// The greater number, or NaN if there is one.
pub(crate) fn greater(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// The scale of numbers up to `most`, which becomes `steps`. NaN if it is NaN or infinite.
#[inline(always)]
pub(crate) fn scale(most: f32, steps: f32) -> f32 {
    // At least a normal number, so that its inverse is finite.
    if most.is_finite() { (most / steps).max(f32::MIN_POSITIVE) } else { f32::NAN }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::{MOST_BLOCK, PANEL, PackedI8, blocks_i8_shape, packed_i8_shape, quantise_i8, quantise_i8_by};

    #[test]
    fn groups_hold_four_rows_of_each_column() {
        let (k, n) = (9, PANEL + 2);
        // The largest number of each column is 127, so the scale is 1.
        let at = |row: usize, column: usize| if row == 0 { -127.0 } else { (row * 10) as f32 - (column % 3) as f32 };
        let quantised = quantise_i8(k, n, MOST_BLOCK, at);
        assert_eq!((packed_i8_shape(k, n), blocks_i8_shape(k, n, MOST_BLOCK)), ([2, 3, PANEL, 4], [2, 1, PANEL]));
        let packed = PackedI8::new(&quantised.panels, &quantised.scales, &quantised.sums, [k, n], MOST_BLOCK).unwrap();
        assert_eq!(packed.panel(0, 0)[..8], [-127, 10, 20, 30, -127, 9, 19, 29]);
        assert_eq!(packed.panel(0, 0)[2 * PANEL * 4..][..8], [80, 0, 0, 0, 79, 0, 0, 0]);
        assert_eq!(packed.panel(1, 0)[..4], [-127, 8, 18, 28]);
        assert_eq!(packed.panel(1, 0)[8..PANEL * 4], [0; PANEL * 4 - 8]);
        let (scales, sums) = packed.columns(0, 0);
        assert_eq!((scales[0], sums[0], sums[1]), (1.0, 360 - 127, 360 - 127 - 8));
    }

    #[test]
    fn known_scales_keep_the_integers() {
        // The largest number of the first column is 5.
        let at = |row: usize, column: usize| (row as f32 - 2.0) * if column == 0 { 0.3 } else { 12.7 };
        let known = |rows: Range<usize>, column| (rows.start == 0 && column == 0).then_some(0.3);
        let quantised = quantise_i8_by(8, 2, 4, known, at);
        let packed = PackedI8::new(&quantised.panels, &quantised.scales, &quantised.sums, [8, 2], 4).unwrap();
        assert_eq!(packed.panel(0, 0)[..5], [-2, -1, 0, 1, -127]);
        assert_eq!((packed.columns(0, 0).0[0], packed.columns(0, 0).1[0]), (0.3, -2));
        assert_eq!(packed.panel(0, 1)[..4], [51, 76, 102, 127], "its scale is not known");
    }

    #[test]
    fn each_block_has_its_scale() {
        let quantised = quantise_i8(10, 1, 4, |row, _| [1.27, 254.0, 0.0][row / 4]);
        let packed = PackedI8::new(&quantised.panels, &quantised.scales, &quantised.sums, [10, 1], 4).unwrap();
        assert_eq!(packed.blocks(), 3);
        let first = |block| (packed.panel(0, block)[0], packed.columns(0, block).0[0], packed.columns(0, block).1[0]);
        assert_eq!(first(0), (127, 1.27 / 127.0, 4 * 127));
        assert_eq!(first(1), (127, 2.0, 4 * 127));
        assert_eq!(first(2), (0, f32::MIN_POSITIVE, 0));
    }

    #[test]
    fn nan_and_infinity_are_the_scale_of_their_column() {
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let quantised =
                quantise_i8(5, 3, MOST_BLOCK, |row, column| if (row, column) == (2, 1) { value } else { 1.0 });
            assert!(quantised.scales[1].is_nan() && quantised.scales[0].is_finite() && quantised.scales[2].is_finite());
            assert_eq!(quantised.sums[1], 0);
        }
    }

    #[test]
    fn wrong_lengths_and_blocks_are_refused() {
        let all = quantise_i8(6, 3, 4, |_, _| 1.0);
        let new = |panels, scales, sums, block| PackedI8::new(panels, scales, sums, [6, 3], block);
        let (panels, scales, sums) = (&all.panels[..], &all.scales[..], &all.sums[..]);
        assert!(new(panels, scales, sums, 4).is_some());
        assert!(new(&panels[1..], scales, sums, 4).is_none());
        assert!(new(panels, &scales[1..], sums, 4).is_none());
        assert!(new(panels, scales, &sums[1..], 4).is_none());
        for block in [0, 3, 6, 8, MOST_BLOCK + 4] {
            assert!(new(panels, scales, sums, block).is_none(), "{block}");
        }
        assert!(PackedI8::new(&[], &[], &[], [usize::MAX, usize::MAX], 4).is_none());
        assert!(PackedI8::new(&[], &[], &[], [0, 5], 4).is_some());
    }

    #[test]
    #[should_panic(expected = "a block of 6 rows, expected a multiple of 4")]
    fn other_blocks_are_not_packed() {
        quantise_i8(6, 3, 6, |_, _| 1.0);
    }
}
