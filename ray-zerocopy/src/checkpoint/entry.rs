//! A tensor of a checkpoint: a name, a shape, and the locations of its elements in the files.
//!
//! Slices, transposes and concatenations are views: they change locations and read no bytes.

use burn::tensor::DType;

/// A tensor in a file, as described by the file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Name in the file.
    pub name: String,
    /// Current name, after renaming.
    pub renamed: String,
    /// Element type, or the file's name for a type that burn does not have.
    pub dtype: Result<DType, String>,
    pub shape: Vec<usize>,
    pub file: usize,
    pub offset: u64,
    pub len: u64,
    /// burn's parameter id, if the file is in burn's own format.
    pub param: Option<u64>,
    /// Locations of the elements, unless they are contiguous from `offset` on: one part with
    /// strides, or several parts whose rows follow each other.
    pub parts: Vec<Part>,
}

/// A range of rows of a tensor, in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub file: usize,
    /// Offset of the first element.
    pub offset: u64,
    /// Size of its elements in bytes.
    pub len: u64,
    pub shape: Vec<usize>,
    /// Strides in elements, or `None` for row-major order without gaps.
    pub strides: Option<Vec<usize>>,
}

impl Part {
    /// Returns the strides, whether explicit or implied.
    pub fn strides(&self) -> Vec<usize> {
        self.strides.clone().unwrap_or_else(|| row_major(&self.shape))
    }

    /// Removes strides that describe row-major order.
    fn simplified(mut self) -> Self {
        if self.strides.as_ref().is_some_and(|strides| is_contiguous(&self.shape, strides)) {
            self.strides = None;
        }
        self
    }

    /// Number of bytes from the first element to the end of the last one.
    pub fn span(&self, size: usize) -> usize {
        span(&self.shape, &self.strides()).unwrap_or_default() as usize * size
    }
}

/// Strides of a tensor in row-major order.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at] * shape[at];
    }
    strides
}

/// Returns `true` if the elements are contiguous in row-major order. The stride of a dimension of
/// size 1 does not matter.
pub(super) fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == expected;
        expected *= dim;
        fits
    })
}

/// Number of elements of its storage that a tensor spans. Returns `None` on overflow.
pub(super) fn span(shape: &[usize], strides: &[usize]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(1_u64, |end, (&dim, &stride)| end.checked_add((dim as u64 - 1).checked_mul(stride as u64)?))
}

impl Entry {
    /// Locations of the elements.
    pub fn places(&self) -> Vec<Part> {
        if self.parts.is_empty() {
            let (file, offset, len, shape) = (self.file, self.offset, self.len, self.shape.clone());
            return vec![Part { file, offset, len, shape, strides: None }];
        }
        self.parts.clone()
    }

    /// Returns `true` if the elements are contiguous in one file.
    pub fn is_contiguous(&self) -> bool {
        self.parts.is_empty()
    }

    /// Size of an element in bytes, as far as it is known.
    fn size(&self) -> u64 {
        match (&self.dtype, self.shape.iter().product::<usize>() as u64) {
            (Ok(dtype), _) => dtype.size() as u64,
            (Err(_), 0) => 1,
            (Err(_), elements) => self.len / elements,
        }
    }

    /// The same tensor with another shape and other locations. Merges adjacent parts.
    fn at(&self, shape: Vec<usize>, parts: Vec<Part>) -> Self {
        let mut merged: Vec<Part> = Vec::with_capacity(parts.len());
        for part in parts.into_iter().map(Part::simplified) {
            match merged.last_mut() {
                // Rows that are adjacent in the file as well.
                Some(last)
                    if last.strides.is_none()
                        && part.strides.is_none()
                        && last.file == part.file
                        && last.offset + last.len == part.offset =>
                {
                    last.len += part.len;
                    last.shape[0] += part.shape[0];
                }
                _ => merged.push(part),
            }
        }
        let len = merged.iter().map(|part| part.len).sum();
        let (file, offset) = merged.first().map_or((self.file, self.offset), |first| (first.file, first.offset));
        let parts = match &merged[..] {
            [only] if only.strides.is_none() => Vec::new(),
            _ => merged,
        };
        Self { shape, file, offset, len, parts, ..self.clone() }
    }

