//! Replaces softmax over the last dimension by a fused operation.

use burn::tensor::DType;
use burn_ir::{ActivationOperationIr, OperationIr};

use super::draft::Draft;
use crate::jit::graph::fused::Fused;

/// Replaces softmax of 32-bit floats over the last dimension, where it is not a part of an attention. Returns how many
/// there are.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn fuse_softmax(draft: &mut Draft) -> Result<usize, String> {
    let mut count = 0;
    for (at, operation) in draft.operations().into_iter().enumerate() {
        let OperationIr::Activation(ActivationOperationIr::Softmax(softmax)) = operation else { continue };
        if softmax.input.dtype == DType::F32 && softmax.axis + 1 == softmax.input.shape.num_dims() {
            draft.replace(at, Fused::Softmax, &[&softmax.input], Vec::new(), &softmax.out)?;
            count += 1;
        }
    }
    Ok(count)
}
