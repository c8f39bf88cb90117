//! Texts to vectors, by a model and its tokenizer.

use std::path::Path;

use burn::tensor::{DType, Device, TensorData};
use ray_zerocopy::jit::{Value, Values};
use tokenizers::{PaddingParams, Tokenizer, TruncationParams};

use super::info::{ModelInfo, TensorPort};
use crate::error::{ErrorKind, ServeError};
use crate::tensor::datatype;

/// Names of the inputs of a sentence encoder, and of their alternatives.
const IDS: [&str; 4] = ["input_ids", "ids", "token_ids", "tokens"];
const MASK: [&str; 2] = ["attention_mask", "mask"];
const TYPES: [&str; 2] = ["token_type_ids", "types"];
/// A mask whose ones are padding, as burn's attention takes it.
const PADDING: [&str; 2] = ["padding", "padding_mask"];

/// A tokenizer, and the inputs of the model that its results are for.
pub(crate) struct Embedder {
    tokenizer: Tokenizer,
    ids: TensorPort,
    mask: Option<TensorPort>,
    types: Option<TensorPort>,
    padding: Option<TensorPort>,
}

/// Texts as the inputs of a model.
pub(crate) struct Tokens {
    pub(crate) inputs: Values,
    /// Number of tokens, without those that fill up.
    pub(crate) count: usize,
}

impl Embedder {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If it cannot be read, or the model does not take token ids.
    pub(crate) fn open(file: &Path, info: &ModelInfo) -> Result<Self, ServeError> {
        let failed = |reason: String| {
            ServeError::new(ErrorKind::Unavailable, format!("the tokenizer {}: {reason}", file.display()))
        };
        let mut tokenizer = Tokenizer::from_file(file).map_err(|error| failed(error.to_string()))?;
        let find = |names: &[&str]| info.inputs.iter().find(|port| names.contains(&port.name.as_str())).cloned();
        let found: Vec<_> = info.inputs.iter().map(|port| format!("`{}`", port.name)).collect();
        let ids = find(&IDS).ok_or_else(|| {
            failed(format!("the model has the inputs {}, expected one named `input_ids` or `ids`", found.join(", ")))
        })?;
        let (mask, types, padding) = (find(&MASK), find(&TYPES), find(&PADDING));
        let known = [Some(&ids), mask.as_ref(), types.as_ref(), padding.as_ref()].into_iter().flatten().count();
        if known != info.inputs.len() {
            return Err(failed(format!(
                "the model has the inputs {}, expected no others than `{}`, `{}`, `{}` and `{}`",
                found.join(", "),
                IDS[0],
                MASK[0],
                TYPES[0],
                PADDING[0]
            )));
        }
        if tokenizer.get_padding().is_none() {
            tokenizer.with_padding(Some(PaddingParams::default()));
        }
        if let Some(padding) = tokenizer.get_padding_mut() {
            // Files of sentence-transformers pad to a fixed length, which costs time and changes nothing.
            padding.strategy = tokenizers::PaddingStrategy::BatchLongest;
        }
        if let Some(&length) = ids.shape.get(1).filter(|&&length| length > 0) {
            let max_length = usize::try_from(length).unwrap_or(usize::MAX);
            let padding = PaddingParams {
                strategy: tokenizers::PaddingStrategy::Fixed(max_length),
                ..tokenizer.get_padding().cloned().unwrap_or_default()
            };
            tokenizer.with_padding(Some(padding));
            let truncation = TruncationParams { max_length, ..TruncationParams::default() };
            tokenizer.with_truncation(Some(truncation)).map_err(|error| failed(error.to_string()))?;
        }
        Ok(Self { tokenizer, ids, mask, types, padding })
    }

    /// Tokenizes texts.
    ///
    /// # Errors
    /// If the tokenizer rejects one.
    pub(crate) fn tokens(&self, texts: Vec<String>) -> Result<Tokens, ServeError> {
        let encodings = self.tokenizer.encode_batch(texts, true);
        let encodings = encodings.map_err(|error| ServeError::invalid(format!("the text has no tokens: {error}")))?;
        let shape = [encodings.len(), encodings.first().map_or(0, tokenizers::Encoding::len)];
        let mut inputs = Values::new();
        let numbers = |of: fn(&tokenizers::Encoding) -> &[u32]| {
            encodings.iter().flat_map(of).map(|&number| i64::from(number)).collect::<Vec<_>>()
        };
        insert(&mut inputs, &self.ids, numbers(tokenizers::Encoding::get_ids), shape)?;
        if let Some(port) = &self.mask {
            insert(&mut inputs, port, numbers(tokenizers::Encoding::get_attention_mask), shape)?;
        }
        if let Some(port) = &self.types {
            insert(&mut inputs, port, numbers(tokenizers::Encoding::get_type_ids), shape)?;
        }
        if let Some(port) = &self.padding {
            let masks = numbers(tokenizers::Encoding::get_attention_mask);
            insert(&mut inputs, port, masks.into_iter().map(|bit| 1 - bit).collect(), shape)?;
        }
        let masks = encodings.iter().flat_map(tokenizers::Encoding::get_attention_mask);
        Ok(Tokens { inputs, count: masks.map(|&bit| bit as usize).sum() })
    }
}

fn insert(inputs: &mut Values, port: &TensorPort, numbers: Vec<i64>, shape: [usize; 2]) -> Result<(), ServeError> {
    let dtype = if port.datatype == "ANY" { DType::I64 } else { datatype::parse(&port.datatype, &port.name)? };
    let data = TensorData::new(numbers, shape).convert_dtype(dtype);
    let value = Value::from_data(data, &Device::flex()).map_err(ServeError::failed)?;
    inputs.insert(&port.name, value);
    Ok(())
}

/// Returns the vectors of an output, one for each text.
///
/// # Errors
/// If the model does not have one vector for each text.
pub(crate) fn vectors(outputs: &Values, texts: usize) -> Result<Vec<Vec<f32>>, ServeError> {
    let is_vectors = |value: &Value| value.dtype().is_float() && matches!(*value.shape(), [rows, _] if rows == texts);
    let named = ["sentence_embedding", "embeddings", "embedding", "output"];
    let by_name = named.iter().find_map(|name| outputs.get(name).filter(|value| is_vectors(value)));
    let found = by_name.or_else(|| outputs.iter().map(|(_, value)| value).find(|value| is_vectors(value)));
    let Some(value) = found else {
        let found: Vec<_> = outputs.iter().map(|(name, value)| format!("`{name}`: {value}")).collect();
        return Err(ServeError::failed(format!(
            "the model does not embed texts: expected an output with a vector for each of {texts} texts, found {}",
            found.join(", ")
        )));
    };
    let data = value.data().map_err(ServeError::failed)?;
    let width = value.shape().last().copied().unwrap_or(1).max(1);
    let numbers: Vec<f32> = data.iter::<f32>().collect();
    Ok(numbers.chunks(width).map(<[f32]>::to_vec).collect())
}
