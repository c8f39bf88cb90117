//! The form of the packed weights of a linear layer.

use std::fmt;

use burn::tensor::DType;
use ray_zerocopy_kernels::{
    MOST_BLOCK, blocks_i4_shape, blocks_i8_shape, packed_i4_shape, packed_i8_shape, packed_shape,
};

/// The numbers that a compiled graph stores for a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// bf16: the upper half of the bits of 32-bit floats. Sums are in 32 bits.
    Bf16,
    /// 8-bit integers, with a scale for each column of each block of `block` rows. The rows of the input are quantised
    /// to 8 bits in each call, each with a scale of its own.
    Int8 {
        /// Rows of a block: a multiple of 4. [`WeightFormat::WHOLE`] for one scale for each column.
        block: usize,
    },
    /// 4-bit integers, with a scale for each column of each block of 32 rows. Each 32 elements of a row of the input are
    /// quantised to 8 bits in each call, with a scale of their own.
    Int4,
}

/// Returns `true` for the types that weights and the inputs of layers may have.
pub(crate) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::BF16 | DType::F16)
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
            Self::Bf16 => "bf16".to_owned(),
            Self::Int4 => "int4".to_owned(),
            Self::Int8 { block: Self::WHOLE } => "int8".to_owned(),
            Self::Int8 { block } => format!("int8/{block}"),
        }
    }

    /// Reads a name. Returns `None` if there is no such form.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let format = match id.split_once('/') {
            Some(("int8", block)) => Self::Int8 { block: block.parse().ok()? },
            Some(_) => return None,
            None => match id {
                "" => Self::F32,
                "bf16" => Self::Bf16,
                "int8" => Self::Int8 { block: Self::WHOLE },
                "int4" => Self::Int4,
                _ => return None,
            },
        };
        // Each form has one name.
        (format.is_sound() && format.id() == id).then_some(format)
    }

    /// Returns `false` for a size of blocks that the kernels do not have.
    pub(crate) fn is_sound(self) -> bool {
        match self {
            Self::F32 | Self::Bf16 | Self::Int4 => true,
            Self::Int8 { block } => block > 0 && block.is_multiple_of(4) && block <= MOST_BLOCK,
        }
    }

    /// The tensors of a packed weight of `k` rows and `n` columns, in the order of the operands.
    pub(crate) fn parts(self, k: usize, n: usize) -> Vec<Part> {
        let part = |name, dtype, shape: &[usize]| Part { name, dtype, shape: shape.to_vec() };
        match self {
            Self::F32 => vec![part("", DType::F32, &packed_shape(k, n))],
            Self::Bf16 => vec![part(".bf16", DType::BF16, &packed_shape(k, n))],
            Self::Int4 => vec![
                part(".int4", DType::U8, &packed_i4_shape(k, n)),
                part(".scales", DType::BF16, &blocks_i4_shape(k, n)),
            ],
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
            Self::F32 | Self::Bf16 => 1,
            Self::Int4 => 2,
            Self::Int8 { .. } => 3,
        }
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::Bf16 | Self::Int8 { .. } | Self::Int4 => f.write_str(&self.id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WeightFormat;

    #[test]
    fn names_are_read_as_they_are_written() {
        let int8 = |block| WeightFormat::Int8 { block };
        for format in
            [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int4, int8(WeightFormat::WHOLE), int8(4), int8(128)]
        {
            assert_eq!(WeightFormat::parse(&format.id()), Some(format));
            assert_eq!(format.parts(5, 7).len(), format.operands());
        }
        for other in [
            "f32",
            "int8/0",
            "int8/6",
            "int8/-4",
            "int8/65536",
            "int8/131072",
            "int8/ 4",
            "int9",
            "int4/32",
            "bf16/",
            "/4",
            "int8/",
        ] {
            assert_eq!(WeightFormat::parse(other), None, "{other}");
        }
    }
}
