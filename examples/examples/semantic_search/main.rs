//! Searches a text file by meaning, with worker processes that share one copy of the model. See
//! `--help`.

mod alone;
mod corpus;
mod options;
mod outcome;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ray_zerocopy::report::Report;
use ray_zerocopy::{ActorWrapper, Actors, Pipeline, Remote};
use ray_zerocopy_examples::compiled_search::CompiledSearch;
use ray_zerocopy_examples::minilm::fetch;
use ray_zerocopy_examples::search::{Embeddings, Search, embed_all};

use corpus::Corpus;
use options::Options;
use outcome::{Hit, Hits, Outcome};

fn main() -> Result<()> {
    ray_zerocopy::init();
    let options = Options::parse();
    if options.alone {
        return alone::be();
    }
    // The output is opened before the model is fetched and run, so that a wrong path fails early.
    let corpus = options.input.as_deref().map_or_else(|| Ok(Corpus::bundled()), Corpus::read)?;
    let mut file = options.embeddings.as_deref().map(create).transpose()?;
    let files = fetch::model_files()?;
    if options.fetch_only {
        eprintln!("the model is in {}", files.folder().display());
        return Ok(());
    }
    let workers = usize::from(options.workers);
    let threads = options.threads.map(usize::from);

    let Searched { embeddings, hits, sentences_per_s, report, model_bytes } = match options.compile() {
        None => {
            let search = Search::open(&files, &Device::flex())?;
            run(ActorWrapper::new(&search)?, search, &corpus, &options, |actors, texts| actors.embed(texts))?
        }
        Some(compile) => {
            let search = CompiledSearch::open(&files, compile)?;
            run(ActorWrapper::new(&search)?, search, &corpus, &options, |actors, texts| actors.embed(texts))?
        }
    };

    if let (Some(file), Some(path)) = (&mut file, &options.embeddings) {
        write_embeddings(file, &corpus.lines, &embeddings).with_context(|| unwritten(path))?;
    }
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let threads = threads.unwrap_or((cores / workers).max(1));
    let alone = if options.no_compare { None } else { Some(alone::measure(threads)?) };

    let outcome = Outcome {
        workers,
        corpus: corpus.name,
        sentences: corpus.lines.len(),
        model_bytes,
        sentences_per_s,
        hits,
        report,
        alone,
    };
    let text = if options.json {
        format!("{}\n", serde_json::to_string_pretty(&outcome.json())?)
    } else {
        outcome.to_string()
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader of standard output has closed it, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// What the workers have found.
struct Searched {
    embeddings: Tensor<2>,
    hits: Vec<Hits>,
    sentences_per_s: f64,
    report: Report,
    model_bytes: u64,
}

/// Starts the workers of a pipeline, embeds the corpus and answers the queries. `embed` calls its method `embed`.
fn run<P: Pipeline + Remote>(
    mut shared: ActorWrapper<P>,
    pipeline: P,
    corpus: &Corpus,
    options: &Options,
    embed: fn(&Actors<P>, Vec<String>) -> Embeddings,
) -> Result<Searched> {
    // The weights are in the arena: this process does not need its own copy.
    drop(pipeline);
    shared = shared.device(&options.device)?;
    if let Some(threads) = options.threads {
        shared = shared.threads_per_worker(threads.into());
    }
    let actors = shared.spawn(options.workers.into())?;
    let embed = |texts| embed(&actors, texts);
    let begun = Instant::now();
    let embeddings = embed_with_bar(actors.actor_count(), &corpus.lines, !options.json, &embed)?;
    let sentences_per_s = corpus.lines.len() as f64 / begun.elapsed().as_secs_f64();
    let hits = answer(&corpus.lines, &embeddings, options, &embed)?;
    let (report, model_bytes) = (actors.report()?, shared.arena().weight_bytes());
    Ok(Searched { embeddings, hits, sentences_per_s, report, model_bytes })
}

/// Embeds all sentences as `[sentences, 384]`, with a progress bar.
fn embed_with_bar(
    workers: usize,
    lines: &[String],
    visible: bool,
    embed: &impl Fn(Vec<String>) -> Embeddings,
) -> Result<Tensor<2>> {
    let bar = if visible { ProgressBar::new(lines.len() as u64) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("embedding {bar:30} {pos}/{len} sentences, {per_sec}, {eta} left")?;
    bar.set_style(style);
    let embeddings = embed_all(workers, lines, embed, |sentences| bar.inc(sentences as u64))?;
    bar.finish_and_clear();
    Ok(embeddings)
}

/// Finds the nearest sentences of each query by cosine similarity.
fn answer(
    lines: &[String],
    embeddings: &Tensor<2>,
    options: &Options,
    embed: &impl Fn(Vec<String>) -> Embeddings,
) -> Result<Vec<Hits>> {
    let queries = options.queries();
    if queries.is_empty() {
        return Ok(Vec::new());
    }
    let asked = embed(queries.clone()).wait()?.map_err(anyhow::Error::msg)?;
    let scores = asked.matmul(embeddings.clone().transpose()).into_data();
    let scores: Vec<f32> = scores.iter().collect();
    let answers = queries.into_iter().zip(scores.chunks(lines.len())).map(|(query, scores)| {
        let mut order: Vec<usize> = (0..lines.len()).filter(|&at| !lines[at].trim().is_empty()).collect();
        order.sort_by(|&left, &right| scores[right].total_cmp(&scores[left]));
        let hits = order.into_iter().take(options.top);
        let hits = hits.map(|at| Hit { score: scores[at], line: at + 1, text: lines[at].clone() }).collect();
        Hits { query, hits }
    });
    Ok(answers.collect())
}

/// Opens the file for the embeddings. Its contents are kept until the embeddings are written.
fn create(path: &Path) -> Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(path);
    file.with_context(|| unwritten(path))
}

fn unwritten(path: &Path) -> String {
    format!("the embeddings could not be written to {}", path.display())
}

fn write_embeddings(file: &mut File, lines: &[String], embeddings: &Tensor<2>) -> Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    let width = embeddings.dims()[1];
    let values: Vec<f32> = embeddings.to_data().iter().collect();
    let mut out = std::io::BufWriter::new(file);
    let rows: Vec<_> = lines
        .iter()
        .zip(values.chunks(width))
        .map(|(text, embedding)| serde_json::json!({"text": text, "embedding": embedding}))
        .collect();
    serde_json::to_writer(&mut out, &rows)?;
    out.flush()?;
    Ok(())
}
