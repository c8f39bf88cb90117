//! Compares the encoder with embeddings of transformers' `BertModel` with the same weights.

// clippy recognises tests by their attribute, but not helpers of tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::{Device, Tensor};
use ray_zerocopy_examples::corpus;
use ray_zerocopy_examples::minilm::fetch::{self, ModelFiles};
use ray_zerocopy_examples::minilm::model::BertConfig;
use ray_zerocopy_examples::minilm::{MiniLm, MiniLmConfig, Tokenizer, tokenize};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    text: String,
    embedding: Vec<f32>,
}

struct Loaded {
    model: MiniLm,
    tokenizer: Tokenizer,
}

/// The real model, loaded once for all tests.
fn loaded() -> &'static Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    LOADED.get_or_init(|| {
        let files = files();
        Loaded {
            model: MiniLmConfig::from_file(&files.config())
                .unwrap()
                .init(&Device::flex())
                .load_safetensors(&files.weights())
                .unwrap(),
            tokenizer: tokenize::load(&files.tokenizer()).unwrap(),
        }
    })
}

fn files() -> ModelFiles {
    static FILES: OnceLock<ModelFiles> = OnceLock::new();
    FILES.get_or_init(|| fetch::model_files().unwrap()).clone()
}

fn encode(texts: &[&str]) -> Vec<Vec<f32>> {
    let texts: Vec<String> = texts.iter().map(|text| text.to_string()).collect();
    rows(loaded().model.encode(&loaded().tokenizer, &texts).unwrap())
}

fn rows(tensor: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, width] = tensor.dims();
    let values: Vec<f32> = tensor.into_data().try_into_vec().unwrap();
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn max_diff(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let diffs = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    diffs.fold(0.0, f32::max)
}

fn reference() -> Vec<Sentence> {
    let json = include_str!("../data/minilm_reference.json");
    serde_json::from_str::<Reference>(json).unwrap().sentences
}

#[test]
fn embeddings_equal_the_reference() {
    let reference = reference();
    let texts: Vec<&str> = reference.iter().map(|s| s.text.as_str()).collect();
    for (ours, theirs) in encode(&texts).iter().zip(&reference) {
        let diff = max_diff(ours, &theirs.embedding);
        assert!(diff < 1e-5, "{:?} differs by {diff}", theirs.text);
        let cosine = cosine(ours, &theirs.embedding);
        assert!(cosine > 0.9999, "{:?}: cosine {cosine}", theirs.text);
    }
}

#[test]
fn a_batch_gives_what_single_sentences_give() {
    let reference = reference();
    let texts: Vec<&str> = reference.iter().map(|s| s.text.as_str()).collect();
    for (together, text) in encode(&texts).iter().zip(&texts) {
        let alone = &encode(&[text])[0];
        let diff = max_diff(together, alone);
        assert!(diff < 1e-5, "{text:?} differs by {diff}");
    }
}

#[test]
fn order_is_kept_across_sorted_batches() {
    let corpus: Vec<String> = corpus::sentences().into_iter().take(70).collect();
    let texts: Vec<&str> = corpus.iter().map(String::as_str).collect();
    let all = encode(&texts);
    assert_eq!(all.len(), texts.len());
    for i in [0, 1, 33, 69] {
        assert!(max_diff(&all[i], &encode(&[texts[i]])[0]) < 1e-5, "row {i}");
    }
}

#[test]
fn vectors_have_length_one() {
    for vector in encode(&["", "a", "Trains stop slowly.", "?!"]) {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "length {length}");
    }
}

#[test]
fn empty_input_gives_empty_output() {
    let none = loaded().model.encode(&loaded().tokenizer, &[]).unwrap();
    assert_eq!(none.dims(), [0, 384]);
}

#[test]
fn tokens_beyond_the_limit_are_ignored() {
    let long = "word ".repeat(1000);
    let ids = tokenize::token_ids(&loaded().tokenizer, std::slice::from_ref(&long)).unwrap();
    assert_eq!(ids[0].len(), tokenize::MAX_TOKENS);
    let longer = format!("{long} and something else");
    let vectors = encode(&[&long, &longer]);
    assert_eq!(vectors[0], vectors[1]);
}

#[test]
fn sentences_on_one_topic_are_neighbours() {
    let corpus = corpus::sentences();
    let texts: Vec<&str> = corpus.iter().map(String::as_str).collect();
    let vectors = encode(&texts);
    let query = &encode(&["Why do birds at the South Pole stand so close together?"])[0];
    let near = |i: &usize| cosine(&vectors[*i], query);
    let best = (0..texts.len()).max_by(|a, b| near(a).total_cmp(&near(b)));
    assert_eq!(texts[best.unwrap()], "Penguins huddle together to keep warm in the Antarctic winter.");
}

#[test]
fn sentences_of_the_corpus_are_unique() {
    let corpus = corpus::sentences();
    let distinct: std::collections::HashSet<_> = corpus.iter().collect();
    assert_eq!(distinct.len(), corpus.len());
}

#[test]
fn a_tokenizer_is_serialised_with_its_settings() {
    let bytes = rmp_serde::to_vec_named(&loaded().tokenizer).unwrap();
    let arrived: Tokenizer = rmp_serde::from_slice(&bytes).unwrap();
    let texts = ["Zero-copy means no bytes are duplicated.".to_string(), "x ".repeat(400)];
    assert_eq!(
        tokenize::token_ids(&arrived, &texts).unwrap(),
        tokenize::token_ids(&loaded().tokenizer, &texts).unwrap()
    );
}

