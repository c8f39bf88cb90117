//! Measures a call to another process, compared with the lower bound for one.

mod pool;
mod small;
mod streams;
mod tensors;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Result;
use benches::{Common, Progress, Run};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use ray_zerocopy::Pipeline;
use serde::Serialize;
use tracing_subscriber::util::SubscriberInitExt;

/// Calls of tasks and actors, compared with a socket pair and with memcpy.
///
/// A small call is compared with 64 bytes that another process echoes through a socket pair, where
/// both sides block in `read`. A tensor that is sent and returned is compared with one `memcpy` of
/// as many bytes, into memory that is already in use and into fresh memory, which the kernel has to
/// allocate and clear first. Contestants take turns within each round. Then the throughput of a
/// pool is measured: many calls are started, and then all are awaited.
///
/// The first item of a stream is compared with a small call. Streams of items of 64 bytes are read
/// as fast as they arrive, and one is read slowly, with a buffer of 8: the worker has to stop when
/// it is that far ahead, and the program fails otherwise.
#[derive(Parser, Serialize)]
#[command(name = "calls", after_help = "cargo run --release -p benches --bin calls -- --json")]
struct Args {
    /// Number of rounds
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Small calls of each kind in a round
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Size of the tensor that is sent, in MiB
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    tensor_mib: u32,
    /// Trace all calls: a subscriber keeps each span until it ends
    #[arg(long)]
    traced: bool,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Run as the peer of the socket pair, which is the standard input
    #[arg(long, hide = true)]
    #[serde(skip)]
    echo: bool,
}

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    head: Linear,
    /// The result of [`Model::exchange`], created by its first call.
    #[pipeline(skip)]
    kept: OnceLock<Tensor<1>>,
}

#[ray_zerocopy::remote]
impl Model {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { head: LinearConfig::new(8, 8).init(device), kept: OnceLock::new() }
    }

    /// Does almost nothing, so the duration is that of the call.
    pub fn next(&self, number: u64) -> u64 {
        number + 1
    }

    /// Returns its argument.
    pub fn echo(&self, x: Tensor<1>) -> Tensor<1> {
        x
    }

    /// Returns another tensor of the same size, which is in this process's heap.
    pub fn exchange(&self, x: Tensor<1>) -> Tensor<1> {
        self.kept.get_or_init(|| numbers(x.dims()[0], 1.0)).clone()
    }

    /// Keeps a core busy.
    pub fn work(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    /// Returns texts, one after the other.
    #[remote(stream)]
    pub fn texts(&self, count: usize) -> impl Iterator<Item = String> {
        std::iter::repeat_n(streams::TEXT.to_owned(), count)
    }

    /// Returns texts, and writes a byte into a file for each one that it has made.
    #[remote(stream)]
    pub fn noted_texts(&self, count: usize, file: PathBuf) -> impl Iterator<Item = Result<String, String>> {
        let mut made = File::create(file);
        (0..count).map(move |_| -> Result<String, String> {
            let made = made.as_mut().map_err(|error| error.to_string())?;
            made.write_all(b".").map_err(|error| error.to_string())?;
            Ok(streams::TEXT.to_owned())
        })
    }
}

/// Creates a tensor of `first`, `first + 1` and so on, rounded to `f32`.
fn numbers(count: usize, first: f32) -> Tensor<1> {
    let numbers: Vec<_> = (0..count).map(|index| index as f32 + first).collect();
    Tensor::from_data(TensorData::new(numbers, [count]), &Device::flex())
}

/// A row of any measurement; the field `measure` names it.
#[derive(Serialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
enum Row {
    SmallCall(small::Row),
    Tensor(tensors::Row),
    Pool(pool::Row),
    FirstItem(streams::FirstItem),
    Stream(streams::Stream),
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.echo {
        return small::echo();
    }
    if args.traced {
        tracing_subscriber::registry().try_init()?;
    }
    if args.common.quick {
        (args.rounds, args.calls, args.tensor_mib) = (2, args.calls.min(20), 1);
    }
    let run = Run::begin("calls", args.common);
    let progress = Progress::new(2 * usize::from(args.rounds) + pool::steps(args.rounds) + streams::steps(args.rounds));
    let model = Model::new(&Device::flex());
    let small = small::measure(&model, &args, &progress)?;
    let tensors = tensors::measure(&model, &args, &progress)?;
    let pool = pool::measure(&model, &args, &progress)?;
    let streams = streams::measure(&model, &args, &progress)?;
    drop(progress);

    let [first_items, throughput] = streams::tables(&streams);
    let tables = [small::table(&small), tensors::table(&tensors), pool::table(&pool), first_items, throughput];
    let targets: Vec<_> = small::targets(&small).chain(tensors::targets(&tensors)).collect();
    let rows = small.into_iter().map(Row::SmallCall).chain(tensors.into_iter().map(Row::Tensor));
    let rows = rows.chain(pool.into_iter().map(Row::Pool));
    let rows = rows.chain(streams.first_items.into_iter().map(Row::FirstItem));
    let rows: Vec<_> = rows.chain(streams.streams.into_iter().map(Row::Stream)).collect();
    let notes = "Medians; `x` in units of the socket pair or of `memcpy`: median and quartiles of the rounds.\n\
                 Reading a result: one pass over it, which maps its pages; this is not part of the call.\n\
                 Calls and items per second: median, minimum and maximum of the rounds.\n\
                 Ahead: the most items that were made and not read. The worker holds one more than the buffer.";
    run.finish(&args, &rows, &targets, &tables, notes)
}
