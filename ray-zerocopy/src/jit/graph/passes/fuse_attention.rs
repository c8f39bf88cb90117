//! Replaces attention by a fused operation, where its heads are columns of one matrix.
//!
//! A transformer divides the columns of a linear layer among the heads, and exchanges two dimensions for the attention:
//! `[batch, rows, heads, width]` becomes `[batch, heads, rows, width]`, which is copied. The fused operation takes the
//! first form, and returns it. Attention is burn's own operation, or its parts: two products, and what is between them.

use burn::tensor::DType;
use burn_ir::{
    ActivationOperationIr, AttentionOpIr, BaseOperationIr, FloatOperationIr, MatmulOpIr, ModuleOperationIr,
    NumericOperationIr, OperationIr, ScalarIr, SwapDimsOpIr, TensorIr,
};

use super::draft::Draft;
use super::fuse_linear::Uses;
use crate::jit::graph::fused::Fused;

/// The parts of an attention. q, k and v have the dimensions batch, rows, heads, width.
struct Parts {
    /// Index of the operation that computes the result.
    last: usize,
    heads: [TensorIr; 3],
    mask: Option<TensorIr>,
    scale: f64,
    /// The score of what the mask leaves out.
    fill: f64,
    out: TensorIr,
}

/// Replaces attention that has this form. Returns how many are replaced.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn fuse_attention(draft: &mut Draft) -> Result<usize, String> {
    let (operations, uses) = (draft.operations(), draft.uses());
    let mut count = 0;
    for operation in &operations {
        let parts = match operation {
            OperationIr::Module(ModuleOperationIr::Attention(attention)) => whole(&operations, &uses, attention),
            OperationIr::Float(_, FloatOperationIr::Matmul(scores)) => divided(&operations, &uses, scores),
            _ => None,
        };
        let Some(Parts { last, heads, mask, scale, fill, out }) = parts else { continue };
        let mut inputs: Vec<_> = heads.iter().collect();
        inputs.extend(&mask);
        let fused = Fused::Attention { has_mask: mask.is_some() };
        let scalars = vec![ScalarIr::Float(scale), ScalarIr::Float(fill)];
        // What does not fit, such as keys that several heads share, stays as it is.
        count += usize::from(draft.replace(last, fused, &inputs, scalars, &out).is_ok());
    }
    Ok(count)
}

/// Returns an exchange of two dimensions of four.
fn swapped(operation: Option<&OperationIr>, dimensions: (usize, usize)) -> Option<&SwapDimsOpIr> {
    match operation {
        Some(OperationIr::BaseFloat(BaseOperationIr::SwapDims(swap))) => {
            let (first, second) = dimensions;
            let is = [(first, second), (second, first)].contains(&(swap.dim1, swap.dim2));
            (is && swap.input.shape.num_dims() == 4).then_some(swap)
        }
        _ => None,
    }
}

/// The tensor whose heads and rows were exchanged.
fn heads(operations: &[OperationIr], uses: &Uses, tensor: &TensorIr) -> Option<TensorIr> {
    Some(swapped(uses.producer(operations, tensor), (1, 2))?.input.clone())
}

/// The exchange of heads and rows of a result.
fn back(operations: &[OperationIr], uses: &Uses, tensor: &TensorIr) -> Option<(usize, TensorIr)> {
    let (last, operation) = uses.only_reader(operations, tensor)?;
    Some((last, swapped(Some(operation), (1, 2))?.out.clone()))
}

/// burn's own operation.
fn whole(operations: &[OperationIr], uses: &Uses, attention: &AttentionOpIr) -> Option<Parts> {
    let AttentionOpIr { query, key, value, mask, attn_bias, options, out } = attention;
    if attn_bias.is_some() || options.softcap.is_some() || options.is_causal || out.dtype != DType::F32 {
        return None;
    }
    let width = query.shape.iter().next_back().copied().filter(|width| *width > 0)?;
    let scale = options.scale.map_or_else(|| 1.0 / (width as f64).sqrt(), |scale| scale.elem::<f64>());
    let heads = [heads(operations, uses, query)?, heads(operations, uses, key)?, heads(operations, uses, value)?];
    let (last, out) = back(operations, uses, out)?;
    Some(Parts { last, heads, mask: mask.clone(), scale, fill: f64::NEG_INFINITY, out })
}

/// The parts: scores, a factor, a mask, softmax, and the product with the values.
fn divided(operations: &[OperationIr], uses: &Uses, scores: &MatmulOpIr) -> Option<Parts> {
    let key = &swapped(uses.producer(operations, &scores.rhs), (2, 3))?.input;
    let (query, key) = (heads(operations, uses, &scores.lhs)?, heads(operations, uses, key)?);
    let (mut out, mut scale, mut mask) = (&scores.out, 1.0, None);
    loop {
        match uses.only_reader(operations, out)?.1 {
            OperationIr::NumericFloat(_, NumericOperationIr::MulScalar(op)) if mask.is_none() => {
                (scale, out) = (scale * op.rhs.elem::<f64>(), &op.out);
            }
            OperationIr::NumericFloat(_, NumericOperationIr::DivScalar(op)) if mask.is_none() => {
                (scale, out) = (scale / op.rhs.elem::<f64>(), &op.out);
            }
            OperationIr::BaseFloat(BaseOperationIr::MaskFill(op)) if mask.is_none() && op.tensor.id == out.id => {
                (mask, out) = (Some((op.mask.clone(), op.value.elem::<f64>())), &op.out);
            }
            OperationIr::Activation(ActivationOperationIr::Softmax(op)) if op.axis == 3 => {
                out = &op.out;
                break;
            }
            _ => return None,
        }
    }
    let OperationIr::Float(_, FloatOperationIr::Matmul(product)) = uses.only_reader(operations, out)?.1 else {
        return None;
    };
    // A row without a finite score is NaN there, and zeros in the fused operation.
    let (mask, fill) = mask.map_or((None, 0.0), |(mask, fill)| (Some(mask), fill));
    if product.lhs.id != out.id || product.out.dtype != DType::F32 || fill as f32 == f32::NEG_INFINITY {
        return None;
    }
    let value = heads(operations, uses, &product.rhs)?;
    let (last, out) = back(operations, uses, &product.out)?;
    Some(Parts { last, heads: [query, key, value], mask, scale, fill, out })
}
