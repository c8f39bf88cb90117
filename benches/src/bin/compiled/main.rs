//! Measures compiled graphs, compared with the graphs that they were compiled from.

use std::time::Instant;

use anyhow::{Result, ensure};
use benches::image_models::{DetectorConfig, ResNetConfig};
use benches::stats::{Ratio, median};
use benches::traced_models::{BlocksConfig, StackConfig};
use benches::{Common, Progress, Run, Table, Target, time};
use burn::tensor::{Device, Distribution, Tensor};
use clap::Parser;
use ray_zerocopy::jit::{self, Compile, Executable, TracedGraph, Values};
use ray_zerocopy_examples::encoder::{Encoder, sentences};
use ray_zerocopy_examples::minilm::fetch;
use serde::Serialize;

/// Compiled graphs compared with the graphs that they were compiled from.
///
/// Both run in this process on one thread, in turns within each round, on the same inputs. Their outputs must be equal
/// within 1e-5 of the largest number.
#[derive(Parser, Serialize)]
#[command(name = "compiled", after_help = "cargo run --release -p benches --bin compiled -- --json")]
struct Args {
    /// Number of rounds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

#[derive(Serialize)]
struct Row {
    model: String,
    operations: usize,
    compiled_operations: usize,
    graph_us_median: f64,
    compiled_us_median: f64,
    /// The compiled graph in units of the graph.
    #[serde(flatten)]
    ratio: Ratio,
    /// The largest difference, in units of the largest number.
    difference: f64,
}

/// A graph and its inputs.
struct Case {
    model: String,
    graph: TracedGraph,
    inputs: Values,
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Default, &Device::flex())
}

fn cases(args: &Args) -> Result<Vec<Case>> {
    let device = Device::flex();
    let (width, layers) = if args.common.quick { (512, 2) } else { (4096, 4) };
    let mut cases = Vec::new();
    let graph = Encoder::from_files(&fetch::model_files()?, &device)?.trace()?;
    for shape in [[1, 12], [8, 12], [32, 16], [8, 128]] {
        let (ids, padding) = sentences(shape);
        let inputs = Values::new().with("ids", ids).with("padding", padding);
        let [rows, tokens] = shape;
        cases.push(Case { model: format!("MiniLM, {rows} × {tokens} tokens"), graph: graph.clone(), inputs });
    }
    let stack = StackConfig { width, layers }.init(&device);
    let graph = jit::trace(&stack)
        .input("x", random([2, width]))
        .symbol("batch", [("x", 0)])
        .forward(|stack, inputs| Ok(stack.forward(inputs.float::<2>("x")?)))?;
    for batch in [1, 8, 32] {
        let inputs = Values::new().with("x", random([batch, width]));
        cases.push(Case {
            model: format!("{layers} linear layers of {width}, {batch} rows"),
            graph: graph.clone(),
            inputs,
        });
    }
    let blocks = BlocksConfig { width: 64, layers: 17 }.init(&device);
    let graph = jit::trace(&blocks)
        .input("x", random([2, 16, 64]))
        .forward(|blocks, inputs| Ok(blocks.forward(inputs.float::<3>("x")?)))?;
    let inputs = Values::new().with("x", random([2, 16, 64]));
    cases.push(Case { model: "17 transformer blocks of 64".to_owned(), graph, inputs });
    cases.extend([residual(args, &device)?, detector(&device)?]);
    Ok(cases)
}

/// An image in ResNet-18, or in a smaller one.
fn residual(args: &Args, device: &Device) -> Result<Case> {
    let (channels, size) = if args.common.quick { (8, 64) } else { (64, 224) };
    let model = ResNetConfig { channels, classes: 1000 }.init(device);
    let graph = jit::trace(&model)
        .input("x", random([2, 3, size, size]))
        .symbol("batch", [("x", 0)])
        .forward(|model, inputs| Ok(model.forward(inputs.float::<4>("x")?)))?;
    let inputs = Values::new().with("x", random([1, 3, size, size]));
    Ok(Case { model: format!("ResNet-18 of {channels}, {size} × {size} pixels"), graph, inputs })
}

