//! The pipeline: an encoder of MiniLM's shape with random weights.

use anyhow::Result;
use burn::tensor::{Device, Int, Tensor};
use ray_zerocopy::jit::{self, TracedGraph};
use ray_zerocopy::{Arena, Pipeline};
use ray_zerocopy_examples::minilm::model::BertConfig;
use ray_zerocopy_examples::minilm::{MiniLm, MiniLmConfig};

/// Number of tokens that the encoder knows.
pub const VOCABULARY: usize = 30_522;

/// Embeds token ids.
#[derive(Pipeline)]
#[pipeline(init = Encoder::new)]
pub struct Encoder {
    model: MiniLm,
}

impl Encoder {
    fn new(device: &Device) -> Self {
        let bert = BertConfig {
            vocab_size: VOCABULARY,
            hidden_size: 384,
            num_hidden_layers: 6,
            num_attention_heads: 12,
            intermediate_size: 1536,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            exact_gelu: true,
        };
        Self { model: MiniLmConfig::new(bert).init(device) }
    }
}

#[ray_zerocopy::remote]
impl Encoder {
    /// One vector for each row of ids.
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        self.model.forward(ids, None)
    }
}

/// Shares an encoder, and traces it for ids of one shape.
pub fn share(ids: Tensor<2, Int>) -> Result<(Arena, TracedGraph)> {
    let encoder = Encoder::new(&Device::flex());
    let graph =
        jit::trace(&encoder).input("ids", ids).forward(|encoder, inputs| Ok(encoder.embed(inputs.int("ids")?)))?;
    Ok((ray_zerocopy::share(&encoder)?, graph))
}
