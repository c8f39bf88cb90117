//! Adapters as PEFT saves them: `adapter_config.json`, and the pairs in a safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use regex::Regex;
use serde::Deserialize;

use super::weights::{AdapterConfig, LayerConfig};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::entry::Entry;
use crate::error::checkpoint::CheckpointError;
use crate::error::lora::LoraError;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// The fields of `adapter_config.json` that change the result.
#[derive(Debug, Deserialize)]
struct PeftConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    rank_pattern: HashMap<String, usize>,
    #[serde(default)]
    alpha_pattern: HashMap<String, f64>,
}

impl PeftConfig {
    fn read(path: &Path) -> Result<Self, LoraError> {
        let wrong = |reason: String| LoraError::Config { path: path.display().to_string(), reason };
        let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let config: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if config.peft_type != "LORA" {
            return Err(wrong(format!("`peft_type` is `{}`, and `LORA` is supported", config.peft_type)));
        }
        if config.use_dora {
            return Err(wrong("`use_dora` is true, and DoRA, which scales whole weights, is not supported".to_owned()));
        }
        for (field, number) in [("lora_alpha", config.lora_alpha)].into_iter().chain(config.alphas()) {
            if !number.is_finite() {
                return Err(wrong(format!("`{field}` is {number}")));
            }
        }
        Ok(config)
    }

    fn alphas(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.alpha_pattern.values().map(|&alpha| ("alpha_pattern", alpha))
    }

    /// The rank of a layer, as PEFT finds it.
    fn rank(&self, layer: &str) -> usize {
        of_pattern(&self.rank_pattern, layer).unwrap_or(self.r)
    }

