//! Text into token ids, with the model's own `tokenizer.json`.
//!
//! A [`Tokenizer`] is serde data (vocabulary and settings travel with it), so a pipeline holds one as an ordinary
//! field. It needs a format that keeps field names: MessagePack with names and CBOR do, MessagePack without does not.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
pub use tokenizers::Tokenizer;
use tokenizers::TruncationParams;
use tokenizers::models::wordpiece::WordPiece;

/// Tokens of a sentence that count, the two special ones included; what follows is cut off. The model was
/// published with this limit.
pub const MAX_TOKENS: usize = 256;

/// A tokenizer without words, for a pipeline that gets its own from a file or an arena.
pub fn empty() -> Tokenizer {
    Tokenizer::new(WordPiece::default())
}

/// Reads `tokenizer.json`, with truncation to [`MAX_TOKENS`] and without padding: how far to pad is known only
/// once a batch is put together.
///
/// # Errors
///
/// The file cannot be read or is not a tokenizer.
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

/// The token ids of every text, special tokens included.
///
/// # Errors
///
/// The tokenizer's own, which for a word piece model means a vocabulary without its unknown token.
pub fn token_ids(tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Vec<u32>>> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encodings =
        tokenizer.encode_batch_fast(texts, true).map_err(|e| anyhow!(e)).context("cannot split a text into tokens")?;
    Ok(encodings.iter().map(|e| e.get_ids().to_vec()).collect())
}
