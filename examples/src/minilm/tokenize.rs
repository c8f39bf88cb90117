//! Converts text to token ids, with the model's `tokenizer.json`.
//!
//! A [`Tokenizer`] implements serde, including its vocabulary and settings, so a pipeline has it as
//! an ordinary field. It requires a format with field names, such as CBOR or MessagePack with named
//! fields.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
pub use tokenizers::Tokenizer;
use tokenizers::TruncationParams;
use tokenizers::models::wordpiece::WordPiece;

/// Maximum number of tokens of a sentence, including the two special ones; longer ones are
/// truncated. The model was published with this limit.
pub const MAX_TOKENS: usize = 256;

/// Creates a tokenizer without a vocabulary, as a placeholder until one is loaded.
pub fn empty() -> Tokenizer {
    Tokenizer::new(WordPiece::default())
}

/// Loads `tokenizer.json`, with truncation to [`MAX_TOKENS`] and without padding, whose length
/// depends on the batch.
///
/// # Errors
///
/// If the file cannot be read or is not a tokenizer.
pub fn load(file: &Path) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_file(file)
        .map_err(|e| anyhow!(e))
        .with_context(|| format!("cannot read the tokenizer {}", file.display()))?;
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(Some(TruncationParams { max_length: MAX_TOKENS, ..TruncationParams::default() }))
        .map_err(|e| anyhow!(e))
        .with_context(|| format!("{} cannot truncate to {MAX_TOKENS} tokens", file.display()))?;
    Ok(tokenizer)
}

/// Returns the token ids of every text, including special tokens.
///
/// # Errors
///
/// The error of the tokenizer: for a WordPiece model, a vocabulary without the unknown token.
pub fn token_ids(tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Vec<u32>>> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encodings =
        tokenizer.encode_batch_fast(texts, true).map_err(|e| anyhow!(e)).context("cannot split a text into tokens")?;
    Ok(encodings.iter().map(|e| e.get_ids().to_vec()).collect())
}
