//! Measures how many sentences per second a real model embeds in one worker, in two, and in one
//! process without workers.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use benches::child::{ChildRpc, serve, this_program};
use benches::corpora::{self, Corpus};
use benches::machine::{processor_ms_of, rollup};
use benches::stats::{self, Ratio};
use benches::{Common, Progress, Run, Table, Target};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::{ActorWrapper, Actors};
use ray_zerocopy_examples::minilm::fetch;
use ray_zerocopy_examples::search::{Search, embed_all};
use serde::{Deserialize, Serialize};

/// Sentences per second with all-MiniLM-L6-v2, as the example `semantic_search` embeds them.
///
/// The contestants are one worker of one thread, two of them, one worker of two threads, and one
/// process of two threads with its own model. They take turns within each round: each embeds a
/// whole corpus. One corpus has bundled sentences in random order, the other has texts of one to
/// eight sentences. All contestants must return the same vectors up to rounding, since one worker
/// and two have different batches.
#[derive(Parser, Serialize)]
#[command(name = "search", after_help = "cargo run --release -p benches --bin search -- --json")]
struct Args {
    /// Number of rounds
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Number of texts of the first corpus; the second has a third as many
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u16).range(1..))]
    texts: u16,
    /// Seed of the corpora
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Run as the process without workers
    #[arg(long, hide = true)]
    #[serde(skip)]
    alone: bool,
}

/// Limit for rounding differences. The numbers of a vector are about 0.05.
const TOLERANCE: f32 = 1e-5;

/// A contestant.
enum Way {
    Workers(Box<Actors<Search>>),
    Alone(Box<ChildRpc>),
}

/// A request to the process without workers.
#[derive(Serialize, Deserialize)]
struct Request {
    texts: Vec<String>,
    /// Whether to return the vectors.
    vectors: bool,
}

/// Its response.
#[derive(Serialize, Deserialize)]
struct Response {
    seconds: f64,
    vectors: Vec<f32>,
}

/// The name of each contestant, its number of workers, and the threads of each process.
const CONTESTANTS: [(&str, usize, usize); 4] = [
    ("one worker", 1, 1),
    ("two workers", 2, 1),
    ("one worker of two threads", 1, 2),
    ("one process of two threads", 0, 2),
];
const ONE: usize = 0;
const TWO: usize = 1;
const ALONE: usize = 3;

#[derive(Serialize)]
struct Row {
    corpus: &'static str,
    texts: usize,
    ways: Vec<WayRow>,
    two_workers_over_one: f64,
    /// The same if both had had a core of their own: twice the ratio of sentences per second of CPU
    /// time. Other processes increase the elapsed time, and that of two workers more than that of
    /// one.
    two_workers_over_one_processor: f64,
    /// Compared with one process without workers.
    two_workers_over_two_threads: f64,
    outputs_equal: bool,
}

#[derive(Serialize)]
struct WayRow {
    name: &'static str,
    workers: usize,
    threads: usize,
    sentences_per_s_median: f64,
    sentences_per_s_range: (f64, f64),
    /// Per second of CPU time of the workers, or of the process.
    sentences_per_processor_s_median: f64,
    /// Sentences per second in units of one worker's.
    #[serde(flatten)]
    ratio: Ratio,
    /// Of the largest process, after this corpus.
    anonymous_mib_max: f64,
    /// Largest difference from the vectors of the process without workers.
    difference_max: f32,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.alone {
        return alone();
    }
    if args.common.quick {
        (args.rounds, args.texts) = (2, 12);
    }
    let run = Run::begin("search", args.common);
    let rounds = usize::from(args.rounds);
    let texts = usize::from(args.texts);
    let corpora = [corpora::sentences(texts, args.seed), corpora::mixed(texts.div_ceil(3), args.seed)];
    let progress = Progress::new(1 + corpora.len() * (rounds + 1));

    progress.step("loading the model");
    let search = Search::open(&fetch::model_files()?, &Device::flex())?;
    let arena = ActorWrapper::new(&search)?.strict().arena().clone();
    drop(search);
    let mut ways = Vec::new();
    for (_, workers, threads) in CONTESTANTS {
        ways.push(match workers {
            0 => {
                let mut program = this_program();
                program.arg("--alone").env("RAYON_NUM_THREADS", threads.to_string());
                Way::Alone(Box::new(ChildRpc::start(&mut program)?))
            }
            workers => {
                let shared = ActorWrapper::<Search>::from_arena(arena.clone()).strict().threads_per_worker(threads);
                Way::Workers(Box::new(shared.spawn(workers)?))
            }
        });
    }
    let mut rows = Vec::new();
    for corpus in &corpora {
        rows.push(measure(corpus, &mut ways, rounds, &progress)?);
    }
    for way in ways {
        if let Way::Alone(process) = way {
            process.end()?;
        }
    }
    drop(progress);

    let notes = format!(
        "Medians of {rounds} rounds; `x` in units of one worker, with quartiles of the rounds. Anonymous: private memory of\n\
         the largest process. Workers borrow the model; the process without workers has its own.\n\
         Per processor second: by CPU time, which other processes affect less."
    );
    run.finish(&args, &rows, &targets(&rows), &[table(&rows)], &notes)?;
    ensure!(rows.iter().all(|row| row.outputs_equal), "outputs differ");
    Ok(())
}

