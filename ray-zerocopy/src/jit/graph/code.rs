//! A traced graph as data: operations in burn's intermediate representation, inputs and outputs,
//! and the source of each constant.
//!
//! It does not know how it was recorded or what runs it. Sizes that may differ from call to call
//! are *symbols*. Every number in the graph that depends on them is a *symbolic expression*; the
//! operations hold its value at the traced sizes.

use burn::tensor::{DType, TensorData, TensorId};
use burn_ir::OperationIr;
use serde::{Deserialize, Serialize};

use super::symbolic::expr::SymExpr;
use crate::tensor::kind::TensorKind;

/// Version of [`GraphCode`] that this build writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// Version of compiled graphs, which contain fused operations.
pub(crate) const COMPILED: u32 = 2;
/// Version of burn. Its intermediate representation is not stable across versions, so a graph of
/// another version is rejected.
pub(crate) const BURN: &str = "0.22.1";
/// Name of a graph's only method.
pub(crate) const METHOD: &str = "run";

/// The field of an arena that holds the operations.
pub(crate) const FIELD: &str = "graph";

/// Name of the pipeline type in arenas that hold a graph or a module: the path that `Graph` had
/// when the format was defined.
pub(crate) const PIPELINE: &str = "ray_zerocopy::jit::pipeline::Graph";
/// Maximum size in bytes of a constant that is generated from a few numbers. A graph of a few bytes
/// may request any size.
const MOST_MADE: usize = 1 << 30;

/// A recorded forward pass, without its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GraphCode {
    pub format: u32,
    pub burn: String,
    /// The traced pipeline's type, with the method if one was traced.
    pub origin: String,
    pub symbols: Vec<Symbol>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub constants: Vec<Constant>,
    /// Operations in execution order, with the traced sizes. Tensor ids are dense: inputs, then
    /// constants, then results of operations.
    pub operations: Vec<OperationIr>,
    /// The numbers in the operations that depend on symbols.
    pub holes: Vec<SymbolicScalar>,
}

/// A size that may differ from call to call, such as the batch size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Symbol {
    pub name: String,
    /// The size at which the operations were recorded.
    pub traced: usize,
}

/// An input or an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub name: String,
    /// Tensor id. Two outputs may be the same tensor, and an output may be an input or a constant.
    pub id: TensorId,
    pub dtype: DType,
    /// Shape. The extents of an input are numbers or single symbols.
    pub shape: Vec<SymExpr>,
}

impl Port {
    pub(super) fn kind(&self) -> TensorKind {
        TensorKind::of(self.dtype)
    }
}

/// A number of an operation that depends on symbols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SymbolicScalar {
    /// Index of the operation.
    pub operation: u32,
    /// Index of the number in the operation, in serde's visiting order.
    pub number: u32,
    pub form: SymExpr,
}

/// A tensor that is the same in each call, or depends on the symbols only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Constant {
    pub dtype: DType,
    pub shape: Vec<SymExpr>,
    pub source: Source,
}

/// Source of a constant's elements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Source {
    /// A tensor of the arena, by path. Not copied where the device can borrow.
    Entry(String),
    /// Stored inline: a small tensor that is not a parameter, such as one that the forward pass
    /// creates from numbers.
    Inline(Inline),
    /// Integers `start`, `start + step`, …, as many as the shape requires, such as the positions in
    /// a sequence.
    Range { start: i64, step: i64 },
    /// The same element everywhere, as little-endian bytes.
    Fill(Vec<u8>),
}

impl Source {
    /// The path of a tensor of the arena.
    pub(crate) fn path(&self) -> Option<&str> {
        match self {
            Self::Entry(path) => Some(path),
            _ => None,
        }
    }
}