#[test]
fn a_config_is_serialised() {
    let config = MiniLmConfig::from_file(&files().config()).unwrap().with_batch_tokens(7);
    let bytes = rmp_serde::to_vec_named(&config).unwrap();
    assert_eq!(rmp_serde::from_slice::<MiniLmConfig>(&bytes).unwrap(), config);
    assert_eq!(config.bert.layer_norm_eps, 1e-12);
}

#[test]
fn a_foreign_tokenizer_is_an_error() {
    let small = MiniLmConfig::new(tiny()).init(&Device::flex());
    let texts = ["Zero-copy".to_string()];
    let error = small.encode(&loaded().tokenizer, &texts).unwrap_err();
    assert!(error.to_string().contains("vocabulary ends at 4"), "{error}");
}

/// A model whose weights fit into a page.
fn tiny() -> BertConfig {
    BertConfig {
        vocab_size: 5,
        hidden_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 8,
        max_position_embeddings: 256,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        exact_gelu: false,
    }
}

/// Name and shape of each tensor of [`tiny`] in a checkpoint.
fn tiny_tensors() -> Vec<(String, Vec<usize>)> {
    let layer = "encoder.layer.0";
    let mut tensors = vec![
        ("embeddings.word_embeddings.weight".to_string(), vec![5, 4]),
        ("embeddings.position_embeddings.weight".to_string(), vec![256, 4]),
        ("embeddings.token_type_embeddings.weight".to_string(), vec![2, 4]),
    ];
    for (name, to, from) in [
        ("attention.self.query", 4, 4),
        ("attention.self.key", 4, 4),
        ("attention.self.value", 4, 4),
        ("attention.output.dense", 4, 4),
        ("intermediate.dense", 8, 4),
        ("output.dense", 4, 8),
    ] {
        tensors.push((format!("{layer}.{name}.weight"), vec![to, from]));
        tensors.push((format!("{layer}.{name}.bias"), vec![to]));
    }
    let norms = ["attention.output", "output"].map(|block| format!("{layer}.{block}"));
    for block in std::iter::once("embeddings".to_string()).chain(norms) {
        tensors.push((format!("{block}.LayerNorm.weight"), vec![4]));
        tensors.push((format!("{block}.LayerNorm.bias"), vec![4]));
    }
    tensors
}

/// Writes a safetensors file of ones: length of the header, header, numbers.
fn write_safetensors(file: &Path, tensors: &[(String, Vec<usize>)]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(std::iter::repeat_n(1.0_f32.to_le_bytes(), end / 4).flatten());
    fs::write(file, bytes).unwrap();
}

fn load_tiny(tensors: &[(String, Vec<usize>)]) -> Result<MiniLm, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    write_safetensors(&file, tensors);
    let model = MiniLmConfig::new(tiny()).init(&Device::flex());
    model.load_safetensors(&file).map_err(|e| format!("{e:#}"))
}

#[test]
fn a_file_that_fits_loads() {
    load_tiny(&tiny_tensors()).unwrap();
}

#[test]
fn every_tensor_that_does_not_fit_is_named() {
    let mut tensors = tiny_tensors();
    for (name, shape) in &mut tensors {
        match name.as_str() {
            "encoder.layer.0.attention.self.key.bias" => *name = "encoder.layer.7.stray".to_string(),
            "encoder.layer.0.output.LayerNorm.weight" => *name = "pooler.dense.bias".to_string(),
            "encoder.layer.0.intermediate.dense.weight" => *shape = vec![9, 4],
            _ => {}
        }
    }
    let error = load_tiny(&tensors).unwrap_err();
    for part in [
        "model.safetensors does not contain",
        "tensor `encoder.layer.0.attention.self.key.bias` is missing",
        "tensor `encoder.layer.0.output.LayerNorm.weight` is missing",
        "tensor `encoder.layer.7.stray` is unexpected",
        "tensor `encoder.layer.0.intermediate.dense.weight` has shape [9, 4], expected [8, 4]",
    ] {
        assert!(error.contains(part), "no {part:?} in:\n{error}");
    }
    // Checkpoints contain the pooler, which embeddings do not use: it is accepted.
    assert!(!error.contains("pooler"), "{error}");
}

#[test]
fn missing_and_invalid_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let load = || {
        let model = MiniLmConfig::new(tiny()).init(&Device::flex());
        format!("{:#}", model.load_safetensors(&file).unwrap_err())
    };
    assert!(load().contains("model.safetensors"), "{}", load());
    fs::write(&file, "not a checkpoint").unwrap();
    assert!(load().contains("model.safetensors"), "{}", load());
}

#[test]
fn a_config_of_another_model_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let good: serde_json::Value = serde_json::from_slice(&fs::read(files().config()).unwrap()).unwrap();
    let error = |name: &str, value: serde_json::Value| {
        let mut config = good.clone();
        config[name] = value;
        fs::write(&file, config.to_string()).unwrap();
        format!("{:#}", MiniLmConfig::from_file(&file).unwrap_err())
    };
    assert!(error("hidden_act", "relu".into()).contains("hidden_act"));
    assert!(error("num_attention_heads", 7.into()).contains("num_attention_heads"));
    assert!(error("max_position_embeddings", 64.into()).contains("max_position_embeddings"));
    let missing = error("hidden_size", serde_json::Value::Null);
    assert!(missing.contains("config.json"), "{missing}");
}
