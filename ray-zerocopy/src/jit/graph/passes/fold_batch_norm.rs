//! Makes batch norms a part of the convolution before them.
//!
//! With fixed statistics, a batch norm is a factor and a summand for each channel. The factors become part of the
//! weight of the convolution, and the summands its bias: two new tensors in the arena of the compiled graph. A batch
//! norm of something else becomes a convolution of single elements, so that what follows it can become part of it.

use burn::tensor::DType;
use burn_ir::{
    BatchNormOpIr, Conv1dOpIr, Conv1dOptionsIr, Conv2dOpIr, Conv2dOptionsIr, ModuleOperationIr, OperationIr, TensorIr,
};

use super::draft::Draft;
use super::fuse_linear::Uses;
use crate::jit::graph::code::{Constant, FIELD, Source};

/// The elements of a constant of 32-bit floats. `None` if it is another one.
pub(crate) type ReadConstant<'a> = &'a dyn Fn(&Constant) -> Option<Vec<f32>>;

/// A factor and a summand for each channel.
struct Affine {
    factors: Vec<f64>,
    summands: Vec<f64>,
    /// Names the tensors that it was computed from.
    name: String,
}

/// Replaces batch norms of images, or of rows of channels, whose parameters are constants. Returns how many there are.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn fold_batch_norm(draft: &mut Draft, read: ReadConstant<'_>) -> Result<usize, String> {
    let (operations, uses) = (draft.operations(), draft.uses());
    let mut count = 0;
    for at in 0..operations.len() {
        let OperationIr::Module(ModuleOperationIr::BatchNorm(norm)) = &operations[at] else { continue };
        let is_f32 = norm.x.dtype == DType::F32 && norm.out.dtype == DType::F32;
        if !is_f32 || ![3, 4].contains(&norm.x.shape.num_dims()) {
            continue;
        }
        let Some(affine) = affine(draft, norm, read) else { continue };
        let folded = folded(draft, &operations, &uses, norm, &affine, read)?;
        let operation = folded.unwrap_or_else(|| alone(draft, norm, &affine));
        draft.replace_with(at, operation)?;
        count += 1;
    }
    // The convolutions that are not read any more would count as readers.
    draft.sweep();
    Ok(count)
}

/// The elements of a tensor, if it is a constant of 32-bit floats.
fn elements(draft: &Draft, tensor: &TensorIr, read: ReadConstant<'_>) -> Option<Vec<f32>> {
    (tensor.dtype == DType::F32).then(|| draft.constant(tensor).and_then(read)).flatten()
}

/// The name of a constant, for a path.
fn name(draft: &Draft, tensor: &TensorIr) -> String {
    match draft.constant(tensor).map(|constant| &constant.source) {
        Some(Source::Entry(path)) => path.clone(),
        _ => tensor.id.value().to_string(),
    }
}

fn affine(draft: &Draft, norm: &BatchNormOpIr, read: ReadConstant<'_>) -> Option<Affine> {
    let BatchNormOpIr { gamma, beta, mean, variance, epsilon, .. } = norm;
    let all = [gamma, beta, mean, variance].map(|tensor| elements(draft, tensor, read));
    let [Some(gammas), Some(betas), Some(means), Some(variances)] = all else { return None };
    let channels = norm.x.shape.iter().nth(1).copied()?;
    if [&gammas, &betas, &means, &variances].iter().any(|all| all.len() != channels) {
        return None;
    }
    let epsilon = epsilon.elem::<f64>();
    let factor = |(gamma, variance): (&f32, &f32)| f64::from(*gamma) / (f64::from(*variance) + epsilon).sqrt();
    let factors: Vec<_> = gammas.iter().zip(&variances).map(factor).collect();
    let summand = |((beta, mean), factor): ((&f32, &f32), &f64)| f64::from(*beta) - f64::from(*mean) * factor;
    let summands = betas.iter().zip(&means).zip(&factors).map(summand).collect();
    // Nothing else has all of these.
    let ids = [gamma, beta, variance].map(|tensor| tensor.id.value());
    let name = format!("{}.{}-{}-{}-{epsilon:e}", name(draft, mean), ids[0], ids[1], ids[2]);
    Some(Affine { factors, summands, name })
}

