//! Sentences as token ids, in batches of similar lengths.

use std::cmp::Reverse;

use anyhow::{Result, ensure};
use benches::corpora;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use ray_zerocopy::jit::Values;
use ray_zerocopy_examples::minilm::fetch::ModelFiles;
use ray_zerocopy_examples::minilm::tokenize;

/// Sentences of a batch.
const BATCH: usize = 32;
/// Tokens of the sentences that are sent alone.
const SHORT: std::ops::RangeInclusive<usize> = 12..=16;

/// The inputs of all contestants. They are made before anything is measured.
pub struct Sentences {
    pub count: usize,
    /// Batches of [`BATCH`] sentences, the longest first.
    pub batches: Vec<Values>,
    /// Sentences of 12 to 16 tokens, each alone.
    pub alone: Vec<Values>,
}

impl Sentences {
    /// Picks and tokenises a number of sentences.
    pub fn pick(files: &ModelFiles, count: usize, seed: u64) -> Result<Self> {
        let texts = corpora::sentences(count, seed).texts;
        let mut tokens = tokenize::token_ids(&tokenize::load(&files.tokenizer())?, &texts)?;
        tokens.sort_by_key(|tokens| Reverse(tokens.len()));
        let is_short = |tokens: &&Vec<u32>| SHORT.contains(&tokens.len());
        let alone: Vec<_> =
            tokens.iter().filter(is_short).take(100).map(|one| inputs(std::slice::from_ref(one))).collect();
        ensure!(!alone.is_empty(), "none of {count} sentences has {SHORT:?} tokens");
        Ok(Self { count, batches: tokens.chunks(BATCH).map(inputs).collect(), alone })
    }
}

/// Pads sentences to the length of the first, which is the longest.
fn inputs(sentences: &[Vec<u32>]) -> Values {
    let longest = sentences.first().map_or(0, Vec::len);
    let (mut ids, mut padding) = (Vec::new(), Vec::new());
    for tokens in sentences {
        ids.extend(tokens.iter().map(|&token| i64::from(token)));
        padding.extend(tokens.iter().map(|_| false));
        ids.extend((tokens.len()..longest).map(|_| 0));
        padding.extend((tokens.len()..longest).map(|_| true));
    }
    let (shape, device) = ([sentences.len(), longest], Device::flex());
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device);
    let padding = Tensor::<2, Bool>::from_data(TensorData::new(padding, shape), &device);
    Values::new().with("ids", ids).with("padding", padding)
}
