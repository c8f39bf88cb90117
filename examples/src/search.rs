//! Semantic search as a pipeline: this is all that a user writes to have a model run by many processes.

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;
use serde::{Deserialize, Serialize};
use tokenizers::models::wordpiece::WordPiece;

use crate::minilm::fetch::ModelFiles;
use crate::minilm::{MiniLm, MiniLmConfig, Tokenizer, tokenize};

/// Sentences in, unit vectors out.
#[derive(Pipeline)]
pub struct Search {
    /// Rebuilds the pipeline in a worker.
    #[pipeline(config)]
    pub config: SearchConfig,
    /// A burn module: its weights are shared.
    pub encoder: MiniLm,
    /// serde: copied.
    pub tokenizer: Tokenizer,
}

/// What [`Search`] is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SearchConfig {
    /// The encoder's shape.
    pub model: MiniLmConfig,
}

impl SearchConfig {
    /// The pipeline without weights and words, which come from files, or from the arena.
    pub fn init(&self, device: &Device) -> Search {
        let tokenizer = Tokenizer::new(WordPiece::default());
        Search { config: self.clone(), encoder: self.model.init(device), tokenizer }
    }
}

impl Search {
    /// Reads the pipeline from a model's files.
    ///
    /// # Errors
    /// If a file is missing or is not what it should be; it is named.
    pub fn open(files: &ModelFiles, device: &Device) -> Result<Self> {
        let config = SearchConfig { model: MiniLmConfig::from_file(&files.config())? };
        let mut search = config.init(device);
        search.encoder = search.encoder.load_safetensors(&files.weights())?;
        search.tokenizer = tokenize::load(&files.tokenizer())?;
        Ok(search)
    }
}

#[ray_zerocopy::remote]
impl Search {
    /// One unit vector a text, `[texts, 384]`, in the order of `texts`.
    ///
    /// # Errors
    /// If a text cannot be split into tokens.
    pub fn embed(&self, texts: Vec<String>) -> Result<Tensor<2>, String> {
        self.encoder.encode(&self.tokenizer, &texts).map_err(|error| format!("{error:#}"))
    }
}
