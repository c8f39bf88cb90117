//! Where the tensors of an arena are in its copy on a GPU.
//!
//! The offsets are not those of the arena: an arena may consist of several mappings, holds other
//! values as well, and has booleans and integers of types that the GPU does not compute with. Every
//! process computes the same layout from the same arena.

use std::collections::HashMap;

use ::burn::tensor::DType;

/// Alignment of each tensor, which is that of burn's own allocations.
const ALIGNMENT: usize = 512;

/// A tensor in a copy: the arena's bytes, as elements of a type that the GPU has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The arena's entry for the bytes.
    pub(crate) blob: u32,
    /// The type of the elements on the GPU.
    pub(crate) dtype: DType,
    /// The size on the GPU, in bytes.
    pub(crate) len: usize,
}

/// The parts of a copy, with their offsets.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    parts: Vec<(usize, Part)>,
    /// The index of each part.
    index: HashMap<(u32, DType), usize>,
    len: usize,
}

impl Layout {
    /// Arranges parts in their order. Equal ones are stored once.
    pub(crate) fn of(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut layout = Self::default();
        for part in parts {
            let key = (part.blob, part.dtype);
            if part.len > 0 && !layout.index.contains_key(&key) {
                layout.index.insert(key, layout.parts.len());
                let offset = layout.len;
                layout.len = (offset + part.len).next_multiple_of(ALIGNMENT);
                layout.parts.push((offset, part));
            }
        }
        layout
    }

    /// The parts, with their offsets.
    pub(crate) fn parts(&self) -> &[(usize, Part)] {
        &self.parts
    }

    /// The size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The offset of a blob with these elements. `None` if the copy does not have it.
    pub(crate) fn offset(&self, blob: u32, dtype: DType) -> Option<(usize, &Part)> {
        let (offset, part) = self.parts.get(*self.index.get(&(blob, dtype))?)?;
        Some((*offset, part))
    }

    /// Describes the layout, for the key of the copy.
    pub(crate) fn describe(&self) -> String {
        let part = |(offset, part): &(usize, Part)| format!("{offset} {} {:?} {}\n", part.blob, part.dtype, part.len);
        self.parts.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use ::burn::tensor::DType;

    use super::{Layout, Part};

    fn part(blob: u32, dtype: DType, len: usize) -> Part {
        Part { blob, dtype, len }
    }

    #[test]
    fn parts_are_aligned_and_stored_once() {
        let layout = Layout::of([
            part(3, DType::F32, 4),
            part(1, DType::F32, 512),
            part(3, DType::F32, 4),
            part(3, DType::I32, 4),
            part(9, DType::F32, 0),
        ]);
        let offsets: Vec<_> = layout.parts().iter().map(|(offset, part)| (*offset, part.blob)).collect();
        assert_eq!(offsets, [(0, 3), (512, 1), (1024, 3)]);
        assert_eq!(layout.len(), 1536);
        assert_eq!(layout.offset(3, DType::I32).map(|(offset, _)| offset), Some(1024));
        assert_eq!(layout.offset(9, DType::F32), None);
    }

    #[test]
    fn layouts_that_differ_are_described_differently() {
        let texts = [DType::F32, DType::I32].map(|dtype| Layout::of([part(0, dtype, 4)]).describe());
        assert_ne!(texts[0], texts[1]);
    }
}
