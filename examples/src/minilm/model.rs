//! The encoder behind all-MiniLM-L6-v2: BERT, as plain burn modules.
//!
//! Fields are named as Hugging Face names the tensors of a `BertModel`, so that a checkpoint maps onto the
//! module with two renames (see [`weights`](super::weights)). This file knows shapes and arithmetic, nothing of
//! files, text or processes.

use anyhow::{Result, ensure};
use burn::config::Config;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::gelu as exact;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor};

use super::gelu::gelu;

/// The hyperparameters of a BERT encoder, under the names they have in a Hugging Face `config.json`.
#[derive(Config, Debug, PartialEq)]
pub struct BertConfig {
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of every hidden state, and of the embedding that comes out.
    pub hidden_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads; they divide `hidden_size`.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Longest sequence the position embedding covers, in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding; sentences use the first.
    pub type_vocab_size: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// Whether GELU is burn's own on every device. Otherwise it is [a faster one](super::gelu) on the CPU, which is no tensor
    /// operation: a graph cannot have it.
    #[config(default = false)]
    pub exact_gelu: bool,
}

impl BertConfig {
    /// Checks what [`init`](Self::init) relies on.
    ///
    /// # Errors
    ///
    /// Names the first hyperparameter that no encoder can have.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            ensure!(value > 0, "`{name}` is 0, it has to be at least 1");
        }
        ensure!(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "`hidden_size` is {}, which `num_attention_heads` = {} does not divide",
            self.hidden_size,
            self.num_attention_heads
        );
        ensure!(self.layer_norm_eps > 0.0, "`layer_norm_eps` is {}, it has to be positive", self.layer_norm_eps);
        Ok(())
    }

    /// The encoder with parameters that exist only once they are read: no memory is taken for weights that are
    /// about to be loaded.
    pub fn init(&self, device: &Device) -> Bert {
        Bert {
            embeddings: Embeddings::new(self, device),
            encoder: Encoder { layer: (0..self.num_hidden_layers).map(|_| Layer::new(self, device)).collect() },
        }
    }

    fn layer_norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.hidden_size).with_epsilon(self.layer_norm_eps).init(device)
    }

    fn linear(&self, from: usize, to: usize, device: &Device) -> Linear {
        LinearConfig::new(from, to).init(device)
    }
}

/// A BERT encoder without the pooler, which sentence embeddings do not use.
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    encoder: Encoder,
}

impl Bert {
    /// Hidden states of a batch.
    ///
    /// # Shapes
    ///
    /// - `ids`: `[batch, tokens]`, token ids below `vocab_size`
    /// - `padding`: `[batch, tokens]`, true where a row is filled up and nobody may look; `None` if no row is
    /// - output: `[batch, tokens, hidden_size]`; rows of padding hold numbers that mean nothing
    ///
    /// # Panics
    ///
    /// Panics if there are more tokens than positions.
    pub fn forward(&self, ids: Tensor<2, Int>, padding: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let [batch, tokens] = ids.dims();
        // One [tokens, tokens] tile a sentence, which every head and every layer reads.
        let padding = padding.map(|padding| padding.reshape([batch, 1, 1, tokens]).expand([batch, 1, tokens, tokens]));
        // Rows of all sentences in one matrix: a product for each sentence would read the weights as often.
        let mut hidden = self.embeddings.forward(ids).reshape([batch * tokens, self.hidden_size()]);
        for layer in &self.encoder.layer {
            hidden = layer.forward(hidden, [batch, tokens], padding.clone());
        }
        hidden.reshape([batch, tokens, self.hidden_size()])
    }

    /// Rows of the word embedding: ids have to be smaller.
    pub fn vocab_size(&self) -> usize {
        self.embeddings.word_embeddings.weight.lazy_shape()[0]
    }

    /// Width of a hidden state.
    pub fn hidden_size(&self) -> usize {
        self.embeddings.word_embeddings.weight.lazy_shape()[1]
    }