/// Little-endian bytes of a tensor.
#[derive(Clone, PartialEq)]
pub(crate) struct Inline(pub bytes::Bytes);

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Inline {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Inline {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl serde::de::Visitor<'_> for Bytes {
            type Value = Inline;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Inline, E> {
                Ok(Inline(bytes::Bytes::copy_from_slice(bytes)))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

impl Constant {
    /// Returns `true` if the constant can be created at these sizes. Allocates nothing, whatever
    /// size it claims.
    pub(super) fn is_sound(&self, sizes: &[usize]) -> bool {
        self.shape_and_count(sizes).is_some_and(|(shape, count)| match &self.source {
            Source::Entry(_) => true,
            // Only weights are quantised.
            _ if matches!(self.dtype, DType::QFloat(_)) => false,
            Source::Inline(Inline(bytes)) => crate::tensor::dtype::fits(self.dtype, &shape, bytes.len()).is_ok(),
            Source::Fill(element) => element.len() == self.dtype.size(),
            Source::Range { start, step } => {
                let last = i64::try_from(count.saturating_sub(1)).ok().and_then(|count| step.checked_mul(count));
                (self.dtype.is_int() || self.dtype.is_uint())
                    && last.is_some_and(|last| start.checked_add(last).is_some())
            }
        })
    }

    /// Shape and number of elements. Returns `None` on overflow, or if the generated tensor would
    /// be too large.
    fn shape_and_count(&self, sizes: &[usize]) -> Option<(Vec<usize>, usize)> {
        let shape = extents(&self.shape, sizes)?;
        let count = shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent))?;
        let is_small = || count.checked_mul(self.dtype.size()).is_some_and(|bytes| bytes <= MOST_MADE);
        (matches!(self.source, Source::Entry(_)) || is_small()).then_some((shape, count))
    }

    /// Creates the tensor at these sizes. Returns `None` for an entry of an arena.
    pub(crate) fn data(&self, sizes: &[usize]) -> Option<TensorData> {
        let (shape, count) = self.shape_and_count(sizes).filter(|_| self.is_sound(sizes))?;
        let data = match &self.source {
            Source::Entry(_) => return None,
            Source::Inline(Inline(bytes)) => TensorData::from_bytes_vec(bytes.to_vec(), shape, self.dtype),
            Source::Fill(element) => TensorData::from_bytes_vec(element.repeat(count), shape, self.dtype),
            Source::Range { start, step } => {
                let numbers: Vec<i64> = (0..count as i64).map(|at| start + step * at).collect();
                TensorData::new(numbers, shape).convert_dtype(self.dtype)
            }
        };
        Some(data)
    }
}

/// Evaluates a shape at the given sizes of the symbols. Returns `None` if an extent is negative or
/// overflows.
pub(crate) fn extents(shape: &[SymExpr], sizes: &[usize]) -> Option<Vec<usize>> {
    shape.iter().map(|expr| usize::try_from(expr.at(sizes)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, TensorData};

    use super::super::symbolic::expr::SymExpr;
    use super::Constant;
    use super::Source;

    #[test]
    fn constants_are_generated_within_limits() {
        let constant =
            |dtype, source: &Source| Constant { dtype, shape: vec![SymExpr::symbol(0)], source: source.clone() };
        let range = constant(DType::I32, &Source::Range { start: 5, step: -2 });
        assert_eq!(range.data(&[3]), Some(TensorData::from([5_i32, 3, 1])));
        let fill = constant(DType::F32, &Source::Fill(1.5_f32.to_le_bytes().to_vec()));
        assert_eq!(fill.data(&[2]), Some(TensorData::from([1.5_f32, 1.5])));
        assert_eq!((fill.data(&[1 << 40]), fill.data(&[usize::MAX]), range.data(&[1 << 40])), (None, None, None));
        assert_eq!(constant(DType::F32, &Source::Fill(vec![0; 3])).data(&[1]), None);
        assert_eq!(constant(DType::I64, &Source::Range { start: i64::MAX, step: 1 }).data(&[2]), None);
        assert_eq!(constant(DType::F32, &Source::Range { start: 0, step: 1 }).data(&[2]), None);
    }
}
