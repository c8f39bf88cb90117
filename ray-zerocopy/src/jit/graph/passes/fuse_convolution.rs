//! Replaces convolutions by a fused operation: with an activation, and the addition of another tensor before or after
//! it, where these follow.

use burn::tensor::DType;
use burn_ir::{Conv1dOpIr, Conv2dOpIr, ModuleOperationIr, OperationIr, TensorIr};
use ray_zerocopy_kernels::{Activation, ConvolutionOptions};

use super::draft::Draft;
use super::follow::{activation_of, addition_of};
use super::fuse_linear::Uses;
use crate::jit::graph::fused::{Fused, Residual};

/// The parts of a convolution.
struct Parts {
    /// Index of the operation that computes the result.
    last: usize,
    x: TensorIr,
    weight: TensorIr,
    bias: Option<TensorIr>,
    options: ConvolutionOptions,
    activation: Option<Activation>,
    residual: Option<(TensorIr, Residual)>,
    /// Index of the addition of the residual.
    addition: Option<usize>,
    out: TensorIr,
}

/// Replaces every convolution of one or two dimensions of 32-bit floats. Returns how many there are.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn fuse_convolution(draft: &mut Draft) -> Result<usize, String> {
    let (operations, uses) = (draft.operations(), draft.uses());
    // A sum of two convolutions becomes a part of one of them.
    let (mut taken, mut count) = (Vec::new(), 0);
    for at in 0..operations.len() {
        let Some(mut parts) = Parts::of(at, &operations[at]) else { continue };
        if !draft.has_fixed_options(at)? {
            continue;
        }
        parts.follow(draft, &operations, &uses, &taken);
        let Parts { last, x, weight, bias, options, activation, residual, addition, out } = &parts;
        let fused = Fused::Convolution {
            options: *options,
            activation: *activation,
            has_bias: bias.is_some(),
            residual: residual.as_ref().map(|(_, when)| *when),
        };
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        inputs.extend(residual.as_ref().map(|(residual, _)| residual));
        draft.replace(*last, fused, &inputs, Vec::new(), out)?;
        taken.extend(*addition);
        count += 1;
    }
    Ok(count)
}

impl Parts {
    fn of(at: usize, operation: &OperationIr) -> Option<Self> {
        let OperationIr::Module(operation) = operation else { return None };
        let (x, weight, bias, out, options) = match operation {
            ModuleOperationIr::Conv1d(Conv1dOpIr { x, weight, bias, options, out }) => {
                let options = ConvolutionOptions {
                    stride: [1, options.stride[0]],
                    padding: [(0, 0), options.padding[0]],
                    dilation: [1, options.dilation[0]],
                    groups: options.groups,
                };
                (x, weight, bias, out, options)
            }
            ModuleOperationIr::Conv2d(Conv2dOpIr { x, weight, bias, options, out }) => {
                let options = ConvolutionOptions {
                    stride: options.stride,
                    padding: options.padding,
                    dilation: options.dilation,
                    groups: options.groups,
                };
                (x, weight, bias, out, options)
            }
            _ => return None,
        };
        let is_f32 = [x, weight, out].into_iter().chain(bias).all(|tensor| tensor.dtype == DType::F32);
        is_f32.then(|| Self {
            last: at,
            x: x.clone(),
            weight: weight.clone(),
            bias: bias.clone(),
            options,
            activation: None,
            residual: None,
            addition: None,
            out: out.clone(),
        })
    }

    /// Includes what follows: an activation, and an addition before or after it, unless another convolution has taken
    /// it.
    fn follow(&mut self, draft: &Draft, operations: &[OperationIr], uses: &Uses, taken: &[usize]) {
        self.add(Residual::BeforeActivation, draft, operations, uses, taken);
        if let Some((at, activation, out)) = activation_of(operations, uses, &self.out) {
            (self.last, self.activation, self.out) = (at, Some(activation), out);
        }
        if self.residual.is_none() {
            self.add(Residual::AfterActivation, draft, operations, uses, taken);
        }
    }

    fn add(&mut self, when: Residual, draft: &Draft, operations: &[OperationIr], uses: &Uses, taken: &[usize]) {
        if let Some((at, other, out)) = addition_of(operations, uses, &self.out)
            && !taken.contains(&at)
            && other.dtype == DType::F32
            && draft.same_shape(&other, &out)
            && draft.same_shape(&self.out, &out)
        {
            (self.last, self.addition, self.residual, self.out) = (at, Some(at), Some((other, when)), out);
        }
    }
}
