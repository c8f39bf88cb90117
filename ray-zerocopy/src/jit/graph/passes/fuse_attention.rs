//! Replaces attention by a fused operation, where its heads are columns of one matrix.
//!
//! A transformer divides the columns of a linear layer among the heads, and exchanges two dimensions for burn's
//! attention: `[batch, rows, heads, width]` becomes `[batch, heads, rows, width]`, which is copied. The fused operation
//! takes the first form, and returns it.

use burn::tensor::DType;
use burn_ir::{AttentionOpIr, BaseOperationIr, ModuleOperationIr, OperationIr, ScalarIr, SwapDimsOpIr, TensorIr};

use super::draft::Draft;
use super::fuse_linear::Uses;
use crate::jit::graph::fused::Fused;

/// Replaces attention that has this form. Returns how many are replaced.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn fuse_attention(draft: &mut Draft) -> Result<usize, String> {
    let (operations, uses) = (draft.operations(), draft.uses());
    let mut count = 0;
    for operation in &operations {
        let OperationIr::Module(ModuleOperationIr::Attention(attention)) = operation else { continue };
        let Some((last, parts, out)) = parts(&operations, &uses, attention) else { continue };
        let mut inputs: Vec<_> = parts.iter().collect();
        inputs.extend(&attention.mask);
        let width = parts[0].shape.iter().next_back().copied().unwrap_or(1);
        let scale = attention.options.scale.map_or_else(|| 1.0 / (width as f64).sqrt(), |scale| scale.elem::<f64>());
        if scale <= 0.0 || !scale.is_finite() {
            continue;
        }
        let fused = Fused::Attention { has_mask: attention.mask.is_some() };
        draft.replace(last, fused, &inputs, vec![ScalarIr::Float(scale)], &out)?;
        count += 1;
    }
    Ok(count)
}

/// Returns the operand of an exchange of heads and rows.
fn swapped(operation: Option<&OperationIr>) -> Option<&SwapDimsOpIr> {
    match operation {
        Some(OperationIr::BaseFloat(BaseOperationIr::SwapDims(swap))) => {
            let is = swap.input.shape.num_dims() == 4 && [(1, 2), (2, 1)].contains(&(swap.dim1, swap.dim2));
            is.then_some(swap)
        }
        _ => None,
    }
}

/// The index of the operation that computes the result, q, k and v, and the result.
fn parts(
    operations: &[OperationIr],
    uses: &Uses,
    attention: &AttentionOpIr,
) -> Option<(usize, [TensorIr; 3], TensorIr)> {
    let AttentionOpIr { query, key, value, attn_bias, options, out, .. } = attention;
    if attn_bias.is_some() || options.softcap.is_some() || options.is_causal || out.dtype != DType::F32 {
        return None;
    }
    // Without heads of keys that several heads of queries share.
    if query.shape.iter().nth(1) != key.shape.iter().nth(1) {
        return None;
    }
    let heads = |tensor: &TensorIr| Some(swapped(uses.producer(operations, tensor))?.input.clone());
    let (last, back) = uses.only_reader(operations, out)?;
    Some((last, [heads(query)?, heads(key)?, heads(value)?], swapped(Some(back))?.out.clone()))
}
