//! Actors: processes that load a pipeline once, serve many calls, and have their own state.

use anyhow::{Context, Result, bail, ensure};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::{ActorWrapper, CallError, Error, LocalPool, Pipeline, TaskWrapper, gather};
use serde::{Deserialize, Serialize};

/// Shares a model once and loads it in this process, in actors, and in a process that only has a
/// handle
///
/// The report at the end shows that all processes read the same weights (`shared`), and that none
/// has its own copy (`private` stays far below the size of the weights for any number of actors).
#[derive(Parser)]
#[command(after_help = "Try --actors 8, or --mib 512, and read the line `sum` of the report.")]
struct Args {
    /// Number of actors
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..))]
    actors: u16,
    /// Approximate size of the weights, in MiB
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(32..))]
    mib: u16,
}

#[derive(Pipeline)]
struct Recommender {
    #[pipeline(config)]
    config: RecommenderConfig,
    layers: Vec<Linear>,
    #[pipeline(skip)]
    seen: Vec<String>, // the state of one actor
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct RecommenderConfig {
    layers: usize,
}

/// 1024 x 1024 weights of four bytes are 4 MiB.
const WIDTH: usize = 1024;

impl RecommenderConfig {
    fn init(&self, device: &Device) -> Recommender {
        let layers = (0..self.layers).map(|_| LinearConfig::new(WIDTH, WIDTH).init(device)).collect();
        Recommender { config: self.clone(), layers, seen: Vec::new() }
    }
}

#[ray_zerocopy::remote]
impl Recommender {
    /// Returns a score for each row of `x`.
    pub fn score(&self, x: Tensor<2>) -> Tensor<1> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x)).mean_dim(1).squeeze_dim(1)
    }

    /// Changes the state of one actor. Methods that take `&mut self` are available only on actors.
    pub fn see(&mut self, title: String) -> usize {
        self.seen.push(title);
        self.seen.len()
    }

    /// Returns what this actor has seen.
    pub fn seen(&self) -> Vec<String> {
        self.seen.clone()
    }

    /// Aborts the process of this actor, as a fault in native code would.
    pub fn crash(&self) {
        std::process::abort()
    }
}

/// Represents another program: it has the model's type, and receives only a handle.
#[derive(Pipeline)]
#[pipeline(init = Visitor::new)]
struct Visitor;

/// The report of that program.
#[derive(Debug, Serialize, Deserialize)]
struct Postcard {
    pid: u32,
    arena: String,
    copied_weights: usize,
    score: f32,
}

#[ray_zerocopy::remote]
impl Visitor {
    pub fn new(_device: &Device) -> Self {
        Self
    }

    /// Loads the pipeline from a handle. A handle is an ordinary argument of a few bytes; the
    /// weights are borrowed.
    pub fn visit(&self, handle: ActorWrapper<Recommender>) -> std::result::Result<Postcard, String> {
        let recommender = handle.load().map_err(|error| error.to_string())?;
        let score = recommender.score(Tensor::ones([1, WIDTH], &Device::flex())).into_scalar();
        let copied_weights = recommender.copied().len();
        Ok(Postcard { pid: std::process::id(), arena: handle.arena().id().to_string(), copied_weights, score })
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    let device = Device::flex();
    let config = RecommenderConfig { layers: usize::from(args.mib) / 4 };
    let shared = ActorWrapper::new(&config.init(&device))?.device("cpu")?;
    let arena = shared.arena();
    println!("arena {}: {} MiB of weights, written once", arena.id(), arena.stored_bytes() >> 20);

    let x = Tensor::<2>::ones([4, WIDTH], &device);
    let here = shared.load()?;
    ensure!(here.copied().is_empty(), "weights were copied into this process: {:?}", here.copied());
    let expected = here.score(x.clone()).into_data();
    println!("loaded in this process too: no weight was copied");

    let actors = shared.spawn(args.actors.into())?;
    for score in gather(actors.iter().map(|actor| actor.score(x.clone()))).wait()? {
        ensure!(score.into_data() == expected, "an actor returns another result");
    }
    println!("{} actors give the same answer, bit for bit", actors.actor_count());

    let (first, second) = (actors.actor(0), actors.actor(1));
    gather(["Solaris", "Stalker"].map(|title| first.see(title.to_owned()))).wait()?;
    second.see("Mirror".to_owned()).wait()?;
    let (of_first, of_second) = (first.seen().wait()?, second.seen().wait()?);
    println!("actor 0 has seen {of_first:?}, actor 1 {of_second:?}");
    ensure!(of_first == ["Solaris", "Stalker"] && of_second == ["Mirror"], "actors share their state");

    let visitor = TaskWrapper::on(&LocalPool::builder().workers(1).start()?, &Visitor)?;
    let postcard = visitor.visit(shared.clone()).wait()?.map_err(anyhow::Error::msg)?;
    println!("a process that got the handle writes: {postcard:?}");
    ensure!(
        postcard.pid != std::process::id() && postcard.arena == arena.id().to_string(),
        "another handle was received"
    );
    ensure!(postcard.copied_weights == 0, "the visitor copied weights");

    let report = actors.report()?;
    println!("\n{report}\n");
    for process in report.processes.iter().skip(1) {
        ensure!(process.private < report.arena / 2, "{} has a copy of the weights", process.name);
        ensure!(process.copied == 0, "{} copied weights", process.name);
    }

    let error = first.crash().wait().err().context("a crash must be an error")?;
    let Error::Call(CallError::WorkerDied { worker, .. }) = &error else {
        bail!("expected `WorkerDied`, found: {error}")
    };
    println!("{error}");
    ensure!(first.seen().wait()?.is_empty(), "the state of {worker} survived the crash");
    ensure!(second.seen().wait()? == ["Mirror"], "the crash of {worker} affected another actor");
    println!("actor 0 is back, with nothing seen; actor 1 is as it was");
    Ok(())
}
