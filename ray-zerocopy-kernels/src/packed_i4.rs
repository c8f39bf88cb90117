//! The packed form of a matrix of 4-bit numbers with scales: panels of 32 columns in blocks of 32 rows.
//!
//! Each column of a block has a scale, which is a bf16: with it, a weight takes 4.5 bits. A block has 4 parts of 8
//! rows. In a part, each column has 4 bytes: their lower halves have the rows 0 to 3, their upper halves the rows 4 to
//! 7. That is the order in which the instructions for dot products take them. The numbers are from -8 to 7, and are
//! stored with 8 added to them. The last block and the last panel are filled up with zeros.

use super::bf16::{round, widen};
use super::packed::PANEL;
use super::packed_i8::greater;

/// Rows of a block.
pub const I4_BLOCK: usize = 32;
/// Bytes of a block of a panel.
const BYTES: usize = I4_BLOCK * PANEL / 2;
/// A byte with two zeros.
const ZEROS: u8 = 0x88;

/// A packed matrix of 4-bit numbers with `k` rows and `n` columns.
#[derive(Debug, Clone, Copy)]
pub struct PackedI4<'a> {
    panels: &'a [u8],
    scales: &'a [u16],
    k: usize,
    n: usize,
}

/// The tensors of a [`PackedI4`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantisedI4 {
    /// The numbers, in the shape [`packed_i4_shape`].
    pub panels: Vec<u8>,
    /// The scale of each column of each block as the bits of a bf16, in the shape [`blocks_i4_shape`].
    pub scales: Vec<u16>,
}

/// The shape of the numbers of a packed matrix of `k` rows and `n` columns: panels, parts of 8 rows, [`PANEL`], 4.
pub fn packed_i4_shape(k: usize, n: usize) -> [usize; 4] {
    // Not a product that may overflow before it is checked.
    [n.div_ceil(PANEL), k.div_ceil(I4_BLOCK).saturating_mul(I4_BLOCK / 8), PANEL, 4]
}

/// The shape of the scales: panels, blocks of [`I4_BLOCK`] rows, [`PANEL`].
pub fn blocks_i4_shape(k: usize, n: usize) -> [usize; 3] {
    [n.div_ceil(PANEL), k.div_ceil(I4_BLOCK), PANEL]
}

impl<'a> PackedI4<'a> {
    /// Takes the elements of two tensors. Returns `None` if their lengths are not those of [`packed_i4_shape`] and
    /// [`blocks_i4_shape`].
    pub fn new(panels: &'a [u8], scales: &'a [u16], [k, n]: [usize; 2]) -> Option<Self> {
        let elements = |shape: &[usize]| shape.iter().try_fold(1_usize, |all, count| all.checked_mul(*count));
        let bytes = elements(&packed_i4_shape(k, n))?;
        let columns = elements(&blocks_i4_shape(k, n))?;
        (panels.len() == bytes && scales.len() == columns).then_some(Self { panels, scales, k, n })
    }

    /// Number of rows.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The blocks of a panel, and their scales.
    pub(crate) fn panel(&self, panel: usize) -> (&'a [[u8; BYTES]], &'a [[u16; PANEL]]) {
        let blocks = self.k.div_ceil(I4_BLOCK);
        let range = panel * blocks..(panel + 1) * blocks;
        (&self.panels.as_chunks().0[range.clone()], &self.scales.as_chunks().0[range])
    }
}

/// Quantises and packs a matrix. `at` returns the element in a row and a column. A column of a block with an element
/// that is NaN or infinite gets NaN as its scale, so that the results of the column are NaN.
pub fn quantise_i4(k: usize, n: usize, at: impl Fn(usize, usize) -> f32) -> QuantisedI4 {
    let [count, blocks, _] = blocks_i4_shape(k, n);
    let mut panels = vec![ZEROS; count * blocks * BYTES];
    let mut scales = vec![0; count * blocks * PANEL];
    let places = panels.chunks_exact_mut(BYTES).zip(scales.chunks_exact_mut(PANEL)).enumerate();
    for (index, (bytes, scales)) in places {
        let (panel, block) = (index / blocks, index % blocks);
        let rows = block * I4_BLOCK..((block + 1) * I4_BLOCK).min(k);
        // Row by row, since that is how most matrices are stored.
        let mut elements = [[0.0; I4_BLOCK]; PANEL];
        for (place, row) in rows.enumerate() {
            for (elements, column) in elements.iter_mut().zip(panel * PANEL..n) {
                elements[place] = at(row, column);
            }
        }
        for (column, elements) in elements.iter().enumerate() {
            scales[column] = best_scale(elements);
            for (row, element) in elements.iter().enumerate() {
                let bits = (number(*element, widen(scales[column])) + 8) as u8;
                let byte = &mut bytes[(row / 8 * PANEL + column) * 4 + row % 4];
                *byte = if row % 8 < 4 { *byte & 0xf0 | bits } else { *byte & 0x0f | bits << 4 };
            }
        }
    }
    QuantisedI4 { panels, scales }
}

/// The number that stands for an element.
fn number(element: f32, scale: f32) -> i32 {
    // NaN becomes 0: an element of zeros, or of a scale that is NaN.
    (element / scale).round_ties_even().clamp(-8.0, 7.0) as i32
}

