//! all-MiniLM-L6-v2, which maps sentences to unit vectors. It is plain burn, as in a user's
//! project: it does not depend on ray-zerocopy, workers or shared memory.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use ray_zerocopy_examples::minilm::{MiniLmConfig, fetch, tokenize};
//!
//! # fn main() -> anyhow::Result<()> {
//! let files = fetch::model_files()?;
//! let tokenizer = tokenize::load(&files.tokenizer())?;
//! let model = MiniLmConfig::from_file(&files.config())?
//!     .init(&Device::flex())
//!     .load_safetensors(&files.weights())?;
//! let vectors = model.encode(&tokenizer, &["How do trains stop?".to_string()])?;
//! assert_eq!(vectors.dims(), [1, 384]);
//! # Ok(())
//! # }
//! ```

pub mod fetch;
pub mod gelu;
pub mod model;
pub mod tokenize;
pub mod weights;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
pub use tokenize::Tokenizer;

use model::{Bert, BertConfig};

/// Everything that is needed to rebuild a [`MiniLm`] except its weights.
#[derive(Config, Debug, PartialEq)]
pub struct MiniLmConfig {
    /// The encoder.
    pub bert: BertConfig,
    /// Maximum number of tokens in a batch, including padding. A batch has at least one sentence.
    #[config(default = 512)]
    pub batch_tokens: usize,
}

impl MiniLmConfig {
    /// Reads the hyperparameters from a Hugging Face `config.json`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, lacks a hyperparameter, or describes another kind of model.
    pub fn from_file(file: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
            for (name, supported) in
                [("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")]
            {
                let found = json.get(name).and_then(serde_json::Value::as_str);
                ensure!(
                    found.is_none_or(|found| found == supported),
                    "`{name}` is {found:?}, this encoder supports only \"{supported}\""
                );
            }
            // Not a hyperparameter of Hugging Face.
            json["exact_gelu"] = false.into();
            let bert: BertConfig = serde_json::from_value(json)?;
            bert.validate()?;
            ensure!(
                bert.max_position_embeddings >= tokenize::MAX_TOKENS,
                "`max_position_embeddings` is {}, sentences are up to {} tokens long",
                bert.max_position_embeddings,
                tokenize::MAX_TOKENS
            );
            Ok(Self::new(bert))
        };
        read().with_context(|| format!("cannot use the model configuration {}", file.display()))
    }

    /// Creates the model without its weights; see [`MiniLm::load_safetensors`].
    pub fn init(&self, device: &Device) -> MiniLm {
        MiniLm { bert: self.bert.init(device), batch_tokens: self.batch_tokens }
    }
}

/// The sentence encoder: BERT, the mean over the tokens of a sentence, and normalisation.
#[derive(Module, Debug)]
pub struct MiniLm {
    bert: Bert,
    batch_tokens: usize,
}

impl MiniLm {
    /// Loads the weights of a Hugging Face `model.safetensors`.
    ///
    /// # Errors
    ///
    /// If tensors are missing, unexpected or of another shape; the error names all of them.
    pub fn load_safetensors(mut self, file: &Path) -> Result<Self> {
        weights::load(&mut self.bert, file)?;
        Ok(self)
    }

    /// Embeds texts as unit vectors, `[texts, hidden_size]`, in the order of `texts`.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails or belongs to another model.
    pub fn encode(&self, tokenizer: &Tokenizer, texts: &[String]) -> Result<Tensor<2>> {
        let sentences = tokenize::token_ids(tokenizer, texts)?;
        let device = self.bert.device();
        if sentences.is_empty() {
            return Ok(Tensor::zeros([0, self.bert.hidden_size()], &device));
        }
        self.check(&sentences)?;
        in_batches(&sentences, self.batch_tokens, &device, |ids, padding| Ok(self.forward(ids, padding)))
    }

