//! Replaces max pooling by a fused operation.

use burn::tensor::DType;
use burn_ir::{ModuleOperationIr, OperationIr};
use ray_zerocopy_kernels::ConvolutionOptions;

use super::draft::Draft;
use crate::jit::graph::fused::Fused;

/// Replaces every max pooling of two dimensions of 32-bit floats. Returns how many there are.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn fuse_max_pool(draft: &mut Draft) -> Result<usize, String> {
    let mut count = 0;
    for (at, operation) in draft.operations().into_iter().enumerate() {
        let OperationIr::Module(ModuleOperationIr::MaxPool2d(pool)) = operation else { continue };
        if pool.x.dtype != DType::F32 || !draft.has_fixed_options(at)? {
            continue;
        }
        let [rows, columns] = pool.padding;
        let padding = [(rows, rows), (columns, columns)];
        let options = ConvolutionOptions { stride: pool.stride, padding, dilation: pool.dilation, groups: 1 };
        let fused = Fused::MaxPool { kernel: pool.kernel_size, options };
        // What does not fit, such as a window that is larger than the image, stays as it is.
        count += usize::from(draft.replace(at, fused, &[&pool.x], Vec::new(), &pool.out).is_ok());
    }
    Ok(count)
}