    /// The scale of a layer, as PEFT computes it.
    fn scale(&self, layer: &str) -> f64 {
        let alpha = of_pattern(&self.alpha_pattern, layer).unwrap_or(self.lora_alpha);
        let rank = self.rank(layer) as f64;
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

/// Finds the value of the first pattern that is the layer's name, or the end of it.
fn of_pattern<T: Copy>(patterns: &HashMap<String, T>, layer: &str) -> Option<T> {
    let fits = |pattern: &str| {
        let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"));
        regex
            .map_or_else(|_| layer == pattern || layer.ends_with(&format!(".{pattern}")), |regex| regex.is_match(layer))
    };
    let mut found: Vec<_> = patterns.iter().filter(|(pattern, _)| fits(pattern)).collect();
    found.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
    found.first().map(|(_, value)| **value)
}

/// The tensors of a pair, as the file has them.
#[derive(Default)]
struct Pair {
    a: Option<Entry>,
    b: Option<Entry>,
    /// PEFT's name of the layer.
    name: String,
}

/// Opens a folder of PEFT. Returns its tensors under the names of [`AdapterWeights`], transposed to burn's
/// layout, and the config.
///
/// [`AdapterWeights`]: super::weights::AdapterWeights
pub(super) fn open(
    folder: &Path,
    rename: &[(Regex, String)],
    floats: Option<DType>,
) -> Result<(Checkpoint, AdapterConfig), LoraError> {
    let config = PeftConfig::read(&folder.join(CONFIG))?;
    let path = weights(folder)?;
    let mut checkpoint = Checkpoint::open(&path)?;
    checkpoint.pytorch = false;
    checkpoint.floats = floats;
    let shown = path.display().to_string();
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for entry in std::mem::take(&mut checkpoint.entries) {
        let wrong = |reason: String| LoraError::Tensor { path: shown.clone(), tensor: entry.name.clone(), reason };
        let (name, factor) = parse(&entry.name).ok_or_else(|| wrong("it has another name".to_owned()))?;
        let layer = rename.iter().fold(name.to_owned(), |name, (from, to)| from.replace_all(&name, to).into_owned());
        let turned = entry.transposed();
        let turned =
            turned.ok_or_else(|| wrong(format!("its shape is {:?}, and not that of a matrix", entry.shape)))?;
        let pair = pairs.entry(layer.clone()).or_default();
        pair.name = name.to_owned();
        let place = if factor == "A" { &mut pair.a } else { &mut pair.b };
        if let Some(other) = place.replace(turned) {
            return Err(wrong(format!("it and `{}` both change the layer `{layer}`", other.name)));
        }
    }
    let mut layers = Vec::with_capacity(pairs.len());
    for (layer, Pair { a, b, name }) in pairs {
        let (Some(mut a), Some(mut b)) = (a.clone(), b.clone()) else {
            let tensor = a.or(b).map(|entry| entry.name).unwrap_or_default();
            return Err(LoraError::Tensor { path: shown, tensor, reason: "its other half is missing".to_owned() });
        };
        let rank = config.rank(&name);
        if [a.shape[1], b.shape[0]] != [rank; 2] || rank == 0 {
            let reason = format!(
                "the rank of {CONFIG} is {rank}, and lora_A has {} rows and lora_B {} columns",
                a.shape[1], b.shape[0]
            );
            return Err(LoraError::Unfit { layer, reason });
        }
        for (factor, entry) in [("a", &mut a), ("b", &mut b)] {
            // As a pipeline writes the key of a map.
            let key = serde_json::Value::from(layer.as_str());
            entry.renamed = format!("pairs[{key}].{factor}");
        }
        let (inputs, outputs) = (a.shape[0], b.shape[1]);
        layers.push(LayerConfig { path: layer, inputs, outputs, rank, scale: config.scale(&name) });
        checkpoint.entries.extend([a, b]);
    }
    if layers.is_empty() {
        return Err(LoraError::Config { path: shown, reason: "it has no tensor".to_owned() });
    }
    Ok((checkpoint, AdapterConfig { layers }))
}

fn weights(folder: &Path) -> Result<PathBuf, LoraError> {
    let files = WEIGHTS.map(|name| folder.join(name));
    let missing = || {
        let reason = format!("it has neither {} nor {}", WEIGHTS[0], WEIGHTS[1]);
        LoraError::Checkpoint(CheckpointError::File { path: folder.display().to_string(), reason })
    };
    files.into_iter().find(|path| path.exists()).ok_or_else(missing)
}

/// Divides PEFT's name of a tensor into the layer, and `A` or `B`.
fn parse(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    let name = name.strip_suffix(".weight")?;
    let (layer, rest) = name.rsplit_once(".lora_")?;
    // PEFT's own state dict also has the name of the adapter: `lora_A.default`.
    let factor = rest.split('.').next()?;
    (matches!(factor, "A" | "B") && rest.split('.').count() <= 2).then_some((layer, factor))
}

#[cfg(test)]
mod tests {
    use super::{PeftConfig, parse};

    #[test]
    fn names_are_divided() {
        assert_eq!(parse("base_model.model.encoder.0.q.lora_A.weight"), Some(("encoder.0.q", "A")));
        assert_eq!(parse("q.lora_B.default.weight"), Some(("q", "B")));
        for name in
            ["q.weight", "q.lora_A.bias", "q.lora_embedding_A", "q.lora_magnitude_vector.weight", "lora_A.weight"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn ranks_and_scales_are_those_of_peft() {
        let text = r#"{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "rank_pattern": {"up": 4, "^net\\.0\\.up": 2},
            "alpha_pattern": {"up": 2.0}, "target_modules": ["up"]}"#;
        let mut config: PeftConfig = serde_json::from_str(text).unwrap();
        assert_eq!((config.rank("net.1.down"), config.scale("net.1.down")), (8, 2.0));
        assert_eq!((config.rank("net.1.up"), config.scale("net.1.up")), (4, 0.5));
        assert_eq!(config.rank("net.1.group"), 8, "the end of a name is a whole word");
        config.use_rslora = true;
        assert_eq!(config.scale("net.1.up"), 1.0);
    }
}