/// A part of a signal in a detector of speech.
fn detector(device: &Device) -> Result<Case> {
    let width = 128;
    let model = DetectorConfig { width }.init(device);
    let (samples, state) = (random([1, DetectorConfig::SAMPLES]), random([1, width]));
    let graph = jit::trace(&model)
        .input("samples", samples.clone())
        .input("cell", state.clone())
        .input("hidden", state.clone())
        .forward(|model, inputs| {
            let [output, cell, hidden] =
                model.forward(inputs.float("samples")?, inputs.float("cell")?, inputs.float("hidden")?);
            Ok(Values::new().with("output", output).with("cell", cell).with("hidden", hidden))
        })?;
    let inputs = Values::new().with("samples", samples).with("cell", state.clone()).with("hidden", state);
    Ok(Case { model: format!("convolutions and LSTM of {width}, {} samples", DetectorConfig::SAMPLES), graph, inputs })
}

/// Returns the mean duration of a number of runs, in microseconds.
fn micros(calls: usize, executable: &mut Executable, inputs: &Values) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..calls {
        executable.run(inputs.clone())?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / calls as f64)
}

/// The largest difference of two results, in units of the largest number of the same output.
fn difference(own: &Values, other: &Values) -> Result<f64> {
    let mut most = 0.0_f64;
    for name in own.names() {
        let (own, other) = (own.data(name)?, other.data(name)?);
        let pairs = || own.iter::<f64>().zip(other.iter::<f64>());
        let largest = pairs().map(|(own, _)| own.abs()).fold(0.0, f64::max);
        most = most.max(pairs().map(|(own, other)| (own - other).abs()).fold(0.0, f64::max) / largest);
    }
    Ok(most)
}

fn measure(case: Case, args: &Args, progress: &Progress) -> Result<Row> {
    let Case { model, graph, inputs } = case;
    progress.step(format!("{model}: compiles"));
    let compiled = graph.compile(Compile::f32())?;
    let (mut own, mut fast) = (graph.load("cpu")?, compiled.load("cpu")?);
    let difference = difference(&own.run(inputs.clone())?, &fast.run(inputs.clone())?)?;
    ensure!(difference <= 1e-5, "{model}: the results differ by {difference} of the largest number");
    let once = micros(1, &mut own, &inputs)?;
    let calls = (2e4 / once).ceil().clamp(1.0, 10_000.0) as usize;
    let (mut graphs, mut compileds) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        progress.step(format!("{model}: round {}", round + 1));
        graphs.push(micros(calls, &mut own, &inputs)?);
        compileds.push(micros(calls, &mut fast, &inputs)?);
    }
    Ok(Row {
        model,
        operations: graph.info().operations(),
        compiled_operations: compiled.info().operations(),
        graph_us_median: median(&graphs),
        compiled_us_median: median(&compileds),
        ratio: Ratio::of(&compileds, &graphs),
        difference,
    })
}

fn table(rows: &[Row]) -> Table {
    let mut table =
        Table::new(["model", "operations", "compiled", "graph", "compiled", "in units of the graph", "difference"]);
    for row in rows {
        table.row([
            row.model.clone(),
            row.operations.to_string(),
            row.compiled_operations.to_string(),
            time(row.graph_us_median),
            time(row.compiled_us_median),
            row.ratio.to_string(),
            format!("{:.1e}", row.difference),
        ]);
    }
    table
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.common.quick {
        args.rounds = 2;
    }
    // Before rayon starts: one thread, as a worker of a pool has.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    let run = Run::begin("compiled", args.common);
    let cases = cases(&args)?;
    let progress = Progress::new(cases.len() * (1 + usize::from(args.rounds)));
    let rows = cases.into_iter().map(|case| measure(case, &args, &progress)).collect::<Result<Vec<_>>>()?;
    drop(progress);
    let targets: Vec<Target> = rows
        .iter()
        .filter(|row| row.model.contains("8 rows"))
        .map(|row| Target::at_most(format!("{}: in units of the graph", row.model), 0.2, row.ratio.ratio))
        .collect();
    let notes = "Medians; the compiled graph in units of the graph: median and quartiles of the rounds. One thread.";
    run.finish(&args, &rows, &targets, &[table(&rows)], notes)
}
