//! Semantic search as a pipeline: all the code that is needed to run a model in many processes.

use std::cmp::Reverse;
use std::collections::VecDeque;

use anyhow::Result;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ray_zerocopy::{Pending, Pipeline};
use serde::{Deserialize, Serialize};

use crate::minilm::fetch::ModelFiles;
use crate::minilm::{MiniLm, MiniLmConfig, Tokenizer, tokenize};

/// Maps sentences to unit vectors.
#[derive(Pipeline)]
pub struct Search {
    /// Rebuilds the pipeline in a worker.
    #[pipeline(config)]
    pub config: SearchConfig,
    /// A burn module: its weights are shared.
    pub encoder: MiniLm,
    /// A serde type: it is copied.
    pub tokenizer: Tokenizer,
}

/// The config of [`Search`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SearchConfig {
    /// Hyperparameters of the encoder.
    pub model: MiniLmConfig,
}

impl SearchConfig {
    /// Creates the pipeline without weights and vocabulary, which are loaded from files or from the
    /// arena.
    pub fn init(&self, device: &Device) -> Search {
        Search { config: self.clone(), encoder: self.model.init(device), tokenizer: tokenize::empty() }
    }
}

impl Search {
    /// Loads the pipeline from the files of a model.
    ///
    /// # Errors
    /// If a file is missing or invalid; the error names it.
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
    /// Embeds texts as unit vectors, `[texts, 384]`, in the order of `texts`.
    ///
    /// # Errors
    /// If a text cannot be split into tokens.
    pub fn embed(&self, texts: Vec<String>) -> Result<Tensor<2>, String> {
        self.encoder.encode(&self.tokenizer, &texts).map_err(|error| format!("{error:#}"))
    }
}

/// Tokens in a batch for a worker: enough for the cost of a call to be negligible and for the
/// worker to sort by length, and few enough for workers to finish at about the same time.
const BATCH_TOKENS: std::ops::RangeInclusive<usize> = 256..=4096;
/// Desired number of batches per worker, if there are enough texts.
const BATCHES: usize = 8;
/// Batches per worker that are in flight.
const AHEAD: usize = 3;

/// The result of `embed` in a worker.
pub type Embeddings = Pending<Result<Tensor<2>, String>>;

/// Embeds texts in a number of workers as `[texts, 384]`, in the order of `texts`. `embed` sends texts to a worker:
/// `|texts| actors.embed(texts)`.
///
/// The texts of a batch have similar lengths, since shorter ones are padded. The longest are sent
/// first, so that the last batches are short and actors finish at about the same time. `progress`
/// is called with the number of finished texts after each batch.
///
/// # Errors
/// The first error of a worker or of a call to it.
pub fn embed_all(
    workers: usize,
    texts: &[String],
    embed: impl Fn(Vec<String>) -> Embeddings,
    mut progress: impl FnMut(usize),
) -> Result<Tensor<2>> {
    let (mut rows, mut width) = (Vec::new(), 0);
    let mut receive = |(batch, pending): (Vec<usize>, Embeddings)| -> Result<()> {
        let part = pending.wait()?.map_err(anyhow::Error::msg)?;
        width = part.dims()[1];
        rows.resize(texts.len() * width, 0.0);
        let part = part.into_data().convert_dtype(DType::F32);
        for (&text, row) in batch.iter().zip(part.as_slice::<f32>()?.chunks(width.max(1))) {
            rows[text * width..][..width].copy_from_slice(row);
        }
        progress(batch.len());
        Ok(())
    };
    let mut on_their_way = VecDeque::new();
    for batch in batches(texts, workers) {
        if on_their_way.len() >= workers * AHEAD
            && let Some(first) = on_their_way.pop_front()
        {
            receive(first)?;
        }
        let pending = embed(batch.iter().map(|&text| texts[text].clone()).collect());
        on_their_way.push_back((batch, pending));
    }
    on_their_way.into_iter().try_for_each(receive)?;
    Ok(Tensor::from_data(TensorData::new(rows, [texts.len(), width]), &Device::flex()))
}

/// Divides texts into batches of indices into `texts`, the longest first.
fn batches(texts: &[String], workers: usize) -> Vec<Vec<usize>> {
    // Truncated text is free. Lengths are estimated in bytes, since only workers tokenize.
    let tokens = |text: &String| (text.len() / 4).min(tokenize::MAX_TOKENS) + 2;
    let all: usize = texts.iter().map(tokens).sum();
    let limit = (all / (workers * BATCHES).max(1)).clamp(*BATCH_TOKENS.start(), *BATCH_TOKENS.end());
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text| Reverse(tokens(&texts[text])));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for text in order {
        let cost = tokens(&texts[text]);
        match batches.last_mut() {
            Some(batch) if cost <= room => batch.push(text),
            _ => {
                batches.push(vec![text]);
                room = limit;
            }
        }
        room = room.saturating_sub(cost);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::{BATCH_TOKENS, batches};

    #[test]
    fn every_text_is_in_one_batch_sorted_by_length() {
        let texts: Vec<_> = (0..500).map(|i| "word ".repeat(i * 7919 % 60)).collect();
        for workers in [1, 2, 7, 1000] {
            let batches = batches(&texts, workers);
            let mut places: Vec<_> = batches.iter().flatten().copied().collect();
            let lengths: Vec<_> = places.iter().map(|&text| texts[text].len() / 4).collect();
            assert!(lengths.is_sorted_by(|left, right| left >= right), "{workers} workers: the longest go first");
            places.sort_unstable();
            assert!(places.into_iter().eq(0..texts.len()), "{workers} workers: a text is missing or duplicated");
            for batch in &batches {
                let tokens: usize = batch.iter().map(|&text| texts[text].len() / 4 + 2).sum();
                assert!(tokens <= *BATCH_TOKENS.end() || batch.len() == 1, "{tokens} tokens in a batch");
            }
        }
        assert!(batches(&texts, 2).len() >= 8, "two workers would wait for each other");
    }

    #[test]
    fn a_text_that_is_too_long_is_a_batch() {
        let texts = ["long ".repeat(100_000), String::new(), "short".to_owned()];
        assert_eq!(batches(&texts, 2), [vec![0], vec![2, 1]]);
        assert!(batches(&[], 2).is_empty());
    }
}
