//! Transposes a matrix, a few columns at a time, in a reused buffer.

use crate::arena::io::CHUNK;

/// Rows and columns of a block, which fits into the CPU cache.
const BLOCK: usize = 64;

/// Passes the transpose of a matrix of `rows` x `columns` elements of `size` bytes to `sink`, in
/// order.
///
/// # Errors
/// If the element size is not supported, if the number of bytes does not match, and errors of
/// `sink`.
pub(super) fn transpose(
    bytes: &[u8],
    [rows, columns]: [usize; 2],
    size: usize,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let expected = rows.checked_mul(columns).and_then(|elements| elements.checked_mul(size));
    if expected != Some(bytes.len()) {
        return Err(format!("{rows} x {columns} elements of {size} bytes are not {} bytes", bytes.len()));
    }
    match size {
        1 => stripes::<1>(bytes, rows, columns, sink),
        2 => stripes::<2>(bytes, rows, columns, sink),
        4 => stripes::<4>(bytes, rows, columns, sink),
        8 => stripes::<8>(bytes, rows, columns, sink),
        _ => Err(format!("elements of {size} bytes cannot be transposed")),
    }
}

/// Transposes the matrix in stripes. A stripe is a group of columns, which is contiguous in the
/// transpose.
fn stripes<const SIZE: usize>(
    bytes: &[u8],
    rows: usize,
    columns: usize,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let (from, _) = bytes.as_chunks::<SIZE>();
    let width = (CHUNK / (rows * SIZE).max(1)).max(16).min(columns.max(1));
    let mut to = vec![[0; SIZE]; width * rows];
    for first in (0..columns).step_by(width) {
        let width = width.min(columns - first);
        for (start, left) in blocks(rows).flat_map(|start| blocks(width).map(move |left| (start, left))) {
            let part = BLOCK.min(width - left);
            for row in start..(start + BLOCK).min(rows) {
                let elements = &from[row * columns + first + left..][..part];
                for (column, element) in elements.iter().enumerate() {
                    to[(left + column) * rows + row] = *element;
                }
            }
        }
        sink(to[..width * rows].as_flattened())?;
    }
    Ok(())
}

fn blocks(end: usize) -> impl Iterator<Item = usize> + Clone {
    (0..end).step_by(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::transpose;

    fn transposed(bytes: &[u8], shape: [usize; 2], size: usize) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        transpose(bytes, shape, size, &mut |bytes| {
            out.extend(bytes);
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn rows_become_columns() {
        for (rows, columns) in
            [(1, 1), (2, 3), (64, 64), (65, 63), (200, 1), (1, 200), (130, 257), (40_000, 18), (0, 5), (5, 0)]
        {
            for size in [1, 2, 4, 8] {
                let bytes: Vec<u8> = (0..rows * columns * size).map(|at| (at * 7 + at / 256) as u8).collect();
                let there = transposed(&bytes, [rows, columns], size).unwrap();
                let same =
                    (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).all(|(row, column)| {
                        let (from, to) = ((row * columns + column) * size, (column * rows + row) * size);
                        there[to..to + size] == bytes[from..from + size]
                    });
                assert!(same, "{rows} x {columns} of {size}");
                assert!(transposed(&there, [columns, rows], size).unwrap() == bytes, "{rows} x {columns} of {size}");
            }
        }
    }

    #[test]
    fn other_shapes_than_matrices_are_an_error() {
        assert!(transposed(&[0; 12], [2, 2], 3).unwrap_err().contains("cannot be transposed"));
        assert!(transposed(&[0; 5], [2, 2], 1).unwrap_err().contains("are not 5 bytes"));
        assert!(transposed(&[0; 5], [usize::MAX, 2], 1).is_err());
    }
}
