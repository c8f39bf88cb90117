//! Replaces embeddings that are added to something by one operation, such as the sum of those of words, positions and
//! kinds that a transformer begins with.

use burn::tensor::DType;
use burn_ir::{ModuleOperationIr, OperationIr, TensorIr};

use super::draft::Draft;
use super::follow::addition_of;
use super::fuse_linear::{Uses, without_leading};
use crate::jit::graph::fused::{Fused, MOST_SUMMANDS};

/// Replaces embeddings of 32-bit floats that are only read to be added to other tensors, which are the same for all of
/// the leading dimensions, or for none. Returns how many there are.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn fuse_embedding(draft: &mut Draft) -> Result<usize, String> {
    let (operations, uses) = (draft.operations(), draft.uses());
    let (mut count, mut taken) = (0, Vec::new());
    for operation in &operations {
        let OperationIr::Module(ModuleOperationIr::Embedding(embedding)) = operation else { continue };
        if embedding.weights.dtype != DType::F32 {
            continue;
        }
        let (mut sum, mut last, mut others) = (embedding.out.clone(), None, Vec::new());
        while others.len() < MOST_SUMMANDS
            && let Some((at, other, out)) = addition_of(&operations, &uses, &sum)
            && !taken.contains(&at)
            && draft.same_shape(&embedding.out, &out)
            && let other = without_ones(&operations, &uses, &other)
            && other.dtype == DType::F32
            && draft.is_suffix(&other, &out)
        {
            others.push(other);
            taken.push(at);
            (sum, last) = (out, Some(at));
        }
        let Some(last) = last else { continue };
        let mut inputs = vec![&embedding.weights, &embedding.indices];
        inputs.extend(&others);
        draft.replace(last, Fused::Embedding { others: others.len() }, &inputs, Vec::new(), &sum)?;
        count += 1;
    }
    Ok(count)
}

/// The tensor whose reshape added leading dimensions of size 1, or the tensor itself.
fn without_ones(operations: &[OperationIr], uses: &Uses, tensor: &TensorIr) -> TensorIr {
    let ones = tensor.shape.iter().take_while(|extent| **extent == 1).count();
    let ranks = (1..=ones).rev().map(|ones| tensor.shape.num_dims() - ones).filter(|rank| *rank > 0);
    let found = ranks.filter_map(|rank| without_leading(operations, uses, tensor, rank)).next();
    found.unwrap_or_else(|| tensor.clone())
}
