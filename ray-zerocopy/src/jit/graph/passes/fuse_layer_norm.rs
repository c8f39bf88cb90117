//! Replaces layer norms by a fused operation.

use burn::tensor::DType;
use burn_ir::{ModuleOperationIr, OperationIr};

use super::draft::Draft;
use crate::jit::graph::fused::Fused;

/// Replaces every layer norm of 32-bit floats. Returns how many there are.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn fuse_layer_norm(draft: &mut Draft) -> Result<usize, String> {
    let mut count = 0;
    for (at, operation) in draft.operations().into_iter().enumerate() {
        let OperationIr::Module(ModuleOperationIr::LayerNorm(norm)) = operation else { continue };
        let mut inputs = vec![&norm.input, &norm.gamma];
        inputs.extend(&norm.beta);
        if inputs.iter().any(|input| input.dtype != DType::F32) {
            continue;
        }
        let fused = Fused::LayerNorm { has_beta: norm.beta.is_some() };
        draft.replace(at, fused, &inputs, vec![norm.epsilon], &norm.out)?;
        count += 1;
    }
    Ok(count)
}