    /// Transpose of a matrix. Returns `None` if the tensor is not a matrix, or has several parts.
    pub fn transposed(&self) -> Option<Self> {
        let mut places = self.places();
        let ([_, _], [part]) = (&self.shape[..], &mut places[..]) else { return None };
        let mut strides = part.strides();
        strides.reverse();
        part.shape.reverse();
        part.strides = Some(strides);
        let shape = part.shape.clone();
        Some(self.at(shape, places))
    }

    /// A range of rows, which must exist.
    pub fn rows(&self, start: usize, count: usize) -> Self {
        let (size, mut left, mut skip) = (self.size(), count, start);
        let mut parts = Vec::new();
        for mut part in self.places() {
            let own = part.shape.first().copied().unwrap_or_default();
            let first = skip.min(own);
            let taken = left.min(own - first);
            (skip, left) = (skip - first, left - taken);
            if taken == 0 {
                continue;
            }
            part.offset += (first * part.strides().first().copied().unwrap_or_default()) as u64 * size;
            part.strides = Some(part.strides());
            part.shape[0] = taken;
            part.len = part.shape.iter().product::<usize>() as u64 * size;
            parts.push(part);
        }
        let mut shape = self.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows = count;
        }
        self.at(shape, parts)
    }

    /// Concatenates tensors by rows. They must be equal except for their number of rows.
    pub fn stacked(tensors: &[&Self]) -> Option<Self> {
        let first = tensors.first()?;
        let mut shape = first.shape.clone();
        *shape.first_mut()? = tensors.iter().filter_map(|tensor| tensor.shape.first()).sum();
        Some(first.at(shape, tensors.iter().flat_map(|tensor| tensor.places()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::Entry;
    use super::is_contiguous;
    use super::row_major;
    use super::span;

    fn entry(shape: &[usize]) -> Entry {
        let len = shape.iter().product::<usize>() as u64 * 4;
        let name = "w".to_owned();
        let shape = shape.to_vec();
        Entry {
            renamed: name.clone(),
            name,
            dtype: Ok(DType::F32),
            shape,
            file: 0,
            offset: 100,
            len,
            param: None,
            parts: vec![],
        }
    }

    #[test]
    fn strides_of_length_one_axes_are_ignored() {
        assert_eq!(row_major(&[2, 3, 4]), [12, 4, 1]);
        assert!(is_contiguous(&[2, 3], &[3, 1]) && is_contiguous(&[1, 3], &[77, 1]) && is_contiguous(&[], &[]));
        assert!(is_contiguous(&[0, 3], &[9, 9]) && !is_contiguous(&[2, 3], &[1, 2]));
        assert_eq!(span(&[2, 3], &[1, 2]), Some(6));
        assert_eq!((span(&[], &[]), span(&[0], &[5]), span(&[2], &[usize::MAX])), (Some(1), Some(0), None));
    }

    #[test]
    fn rows_and_transposes_are_views() {
        let whole = entry(&[6, 4]);
        let rows = whole.rows(2, 2);
        assert_eq!((rows.offset, rows.len, &rows.shape[..], rows.is_contiguous()), (132, 32, &[2, 4][..], true));
        let turned = whole.transposed().unwrap();
        assert_eq!((&turned.shape[..], turned.is_contiguous()), (&[4, 6][..], false));
        // Columns are rows of the transpose.
        let columns = turned.rows(1, 2);
        assert_eq!((columns.offset, columns.len, columns.parts[0].strides.as_deref()), (104, 48, Some(&[1, 4][..])));
        let back = turned.transposed().unwrap();
        assert_eq!((back.offset, &back.shape[..], back.is_contiguous()), (100, &[6, 4][..], true));
        assert!(entry(&[6]).transposed().is_none());
    }

    #[test]
    fn split_rows_can_be_stacked_in_place() {
        let whole = entry(&[6, 4]);
        let [first, second] = [whole.rows(0, 2), whole.rows(2, 4)];
        let again = Entry::stacked(&[&first, &second]).unwrap();
        assert_eq!((again.offset, again.len, &again.shape[..], again.is_contiguous()), (100, 96, &[6, 4][..], true));
        let swapped = Entry::stacked(&[&second, &first]).unwrap();
        assert_eq!((swapped.offset, swapped.len, swapped.parts.len()), (132, 96, 2));
        // Rows of a tensor with several parts.
        let middle = swapped.rows(3, 2);
        assert_eq!(middle.parts.iter().map(|part| (part.offset, part.len)).collect::<Vec<_>>(), [(180, 16), (100, 16)]);
    }
}
