//! Measures what HTTP and gRPC add to calls of a graph: latency, requests per second, large tensors, and sentences that are
//! embedded, compared with other servers.

mod clients;
mod grpc;
mod load;
mod peers;
mod sentences;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use benches::stats::Samples;
use benches::{Common, Progress, Run, Table, Target};
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::jit::{JitTaskWrapper, Model, TracedGraph, trace};
use ray_zerocopy::{Batching, Pipeline};
use ray_zerocopy_examples::minilm::fetch;
use ray_zerocopy_serve::{ModelRepository, Running, Server, Service};
use serde::{Deserialize, Serialize};

use clients::Way;

/// Calls of a graph by a wrapper, over HTTP and over gRPC, on the same workers.
///
/// The graph multiplies each column by a factor, so that the calls cost little. Server, clients and workers share the
/// machine, and the clients are in the process of the server, on a thread of their own. Latency is that of one client
/// that calls again and again. Throughput is that of many clients, each with a connection of its own. Large tensors are
/// sent and returned by a few clients. `no call` is a request that the server answers by itself. `paced` calls have such a
/// request before each, which is not measured, so that the worker sleeps between calls as it does over HTTP. The ways
/// take turns for several rounds, and every response is compared with the expected bytes. Then many clients embed one sentence after
/// the other with the compiled MiniLM; `--peers` adds infinity and ONNX Runtime behind FastAPI, on the
/// same machine (`cargo xtask setup servers-env torch`).
#[derive(Parser, Serialize)]
#[command(name = "serve", after_help = "cargo run --release -p benches --bin serve -- --json")]
struct Args {
    /// Number of workers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Number of clients of the throughput
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Seconds of each measurement of throughput
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// Number of rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Also embed the sentences with infinity, and with ONNX Runtime behind FastAPI
    #[arg(long)]
    peers: bool,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

/// Columns of the tensors.
const WIDTH: usize = 1024;
/// Columns of the small tensors.
const SMALL: usize = 16;
/// Clients that send large tensors.
const LARGE_CLIENTS: u16 = 4;

/// A factor for each column.
#[derive(Pipeline)]
struct Scale {
    #[pipeline(config)]
    config: Config,
    factors: Param<Tensor<2>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Config {
    width: usize,
}

impl Config {
    fn init(&self, device: &Device) -> Scale {
        let factors = Tensor::<2>::ones([1, self.width], device) * clients::FACTOR;
        Scale { config: self.clone(), factors: Param::from_tensor(factors) }
    }
}

fn graph(width: usize) -> Result<TracedGraph> {
    let device = Device::flex();
    let graph = trace(&Config { width }.init(&device))
        .input("x", Tensor::<2>::ones([2, width], &device))
        .symbol("batch", [("x", 0)])
        .forward(|scale, inputs| Ok([("y", inputs.float::<2>("x")? * scale.factors.val())]))?;
    Ok(graph)
}

/// The results.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum AnyRow {
    Calls(Row),
    Sentences(sentences::Row),
}

impl Args {
    /// Number of rounds, and the time of each measurement.
    fn length(&self) -> (u16, Duration) {
        if self.common.quick {
            (1, Duration::from_millis(100))
        } else {
            (self.rounds, Duration::from_secs(u64::from(self.seconds)))
        }
    }
}

/// A row of the results of calls.
#[derive(Debug, Serialize)]
struct Row {
    measure: &'static str,
    way: &'static str,
    /// Bytes of the tensor that is sent, and of the one that is returned.
    bytes: usize,
    clients: u16,
    calls: usize,
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
    /// Compared with the direct call.
    ratio: f64,
}

/// The calls of one way at one measurement.
#[derive(Default)]
struct Sum {
    samples: Samples,
    calls: usize,
    time: Duration,
}

struct Case {
    measure: &'static str,
    model: &'static str,
    shape: [usize; 2],
    clients: u16,
    ways: &'static [Way],
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    if args.peers {
        peers::folders()?;
    }
    let run = Run::begin("serve", args.common);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // As a program of their own would, the clients keep off the threads of the server.
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let files = fetch::model_files()?;
    let models = ModelRepository::builder().workers(usize::from(args.workers)).threads_per_worker(1);
    let models = models.tokenizer(sentences::MODEL, files.tokenizer()).start()?;
    sentences::add(&models, &files)?;
    let (small, large) = (graph(SMALL)?, graph(WIDTH)?);
    models.add("small", Model::Graph(small.clone()))?;
    models.add("large", Model::Graph(large.clone()))?;
    let direct = |graph: &TracedGraph| -> Result<JitTaskWrapper> {
        Ok(JitTaskWrapper::on(models.pool(), graph)?.batch(Batching::default()))
    };
    let wrappers = [("small", direct(&small)?), ("large", direct(&large)?)];
    let server = Server::new(Service::builder(models.clone()).build());
    let running = runtime.block_on(async { server.http("127.0.0.1:0").grpc("127.0.0.1:0").start() })?;
    let (rows, sentences) = clients.block_on(async {
        let rows = measured(&args, &running, &wrappers).await?;
        let http = running.http_address().context("HTTP has no address")?;
        let contestants = if args.peers { 3 + peers::PEERS.len() } else { 3 };
        let progress = Progress::new(usize::from(args.length().0) * contestants);
        let sentences = sentences::measure(&args, models.pool(), &files, http, &progress).await?;
        let left = running.shut_down().await;
        ensure!(left == 0, "{left} calls are left");
        Ok::<_, anyhow::Error>((rows, sentences))
    })?;
    let of = |measure: &str, way: Way| {
        let found = rows.iter().find(|row| row.measure == measure && row.way == way.name());
        found.with_context(|| format!("there is no row of `{measure}` and `{}`", way.name()))
    };
    let paced = of("latency", Way::DirectPaced)?.p50_us;
    let added = |way: Way| Ok::<_, anyhow::Error>(of("latency", way)?.p50_us - paced);
    let mut targets = vec![
        Target::at_most("what HTTP adds to a paced call, at the median, in µs", 100.0, added(Way::HttpJson)?),
        Target::at_most("what gRPC adds to a paced call, at the median, in µs", 80.0, added(Way::Grpc)?),
        Target::at_most(
            "20000 small requests per second over HTTP, of those measured",
            1.0,
            20_000.0 / of("throughput", Way::HttpBinary)?.per_second,
        ),
        Target::at_most(
            "half of the direct throughput of 4 MiB tensors, of that over HTTP",
            1.0,
            0.5 / of("large", Way::HttpBinary)?.ratio,
        ),
    ];
    targets.extend(sentences::targets(&sentences));
    let mut table =
        Table::new(["measure", "way", ">clients", ">calls", ">p50, µs", ">p99, µs", ">calls/s", ">of direct"]);
    for row in &rows {
        table.row([
            row.measure.to_owned(),
            row.way.to_owned(),
            row.clients.to_string(),
            row.calls.to_string(),
            format!("{:.0}", row.p50_us),
            format!("{:.0}", row.p99_us),
            format!("{:.0}", row.per_second),
            format!("{:.2}", row.ratio),
        ]);
    }
    let notes =
        "Server, clients and workers share the machine. `of direct`: calls per second, compared with the wrapper.";
    let tables = [table, sentences::table(&sentences)];
    let rows: Vec<_> =
        rows.into_iter().map(AnyRow::Calls).chain(sentences.into_iter().map(AnyRow::Sentences)).collect();
    run.finish(&args, &rows, &targets, &tables, notes)
}

async fn measured(args: &Args, running: &Running, wrappers: &[(&str, JitTaskWrapper)]) -> Result<Vec<Row>> {
    let large_rows = if args.common.quick { 16 } else { 1024 };
    let cases = [
        Case { measure: "latency", model: "small", shape: [1, SMALL], clients: 1, ways: &Way::ALL },
        Case { measure: "throughput", model: "small", shape: [1, SMALL], clients: args.clients, ways: &Way::CALLS },
        Case {
            measure: "large",
            model: "large",
            shape: [large_rows, WIDTH],
            clients: LARGE_CLIENTS,
            ways: &Way::BINARY,
        },
    ];
    let http = running.http_address().context("HTTP has no address")?;
    let grpc = running.grpc_address().context("gRPC has no address")?;
    let (rounds, time) = args.length();
    let progress = Progress::new(usize::from(rounds) * cases.iter().map(|case| case.ways.len()).sum::<usize>());
    let mut rows = Vec::new();
    for case in &cases {
        let wrapper = wrappers.iter().find(|(model, _)| *model == case.model);
        let (_, wrapper) = wrapper.with_context(|| format!("there is no wrapper of `{}`", case.model))?;
        let mut sums: Vec<Sum> = case.ways.iter().map(|_| Sum::default()).collect();
        for _ in 0..rounds {
            for (&way, sum) in case.ways.iter().zip(&mut sums) {
                let clients = clients::connect(way, case, http, grpc, wrapper).await?;
                load::run(clients, time, sum).await?;
                progress.step(way.name());
            }
        }
        let per_second = |sum: &Sum| sum.calls as f64 / sum.time.as_secs_f64();
        let direct = sums.first().map_or(f64::NAN, per_second);
        for (way, sum) in case.ways.iter().zip(sums) {
            let summary = sum.samples.summary();
            rows.push(Row {
                measure: case.measure,
                way: way.name(),
                bytes: case.shape.iter().product::<usize>() * 4,
                clients: case.clients,
                calls: sum.calls,
                p50_us: summary.p50_us,
                p99_us: summary.p99_us,
                per_second: per_second(&sum),
                ratio: per_second(&sum) / direct,
            });
        }
    }
    Ok(rows)
}
