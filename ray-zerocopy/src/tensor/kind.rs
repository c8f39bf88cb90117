//! TODO.

use std::fmt;

use burn::tensor::DType;
use burn::tensor::kind::Basic;
use serde::{Deserialize, Serialize};

/// What a tensor holds, in burn's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TensorKind {
    /// Floating point, or quantised floating point.
    Float,
    /// Integers.
    Int,
    /// Booleans.
    Bool,
}

impl TensorKind {
    /// What elements of a type are, in burn's terms.
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

/// burn's kinds of tensor, as the arena names them.
pub trait Kind: Basic + Send + Sync + 'static {
    /// The arena's name of the kind.
    const STORED: TensorKind;
}
