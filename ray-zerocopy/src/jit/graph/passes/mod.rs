//! Passes over a recorded graph, one in each file.
//!
//! | file | what |
//! | --- | --- |
//! | `draft` | a graph whose operations are being replaced |
//! | `merge_reshapes` | of several reshapes in a row, the last one |
//! | `dequantise` | quantised weights as floats |
//! | `weight` | a weight and its packed forms |
//! | `pack_linear` | linear layers on packed weights, with what follows them |
//! | `fold_batch_norm` | batch norms as part of the convolution before them |
//! | `fuse_convolution` | convolutions, with what follows them |
//! | `fuse_max_pool` | max pooling |
//! | `follow` | what follows a product or a convolution and becomes part of it |
//! | `fuse_embedding` | sums of embeddings |
//! | `fuse_attention` | attention whose heads are columns of one matrix |
//! | `fuse_layer_norm` | layer norms |
//! | `fuse_softmax` | softmax |
//! | `strip` | removes initialisations: constants are registered separately |
//! | `dead` | dead code elimination |
//! | `fuse_linear` | raises linear layers to a single operation |
//! | `renumber` | assigns dense tensor ids |
//! | `fold` | constant folding of small results |
//! | `liveness` | finds the last use of each tensor |

pub(crate) mod dead;
pub(crate) mod dequantise;
pub(crate) mod draft;
pub(crate) mod fold;
pub(crate) mod fold_batch_norm;
pub(crate) mod follow;
pub(crate) mod fuse_attention;
pub(crate) mod fuse_convolution;
pub(crate) mod fuse_embedding;
pub(crate) mod fuse_layer_norm;
pub(crate) mod fuse_linear;
pub(crate) mod fuse_max_pool;
pub(crate) mod fuse_softmax;
pub(crate) mod liveness;
pub(crate) mod merge_reshapes;
pub(crate) mod pack_linear;
pub(crate) mod renumber;
pub(crate) mod strip;
pub(crate) mod weight;

use burn_ir::OperationIr;
use ciborium::Value;

pub(crate) use self::fold::{SMALL, is_foreign, is_impure, is_view};
pub(crate) use self::fuse_linear::raise_linear;
pub(crate) use self::liveness::last_uses;
pub(crate) use self::strip::strip_initialisation;

use super::fused::Fused;
pub(crate) use super::symbolic::expr::SymExpr;
pub(crate) use super::symbolic::scalars::skeleton;

/// An operation, and the numbers in it that depend on symbols.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub operation: OperationIr,
    /// Index and expression of each number that depends on symbols.
    pub holes: Vec<(u32, SymExpr)>,
}

impl Step {
    pub(crate) fn fixed(operation: OperationIr) -> Self {
        Self { operation, holes: Vec::new() }
    }
}

/// Name of an operation for messages: `Reshape`, `Matmul`.
pub(crate) fn name(operation: &OperationIr) -> String {
    if let Some((fused, _)) = Fused::of(operation) {
        return fused.name();
    }
    fn innermost(value: &Value) -> Option<String> {
        let [(Value::Text(name), inner)] = &value.as_map()?[..] else { return None };
        let deeper = match inner {
            Value::Array(parts) => parts.iter().rev().find_map(innermost),
            Value::Map(_) => innermost(inner),
            _ => None,
        };
        Some(deeper.unwrap_or_else(|| name.clone()))
    }
    skeleton(operation).ok().as_ref().and_then(innermost).unwrap_or_else(|| "an operation".to_owned())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Shape, TensorId};
    use burn_ir::{BinaryOpIr, NumericOperationIr, OperationIr, TensorIr, TensorStatus};

    pub(super) fn id(number: u64) -> TensorId {
        TensorId::new(number)
    }

    fn tensor(number: u64, status: TensorStatus) -> TensorIr {
        TensorIr { id: id(number), shape: Shape::new([2]), status, dtype: DType::F32 }
    }

    /// An addition.
    pub(super) fn binary(lhs: u64, rhs: u64, out: u64) -> OperationIr {
        let operand = |number| tensor(number, TensorStatus::ReadOnly);
        let out = tensor(out, TensorStatus::NotInit);
        OperationIr::NumericFloat(
            DType::F32,
            NumericOperationIr::Add(BinaryOpIr { lhs: operand(lhs), rhs: operand(rhs), out }),
        )
    }

    #[test]
    fn operations_have_names() {
        assert_eq!(super::name(&binary(0, 1, 2)), "Add");
    }
}
