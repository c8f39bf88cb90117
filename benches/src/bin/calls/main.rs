//! What a call to another process costs, beside the least that it could cost.

mod pool;
mod small;
mod tensors;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Result;
use benches::{Common, Progress, Run};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use ray_zerocopy::Pipeline;
use serde::Serialize;

/// Calls as tasks and as calls of an actor, beside what the kernel and the memory cost anyway.
///
/// A small call is compared with 64 bytes that another process sends back through a bare socket pair, where both sides
/// block in `read`. A tensor that travels there and back is compared with one `memcpy` of as many bytes, into memory that
/// is in use already and into fresh memory, which the kernel has to find and clear first. Contestants take turns
/// within each round. Then the throughput of a pool: many calls are made, and all of them waited for.
#[derive(Parser, Serialize)]
#[command(name = "calls", after_help = "cargo run --release -p benches --bin calls -- --json")]
struct Args {
    /// How many rounds.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Small calls of each kind in a round.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// The size of the tensor that travels, in MiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    tensor_mib: u32,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Be the other end of the socket pair, which is the standard input.
    #[arg(long, hide = true)]
    #[serde(skip)]
    echo: bool,
}

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    head: Linear,
    /// What [`Model::exchange`] gives, made with its first call.
    #[pipeline(skip)]
    kept: OnceLock<Tensor<1>>,
}

#[ray_zerocopy::remote]
impl Model {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { head: LinearConfig::new(8, 8).init(device), kept: OnceLock::new() }
    }

    /// Next to nothing: what remains is the call.
    pub fn next(&self, number: u64) -> u64 {
        number + 1
    }

    /// The tensor that came.
    pub fn echo(&self, x: Tensor<1>) -> Tensor<1> {
        x
    }

    /// Another tensor, as large as the one that came, which is in this process's heap.
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
}

/// `first`, `first + 1` and so on, as far as `f32` can tell them apart.
fn numbers(count: usize, first: f32) -> Tensor<1> {
    let numbers: Vec<_> = (0..count).map(|index| index as f32 + first).collect();
    Tensor::from_data(TensorData::new(numbers, [count]), &Device::flex())
}

/// All figures, told apart by the field `measure`.
#[derive(Serialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
enum Row {
    SmallCall(small::Row),
    Tensor(tensors::Row),
    Pool(pool::Row),
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.echo {
        return small::echo();
    }
    if args.common.quick {
        (args.rounds, args.calls, args.tensor_mib) = (2, args.calls.min(20), 1);
    }
    let run = Run::begin("calls", args.common);
    let progress = Progress::new(2 * usize::from(args.rounds) + pool::steps(args.rounds));
    let model = Model::new(&Device::flex());
    let small = small::measure(&model, &args, &progress)?;
    let tensors = tensors::measure(&model, &args, &progress)?;
    let pool = pool::measure(&model, &args, &progress)?;
    drop(progress);

    let tables = [small::table(&small), tensors::table(&tensors), pool::table(&pool)];
    let targets: Vec<_> = small::targets(&small).chain(tensors::targets(&tensors)).collect();
    let rows = small.into_iter().map(Row::SmallCall).chain(tensors.into_iter().map(Row::Tensor));
    let rows: Vec<_> = rows.chain(pool.into_iter().map(Row::Pool)).collect();
    let notes = "Medians; `x` in units of the socket pair or of `memcpy`: the median of the rounds, and the middle half of them.\n\
                 Reading a result: one pass over it, which maps its pages; a call is over before that.\n\
                 Calls per second: the median of the rounds, the lowest and the highest.";
    run.finish(&args, &rows, &targets, &tables, notes)
}
