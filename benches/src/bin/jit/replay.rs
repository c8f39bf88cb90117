//! Measures replaying a graph, compared with the direct call.

use std::time::Instant;

use anyhow::{Result, ensure};
use benches::stats::{Ratio, median};
use benches::{Progress, Table, Target, time};
use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::jit::{self, Executable, TracedGraph, Value, Values};
use serde::Serialize;

use crate::Args;
use benches::traced_models::{BlocksConfig, StackConfig};

/// Minimum duration of each contestant in a round.
const TURN_MS: f64 = 5.0;

#[derive(Serialize)]
pub struct Row {
    model: &'static str,
    operations: usize,
    direct_us_median: f64,
    replay_us_median: f64,
    /// Replay in units of the direct call.
    #[serde(flatten)]
    ratio: Ratio,
    /// Additional time of the first run at a new size.
    first_size_ms_median: f64,
    outputs_equal: bool,
}

/// A pipeline, its graph and an input.
struct Case<'a> {
    model: &'static str,
    graph: TracedGraph,
    input: Value,
    direct: Box<dyn Fn() -> Value + 'a>,
    /// Creates an input of another batch size.
    other: Box<dyn Fn(usize) -> Value>,
}

pub fn steps(args: &Args) -> usize {
    3 * (1 + usize::from(args.rounds))
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Default, &Device::flex())
}

pub fn measure(args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let device = Device::flex();
    let (width, layers) = if args.common.quick { (512, 2) } else { (4096, 4) };
    let tiny = StackConfig { width: 16, layers: 3 }.init(&device);
    let wide = StackConfig { width, layers }.init(&device);
    // 15 operations each.
    let blocks = BlocksConfig { width: 64, layers: 17 }.init(&device);
    let stack = |model: &'static str, pipeline: &'static str, stack| -> Result<Case<'_>> {
        let stack: &benches::traced_models::Stack = stack;
        let width = if pipeline == "tiny" { 16 } else { width };
        let input = random([8, width]);
        let graph = traced(stack, input.clone(), |stack, x: Tensor<2>| stack.forward(x))?;
        let own = input.clone();
        Ok(Case {
            model,
            graph,
            input: input.into(),
            direct: Box::new(move || stack.forward(own.clone()).into()),
            other: Box::new(move |batch| random([batch, width]).into()),
        })
    };
    let input = random([2, 16, 64]);
    let own = input.clone();
    let graph = traced(&blocks, input.clone(), |blocks, x: Tensor<3>| blocks.forward(x))?;
    let cases = [
        stack("MLP of three layers of 16", "tiny", &tiny)?,
        Case {
            model: "17 transformer blocks of 64",
            graph,
            input: input.into(),
            direct: Box::new(|| blocks.forward(own.clone()).into()),
            other: Box::new(|batch| random([batch, 16, 64]).into()),
        },
        stack("linear layers of 4096", "wide", &wide)?,
    ];
    cases.into_iter().map(|case| run(case, args, progress)).collect()
}

fn traced<P: ray_zerocopy::Root, const D: usize>(
    pipeline: &P,
    input: Tensor<D>,
    forward: impl Fn(&P, Tensor<D>) -> Tensor<D>,
) -> Result<TracedGraph> {
    let trace = jit::trace(pipeline).input("x", input).symbol("batch", [("x", 0)]);
    Ok(trace.forward(|pipeline, inputs| Ok(forward(pipeline, inputs.float::<D>("x")?)))?)
}

fn replayed(replay: &mut Executable, input: &Value) -> Result<Values> {
    Ok(replay.run([("x", input.clone())])?)
}

fn run(case: Case<'_>, args: &Args, progress: &Progress) -> Result<Row> {
    let Case { model, graph, input, direct, other } = case;
    progress.step(format!("{model}: first runs"));
    let mut replay = graph.load("cpu")?;
    let data = |value: &Value| value.data().map_err(anyhow::Error::msg);
    let expected = data(&direct())?;
    let found = replayed(&mut replay, &input)?.data("output")?;
    let outputs_equal = expected.as_bytes() == found.as_bytes();
    ensure!(outputs_equal, "{model}: the graph's outputs differ from the pipeline's");

    let once = micros(1, || drop(direct()));
    let calls = (TURN_MS * 1e3 / once).ceil().clamp(1.0, 10_000.0) as usize;
    let (mut own, mut graphs, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..usize::from(args.rounds) {
        progress.step(format!("{model}: round {}", round + 1));
        own.push(micros(calls, || drop(direct())));
        let mut failed = None;
        graphs.push(micros(calls, || {
            if let Err(error) = replayed(&mut replay, &input) {
                failed = Some(error);
            }
        }));
        if let Some(error) = failed {
            return Err(error);
        }
        // A batch size that is new to the graph.
        let input = other(3 + round + 8);
        let begun = Instant::now();
        replayed(&mut replay, &input)?;
        let first = begun.elapsed();
        let begun = Instant::now();
        replayed(&mut replay, &input)?;
        firsts.push(first.saturating_sub(begun.elapsed()).as_secs_f64() * 1e3);
    }
    Ok(Row {
        model,
        operations: graph.info().operations(),
        direct_us_median: median(&own),
        replay_us_median: median(&graphs),
        ratio: Ratio::of(&graphs, &own),
        first_size_ms_median: median(&firsts),
        outputs_equal,
    })
}

/// Returns the mean duration of a number of calls.
fn micros(calls: usize, mut call: impl FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..calls {
        call();
    }
    begun.elapsed().as_secs_f64() * 1e6 / calls as f64
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().flat_map(|row| {
        let most = if row.direct_us_median > 1e3 { 1.05 } else { 1.5 };
        let ratio = Target::at_most(format!("{}: replay, in direct calls", row.model), most, row.ratio.ratio);
        let first = Target::at_most(format!("{}: a new size, ms", row.model), 5.0, row.first_size_ms_median);
        [ratio, first]
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["model", "operations", "direct", "replay", "in units of it", "new size", "equal"]);
    for row in rows {
        table.row([
            row.model.to_owned(),
            row.operations.to_string(),
            time(row.direct_us_median),
            time(row.replay_us_median),
            row.ratio.to_string(),
            time(row.first_size_ms_median * 1e3),
            row.outputs_equal.to_string(),
        ]);
    }
    table
}
