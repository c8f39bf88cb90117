//! The service: all-MiniLM-L6-v2 with a method whose calls can be put together.

use anyhow::{Error, Result};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::{Pipeline, TaskWrapper};
use ray_zerocopy_examples::minilm::fetch::ModelFiles;
use ray_zerocopy_examples::minilm::{MiniLm, MiniLmConfig, Tokenizer, tokenize};
use serde::{Deserialize, Serialize};

/// Number of rows of a batch.
pub const ROWS: usize = 32;

/// Maps sentences to unit vectors.
#[derive(Pipeline)]
pub struct Service {
    #[pipeline(config)]
    config: ServiceConfig,
    encoder: MiniLm,
    tokenizer: Tokenizer,
}

/// The config of [`Service`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceConfig {
    model: MiniLmConfig,
}

impl ServiceConfig {
    /// Creates the pipeline without weights and vocabulary, which come from files or from the
    /// arena.
    pub fn init(&self, device: &Device) -> Service {
        Service { config: self.clone(), encoder: self.model.init(device), tokenizer: tokenize::empty() }
    }
}

impl Service {
    /// Loads the pipeline from the files of a model.
    pub fn open(files: &ModelFiles, device: &Device) -> Result<Self> {
        let model = MiniLmConfig::from_file(&files.config())?;
        let mut service = ServiceConfig { model }.init(device);
        service.encoder = service.encoder.load_safetensors(&files.weights())?;
        service.tokenizer = tokenize::load(&files.tokenizer())?;
        Ok(service)
    }
}

/// Cost of a text: its number of tokens, which is estimated in bytes, since only workers tokenize.
pub fn tokens(text: &str) -> usize {
    (text.len() / 4).min(tokenize::MAX_TOKENS) + 2
}

#[ray_zerocopy::remote]
impl Service {
    /// Embeds texts as unit vectors, `[texts, 384]`, in the order of `texts`.
    #[remote(batch, cost = tokens)]
    pub fn embed(&self, texts: Vec<String>) -> Result<Tensor<2>, String> {
        self.encoder.encode(&self.tokenizer, &texts).map_err(|error| format!("{error:#}"))
    }
}

/// Embeds one text and waits for the vector, as a caller of the service does.
pub fn embed_one(tasks: &TaskWrapper<Service>, text: &str) -> Result<Tensor<1>> {
    tasks.embed_one(text.to_owned()).wait()?.map_err(Error::msg)
}