/// The scale of a column of a block, as the bits of a bf16.
///
/// Either the greatest element is -8 times the scale, which may be negative, or it is ±7 times the scale. The steps of
/// the first one are smaller, but it cannot represent a number of the other sign that is as great. The one with the
/// smaller error is taken.
fn best_scale(elements: &[f32; I4_BLOCK]) -> u16 {
    let most = elements.iter().fold(0.0, |most, element| greater(most, element.abs()));
    if !most.is_finite() {
        return round(f32::NAN);
    }
    let sign = if elements.contains(&most) { -1.0 } else { 1.0 };
    let candidates = [round(most / 7.0), round(sign * most / 8.0)];
    let error = |scale: u16| {
        let scale = widen(scale);
        let error =
            |element: &f32| (f64::from(number(*element, scale)) * f64::from(scale) - f64::from(*element)).powi(2);
        elements.iter().map(error).sum::<f64>()
    };
    if error(candidates[1]) < error(candidates[0]) { candidates[1] } else { candidates[0] }
}

#[cfg(test)]
mod tests {
    use super::super::testing::numbers;
    use super::{BYTES, I4_BLOCK, PANEL, PackedI4, blocks_i4_shape, packed_i4_shape, quantise_i4, widen};

    #[test]
    fn parts_hold_eight_rows_of_each_column() {
        let (k, n) = (37, PANEL + 2);
        // The greatest numbers of each column are 7 and -7, so the scale is 1.
        let at = |row: usize, column: usize| match row % I4_BLOCK {
            0 => 7.0,
            1 => -7.0,
            row => (row % 5) as f32 - (column % 3) as f32,
        };
        let quantised = quantise_i4(k, n, at);
        assert_eq!((packed_i4_shape(k, n), blocks_i4_shape(k, n)), ([2, 8, PANEL, 4], [2, 2, PANEL]));
        let packed = PackedI4::new(&quantised.panels, &quantised.scales, [k, n]).unwrap();
        let (blocks, scales) = packed.panel(0);
        assert_eq!((blocks.len(), widen(scales[0][0]), widen(scales[0][1])), (2, 1.0, 1.0));
        // The rows 0 to 3 and 4 to 7 of the columns 0 and 1: 7, -7, 2, 3, 4, 0, 1, 2 and 7, -7, 1, 2, 3, -1, 0, 1.
        assert_eq!(blocks[0][..8], [0xcf, 0x81, 0x9a, 0xab, 0xbf, 0x71, 0x89, 0x9a]);
        // The rows 32 to 36, and zeros.
        assert_eq!(blocks[1][..4], [0xcf, 0x81, 0x8a, 0x8b]);
        assert_eq!(blocks[1][BYTES / 4..], [0x88; BYTES - BYTES / 4]);
        let (blocks, scales) = packed.panel(1);
        assert_eq!(blocks[0][2 * 4..PANEL * 4], [0x88; 120]);
        assert_eq!(scales[0][2..], [0; PANEL - 2]);
    }

    #[test]
    fn elements_are_within_a_step() {
        let (k, n) = (200, 70);
        let elements = numbers(k * n, 4);
        let quantised = quantise_i4(k, n, |row, column| elements[row * n + column]);
        let packed = PackedI4::new(&quantised.panels, &quantised.scales, [k, n]).unwrap();
        let (mut squares, mut half) = (0.0, 0);
        for (at, element) in elements.iter().enumerate() {
            let (row, column) = (at / n, at % n);
            let (blocks, scales) = packed.panel(column / PANEL);
            let scale = widen(scales[row / I4_BLOCK][column % PANEL]);
            let byte = blocks[row / I4_BLOCK][(row % I4_BLOCK / 8 * PANEL + column % PANEL) * 4 + row % 4];
            let number = i32::from(if row % 8 < 4 { byte & 15 } else { byte >> 4 }) - 8;
            let error = (number as f32 * scale - element).abs();
            assert!(error <= 1.01 * scale.abs(), "{row} {column}: {number} {scale} {element}");
            squares += f64::from(error).powi(2);
            half += usize::from(error <= 0.501 * scale.abs());
        }
        // A step is at most a seventh of the greatest element. Its error is that of a uniform distribution, or less.
        let mean = (squares / elements.len() as f64).sqrt();
        assert!(mean < 1.0 / 7.0 / 12_f64.sqrt(), "{mean}");
        assert!(half > elements.len() * 9 / 10, "{half}");
    }

    #[test]
    fn special_columns() {
        let quantised = quantise_i4(32, 4, |row, column| match (column, row) {
            (1, 20) => f32::NAN,
            (2, 0) => f32::NEG_INFINITY,
            (3, _) => 0.0,
            _ => -1.0,
        });
        let scales: Vec<f32> = quantised.scales[..4].iter().map(|scale| widen(*scale)).collect();
        assert!(scales[0] == 0.125 && scales[1].is_nan() && scales[2].is_nan() && scales[3] == 0.0, "{scales:?}");
        // -8, and zeros.
        assert_eq!(
            quantised.panels[..16],
            [0, 0, 0, 0, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88]
        );
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let all = quantise_i4(33, 3, |_, _| 1.0);
        assert!(PackedI4::new(&all.panels, &all.scales, [33, 3]).is_some());
        assert!(PackedI4::new(&all.panels[1..], &all.scales, [33, 3]).is_none());
        assert!(PackedI4::new(&all.panels, &all.scales[1..], [33, 3]).is_none());
        assert!(PackedI4::new(&all.panels, &all.scales, [32, 3]).is_none());
        assert!(PackedI4::new(&[], &[], [usize::MAX, usize::MAX]).is_none());
        assert!(PackedI4::new(&[], &[], [0, 5]).is_some() && PackedI4::new(&[], &[], [5, 0]).is_some());
    }
}
