//! Replaces linear layers by a fused operation on the packed weight: with the bias, an activation and a residual, where
//! these follow.

use std::collections::BTreeMap;

use burn_ir::{BaseOperationIr, FloatOperationIr, MatmulOpIr, ModuleOperationIr, OperationIr, TensorIr};
use ray_zerocopy_kernels::Activation;

use super::dequantise::original;
use super::draft::Draft;
use super::follow::{activation_of, addition_of};
use super::fuse_linear::{Uses, without_leading};
use super::weight::Weight;
use crate::jit::graph::code::{Constant, FIELD, Source};
use crate::jit::graph::fused::Fused;
use crate::jit::graph::weight_format::{Part, WeightFormat, is_float};
use crate::tensor::source::Compute;

/// Returns the weight of a constant, or `None` if it is not a matrix of floats.
pub(crate) type ReadWeight<'a> = &'a dyn Fn(&Constant) -> Option<Weight>;

/// The parts of a linear layer.
struct Parts {
    /// Index of the operation that computes the result.
    last: usize,
    x: TensorIr,
    weight: TensorIr,
    /// Whether the weight is stored by columns.
    is_transposed: bool,
    bias: Option<TensorIr>,
    activation: Option<Activation>,
    residual: Option<TensorIr>,
    out: TensorIr,
}

/// Replaces every product with a constant matrix of floats. `format` returns the form that a weight is packed
/// in, by its path. Returns the form of each weight, by its path.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn pack_linear(
    draft: &mut Draft,
    read: ReadWeight<'_>,
    format: &dyn Fn(&str) -> WeightFormat,
) -> Result<BTreeMap<String, WeightFormat>, String> {
    let (operations, uses) = (draft.operations(), draft.uses());
    let (mut layers, mut taken) = (BTreeMap::new(), Vec::new());
    for at in 0..operations.len() {
        let Some(mut parts) = product(draft, &operations, &uses, at) else { continue };
        let weight = draft.constant(&parts.weight).cloned();
        let Some((constant, Source::Entry(path))) = weight.as_ref().map(|weight| (weight, &weight.source)) else {
            continue;
        };
        let path = original(path);
        let Some(weight) = read(constant).map(|weight| weight.stored_by_columns(parts.is_transposed)) else { continue };
        let (k, n) = (weight.k(), weight.n());
        if k == 0 || n == 0 {
            continue;
        }
        parts.follow(draft, &operations, &uses, n, &taken);
        let way = if parts.is_transposed { ".transposed" } else { "" };
        let format = weight.lossless(format(path));
        let make = |(number, Part { name, dtype, shape })| {
            let weight = weight.clone();
            let compute: Compute = Box::new(move |sink| weight.pack(format, number, sink));
            draft.make(format!("{FIELD}.packed.{path}{way}{name}"), dtype, shape, compute)
        };
        let packed: Vec<TensorIr> = format.parts(k, n).into_iter().enumerate().map(make).collect();
        let Parts { last, x, bias, activation, residual, out, .. } = &parts;
        let (has_bias, has_residual) = (bias.is_some(), residual.is_some());
        let fused = Fused::Linear { columns: n, format, activation: *activation, has_bias, has_residual };
        let mut inputs = vec![x];
        inputs.extend(&packed);
        inputs.extend(bias);
        inputs.extend(residual);
        draft.replace(*last, fused, &inputs, Vec::new(), out)?;
        layers.insert(path.to_owned(), format);
        taken.push(*last);
    }
    Ok(layers)
}

/// The product, with the bias of a linear layer.
fn product(draft: &Draft, operations: &[OperationIr], uses: &Uses, at: usize) -> Option<Parts> {
    let (x, weight, bias, out) = match &operations[at] {
        OperationIr::Module(ModuleOperationIr::Linear(linear)) => {
            (linear.x.clone(), linear.weight.clone(), linear.bias.clone(), linear.out.clone())
        }
        OperationIr::Float(_, FloatOperationIr::Matmul(MatmulOpIr { lhs, rhs, out })) => {
            (lhs.clone(), without_leading(operations, uses, rhs, 2)?, None, out.clone())
        }
        _ => return None,
    };
    let (weight, is_transposed) = match uses.producer(operations, &weight) {
        Some(OperationIr::BaseFloat(BaseOperationIr::SwapDims(swap))) => (swap.input.clone(), true),
        Some(OperationIr::BaseFloat(BaseOperationIr::Permute(permute))) if permute.axes == [1, 0] => {
            (permute.input.clone(), true)
        }
        _ => (weight, false),
    };
    let is_of_one_type = is_float(x.dtype) && [&weight, &out].iter().all(|tensor| tensor.dtype == x.dtype);
    // The rows are those of `x`: the weight is the same for all of them.
    let rows = |tensor: &TensorIr| {
        tensor.shape.iter().copied().take(tensor.shape.num_dims().saturating_sub(1)).collect::<Vec<_>>()
    };
    let fits =
        is_of_one_type && weight.shape.num_dims() == 2 && rows(&x) == rows(&out) && draft.constant(&weight).is_some();
    let bias_fits = bias.as_ref().is_none_or(|bias| bias.dtype == x.dtype);
    (fits && bias_fits).then(|| Parts {
        last: at,
        x,
        weight,
        is_transposed,
        bias,
        activation: None,
        residual: None,
        out,
    })
}

impl Parts {
    /// Includes what follows the product: the addition of a bias, an activation, and the addition of a residual, unless
    /// another product has taken it.
    fn follow(&mut self, draft: &Draft, operations: &[OperationIr], uses: &Uses, columns: usize, taken: &[usize]) {
        if self.bias.is_none()
            && let Some((at, other, out)) = addition_of(operations, uses, &self.out)
            && let Some(bias) = without_leading(operations, uses, &other, 1)
            && !taken.contains(&at)
            && bias.shape.iter().copied().eq([columns])
            && bias.dtype == self.x.dtype
        {
            (self.last, self.bias, self.out) = (at, Some(bias), out);
        }
        if let Some((at, activation, out)) = activation_of(operations, uses, &self.out) {
            (self.last, self.activation, self.out) = (at, Some(activation), out);
        }
        if let Some((at, other, out)) = addition_of(operations, uses, &self.out)
            && !taken.contains(&at)
            && other.dtype == self.x.dtype
            && draft.same_shape(&other, &out)
            && draft.same_shape(&self.out, &out)
        {
            (self.last, self.residual, self.out) = (at, Some(other), out);
        }
    }
}
