//! The packed form of a matrix: panels of 32 columns, each with its rows one after the other.
//!
//! A kernel reads a panel from its begin to its end, 128 bytes for each row: whole cache lines for any width of
//! vectors. The last panel is filled up with zeros.

/// Columns of a panel.
pub const PANEL: usize = 32;

/// A packed matrix of `k` rows and `n` columns, of `f32` or, as a [`PackedBf16`](super::PackedBf16), of bf16.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a, T = f32> {
    panels: &'a [T],
    k: usize,
    n: usize,
}

/// The shape of the tensor that holds a packed matrix of `k` rows and `n` columns: panels, rows, [`PANEL`].
pub fn packed_shape(k: usize, n: usize) -> [usize; 3] {
    [n.div_ceil(PANEL), k, PANEL]
}

impl<'a, T> Packed<'a, T> {
    /// Takes the elements of a tensor of the [`packed_shape`]. Returns `None` if there are fewer or more.
    pub fn new(panels: &'a [T], k: usize, n: usize) -> Option<Self> {
        let [count, ..] = packed_shape(k, n);
        let expected = count.checked_mul(k)?.checked_mul(PANEL)?;
        (panels.len() == expected).then_some(Self { panels, k, n })
    }

    /// Number of rows.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Some rows of a panel.
    pub(crate) fn panel(&self, panel: usize, rows: std::ops::Range<usize>) -> &'a [T] {
        let begin = panel * self.k;
        &self.panels[(begin + rows.start) * PANEL..(begin + rows.end) * PANEL]
    }
}

/// Packs a matrix. `at` returns the element in a row and a column.
pub fn pack(k: usize, n: usize, at: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut panels = Vec::new();
    pack_into(&mut panels, k, n, at);
    panels
}

/// Packs a matrix into memory that is used again.
pub(crate) fn pack_into<T: Copy + Default>(
    panels: &mut Vec<T>,
    k: usize,
    n: usize,
    at: impl Fn(usize, usize) -> T,
) -> Packed<'_, T> {
    let [count, ..] = packed_shape(k, n);
    panels.clear();
    panels.reserve(count * k * PANEL);
    for panel in 0..count {
        for row in 0..k {
            let columns = panel * PANEL..(panel + 1) * PANEL;
            panels.extend(columns.map(|column| if column < n { at(row, column) } else { T::default() }));
        }
    }
    Packed { panels, k, n }
}

#[cfg(test)]
mod tests {
    use super::{PANEL, Packed, pack, packed_shape};

    #[test]
    fn panels_hold_the_columns_of_each_row() {
        let at = |row: usize, column: usize| (row * 100 + column) as f32;
        let (k, n) = (3, PANEL + 2);
        let panels = pack(k, n, at);
        assert_eq!(packed_shape(k, n), [2, 3, PANEL]);
        let packed = Packed::new(&panels, k, n).unwrap();
        assert_eq!(packed.panel(0, 1..2)[..3], [100.0, 101.0, 102.0]);
        assert_eq!(packed.panel(1, 2..3)[..3], [232.0, 233.0, 0.0]);
        assert!(Packed::new(&panels[1..], k, n).is_none() && Packed::new(&panels, k + 1, n).is_none());
        assert!(Packed::<f32>::new(&[], 0, 5).is_some() && Packed::<f32>::new(&[], usize::MAX, usize::MAX).is_none());
    }
}