fn measure(corpus: &Corpus, ways: &mut [Way], rounds: usize, progress: &Progress) -> Result<Row> {
    let texts = corpus.texts.len();
    let mut seconds = vec![Vec::new(); ways.len()];
    let mut processor = vec![Vec::new(); ways.len()];
    let mut vectors = Vec::new();
    // The first round is a warm-up, and its vectors are compared.
    for round in 0..=rounds {
        progress.step(corpus.name);
        for turn in 0..ways.len() {
            let index = (round + turn) % ways.len();
            let before = ways[index].processor_ms()?;
            let (took, found) = ways[index].embed(&corpus.texts, round == 0)?;
            let processor_ms = ways[index].processor_ms()? - before;
            match found {
                Some(found) => vectors.push(found),
                None => {
                    seconds[index].push(took);
                    processor[index].push(processor_ms / 1e3);
                }
            }
        }
    }
    let alone = vectors.get(ALONE).context("one of the ways has no vectors")?;
    let rates = |seconds: Vec<Vec<f64>>| -> Vec<Vec<_>> {
        seconds.into_iter().map(|all| all.into_iter().map(|seconds| texts as f64 / seconds).collect()).collect()
    };
    let (rates, per_processor) = (rates(seconds), rates(processor));
    let mut rows = Vec::new();
    for (index, (name, workers, threads)) in CONTESTANTS.into_iter().enumerate() {
        rows.push(WayRow {
            name,
            workers,
            threads,
            sentences_per_s_median: stats::median(&rates[index]),
            sentences_per_s_range: stats::range(&rates[index]),
            sentences_per_processor_s_median: stats::median(&per_processor[index]),
            ratio: Ratio::of(&rates[index], &rates[ONE]),
            anonymous_mib_max: ways[index].anonymous_mib()?,
            difference_max: stats::difference_max(alone, &vectors[index]),
        });
    }
    Ok(Row {
        corpus: corpus.name,
        texts,
        two_workers_over_one: rows[TWO].ratio.ratio,
        two_workers_over_one_processor: 2.0 * Ratio::of(&per_processor[TWO], &per_processor[ONE]).ratio,
        two_workers_over_two_threads: Ratio::of(&rates[TWO], &rates[ALONE]).ratio,
        outputs_equal: rows.iter().all(|way| way.difference_max < TOLERANCE),
        ways: rows,
    })
}

impl Way {
    /// Embeds texts. Returns the duration in seconds and, if requested, the vectors.
    fn embed(&mut self, texts: &[String], vectors: bool) -> Result<(f64, Option<Vec<f32>>)> {
        match self {
            Self::Workers(actors) => {
                let begun = Instant::now();
                let found = embed_all(actors.actor_count(), texts, |texts| actors.embed(texts), |_| ())?;
                let seconds = begun.elapsed().as_secs_f64();
                Ok((seconds, if vectors { Some(numbers(found)?) } else { None }))
            }
            Self::Alone(process) => {
                let response: Response = process.call(&Request { texts: texts.to_vec(), vectors })?;
                Ok((response.seconds, vectors.then_some(response.vectors)))
            }
        }
    }

    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Workers(actors) => actors.workers().iter().map(|worker| worker.pid).collect(),
            Self::Alone(process) => vec![process.pid()],
        }
    }

    fn processor_ms(&self) -> Result<f64> {
        self.pids().into_iter().map(processor_ms_of).sum()
    }

    fn anonymous_mib(&self) -> Result<f64> {
        let mut most = 0;
        for pid in self.pids() {
            most = most.max(rollup(pid, "Anonymous")?);
        }
        Ok(stats::mib(most))
    }
}

fn numbers(vectors: Tensor<2>) -> Result<Vec<f32>> {
    vectors.into_data().try_into_vec().map_err(|error| anyhow::anyhow!("the vectors are not f32: {error:?}"))
}

/// Runs the process without workers, which has its own model.
fn alone() -> Result<()> {
    let search = Search::open(&fetch::model_files()?, &Device::flex())?;
    serve(|Request { texts, vectors }: Request| {
        let begun = Instant::now();
        let found = search.embed(texts).map_err(anyhow::Error::msg)?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Response { seconds, vectors: if vectors { numbers(found)? } else { Vec::new() } })
    })
}

fn targets(rows: &[Row]) -> Vec<Target> {
    let target = |row: &Row| {
        let what = format!("{}: two workers' time in units of one worker's", row.corpus);
        Target::at_most(what, 1.0 / 1.7, 1.0 / row.two_workers_over_one)
    };
    rows.iter().map(target).collect()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "corpus",
        "texts",
        "who",
        "sentences/s",
        "per processor second",
        "in units of one worker",
        "anonymous",
        "difference",
    ]);
    for (row, way) in rows.iter().flat_map(|row| row.ways.iter().map(move |way| (row, way))) {
        let (low, high) = way.sentences_per_s_range;
        table.row([
            row.corpus.to_owned(),
            row.texts.to_string(),
            way.name.to_owned(),
            format!("{:.0} ({low:.0}..{high:.0})", way.sentences_per_s_median),
            format!("{:.0}", way.sentences_per_processor_s_median),
            way.ratio.to_string(),
            format!("{:.1} MiB", way.anonymous_mib_max),
            format!("{:.0e}", way.difference_max),
        ]);
    }
    table
}
