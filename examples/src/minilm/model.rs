//! The encoder behind all-MiniLM-L6-v2: BERT, as plain burn modules.
//!
//! Fields have the names that Hugging Face gives the tensors of a `BertModel`, so that a checkpoint
//! maps to the module with two renames (see [`weights`](super::weights)). This file contains shapes
//! and arithmetic only.

use anyhow::{Result, ensure};
use burn::config::Config;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::gelu as exact;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor};

use super::gelu::gelu;

/// Hyperparameters of a BERT encoder, with the names of a Hugging Face `config.json`.
#[derive(Config, Debug, PartialEq)]
pub struct BertConfig {
    /// Number of rows of the word embedding.
    pub vocab_size: usize,
    /// Width of the hidden states and of the resulting embedding.
    pub hidden_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads, which must divide `hidden_size`.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Longest sequence that the position embedding covers, in tokens.
    pub max_position_embeddings: usize,
    /// Number of rows of the token type embedding; sentences use the first.
    pub type_vocab_size: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// Whether to use burn's own GELU on every device. Otherwise the CPU uses [a faster
    /// one](super::gelu), which is not a tensor operation, so a graph cannot contain it.
    #[config(default = false)]
    pub exact_gelu: bool,
}

impl BertConfig {
    /// Validates the hyperparameters, on which [`init`](Self::init) relies.
    ///
    /// # Errors
    ///
    /// If a hyperparameter is invalid; the error names the first one.
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
            ensure!(value > 0, "`{name}` is 0, it must be at least 1");
        }
        ensure!(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "`hidden_size` is {}, which `num_attention_heads` = {} does not divide",
            self.hidden_size,
            self.num_attention_heads
        );
        ensure!(self.layer_norm_eps > 0.0, "`layer_norm_eps` is {}, it must be positive", self.layer_norm_eps);
        Ok(())
    }

    /// Creates the encoder with lazily initialised parameters, so that memory is not allocated for
    /// weights that will be loaded.
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
    /// Computes the hidden states of a batch.
    ///
    /// # Shapes
    ///
    /// - `ids`: `[batch, tokens]`, token ids below `vocab_size`
    /// - `padding`: `[batch, tokens]`, true for padding tokens, which are masked; `None` if there is
    ///   no padding
    /// - output: `[batch, tokens, hidden_size]`; the rows of padding tokens are meaningless
    ///
    /// # Panics
    ///
    /// Panics if there are more tokens than positions.
    pub fn forward(&self, ids: Tensor<2, Int>, padding: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let [batch, tokens] = ids.dims();
        // One [tokens, tokens] mask per sentence, which all heads and layers use.
        let padding = padding.map(|padding| padding.reshape([batch, 1, 1, tokens]).expand([batch, 1, tokens, tokens]));
        // The rows of all sentences form one matrix: a product per sentence would read the weights
        // each time.
        let mut hidden = self.embeddings.forward(ids).reshape([batch * tokens, self.hidden_size()]);
        for layer in &self.encoder.layer {
            hidden = layer.forward(hidden, [batch, tokens], padding.clone());
        }
        hidden.reshape([batch, tokens, self.hidden_size()])
    }

    /// Returns the size of the vocabulary: ids must be smaller.
    pub fn vocab_size(&self) -> usize {
        self.embeddings.word_embeddings.weight.lazy_shape()[0]
    }

    /// Returns the width of a hidden state.
    pub fn hidden_size(&self) -> usize {
        self.embeddings.word_embeddings.weight.lazy_shape()[1]
    }

    /// Returns the longest sequence, in tokens.
    pub fn max_positions(&self) -> usize {
        self.embeddings.position_embeddings.weight.lazy_shape()[0]
    }

    /// Returns the device of the parameters.
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
        // A slice of the table is a view; a lookup of 0, 1, 2, … would gather the rows for each
        // sentence.
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

/// The end of the attention block and of the feed-forward block: projection, residual connection,
/// normalisation.
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
