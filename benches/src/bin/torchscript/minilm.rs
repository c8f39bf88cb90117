//! Measures MiniLM in burn on LibTorch, compared with PyTorch.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use benches::child::{self, ChildRpc, this_program};
use benches::stats::{Ratio, median};
use benches::{Progress, Table};
use burn::tensor::{Device, Int, Tensor, TensorData};
use ray_zerocopy::{ActorWrapper, Loaded};
use ray_zerocopy_examples::corpus;
use ray_zerocopy_examples::minilm::{fetch, tokenize};
use ray_zerocopy_examples::search::Search;
use serde::{Deserialize, Serialize};

use crate::Args;

/// Sentences of a batch.
const BATCH: usize = 32;
/// Limit for rounding differences. The numbers of a vector are about 0.05.
const TOLERANCE: f32 = 1e-5;

#[derive(Serialize)]
pub struct Row {
    way: &'static str,
    threads: usize,
    sentences: usize,
    sentences_per_s_median: f64,
    /// Seconds in units of PyTorch's.
    #[serde(flatten)]
    ratio: Ratio,
    outputs_equal: bool,
}

/// The request to both: batches of sentences as token ids. The sentences of a batch have one
/// length.
#[derive(Serialize, Deserialize, Clone)]
struct Request {
    weights: PathBuf,
    threads: usize,
    batches: Vec<Vec<Vec<u32>>>,
    /// Whether to return the vectors of the first batch.
    vectors: bool,
}

#[derive(Serialize, Deserialize)]
struct Response {
    seconds: f64,
    vectors: Vec<f32>,
}

/// Batches sentences of equal length, so that neither contestant has to pad.
fn batches() -> Result<Vec<Vec<Vec<u32>>>> {
    let files = fetch::model_files()?;
    let tokens = tokenize::token_ids(&tokenize::load(&files.tokenizer())?, &corpus::sentences())?;
    let mut by_length: Vec<Vec<Vec<u32>>> = Vec::new();
    let mut tokens = tokens;
    tokens.sort_by_key(Vec::len);
    for sentence in tokens {
        match by_length.last_mut() {
            Some(batch) if batch[0].len() == sentence.len() && batch.len() < BATCH => batch.push(sentence),
            _ => by_length.push(vec![sentence]),
        }
    }
    Ok(by_length)
}

pub fn measure(args: &Args, python: &Path, progress: &Progress) -> Result<Vec<Row>> {
    let files = fetch::model_files()?;
    let mut request = Request { weights: files.weights(), threads: args.threads, batches: batches()?, vectors: true };
    let threads = args.threads.to_string();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/minilm_torch.py");
    let mut ours = this_program();
    ours.arg("--burn").env("RAYON_NUM_THREADS", &threads).env("OMP_NUM_THREADS", &threads);
    let mut theirs = Command::new(python);
    theirs.arg(script).env("OMP_NUM_THREADS", &threads);
    let mut ways = [ChildRpc::start(&mut theirs)?, ChildRpc::start(&mut ours)?];
    // The first run is a warm-up.
    let responses = ways.iter_mut().map(|way| way.call::<Response>(&request)).collect::<Result<Vec<_>>>();
    let responses = responses.context("is it a Python with torch, safetensors and numpy?")?;
    let differences = responses[0].vectors.iter().zip(&responses[1].vectors).map(|(one, other)| (one - other).abs());
    let largest = differences.fold(0.0, f32::max);
    ensure!(
        !responses[0].vectors.is_empty() && largest < TOLERANCE,
        "burn's vectors differ from PyTorch's by {largest}"
    );
    request.vectors = false;
    let mut seconds = [Vec::new(), Vec::new()];
    for round in 0..args.rounds {
        progress.step(format!("MiniLM: round {}", round + 1));
        for (way, seconds) in ways.iter_mut().zip(&mut seconds) {
            seconds.push(way.call::<Response>(&request)?.seconds);
        }
    }
    let sentences = request.batches.iter().map(Vec::len).sum::<usize>();
    let row = |at: usize, way| Row {
        way,
        threads: args.threads,
        sentences,
        sentences_per_s_median: sentences as f64 / median(&seconds[at]),
        ratio: Ratio::of(&seconds[at], &seconds[0]),
        outputs_equal: true,
    };
    let rows = vec![row(0, "PyTorch"), row(1, "burn on LibTorch, weights borrowed")];
    ways.into_iter().try_for_each(ChildRpc::end)?;
    Ok(rows)
}

/// Runs the process that runs MiniLM in burn, with weights borrowed from an arena.
pub fn serve() -> Result<()> {
    let search = Search::open(&fetch::model_files()?, &Device::flex())?;
    let shared = ActorWrapper::new(&search)?.strict();
    drop(search);
    let loaded: Loaded<Search> = shared.load_on("libtorch")?;
    let device = ray_zerocopy::device("libtorch")?;
    child::serve(|request: Request| {
        let begun = Instant::now();
        let mut first = Vec::new();
        for (at, batch) in request.batches.iter().enumerate() {
            let numbers: Vec<i64> = batch.iter().flatten().map(|&token| i64::from(token)).collect();
            let ids = TensorData::new(numbers, [batch.len(), batch[0].len()]);
            let vectors = loaded.encoder.forward(Tensor::<2, Int>::from_data(ids, &device), None).into_data();
            if at == 0 && request.vectors {
                first = vectors.iter::<f32>().collect();
            }
        }
        Ok(Response { seconds: begun.elapsed().as_secs_f64(), vectors: first })
    })
}

pub fn table(rows: &[Row]) -> Option<Table> {
    let mut table = Table::new(["MiniLM", "threads", "sentences", "sentences/s", "x"]);
    for row in rows {
        table.row([
            row.way.to_owned(),
            row.threads.to_string(),
            row.sentences.to_string(),
            format!("{:.0}", row.sentences_per_s_median),
            row.ratio.to_string(),
        ]);
    }
    (!rows.is_empty()).then_some(table)
}
