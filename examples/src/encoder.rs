//! all-MiniLM-L6-v2 as a graph.
//!
//! A tokenizer does not consist of tensor operations, so a graph cannot contain it: it starts at token ids.

use anyhow::Result;
use burn::tensor::{Bool, Device, Int, Tensor};
use ray_zerocopy::Pipeline;
use ray_zerocopy::jit::{TracedGraph, trace};
use serde::{Deserialize, Serialize};

use crate::minilm::fetch::ModelFiles;
use crate::minilm::{MiniLm, MiniLmConfig, no_padding};

/// The model without its tokenizer.
#[derive(Pipeline)]
pub struct Encoder {
    #[pipeline(config)]
    config: EncoderConfig,
    /// The model.
    pub model: MiniLm,
}

/// Everything that is needed to rebuild an [`Encoder`] except its weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EncoderConfig {
    model: MiniLmConfig,
}

impl EncoderConfig {
    /// Creates an encoder whose weights are to be loaded.
    #[must_use]
    pub fn init(&self, device: &Device) -> Encoder {
        Encoder { config: self.clone(), model: self.model.init(device) }
    }
}

impl Encoder {
    /// Loads it from the files of the model.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is that of another kind of model.
    pub fn from_files(files: &ModelFiles, device: &Device) -> Result<Self> {
        let mut config = EncoderConfig { model: MiniLmConfig::from_file(&files.config())? };
        // The fast GELU of `MiniLm` reads memory directly, which cannot be traced.
        config.model.bert.exact_gelu = true;
        let mut encoder = config.init(device);
        encoder.model = encoder.model.load_safetensors(&files.weights())?;
        Ok(encoder)
    }

    /// Records what it does for a batch as a graph with the inputs `ids` and `padding`, both with the shape
    /// `[sentences, tokens]`. Both sizes are symbols, so one graph serves texts of any number and length.
    ///
    /// # Errors
    ///
    /// If the graph computes something else than the model.
    pub fn trace(&self) -> ray_zerocopy::Result<TracedGraph> {
        let (ids, padding) = sentences([2, 6]);
        Ok(trace(self)
            .input("ids", ids)
            .input("padding", padding)
            .symbol("batch", [("ids", 0), ("padding", 0)])
            .symbol("length", [("ids", 1), ("padding", 1)])
            .forward(|encoder, inputs| Ok(encoder.model.forward(inputs.int("ids")?, Some(inputs.bool("padding")?))))?)
    }
}

/// Token ids of a number of sentences of a length, and a mask that leaves nothing out.
#[must_use]
pub fn sentences([rows, tokens]: [usize; 2]) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let device = Device::flex();
    let ids = Tensor::<1, Int>::arange(0..(rows * tokens) as i64, &device).reshape([rows, tokens]) * 7919 % 30_000;
    (ids, no_padding([rows, tokens], &device))
}
