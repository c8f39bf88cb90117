//! Masks of an attention: which keys each row of `q` leaves out.

use std::f32::consts::LOG2_E;

use crate::packed::PANEL;
use crate::sys::LeftOut;

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
    /// Returns `true` if all elements of these dimensions are inside.
    pub(crate) fn covers(&self, dimensions: [usize; 4]) -> bool {
        let last = dimensions.iter().zip(self.strides).try_fold(self.start, |last, (&count, stride)| {
            count.checked_sub(1)?.checked_mul(stride)?.checked_add(last)
        });
        dimensions.contains(&0) || last.is_some_and(|last| last < self.elements.len())
    }

    /// The score of a key that is left out, as the exponent of a power of 2.
    fn exponent(&self) -> f32 {
        let exponent = self.fill * LOG2_E;
        // A finite one remains finite: a row whose keys are all left out has the mean of the values then.
        if self.fill.is_finite() { exponent.clamp(f32::MIN, f32::MAX) } else { exponent }
    }
}

/// The part of a mask that belongs to a head, in the form of the kernels. It is used again for the next head if that
/// has the same elements.
#[derive(Debug, Default)]
pub(crate) struct HeadMask {
    /// The index of the first element.
    first: Option<usize>,
    /// The keys that all rows leave out.
    keys: Vec<usize>,
    /// The elements of [`PANEL`] rows side by side, for each key, if rows leave different keys out.
    tiles: Vec<[u8; PANEL]>,
}

impl HeadMask {
    /// Reads the elements of a head. Strides and dimensions are always the same.
    pub(crate) fn read(&mut self, mask: &Mask<'_>, [sequence, head]: [usize; 2], [rows, keys]: [usize; 2]) {
        let first = mask.start + sequence * mask.strides[0] + head * mask.strides[1];
        if self.first == Some(first) {
            return;
        }
        self.first = Some(first);
        let at = |row: usize, key: usize| mask.elements[first + row * mask.strides[2] + key * mask.strides[3]];
        if mask.strides[2] == 0 || rows == 1 {
            self.keys.clear();
            self.keys.extend((0..keys).filter(|key| at(0, *key) != 0));
            return;
        }
        self.tiles.resize(rows.div_ceil(PANEL) * keys, [0; PANEL]);
        for row in 0..rows {
            let tile = &mut self.tiles[row / PANEL * keys..][..keys];
            for (key, bytes) in tile.iter_mut().enumerate() {
                bytes[row % PANEL] = at(row, key);
            }
        }
    }

    /// What the rows of a tile leave out.
    pub(crate) fn tile(&self, mask: &Mask<'_>, tile: usize, keys: usize) -> LeftOut<'_> {
        let tiles = self.tiles.get(tile * keys..).and_then(|tiles| tiles.get(..keys));
        LeftOut { keys: &self.keys, mask: tiles, fill: mask.exponent() }
    }
}