/// The convolution before a batch norm, with the factors and the summands. `None` if there is none, something else
/// reads its result, or its parameters are not constants.
fn folded(
    draft: &mut Draft,
    operations: &[OperationIr],
    uses: &Uses,
    norm: &BatchNormOpIr,
    affine: &Affine,
    read: ReadConstant<'_>,
) -> Result<Option<OperationIr>, String> {
    let Some(at) = uses.producer_index(&norm.x) else { return Ok(None) };
    let (weight, bias) = match &operations[at] {
        OperationIr::Module(ModuleOperationIr::Conv1d(op)) => (&op.weight, &op.bias),
        OperationIr::Module(ModuleOperationIr::Conv2d(op)) => (&op.weight, &op.bias),
        _ => return Ok(None),
    };
    let biases = bias.as_ref().map(|bias| elements(draft, bias, read));
    let Some(weights) = elements(draft, weight, read) else { return Ok(None) };
    let channels = affine.factors.len();
    if uses.only_reader(operations, &norm.x).is_none()
        || matches!(biases, Some(None))
        || weight.shape.iter().next() != Some(&channels)
        // A file may say something else of the operand than of the constant.
        || channels == 0
        || weights.len() != weight.shape.num_elements()
        || matches!(&biases, Some(Some(biases)) if biases.len() != channels)
        || !draft.has_fixed_options(at)?
    {
        return Ok(None);
    }
    let biases = biases.flatten().unwrap_or_else(|| vec![0.0; channels]);
    let path = format!("{FIELD}.folded.{}.{}", name(draft, weight), affine.name);
    let new_weight = draft.make_floats(path.clone(), weight.shape.iter().copied().collect(), || {
        let filters = weights.chunks(weights.len() / channels).zip(&affine.factors);
        filters.flat_map(|(filter, factor)| filter.iter().map(move |one| (f64::from(*one) * factor) as f32)).collect()
    });
    // Two convolutions with one weight may have different biases.
    let of_bias = bias.as_ref().map(|bias| bias.id.value().to_string()).unwrap_or_default();
    let new_bias = draft.make_floats(format!("{path}.bias{of_bias}"), vec![channels], || {
        let all = biases.iter().zip(&affine.factors).zip(&affine.summands);
        all.map(|((bias, factor), summand)| (f64::from(*bias) * factor + summand) as f32).collect()
    });
    let mut operation = operations[at].clone();
    match &mut operation {
        OperationIr::Module(ModuleOperationIr::Conv1d(op)) => {
            (op.weight, op.bias, op.out) = (new_weight, Some(new_bias), norm.out.clone());
        }
        OperationIr::Module(ModuleOperationIr::Conv2d(op)) => {
            (op.weight, op.bias, op.out) = (new_weight, Some(new_bias), norm.out.clone());
        }
        _ => return Ok(None),
    }
    Ok(Some(operation))
}

/// A batch norm as a convolution of single elements.
fn alone(draft: &mut Draft, norm: &BatchNormOpIr, affine: &Affine) -> OperationIr {
    let groups = affine.factors.len();
    let mut shape = vec![1; norm.x.shape.num_dims()];
    shape[0] = groups;
    let mut make = |what: &str, shape: Vec<usize>, elements: &[f64]| {
        let path = format!("{FIELD}.folded.{}.{what}", affine.name);
        draft.make_floats(path, shape, || elements.iter().map(|element| *element as f32).collect())
    };
    let weight = make("factors", shape.clone(), &affine.factors);
    let bias = Some(make("summands", vec![groups], &affine.summands));
    let BatchNormOpIr { x, out, .. } = norm.clone();
    OperationIr::Module(if shape.len() == 3 {
        let options = Conv1dOptionsIr { stride: [1], padding: [(0, 0)], dilation: [1], groups };
        ModuleOperationIr::Conv1d(Conv1dOpIr { x, weight, bias, options, out })
    } else {
        let options = Conv2dOptionsIr { stride: [1; 2], padding: [(0, 0); 2], dilation: [1; 2], groups };
        ModuleOperationIr::Conv2d(Conv2dOpIr { x, weight, bias, options, out })
    })
}
