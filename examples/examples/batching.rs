//! Batching: calls of one method that wait for a worker run as one call.

use std::iter::repeat_n;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use ray_zerocopy::engine::Backend;
use ray_zerocopy::{Batching, LocalPool, Pipeline, TaskWrapper, Threads, cancelled, gather};

/// Embeds texts, one in each call, and shows which calls run together
///
/// The only worker is kept busy until all calls have been made, so the batches are the same in each
/// run: those that the limits allow. Each step states what it expects, and the program fails
/// otherwise. The last lines are the report of the first step.
#[derive(Parser)]
#[command(after_help = "Try --processes: the batches are the same.")]
struct Args {
    /// Use a worker process instead of a thread
    #[arg(long)]
    processes: bool,
}

#[derive(Pipeline)]
#[pipeline(init = Encoder::new)]
struct Encoder {
    table: Embedding,
}

/// Cost of a text: the number of its tokens. The tokens of this model are bytes.
fn tokens(text: &str) -> usize {
    text.len()
}

#[ray_zerocopy::remote]
impl Encoder {
    pub fn new(device: &Device) -> Self {
        Self { table: EmbeddingConfig::new(256, 64).init(device) }
    }

    /// Returns the mean embedding of the tokens of each text. Texts are padded to the length of the
    /// longest one. An empty text is an error.
    #[remote(batch, cost = tokens)]
    pub fn embed(&self, texts: Vec<String>) -> std::result::Result<Tensor<2>, String> {
        if texts.iter().any(String::is_empty) {
            return Err("a text is empty".to_owned());
        }
        let longest = texts.iter().map(String::len).max().unwrap_or(0);
        let (mut ids, mut shares) = (Vec::new(), Vec::new());
        for text in &texts {
            let padding = longest - text.len();
            ids.extend(text.bytes().map(i64::from).chain(repeat_n(0, padding)));
            shares.extend(repeat_n(1.0 / text.len() as f32, text.len()));
            shares.extend(repeat_n(0.0, padding));
        }
        let (shape, device) = ([texts.len(), longest], self.table.weight.val().device());
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device);
        let shares = Tensor::<2>::from_data(TensorData::new(shares, shape), &device);
        // The weighted mean is one product: [texts, 1, tokens] × [texts, tokens, width].
        Ok(shares.unsqueeze_dim::<3>(1).matmul(self.table.forward(ids)).squeeze_dim(1))
    }

    /// Keeps the worker busy until a file exists.
    pub fn wait_for(&self, file: String) {
        while !Path::new(&file).exists() && !cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The result of one call: an embedding, or the method's error.
type Embedded = std::result::Result<Tensor<1>, String>;

fn main() -> Result<()> {
    ray_zerocopy::init();
    if Args::parse().processes { show(&LocalPool::builder().workers(1).start()?) } else { show(&Threads::new(1)) }
}

fn show(backend: &impl Backend) -> Result<()> {
    let encoder = Encoder::new(&Device::flex());
    let tasks = TaskWrapper::on(backend, &encoder)?;

    // Calls wait while the worker is busy. When it is free, it takes all of them.
    let all = tasks.clone().batch(Batching::default());
    let texts: Vec<_> = (10..30).map(|number| format!("text {number}")).collect();
    let vectors = while_busy(&all, &texts)?;
    for (text, there) in texts.iter().zip(vectors) {
        let there = there.map_err(anyhow::Error::msg)?;
        let here = encoder.embed(vec![text.clone()]).map_err(anyhow::Error::msg)?;
        let difference: f32 = (there - here.squeeze_dim::<1>(0)).abs().max().into_scalar();
        ensure!(difference < 1e-5, "`{text}` has another embedding in a batch: {difference}");
    }
    expect("busy worker", &all, [20, 1, 20])?;
    println!("               the embeddings are those of this process, within 1e-5");

    // A call that finds an idle worker does not wait for others.
    let idle = tasks.clone().batch(Batching::default());
    for text in &texts[..3] {
        idle.embed_one(text.clone()).wait()?.map_err(anyhow::Error::msg)?;
    }
    expect("idle worker", &idle, [3, 3, 1])?;

    // Unless it is told to. The fourth call fills the batch.
    let patient = tasks.clone().batch(Batching::default().max_rows(4).max_wait(Duration::from_secs(10)));
    gather(texts[..4].iter().map(|text| patient.embed_one(text.clone()))).wait()?;
    expect("max_wait", &patient, [4, 1, 4])?;

    let small = tasks.clone().batch(Batching::default().max_rows(8));
    while_busy(&small, &texts)?;
    expect("max_rows(8)", &small, [20, 3, 8])?;

    // Rows are padded to the longest, so a batch costs its rows times the longest. Texts of similar
    // length go together: four of 10 tokens, and twice two of 100.
    let frugal = tasks.clone().batch(Batching::default().max_cost(200));
    let mixed: Vec<_> = (0..8).map(|number| "x".repeat(if number % 2 == 0 { 10 } else { 100 })).collect();
    while_busy(&frugal, &mixed)?;
    expect("max_cost(200)", &frugal, [8, 3, 4])?;

    // A batch that fails is repeated call by call, so an error is that of the call that caused it.
    let faulty = tasks.clone().batch(Batching::default());
    let with_empty = ["one", "", "three"].map(str::to_owned);
    let results = while_busy(&faulty, &with_empty)?;
    for (text, result) in with_empty.iter().zip(&results) {
        ensure!(result.is_err() == text.is_empty(), "`{text}` has the result of another call");
    }
    let error = results.into_iter().find_map(Embedded::err).context("an empty text must be an error")?;
    expect("error", &faulty, [3, 1, 3])?;
    println!("               one call of the three fails: {error}");

    for batches in &all.report()?.batches {
        println!("\n{batches}");
    }
    Ok(())
}

/// Makes one call for each text while the worker is busy, so that all of them wait. Returns the
/// results.
fn while_busy(tasks: &TaskWrapper<Encoder>, texts: &[String]) -> Result<Vec<Embedded>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("go on");
    let busy = tasks.wait_for(file.to_string_lossy().into_owned()).cancel_on_drop();
    let calls: Vec<_> = texts.iter().map(|text| tasks.embed_one(text.clone())).collect();
    std::fs::write(&file, [])?;
    busy.wait()?;
    Ok(gather(calls).wait()?)
}

/// Compares the batches of a wrapper with those that are expected: the number of calls, that of
/// batches, and the rows of the largest batch. Prints them.
fn expect(step: &str, tasks: &TaskWrapper<Encoder>, expected: [u64; 3]) -> Result<()> {
    let report = tasks.report()?;
    let batches = report.batches.iter().find(|batches| batches.method == "embed").context("`embed` has no batches")?;
    let [calls, count, largest] = [batches.calls, batches.batches, batches.largest];
    ensure!([calls, count, largest] == expected, "{step}: expected {expected:?}, found: {batches}");
    println!("{step:<14} {calls} calls, {count} batches, {largest} rows in the largest");
    Ok(())
}
