//! Traces the real model, with symbols for batch and length: the embeddings equal those of the
//! pipeline bit for bit.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::tensor::{Bool, Device, Int, Tensor};
use ray_zerocopy::{Pipeline, jit};
use ray_zerocopy_examples::minilm::{MiniLm, MiniLmConfig, fetch};

/// The encoder alone: a graph cannot contain a tokenizer.
#[derive(Pipeline)]
struct Encoder {
    #[pipeline(config)]
    config: EncoderConfig,
    model: MiniLm,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct EncoderConfig {
    model: MiniLmConfig,
}

impl EncoderConfig {
    fn init(&self, device: &Device) -> Encoder {
        Encoder { config: self.clone(), model: self.model.init(device) }
    }
}

fn inputs([batch, length]: [usize; 2]) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let device = Device::flex();
    let count = (batch * length) as i64;
    let ids = Tensor::<1, Int>::arange(0..count, &device).reshape([batch, length]) * 7919 % 30_000;
    // Each row is one token shorter than the preceding one, and has at least one token.
    let places = Tensor::<1, Int>::arange(0..length as i64, &device).reshape([1, length]).expand([batch, length]);
    let ends = Tensor::<1, Int>::arange(0..batch as i64, &device).reshape([batch, 1]).expand([batch, length]);
    let padding = (places + ends).greater_elem(length as i64 - 1) & ids.clone().not_equal_elem(0);
    let first = Tensor::<1, Int>::arange(0..length as i64, &device).reshape([1, length]).expand([batch, length]);
    (ids, padding & first.not_equal_elem(0))
}

#[test]
fn traced_model_matches_on_fifty_shapes() {
    let files = fetch::model_files().unwrap();
    let mut config = EncoderConfig { model: MiniLmConfig::from_file(&files.config()).unwrap() };
    config.model.bert.exact_gelu = true;
    let mut encoder = config.init(&Device::flex());
    encoder.model = encoder.model.load_safetensors(&files.weights()).unwrap();

    let (ids, padding) = inputs([2, 6]);
    let graph = jit::trace(&encoder)
        .input("ids", ids)
        .input("padding", padding)
        .symbol("batch", [("ids", 0), ("padding", 0)])
        .symbol("length", [("ids", 1), ("padding", 1)])
        .forward(|encoder, inputs| Ok(encoder.model.forward(inputs.int("ids")?, Some(inputs.bool("padding")?))))
        .unwrap();
    println!(
        "{} operations, {} bytes beside the weights",
        graph.info().operations(),
        graph.arena().size_bytes() - graph.arena().stored_bytes()
    );
    assert_eq!(graph.arena().borrowed_bytes(), 0);
    let mut replay = graph.load("cpu").unwrap();
    assert!(replay.copied().is_empty(), "{:?}", replay.copied());
    let shapes = (0..50).map(|at| [1 + at % 5 * (1 + at / 25), 1 + at * 13 % 61]);
    for [batch, length] in shapes {
        let (ids, padding) = inputs([batch, length]);
        let here = encoder.model.forward(ids.clone(), Some(padding.clone())).into_data();
        let values = jit::Values::new().with("ids", ids).with("padding", padding);
        let there = replay.run(values).unwrap().data("output").unwrap();
        assert_eq!(there.as_bytes(), here.as_bytes(), "{batch} × {length}");
    }
}
