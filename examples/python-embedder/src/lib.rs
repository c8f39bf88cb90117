//! MiniLM as a Python module: maps sentences to unit vectors.

use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;
use ray_zerocopy_examples::minilm::fetch::{ModelFiles, model_files};
use ray_zerocopy_examples::minilm::{MiniLm, MiniLmConfig, Tokenizer, tokenize};

#[derive(Pipeline)]
struct Embedder {
    #[pipeline(config)]
    config: Config,
    encoder: MiniLm,
    tokenizer: Tokenizer,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Config(MiniLmConfig);

impl Config {
    fn init(&self, device: &Device) -> Embedder {
        Embedder { config: self.clone(), encoder: self.0.init(device), tokenizer: tokenize::empty() }
    }
}

impl Embedder {
    fn open(folder: Option<PathBuf>) -> anyhow::Result<Self> {
        let files = folder.map_or_else(model_files, ModelFiles::in_folder)?;
        let mut embedder = Config(MiniLmConfig::from_file(&files.config())?).init(&Device::flex());
        embedder.encoder = embedder.encoder.load_safetensors(&files.weights())?;
        embedder.tokenizer = tokenize::load(&files.tokenizer())?;
        Ok(embedder)
    }
}

#[ray_zerocopy::remote]
impl Embedder {
    /// Returns one unit vector per text, in the order of `texts`.
    ///
    /// ```python
    /// >>> import embedder
    /// >>> vectors = embedder.Embedder.open().embed(["How do trains stop?", "Bread rises."])
    /// >>> vectors.shape
    /// (2, 384)
    /// >>> round(float(vectors[0] @ vectors[0]), 3)
    /// 1.0
    /// ```
    pub fn embed(&self, texts: Vec<String>) -> Result<Tensor<2>, String> {
        self.encoder.encode(&self.tokenizer, &texts).map_err(|error| format!("{error:#}"))
    }
}

ray_zerocopy_python::export!(
    /// all-MiniLM-L6-v2: maps sentences to unit vectors.
    embedder, Embedder, open(folder) = Embedder::open
);