    /// Computes unit vectors, `[batch, hidden_size]`, of one padded batch. Takes the arguments of
    /// [`Bert::forward`].
    pub fn forward(&self, ids: Tensor<2, Int>, padding: Option<Tensor<2, Bool>>) -> Tensor<2> {
        let hidden = self.bert.forward(ids, padding.clone());
        let mean = match padding {
            None => hidden.mean_dim(1),
            Some(padding) => {
                let kept = padding.bool_not().float();
                let share = kept.clone() / kept.sum_dim(1);
                // The weighted mean over tokens is one product: [batch, 1, tokens] × [batch,
                // tokens, hidden].
                share.unsqueeze_dim::<3>(1).matmul(hidden)
            }
        };
        let mean: Tensor<2> = mean.squeeze_dim(1);
        let length = (mean.clone() * mean.clone()).sum_dim(1).sqrt();
        mean / length.clamp_min(1e-12)
    }

    fn check(&self, sentences: &[Vec<u32>]) -> Result<()> {
        let (vocab, positions) = (self.bert.vocab_size(), self.bert.max_positions());
        for ids in sentences {
            ensure!(
                !ids.is_empty() && ids.len() <= positions,
                "a text has {} tokens, the model takes 1 to {positions}: use a tokenizer from `tokenize::load`",
                ids.len()
            );
            let largest = ids.iter().max().copied().unwrap_or(0);
            ensure!(
                (largest as usize) < vocab,
                "the tokenizer returned token {largest}, the model's vocabulary ends at {}: use the model's own tokenizer.json",
                vocab - 1
            );
        }
        Ok(())
    }
}

/// Computes the vectors of sentences, `[sentences, width]`, in their order: in batches of sentences of similar length, of
/// at most `batch_tokens` tokens, which `forward` takes with their padding. There is at least one sentence.
///
/// # Errors
///
/// That of `forward`.
pub fn in_batches(
    sentences: &[Vec<u32>],
    batch_tokens: usize,
    device: &Device,
    mut forward: impl FnMut(Tensor<2, Int>, Option<Tensor<2, Bool>>) -> Result<Tensor<2>>,
) -> Result<Tensor<2>> {
    // Texts of similar length need little padding. The longest come first, so that the first
    // batch needs the most memory.
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sentences[i].len()));
    let mut vectors = Vec::new();
    let mut left = order.as_slice();
    while let Some(&longest) = left.first() {
        let fit = (batch_tokens / sentences[longest].len()).clamp(1, left.len());
        let (batch, rest) = left.split_at(fit);
        let batch: Vec<&[u32]> = batch.iter().map(|&i| sentences[i].as_slice()).collect();
        let (ids, padding) = pad(&batch, device);
        vectors.push(forward(ids, padding)?);
        left = rest;
    }

    let mut place = vec![0_i64; order.len()];
    for (row, &text) in (0_i64..).zip(&order) {
        place[text] = row;
    }
    let place = Tensor::<1, Int>::from_data(TensorData::from(place.as_slice()), device);
    Ok(Tensor::cat(vectors, 0).select(0, place))
}

/// A padding mask that leaves nothing out.
pub fn no_padding(shape: [usize; 2], device: &Device) -> Tensor<2, Bool> {
    Tensor::from_data(TensorData::new(vec![false; shape[0] * shape[1]], shape), device)
}

/// Pads ids to a rectangle. Returns it with the padding mask, or `None` if all rows have one
/// length.
fn pad(batch: &[&[u32]], device: &Device) -> (Tensor<2, Int>, Option<Tensor<2, Bool>>) {
    let longest = batch.iter().map(|ids| ids.len()).max().unwrap_or(0);
    let shape = [batch.len(), longest];
    let mut ids = Vec::with_capacity(batch.len() * longest);
    let mut padding = Vec::with_capacity(batch.len() * longest);
    for row in batch {
        let fill = longest - row.len();
        ids.extend(row.iter().map(|&id| i64::from(id)));
        // Any id is valid as padding, since it is masked.
        ids.extend(std::iter::repeat_n(0, fill));
        padding.extend(std::iter::repeat_n(false, row.len()));
        padding.extend(std::iter::repeat_n(true, fill));
    }
    let any = padding.contains(&true);
    let ids = Tensor::from_data(TensorData::new(ids, shape), device);
    let padding = any.then(|| Tensor::from_data(TensorData::new(padding, shape), device));
    (ids, padding)
}
