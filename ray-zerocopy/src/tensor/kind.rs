//! Tensor kinds.

use std::fmt;

use burn::tensor::DType;
use burn::tensor::kind::Basic;
use serde::{Deserialize, Serialize};

/// Kind of a tensor's elements, as burn classifies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TensorKind {
    /// Floating-point numbers, including quantised ones.
    Float,
    /// Integers.
    Int,
    /// Booleans.
    Bool,
}

impl TensorKind {
    /// Returns the kind of a dtype.
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::Bool(_) => Self::Bool,
            DType::QFloat(_) => Self::Float,
            dtype if dtype.is_float() => Self::Float,
            _ => Self::Int,
        }
    }
}

impl fmt::Display for TensorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Int => "int",
            Self::Bool => "bool",
        })
    }
}

/// burn's kinds of tensor, with the kind that an arena stores for them.
pub trait Kind: Basic + Send + Sync + 'static {
    /// The stored kind.
    const STORED: TensorKind;
}
