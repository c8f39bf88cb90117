//! Semantic search on a compiled graph: a pipeline with the methods of [`Search`](crate::search::Search).
//!
//! The tokenizer stays Rust, and the model is a graph: packed weights in the arena, fused operations, and 8-bit numbers
//! if they are wanted. Callers see the same methods.

use anyhow::Result;
use burn::tensor::{Bool, Device, Int, Tensor};
use ray_zerocopy::Pipeline;
use ray_zerocopy::jit::{Compile, GraphField, GraphSpec, Values};
use serde::{Deserialize, Serialize};

use crate::encoder::Encoder;
use crate::minilm::fetch::ModelFiles;
use crate::minilm::{Tokenizer, in_batches, no_padding, tokenize};

/// Maximum number of tokens in a batch, including padding.
const BATCH_TOKENS: usize = 512;

/// Maps sentences to unit vectors.
#[derive(Pipeline)]
pub struct CompiledSearch {
    /// Rebuilds the pipeline in a worker.
    #[pipeline(config)]
    pub config: CompiledSearchConfig,
    /// The model as a graph: its weights are shared.
    pub encoder: GraphField,
    /// A serde type: it is copied.
    pub tokenizer: Tokenizer,
}

/// The config of [`CompiledSearch`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompiledSearchConfig {
    /// The operations of the model.
    pub encoder: GraphSpec,
}

impl CompiledSearchConfig {
    /// Creates the pipeline without weights and vocabulary, which are loaded from the arena.
    pub fn init(&self, _: &Device) -> CompiledSearch {
        CompiledSearch { config: self.clone(), encoder: self.encoder.init(), tokenizer: tokenize::empty() }
    }
}

impl CompiledSearch {
    /// Loads the model from its files, and compiles it.
    ///
    /// # Errors
    /// If a file is missing or invalid; the error names it.
    pub fn open(files: &ModelFiles, options: Compile) -> Result<Self> {
        let graph = Encoder::from_files(files, &Device::flex())?.trace()?.compile(options)?;
        let config = CompiledSearchConfig { encoder: graph.spec()? };
        let tokenizer = tokenize::load(&files.tokenizer())?;
        Ok(Self { config, encoder: GraphField::new(&graph)?, tokenizer })
    }
}

#[ray_zerocopy::remote]
impl CompiledSearch {
    /// Embeds texts as unit vectors, `[texts, 384]`, in the order of `texts`.
    ///
    /// # Errors
    /// If a text cannot be split into tokens.
    pub fn embed(&self, texts: Vec<String>) -> Result<Tensor<2>, String> {
        let device = Device::flex();
        let embed = || -> Result<Tensor<2>> {
            let forward = |ids: Tensor<2, Int>, padding: Option<Tensor<2, Bool>>| -> Result<Tensor<2>> {
                let padding = padding.unwrap_or_else(|| no_padding(ids.dims(), &device));
                let outputs = self.encoder.run(Values::new().with("ids", ids).with("padding", padding))?;
                Ok(outputs.float::<2>("output")?)
            };
            let sentences = tokenize::token_ids(&self.tokenizer, &texts)?;
            if sentences.is_empty() {
                // No rows, but of the model's width.
                return forward(Tensor::zeros([0, 1], &device), None);
            }
            in_batches(&sentences, BATCH_TOKENS, &device, forward)
        };
        embed().map_err(|error| format!("{error:#}"))
    }
}
