//! The sentences to search.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Sentences and their source.
pub struct Corpus {
    /// Name of the source.
    pub name: String,
    /// The lines of the file. An empty line is an empty sentence, so that rows correspond to lines.
    pub lines: Vec<String>,
}

impl Corpus {
    /// Returns the small corpus that ships with the example.
    pub fn bundled() -> Self {
        Self { name: "the bundled corpus".to_owned(), lines: ray_zerocopy_examples::corpus::sentences() }
    }

    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self> {
        let name = file.display().to_string();
        let bytes = std::fs::read(file).with_context(|| format!("{name} cannot be read"))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line =
                error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
            anyhow::anyhow!("{name} is not UTF-8 text: line {} has other bytes", line + 1)
        })?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        ensure!(lines.iter().any(|line| !line.trim().is_empty()), "{name} has no sentences: write one per line");
        Ok(Self { name, lines })
    }
}