    /// Longest sequence in tokens.
    pub fn max_positions(&self) -> usize {
        self.embeddings.position_embeddings.weight.lazy_shape()[0]
    }

    /// Where the parameters are, or will be.
    pub fn device(&self) -> Device {
        self.embeddings.word_embeddings.weight.lazy_device()
    }
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
}

impl Embeddings {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let table = |rows| EmbeddingConfig::new(rows, config.hidden_size).init(device);
        Self {
            word_embeddings: table(config.vocab_size),
            position_embeddings: table(config.max_position_embeddings),
            token_type_embeddings: table(config.type_vocab_size),
            layer_norm: config.layer_norm(device),
        }
    }

    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, tokens] = ids.dims();
        // A slice of the tables is a view, where a lookup by 0, 1, 2, … would gather rows anew for each sentence.
        let positions = self.position_embeddings.weight.val().slice(0..tokens);
        let first_type = self.token_type_embeddings.weight.val().slice(0..1);
        let words = self.word_embeddings.forward(ids);
        self.layer_norm.forward(words + (positions + first_type).unsqueeze())
    }
}

#[derive(Module, Debug)]
struct Encoder {
    layer: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    intermediate: Intermediate,
    output: Output,
}

impl Layer {
    fn new(config: &BertConfig, device: &Device) -> Self {
        Self {
            attention: Attention::new(config, device),
            intermediate: Intermediate {
                dense: config.linear(config.hidden_size, config.intermediate_size, device),
                exact_gelu: config.exact_gelu,
            },
            output: Output {
                dense: config.linear(config.intermediate_size, config.hidden_size, device),
                layer_norm: config.layer_norm(device),
            },
        }
    }

    /// `hidden` is `[batch · tokens, width]`, here and below.
    fn forward(&self, hidden: Tensor<2>, shape: [usize; 2], padding: Option<Tensor<4, Bool>>) -> Tensor<2> {
        let attended = self.attention.forward(hidden, shape, padding);
        let inner = self.intermediate.dense.forward(attended.clone());
        let inner = if self.intermediate.exact_gelu { exact(inner) } else { gelu(inner) };
        self.output.forward(inner, attended)
    }
}

#[derive(Module, Debug)]
struct Attention {
    self_attention: SelfAttention,
    output: Output,
}

impl Attention {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let square = || config.linear(config.hidden_size, config.hidden_size, device);
        Self {
            self_attention: SelfAttention {
                query: square(),
                key: square(),
                value: square(),
                heads: config.num_attention_heads,
            },
            output: Output { dense: square(), layer_norm: config.layer_norm(device) },
        }
    }

    fn forward(&self, hidden: Tensor<2>, shape: [usize; 2], padding: Option<Tensor<4, Bool>>) -> Tensor<2> {
        let context = self.self_attention.forward(hidden.clone(), shape, padding);
        self.output.forward(context, hidden)
    }
}

#[derive(Module, Debug)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: usize,
}

impl SelfAttention {
    fn forward(&self, hidden: Tensor<2>, [batch, tokens]: [usize; 2], padding: Option<Tensor<4, Bool>>) -> Tensor<2> {
        let [rows, width] = hidden.dims();
        let by_head =
            |states: Tensor<2>| states.reshape([batch, tokens, self.heads, width / self.heads]).swap_dims(1, 2);
        attention(
            by_head(self.query.forward(hidden.clone())),
            by_head(self.key.forward(hidden.clone())),
            by_head(self.value.forward(hidden)),
            padding,
            None,
            AttentionModuleOptions::default(),
        )
        .swap_dims(1, 2)
        .reshape([rows, width])
    }
}

#[derive(Module, Debug)]
struct Intermediate {
    dense: Linear,
    exact_gelu: bool,
}

/// What closes the attention block and the feed-forward block alike: project, add what went in, normalise.
#[derive(Module, Debug)]
struct Output {
    dense: Linear,
    layer_norm: LayerNorm,
}

impl Output {
    fn forward(&self, hidden: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        self.layer_norm.forward(self.dense.forward(hidden) + residual)
    }
}
