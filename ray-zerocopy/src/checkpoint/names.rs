//! Names of tensors: renaming them, and finding the one that a pipeline means.

use std::collections::HashMap;

use burn::tensor::{Bytes, DType};
use burn_store::KeyRemapper;

use super::{CheckpointError, Entry};

/// Renames tensors with burn's own remapper.
pub(super) fn rename(entries: &mut [Entry], from: &str, to: &str) -> Result<(), CheckpointError> {
    let remapper = KeyRemapper::new()
        .add_pattern(from, to)
        .map_err(|error| CheckpointError::Pattern { pattern: from.to_owned(), reason: error.to_string() })?;
    // The remapper wants tensors, and looks at nothing but their names.
    let nameless = |entry: &Entry| {
        let nothing = Bytes::from_bytes_vec(Vec::new());
        burn_pack::Tensor::new(entry.renamed.clone(), DType::U8, vec![0], None, nothing)
    };
    let (renamed, _) = remapper.remap(entries.iter().map(nameless).collect());
    entries.iter_mut().zip(renamed).for_each(|(entry, tensor)| entry.renamed = tensor.name);
    unique(entries)
}

/// # Errors
/// If two tensors have the same name.
pub(super) fn unique(entries: &[Entry]) -> Result<(), CheckpointError> {
    let mut seen: HashMap<&str, &str> = HashMap::with_capacity(entries.len());
    for entry in entries {
        if let Some(first) = seen.insert(&entry.renamed, &entry.name) {
            return Err(CheckpointError::Duplicate {
                name: entry.renamed.clone(),
                first: first.to_owned(),
                second: entry.name.clone(),
            });
        }
    }
    Ok(())
}

/// What a checkpoint may call a parameter.
pub(crate) struct Name {
    /// Its path in the pipeline.
    pub path: String,
    /// Its path as PyTorch would name it, if that is another.
    pub pytorch: Option<String>,
}

impl Name {
    /// `module` is burn's name of the module that has the parameter, `Struct:LayerNorm`.
    pub(crate) fn of(path: &str, module: &str) -> Self {
        let norm = matches!(
            module,
            "Struct:BatchNorm" | "Struct:LayerNorm" | "Struct:GroupNorm" | "Struct:InstanceNorm" | "Struct:RmsNorm"
        );
        let swapped = |from: &str, to: &str| {
            let parent = path.strip_suffix(from)?;
            (norm && (parent.is_empty() || parent.ends_with('.'))).then(|| format!("{parent}{to}"))
        };
        Self { path: path.to_owned(), pytorch: swapped("gamma", "weight").or_else(|| swapped("beta", "bias")) }
    }
}

/// The name among `names` that looks most like `wanted`, if one does.
pub(crate) fn similar<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The same segments at the end are what renamed checkpoints have in common.
    let common =
        |name: &str| wanted.rsplit('.').zip(name.rsplit('.')).take_while(|(left, right)| left == right).count();
    names
        .map(|name| (common(name), name))
        .max_by_key(|(common, _)| *common)
        .filter(|(common, _)| *common > 0)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::{Name, similar};

    #[test]
    fn norms_have_other_names_in_pytorch() {
        let name = |path, module| Name::of(path, module).pytorch;
        assert_eq!(name("a.norm.gamma", "Struct:LayerNorm").as_deref(), Some("a.norm.weight"));
        assert_eq!(name("beta", "Struct:BatchNorm").as_deref(), Some("bias"));
        assert_eq!(name("a.gamma", "Struct:Mine"), None);
        assert_eq!(name("a.not_gamma", "Struct:LayerNorm"), None);
    }

    #[test]
    fn the_end_of_a_name_is_what_it_is_known_by() {
        let names = ["bert.layer.0.dense.weight", "bert.layer.1.dense.weight", "x"];
        assert_eq!(similar("encoder.layer.1.dense.weight", names.into_iter()), Some("bert.layer.1.dense.weight"));
        assert_eq!(similar("gamma", names.into_iter()), None);
    }
}
