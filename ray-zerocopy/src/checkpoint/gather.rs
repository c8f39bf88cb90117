//! Gathers strided elements into row-major order.

use crate::arena::io::CHUNK;

/// Passes the elements of a tensor to `sink` in row-major order, in chunks. `bytes` starts with the
/// first element.
///
/// # Errors
/// If an element lies outside of the bytes, and errors of `sink`.
pub(super) fn gather(
    bytes: &[u8],
    shape: &[usize],
    strides: &[usize],
    size: usize,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let (Some((&inner, outer)), Some((&step, steps))) = (shape.split_last(), strides.split_last()) else {
        return sink(bytes.get(..size).ok_or("a scalar without its bytes")?);
    };
    let outside = || format!("an element of shape {shape:?} with strides {strides:?} lies outside of its bytes");
    let rows = outer.iter().try_fold(1_usize, |rows, &dim| rows.checked_mul(dim)).ok_or_else(outside)?;
    let mut row = vec![0; outer.len()];
    let mut ready = Vec::with_capacity(CHUNK.min(rows.saturating_mul(inner).saturating_mul(size)));
    for _ in 0..if inner == 0 { 0 } else { rows } {
        let start = row.iter().zip(steps).map(|(&at, &stride)| at * stride).sum::<usize>() * size;
        if step == 1 {
            ready.extend_from_slice(bytes.get(start..start + inner * size).ok_or_else(outside)?);
        } else {
            for column in 0..inner {
                let at = start + column * step * size;
                ready.extend_from_slice(bytes.get(at..at + size).ok_or_else(outside)?);
            }
        }
        if ready.len() >= CHUNK {
            sink(&ready)?;
            ready.clear();
        }
        // Advance to the next row: increment the last dimension that is not at its end.
        for (at, &dim) in row.iter_mut().zip(outer).rev() {
            *at += 1;
            if *at < dim {
                break;
            }
            *at = 0;
        }
    }
    if ready.is_empty() { Ok(()) } else { sink(&ready) }
}

#[cfg(test)]
mod tests {
    use super::gather;

    fn gathered(bytes: &[u8], shape: &[usize], strides: &[usize], size: usize) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        gather(bytes, shape, strides, size, &mut |some| {
            out.extend(some);
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn every_element_is_taken_from_its_place() {
        let bytes: Vec<u8> = (0..24).collect();
        assert_eq!(gathered(&bytes, &[2, 3], &[1, 2], 1).unwrap(), [0, 2, 4, 1, 3, 5]);
        assert_eq!(gathered(&bytes, &[2, 2], &[6, 1], 2).unwrap(), [0, 1, 2, 3, 12, 13, 14, 15]);
        assert_eq!(gathered(&bytes, &[2, 2, 2], &[1, 8, 4], 1).unwrap(), [0, 4, 8, 12, 1, 5, 9, 13]);
        assert_eq!(gathered(&bytes, &[], &[], 4).unwrap(), [0, 1, 2, 3]);
        assert!(gathered(&bytes, &[3, 0], &[1, 1], 4).unwrap().is_empty());
        assert!(gathered(&bytes, &[4, 7], &[7, 1], 1).unwrap_err().contains("outside"));
    }

    #[test]
    fn large_ones_come_in_pieces() {
        let bytes = vec![7; 6 << 20];
        let mut pieces = 0;
        gather(&bytes, &[3 << 20, 1], &[2, 1], 1, &mut |some| {
            pieces += 1;
            assert!(some.len() <= 2 << 20);
            Ok(())
        })
        .unwrap();
        assert_eq!(pieces, 2);
    }
}
