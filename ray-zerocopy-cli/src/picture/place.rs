//! Coordinates: places the cells of each group, from the inside out.

use super::layers::{Cell, Panel};

/// Distance between rows, in which results are described.
pub(crate) const GAP: f64 = 40.0;
/// Distance between cells of a row.
pub(crate) const SPACE: f64 = 22.0;
/// Distance between the border of a group and its cells.
pub(crate) const PADDING: f64 = 14.0;
/// Height of a group's title.
pub(crate) const TITLE: f64 = 26.0;
/// Height of the text below a node.
pub(crate) const TEXT: f64 = 17.0;
/// Distance of lanes from what is beside them.
pub(crate) const LANE: f64 = 10.0;
/// Sweeps that move cells towards their neighbours.
const SWEEPS: usize = 8;

/// Sizes and places in a group, relative to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placed {
    pub width: f64,
    pub height: f64,
    /// Left, top, width and height of each cell.
    pub cells: Vec<[f64; 4]>,
    /// Where the edges below each cell begin to bend: below its row, and what is written below that.
    pub bottoms: Vec<f64>,
}

/// Places the cells of an open group. `size` returns the sizes of nodes and groups, and `port` the place at which a
/// result leaves or enters a cell, relative to it.
pub(crate) fn place(
    own: &Panel,
    is_root: bool,
    size: impl Fn(Cell) -> (f64, f64),
    port: impl Fn(Cell, usize, bool) -> f64,
) -> Placed {
    let sizes: Vec<_> = own.cells.iter().map(|&cell| size(cell)).collect();
    let mut left = vec![0.0; own.cells.len()];
    let space = |one: usize, other: usize| {
        let is_thin = |at: usize| sizes[at].0 == 0.0;
        if is_thin(one) || is_thin(other) { LANE + SPACE / 4.0 } else { SPACE }
    };
    let is_lane = |cell: usize| matches!(own.cells[cell], Cell::Lane(_));
    // Neighbours of each cell in the row above and below: the cell, its port there, and the own port.
    let mut near = [vec![Vec::new(); own.cells.len()], vec![Vec::new(); own.cells.len()]];
    for &(from, to, net) in &own.segments {
        let (out, into) = (port(own.cells[from], net, false), port(own.cells[to], net, true));
        near[0][to].push((from, out, into));
        near[1][from].push((to, into, out));
    }
    for row in &own.rows {
        let mut x = 0.0;
        for (at, &cell) in row.iter().enumerate() {
            x += if at > 0 { sizes[row[at - 1]].0 + space(row[at - 1], cell) } else { 0.0 };
            left[cell] = x;
        }
        let width = x + row.last().map_or(0.0, |&cell| sizes[cell].0);
        row.iter().for_each(|&cell| left[cell] -= width / 2.0);
    }
    for sweep in 0..SWEEPS {
        let count = own.rows.len();
        for step in 0..count {
            let row = &own.rows[if sweep % 2 == 0 { step } else { count - 1 - step }];
            let wanted = |cell: usize| match &near[sweep % 2][cell][..] {
                [] => left[cell],
                near => {
                    let weight = |at: usize| weight(own.cells[cell], own.cells[at]);
                    let sum: f64 = near.iter().map(|(at, port, own)| weight(*at) * (left[*at] + port - own)).sum();
                    sum / near.iter().map(|(at, ..)| weight(*at)).sum::<f64>()
                }
            };
            let wanted: Vec<_> = row.iter().map(|&cell| wanted(cell)).collect();
            let mut offsets = vec![0.0; row.len()];
            for at in 1..row.len() {
                offsets[at] = offsets[at - 1] + sizes[row[at - 1]].0 + space(row[at - 1], row[at]);
            }
            let free: Vec<_> = wanted.iter().zip(&offsets).map(|(wanted, offset)| wanted - offset).collect();
            // Lanes give way.
            let weights: Vec<_> = row.iter().map(|&cell| if is_lane(cell) { 0.05 } else { 1.0 }).collect();
            for ((&cell, free), offset) in row.iter().zip(monotonous(&free, &weights)).zip(&offsets) {
                left[cell] = free + offset;
            }
        }
    }
    let least = (0..left.len()).map(|at| left[at]).fold(f64::INFINITY, f64::min);
    let least = if least.is_finite() { least } else { 0.0 };
    let title = if is_root { 0.0 } else { TITLE };
    let mut placed =
        Placed { width: 0.0, height: title, cells: vec![[0.0; 4]; left.len()], bottoms: vec![0.0; left.len()] };
    for row in &own.rows {
        let height = row.iter().map(|&cell| sizes[cell].1).fold(0.0, f64::max);
        for &cell in row {
            let (width, own_height) = sizes[cell];
            // Lanes pass the whole row.
            let used = if is_lane(cell) { height } else { own_height };
            placed.bottoms[cell] = placed.height + if height > 0.0 { height + TEXT } else { 0.0 };
            placed.cells[cell] = [left[cell] - least + PADDING, placed.height, width, used];
            placed.width = placed.width.max(left[cell] - least + width + 2.0 * PADDING);
        }
        let is_thin = height == 0.0;
        placed.height += height + if is_thin { GAP / 2.0 } else { GAP };
    }
    placed.height += if own.rows.last().is_some_and(|row| row.iter().all(|&cell| sizes[cell].1 == 0.0)) {
        -GAP / 2.0
    } else {
        PADDING - GAP
    };
    placed.height = placed.height.max(title + PADDING);
    placed
}

/// How strongly a cell is drawn to a neighbour: lanes are straight, and others follow what is not a lane.
fn weight(cell: Cell, near: Cell) -> f64 {
    match (cell, near) {
        (Cell::Lane(_), Cell::Lane(_)) => 4.0,
        (Cell::Lane(_), _) => 1.0,
        (_, Cell::Lane(_)) => 0.15,
        _ => 1.0,
    }
}

/// The nearest sequence that does not decrease, by weighted least squares (pool adjacent violators).
fn monotonous(wanted: &[f64], weights: &[f64]) -> Vec<f64> {
    // Mean, weight and number of values.
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for (&value, &weight) in wanted.iter().zip(weights) {
        pools.push((value, weight, 1));
        while let [.., (one, first, ones), (other, second, others)] = pools[..]
            && one > other
        {
            pools.pop();
            let mean = (one * first + other * second) / (first + second);
            if let Some(last) = pools.last_mut() {
                *last = (mean, first + second, ones + others);
            }
        }
    }
    pools.into_iter().flat_map(|(value, _, count)| std::iter::repeat_n(value, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::monotonous;

    #[test]
    fn sequences_do_not_decrease() {
        assert_eq!(monotonous(&[1.0, 3.0, 2.0, 5.0], &[1.0; 4]), [1.0, 2.5, 2.5, 5.0]);
        assert_eq!(monotonous(&[3.0, 2.0, 1.0], &[1.0; 3]), [2.0, 2.0, 2.0]);
        assert_eq!(monotonous(&[4.0, 0.0], &[3.0, 1.0]), [3.0, 3.0]);
        assert!(monotonous(&[], &[]).is_empty());
    }
}
