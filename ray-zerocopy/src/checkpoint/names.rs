//! Tensor names: renaming, and matching with the parameters of a pipeline.

use std::collections::HashMap;

use regex::Regex;

use super::entry::Entry;
use crate::error::checkpoint::CheckpointError;

/// Renames tensors as burn's own remapper does.
pub(super) fn rename(entries: &mut [Entry], from: &str, to: &str) -> Result<(), CheckpointError> {
    let regex = pattern(from, to)?;
    for entry in &mut *entries {
        entry.renamed = regex.replace_all(&entry.renamed, to).into_owned();
    }
    unique(entries)
}

/// Compiles a regular expression and checks that it has all groups that its replacement refers to.
/// The `regex` crate would replace an unknown group with an empty string.
pub(crate) fn pattern(from: &str, to: &str) -> Result<Regex, CheckpointError> {
    let regex = Regex::new(from)
        .map_err(|error| CheckpointError::Pattern { pattern: from.to_owned(), reason: error.to_string() })?;
    let known = |group: &str| match group.parse::<usize>() {
        Ok(number) => number < regex.captures_len(),
        Err(_) => regex.capture_names().flatten().any(|name| name == group),
    };
    for (group, braces) in groups(to) {
        if known(group) {
            continue;
        }
        // `$1_` refers to the group `1_`: the longest possible name.
        let meant = (1..group.len()).rev().map(|len| &group[..len]).find(|part| known(part)).filter(|_| !braces);
        return Err(CheckpointError::Group {
            pattern: from.to_owned(),
            to: to.to_owned(),
            group: group.to_owned(),
            hint: match meant {
                Some(meant) => format!("write `${{{meant}}}{}`", &group[meant.len()..]),
                None => format!("it has {}; `$$` is a dollar", listed(&regex)),
            },
        });
    }
    Ok(regex)
}

/// Groups that a replacement refers to, and whether each is in braces, as parsed by the `regex`
/// crate.
fn groups(to: &str) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    let mut rest = to;
    while let Some((_, after)) = rest.split_once('$') {
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some((group, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            found.push((group, true));
            rest = after;
        } else {
            let len = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
            if len > 0 {
                found.push((&rest[..len], false));
            }
            rest = &rest[len..];
        }
    }
    found
}

/// Lists the groups of a regular expression for a message.
fn listed(regex: &Regex) -> String {
    let name =
        |(at, name): (usize, Option<&str>)| name.map_or_else(|| format!("`${at}`"), |name| format!("`${{{name}}}`"));
    let names: Vec<_> = regex.capture_names().enumerate().skip(1).map(name).collect();
    if names.is_empty() { "no group but `$0`, all of the match".to_owned() } else { names.join(", ") }
}

/// Checks that names are unique.
///
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

/// Names that a checkpoint may use for a parameter.
pub(crate) struct Name {
    /// Path in the pipeline.
    pub path: String,
    /// Path in PyTorch's naming, if it differs.
    pub pytorch: Option<String>,
}

impl Name {
    /// Creates the names of a parameter. `module` is burn's name of the containing module, such as
    /// `Struct:LayerNorm`.
    ///
    /// PyTorch's norms have `weight` and `bias`. Files that were converted from TensorFlow use
    /// `gamma` and `beta`, as burn does.
    pub(crate) fn of(path: &str, module: &str) -> Self {
        let norm = matches!(
            module,
            "Struct:BatchNorm" | "Struct:LayerNorm" | "Struct:GroupNorm" | "Struct:InstanceNorm" | "Struct:RmsNorm"
        );
        let swapped = |from: &str, to: &str| {
            let parent = path.strip_suffix(from)?;
            (parent.is_empty() || parent.ends_with('.')).then(|| format!("{parent}{to}"))
        };
        // A norm that the pipeline defines itself may use PyTorch's names.
        let parent = path.rsplit('.').nth(1).unwrap_or_default().to_lowercase();
        let custom_norm = !module.starts_with("Struct:Linear") && (parent.contains("norm") || parent.starts_with("ln"));
        let pytorch = if norm {
            swapped("gamma", "weight").or_else(|| swapped("beta", "bias"))
        } else if custom_norm {
            swapped("weight", "gamma").or_else(|| swapped("bias", "beta"))
        } else {
            None
        };
        Self { path: path.to_owned(), pytorch }
    }
}

/// Returns the name most similar to `wanted`, or `None` if no name has anything in common with it.
pub(crate) fn similar<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Renamed checkpoints usually share the last segments of the names.
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
    use super::CheckpointError;
    use super::Name;
    use super::pattern;
    use super::similar;

    #[test]
    fn unknown_groups_are_refused() {
        let error = |from, to| match pattern(from, to) {
            Err(CheckpointError::Group { group, hint, .. }) => Some((group, hint)),
            _ => None,
        };
        let is = |found: Option<(String, String)>, group: &str, hint: &str| {
            assert_eq!(found, Some((group.to_owned(), hint.to_owned())));
        };
        is(error(r"layers\.(\d+)\.", "blk$1_"), "1_", "write `${1}_`");
        is(error(r"(a)", "$1weight"), "1weight", "write `${1}weight`");
        is(error(r"(?<layer>a)", "$layers"), "layers", "write `${layer}s`");
        is(error(r"(a)", "${2}"), "2", "it has `$1`; `$$` is a dollar");
        is(error("a", "$1"), "1", "it has no group but `$0`, all of the match; `$$` is a dollar");
        is(error(r"(?<layer>a)(b)", "$name"), "name", "it has `${layer}`, `$2`; `$$` is a dollar");
        for (from, to) in [(r"(a)", "${1}_$1.$0$$x"), ("a", "$$1"), ("a", "$"), ("a", "$-"), ("a", "${")] {
            assert!(pattern(from, to).is_ok(), "{from} {to}");
        }
    }

    #[test]
    fn norms_have_other_names_in_pytorch() {
        let name = |path, module| Name::of(path, module).pytorch;
        assert_eq!(name("a.norm.gamma", "Struct:LayerNorm").as_deref(), Some("a.norm.weight"));
        assert_eq!(name("beta", "Struct:BatchNorm").as_deref(), Some("bias"));
        assert_eq!(name("a.gamma", "Struct:Mine"), None);
        assert_eq!(name("a.not_gamma", "Struct:LayerNorm"), None);
        assert_eq!(name("a.LayerNorm.weight", "Struct:Mine").as_deref(), Some("a.LayerNorm.gamma"));
        assert_eq!(name("a.ln_1.bias", "Struct:Mine").as_deref(), Some("a.ln_1.beta"));
        assert_eq!(name("a.dense.bias", "Struct:Mine"), None);
    }

    #[test]
    fn similar_name_has_the_longest_common_suffix() {
        let names = ["bert.layer.0.dense.weight", "bert.layer.1.dense.weight", "x"];
        assert_eq!(similar("encoder.layer.1.dense.weight", names.into_iter()), Some("bert.layer.1.dense.weight"));
        assert_eq!(similar("gamma", names.into_iter()), None);
    }
}
