//! Loads a Hugging Face `model.safetensors` into the module. A tensor that is missing, unexpected
//! or of another shape is an error, which uses the name in the file.
//!
//! burn's own store maps the file, reads one tensor at a time, and transposes PyTorch's `[out, in]`
//! weights to burn's `[in, out]`, so that calls do not have to. The mapping is dropped with the
//! store, which leaves one copy of the weights in memory.

use std::path::Path;

use anyhow::{Context, Result, bail};
use burn::store::{
    ApplyError, ApplyResult, FloatCastAdapter, ModuleAdapter, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore,
};
use burn::tensor::{DType, Shape};

use super::model::Bert;

/// Tensors of a `BertModel` that sentence embeddings do not use: the buffer of positions 0, 1, 2, …
/// and the pooler of the classifier.
const NOT_USED: [&str; 3] = ["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"];

/// Loads `file` into `bert`. Weights of other float types are converted to f32.
///
/// # Errors
///
/// If the file cannot be read, or tensors do not fit; the error lists all of them. The module is
/// then in an unspecified state.
pub fn load(bert: &mut Bert, file: &Path) -> Result<()> {
    let mut store = SafetensorsStore::from_file(file)
        .with_key_remapping(r"\bLayerNorm\.", "layer_norm.")
        .with_key_remapping(r"\battention\.self\.", "attention.self_attention.")
        .with_from_adapter(PyTorchToBurnAdapter.chain(FloatCastAdapter::to(DType::F32)))
        // Both are checked below, where one error lists all problems with the names in the file.
        .allow_partial(true)
        .validate(false);
    let result =
        bert.load_from(&mut store).with_context(|| format!("cannot read the weights in {}", file.display()))?;
    let complaints = complaints(&result);
    if !complaints.is_empty() {
        bail!(
            "{} does not contain the weights of this model:\n  {}\nUse the file that belongs to the config.json next to it.",
            file.display(),
            complaints.join("\n  ")
        );
    }
    Ok(())
}

fn complaints(result: &ApplyResult) -> Vec<String> {
    let missing = result.missing.iter().map(|(path, _)| format!("tensor `{}` is missing", name_in_file(path)));
    let unexpected = result
        .unused
        .iter()
        .map(|path| name_in_file(path))
        .filter(|name| !NOT_USED.contains(&name.as_str()))
        .map(|name| format!("tensor `{name}` is unexpected"));
    let unfit = result.errors.iter().map(|error| match error {
        ApplyError::ShapeMismatch { path, expected, found } => format!(
            "tensor `{}` has shape {:?}, expected {:?}",
            name_in_file(path),
            shape_in_file(path, found),
            shape_in_file(path, expected)
        ),
        ApplyError::DTypeMismatch { path, expected, found } => {
            format!("tensor `{}` is of type {found:?}, expected a float such as {expected:?}", name_in_file(path))
        }
        ApplyError::AdapterError { path, message } | ApplyError::LoadError { path, message } => {
            format!("tensor `{}`: {message}", name_in_file(path))
        }
    });
    missing.chain(unexpected).chain(unfit).collect()
}

/// Inverts the renames of [`load`] and of the PyTorch adapter.
fn name_in_file(path: &str) -> String {
    path.replace("layer_norm.gamma", "LayerNorm.weight")
        .replace("layer_norm.beta", "LayerNorm.bias")
        .replace("layer_norm.", "LayerNorm.")
        .replace("attention.self_attention.", "attention.self.")
}

/// Returns the shape of a tensor in the file, where linear weights are transposed.
fn shape_in_file(path: &str, shape: &Shape) -> Vec<usize> {
    let mut dims = shape.to_vec();
    let linear = path.ends_with(".weight") && !path.starts_with("embeddings.");
    if linear && dims.len() == 2 {
        dims.reverse();
    }
    dims
}
