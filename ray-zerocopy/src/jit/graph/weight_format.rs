//! The form of the packed weights of a linear layer.

use std::fmt;

use burn::tensor::DType;
use ray_zerocopy_kernels::{MOST_BLOCK, blocks_i8_shape, packed_i8_shape, packed_shape};

/// The numbers that a compiled graph stores for a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// 8-bit integers, with a scale for each column of each block of `block` rows. The rows of the input are quantised
    /// to 8 bits in each call, each with a scale of its own.
    Int8 {
        /// Rows of a block: a multiple of 4. [`WeightFormat::WHOLE`] for one scale for each column.
        block: usize,
    },
}

/// A tensor that holds a part of a packed weight: the end of its path, its type and its shape.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
}

impl WeightFormat {
    /// The size of blocks that makes one of all rows of a weight.
    pub const WHOLE: usize = MOST_BLOCK;

    /// The name in an id of a fused operation. Empty for 32-bit floats.
    pub(crate) fn id(self) -> String {
        match self {
            Self::F32 => String::new(),
            Self::Int8 { block: Self::WHOLE } => "int8".to_owned(),
            Self::Int8 { block } => format!("int8/{block}"),
        }
    }

    /// Reads a name. Returns `None` if there is no such form.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let (name, block) = id.split_once('/').map_or((id, None), |(name, block)| (name, Some(block)));
        let block = match block {
            None => Self::WHOLE,
            Some(block) => block.parse().ok()?,
        };
        let format = match name {
            "" => Self::F32,
            "int8" => Self::Int8 { block },
            _ => return None,
        };
        // Each form has one name.
        (format.is_sound() && format.id() == id).then_some(format)
    }

    /// Returns `false` for a size of blocks that the kernels do not have.
    pub(crate) fn is_sound(self) -> bool {
        match self {
            Self::F32 => true,
            Self::Int8 { block } => block > 0 && block.is_multiple_of(4) && block <= MOST_BLOCK,
        }
    }

    /// The tensors of a packed weight of `k` rows and `n` columns, in the order of the operands.
    pub(crate) fn parts(self, k: usize, n: usize) -> Vec<Part> {
        let part = |name, dtype, shape: &[usize]| Part { name, dtype, shape: shape.to_vec() };
        match self {
            Self::F32 => vec![part("", DType::F32, &packed_shape(k, n))],
            Self::Int8 { block } => {
                let columns = blocks_i8_shape(k, n, block);
                vec![
                    part(".int8", DType::I8, &packed_i8_shape(k, n)),
                    part(".scales", DType::F32, &columns),
                    part(".sums", DType::I32, &columns),
                ]
            }
        }
    }

    /// Number of tensors of a packed weight.
    pub(crate) fn operands(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Int8 { .. } => 3,
        }
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::Int8 { .. } => f.write_str(&self.id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WeightFormat;

    #[test]
    fn names_are_read_as_they_are_written() {
        let int8 = |block| WeightFormat::Int8 { block };
        for format in [WeightFormat::F32, int8(WeightFormat::WHOLE), int8(4), int8(128)] {
            assert_eq!(WeightFormat::parse(&format.id()), Some(format));
            assert_eq!(format.parts(5, 7).len(), format.operands());
        }
        for other in
            ["f32", "int8/0", "int8/6", "int8/-4", "int8/65536", "int8/131072", "int8/ 4", "int9", "/4", "int8/"]
        {
            assert_eq!(WeightFormat::parse(other), None, "{other}");
        }
    }
}
