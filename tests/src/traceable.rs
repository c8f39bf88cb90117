//! Pipelines of the tests for traced graphs.

use std::collections::BTreeMap;

use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use ray_zerocopy::Pipeline;
use ray_zerocopy::jit::{self, TracedGraph, Values};

pub fn device() -> Device {
    Device::flex()
}

pub fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Default, &device())
}

pub fn ids<const D: usize>(shape: [usize; D], below: i64) -> Tensor<D, Int> {
    let count = shape.iter().product::<usize>() as i64;
    Tensor::<1, Int>::arange(0..count, &device()).reshape(shape) * 7 % below
}

#[derive(Pipeline)]
#[pipeline(init = Mlp::new)]
pub struct Mlp {
    first: Linear,
    heads: BTreeMap<String, Vec<Linear>>,
    norm: LayerNorm,
}

#[ray_zerocopy::remote]
impl Mlp {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        let head = || LinearConfig::new(16, 3).init(device);
        Self {
            first: LinearConfig::new(8, 16).init(device),
            heads: BTreeMap::from([("a".to_owned(), vec![head(), head()]), ("b".to_owned(), vec![head()])]),
            norm: LayerNormConfig::new(16).init(device),
        }
    }

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self.norm.forward(gelu(self.first.forward(x)));
        let heads = self.heads.values().flatten().map(|head| head.forward(hidden.clone()));
        softmax(heads.reduce(|sum, head| sum + head).unwrap(), 1)
    }

    pub fn scaled(&self, x: Tensor<2>, by: f32) -> (Tensor<2>, Tensor<1, Int>) {
        let scores = self.forward(x) * by;
        let best = scores.clone().argmax(1).squeeze_dim(1);
        (scores, best)
    }

    pub fn described(&self, x: Tensor<2>) -> Vec<String> {
        vec![x.to_string()]
    }
}

#[derive(Pipeline)]
#[pipeline(init = Transformer::new)]
pub struct Transformer {
    words: Embedding,
    positions: Embedding,
    encoder: TransformerEncoder,
    causal: MultiHeadAttention,
    head: Linear,
}

impl Transformer {
    pub fn new(device: &Device) -> Self {
        Self {
            words: EmbeddingConfig::new(50, 32).init(device),
            positions: EmbeddingConfig::new(64, 32).init(device),
            encoder: TransformerEncoderConfig::new(32, 64, 4, 2).with_dropout(0.0).init(device),
            causal: MultiHeadAttentionConfig::new(32, 4).with_dropout(0.0).init(device),
            head: LinearConfig::new(32, 50).init(device),
        }
    }

    pub fn forward(&self, ids: Tensor<2, Int>, padding: Tensor<2, Bool>) -> (Tensor<3>, Tensor<2>) {
        let [batch, length] = ids.dims();
        let device = ids.device();
        let positions = Tensor::<1, Int>::arange(0..length as i64, &device).unsqueeze::<2>();
        let hidden = self.words.forward(ids) + self.positions.forward(positions);
        let hidden = self.encoder.forward(TransformerEncoderInput::new(hidden).mask_pad(padding));
        let mask = generate_autoregressive_mask(batch, length, &device);
        let hidden = self.causal.forward(MhaInput::self_attn(hidden).mask_attn(mask)).context;
        let pooled = hidden.clone().mean_dim(1).reshape([batch, 32]);
        (self.head.forward(hidden.reshape([batch * length, 32])).reshape([batch, length, 50]), pooled)
    }
}

pub fn traced(transformer: &Transformer) -> TracedGraph {
    let padding = ids([2, 5], 5).greater_elem(3);
    let trace = jit::trace(transformer)
        .input("ids", ids([2, 5], 50))
        .input("padding", padding)
        .symbol("batch", [("ids", 0), ("padding", 0)])
        .symbol("length", [("ids", 1), ("padding", 1)]);
    let forward = trace.forward(|model, inputs| {
        let (logits, pooled) = model.forward(inputs.int("ids")?, inputs.bool("padding")?);
        Ok(Values::from([("logits", logits.into()), ("pooled", jit::Value::from(pooled))]))
    });
    forward.unwrap()
}
