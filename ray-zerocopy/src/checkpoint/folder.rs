//! Finds the weights in a folder, by the file names that `transformers`, `diffusers` and `peft`
//! use.

use std::path::{Path, PathBuf};

use crate::error::checkpoint::CheckpointError;

/// File names up to the first dot, most common first.
const BASES: [&str; 5] =
    ["model", "diffusion_pytorch_model", "pytorch_model", "adapter_model", "open_clip_pytorch_model"];
/// File name endings, in order of preference. An index refers to all files of a sharded checkpoint,
/// each of which is only a part.
const ENDINGS: [&[&str]; 7] = [
    &["safetensors", "index", "json"],
    &["safetensors"],
    &["bpk"],
    &["bin", "index", "json"],
    &["bin"],
    &["pt"],
    &["pth"],
];
/// Maximum number of names in an error message.
const LISTED: usize = 12;

/// A file of weights. A lower rank is preferred. The variant is, for example, `fp16`.
struct Weights {
    name: String,
    rank: usize,
    variant: Option<String>,
}

/// Returns the file of weights in a folder.
///
/// # Errors
/// If there is no file of a known name, or several variants and none was selected.
pub(super) fn weights(folder: &Path, variant: Option<&str>) -> Result<PathBuf, CheckpointError> {
    let shown = folder.display().to_string();
    let unreadable = |error: std::io::Error| CheckpointError::File { path: shown.clone(), reason: error.to_string() };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        names.push(name);
    }
    names.sort();
    let mut found: Vec<_> = names.iter().filter_map(|name| parse_name(name)).collect();
    found.retain(|weights| folder.join(&weights.name).is_file());
    found.sort_by_key(|weights| weights.rank);
    let best = |variant: Option<&str>| found.iter().find(|weights| weights.variant.as_deref() == variant);
    if let Some(best) = best(variant) {
        return Ok(folder.join(&best.name));
    }
    let mut variants: Vec<_> = found.iter().filter_map(|weights| weights.variant.as_deref()).collect();
    variants.sort_unstable();
    variants.dedup();
    if let (None, [only]) = (variant, &variants[..])
        && let Some(best) = best(Some(only))
    {
        return Ok(folder.join(&best.name));
    }
    if found.is_empty() {
        return Err(CheckpointError::Format { path: shown, found: describe_contents(folder, &names) });
    }
    let choices = found.iter().map(|weights| format!("`{}`", weights.name)).collect::<Vec<_>>().join(", ");
    Err(CheckpointError::Choose {
        path: shown,
        what: match variant {
            Some(variant) => format!("no variant `{variant}`"),
            None => "several variants of the weights".to_owned(),
        },
        choices,
        how: "choose one: `Checkpoint::options().variant(..)`, `rzc --variant`, or its own path".to_owned(),
    })
}

/// Parses a file name: `model.safetensors`, `model.fp16.safetensors`,
/// `model.safetensors.index.fp16.json`.
fn parse_name(name: &str) -> Option<Weights> {
    let (base, rest) = name.split_once('.')?;
    let base = BASES.iter().position(|known| *known == base)?;
    let parts: Vec<_> = rest.split('.').collect();
    let plain = |ending: &[&str]| parts == ending;
    // A variant precedes the ending, or the `json` of an index.
    let without = |at: usize| {
        let mut parts = parts.clone();
        let variant = parts.remove(at);
        (parts, variant)
    };
    for (rank, ending) in ENDINGS.iter().enumerate() {
        let rank = rank * BASES.len() + base;
        if plain(ending) {
            return Some(Weights { name: name.to_owned(), rank, variant: None });
        }
        if parts.len() != ending.len() + 1 {
            continue;
        }
        for (rest, variant) in [without(0), without(parts.len().saturating_sub(2))] {
            // `model.fp16-00001-of-00002.safetensors` is a shard, which is listed in the index.
            if rest == *ending && !variant.is_empty() && !variant.contains("-of-") {
                return Some(Weights { name: name.to_owned(), rank, variant: Some(variant.to_owned()) });
            }
        }
    }
    None
}

/// Returns `true` if the path is the index of a sharded checkpoint, judging by its name.
pub(super) fn is_index(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(name) = name.strip_suffix(".json") else { return false };
    name.ends_with(".index") || name.rsplit_once('.').is_some_and(|(name, _)| name.ends_with(".index"))
}

/// Describes the contents of a folder without weights.
fn describe_contents(folder: &Path, names: &[String]) -> String {
    let mut text =
        "the folder has none of model.safetensors, diffusion_pytorch_model.safetensors, pytorch_model.bin, model.bpk \
         and their variants and indexes; it "
            .to_owned();
    if names.is_empty() {
        return text + "is empty";
    }
    let shown = |name: &String| if folder.join(name).is_dir() { format!("`{name}/`") } else { format!("`{name}`") };
    let listed: Vec<_> = names.iter().take(LISTED).map(shown).collect();
    text += &format!("has {}", listed.join(", "));
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    if names.iter().any(|name| name == "model_index.json") {
        text += "; `model_index.json` is of several models: name the folder of one";
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_index;
    use super::parse_name;

    #[test]
    fn weight_file_names_have_variants() {
        let variant = |name| parse_name(name).map(|weights| weights.variant);
        for name in [
            "model.safetensors",
            "model.safetensors.index.json",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.safetensors.index.json",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "diffusion_pytorch_model.bin",
            "adapter_model.safetensors",
            "adapter_model.bin",
            "model.bpk",
            "model.pt",
        ] {
            assert_eq!(variant(name), Some(None), "{name}");
        }
        for name in [
            "model.fp16.safetensors",
            "model.safetensors.index.fp16.json",
            "model.fp16.safetensors.index.json",
            "diffusion_pytorch_model.fp16.bin",
            "pytorch_model.bin.index.fp16.json",
        ] {
            assert_eq!(variant(name), Some(Some("fp16".to_owned())), "{name}");
        }
        for name in [
            "config.json",
            "model_index.json",
            "model-00001-of-00002.safetensors",
            "tokenizer.json",
            "model.onnx",
            "model.fp16-00001-of-00002.safetensors",
            "other.safetensors",
            "model",
            "model..safetensors",
        ] {
            assert_eq!(variant(name), None, "{name}");
        }
        assert!(
            parse_name("model.safetensors.index.json").unwrap().rank < parse_name("model.safetensors").unwrap().rank
        );
        assert!(
            parse_name("diffusion_pytorch_model.safetensors").unwrap().rank < parse_name("model.bin").unwrap().rank
        );
    }

    #[test]
    fn indexes_are_told_by_their_names() {
        let index = |name| is_index(Path::new(name));
        assert!(index("a/model.safetensors.index.json") && index("pytorch_model.bin.index.json"));
        assert!(index("model.safetensors.index.fp16.json") && index("hostile.index.json"));
        assert!(!index("index.json") && !index("model_index.json") && !index("model.safetensors"));
    }
}
