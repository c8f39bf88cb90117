//! The options of `rzc compile`, `rzc graph` and `rzc profile`.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use crate::cli::EXIT;
use crate::values::{not_empty, ratio};

/// Show the operations of a traced graph, as a list or as a picture
///
/// In a picture, operations are in groups, by the paths of their weights: `encoder.layer.0.attention`.
/// Repeated groups are drawn once, as in `×6`. The HTML page needs no other file and no network: a
/// click opens and closes a group or shows an operation's weights, the wheel zooms, and it can be
/// searched.
///
///     rzc graph minilm.rzg --svg minilm.svg
///     rzc graph minilm.compiled.rzg --html minilm.html
#[allow(rustdoc::invalid_rust_codeblocks, reason = "indented text is formatted for `--help`, which prints it verbatim")]
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Graph {
    /// The graph
    #[arg(value_name = "GRAPH", value_hint = ValueHint::FilePath)]
    pub graph: PathBuf,
    /// Draw it into this file, as SVG
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    /// Draw it into this file, as a page for a browser
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub html: Option<PathBuf>,
    /// Show every operation: also those that only view a tensor, and in the list more than 40
    ///
    /// In a picture, unrolled loops, such as those of an LSTM, are closed groups without it.
    #[arg(short, long)]
    pub all: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Measure the time and the bytes of each operation of a traced graph
///
/// Runs the graph on tensors from files, as `rzc run` does, and lists the median time of each operation,
/// the slowest first, and the sums for each kind. Bytes are those of operands and results; an embedding
/// reads the rows that it selects. Operations that depend on weights only are evaluated once, before the
/// runs, and are not listed.
///
/// With --html, the picture of `rzc graph` has the times of groups and operations, red by their share.
///
///     rzc profile minilm.rzg --input ids=ids.npy --input padding=padding.npy
///     rzc profile minilm.compiled.rzg -i ids=ids.npy -i padding=padding.npy --runs 100 --html profile.html
#[allow(rustdoc::invalid_rust_codeblocks, reason = "indented text is formatted for `--help`, which prints it verbatim")]
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Profile {
    /// The graph
    #[arg(value_name = "GRAPH", value_hint = ValueHint::FilePath)]
    pub graph: PathBuf,
    /// An input: its name and file; the name may be omitted if the graph has one input
    #[arg(short, long, value_name = "[NAME=]FILE", value_parser = not_empty)]
    pub input: Vec<String>,
    /// The number of runs that are measured, after one that is not
    #[arg(short, long, value_name = "N", default_value = "20")]
    pub runs: NonZero<usize>,
    /// The device: `cpu`, `cuda:0`, `wgpu:0`, if this `rzc` was built with it
    #[arg(short, long, default_value = "cpu")]
    pub device: String,
    /// Draw the graph with its times into this file, as a page for a browser
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub html: Option<PathBuf>,
    /// Show every operation, not the 40 slowest
    #[arg(short, long)]
    pub all: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Pack the weights of a traced graph for the CPU, and fuse operations
///
/// The result is a graph like any other: `rzc run`, workers and the Python wheel take it. Its weights lie in the file
/// as the kernels read them, so workers share them and rearrange nothing. It runs on `cpu` only.
///
/// Results differ from those of the graph by the order of sums, about 1e-6 of the largest number, and with weights of
/// fewer bits by more. With inputs and a bound, the layers that change the outputs most stay in 32 bits, as many as it
/// takes to keep the bound on these inputs.
///
///     rzc compile minilm.rzg                       # writes minilm.compiled.rzg
///     rzc compile minilm.rzg --weights int8 -o minilm.int8.rzg
///     rzc compile minilm.rzg --weights int8 -i ids=ids.npy -i padding=padding.npy --most-error 0.05
#[allow(rustdoc::invalid_rust_codeblocks, reason = "indented text is formatted for `--help`, which prints it verbatim")]
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Compile {
    /// The graph
    #[arg(value_name = "GRAPH", value_hint = ValueHint::FilePath)]
    pub graph: PathBuf,
    /// The output file; by default GRAPH with the extension `.compiled.rzg`
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// The numbers that the weights of linear layers are stored in
    #[arg(short, long, value_enum, default_value = "f32")]
    pub weights: StoredWeights,
    /// Scales for each block of this many rows of an 8-bit weight: more exact, and slower
    #[arg(long, value_name = "ROWS")]
    pub blocks: Option<usize>,
    /// The path of a weight that stays in 32 bits
    #[arg(long, value_name = "PATH", value_parser = not_empty)]
    pub keep: Vec<String>,
    /// Inputs to measure the error on: a file for each input of the graph, and then those of the next sample
    #[arg(short, long, value_name = "[NAME=]FILE", value_parser = not_empty, requires = "most_error")]
    pub input: Vec<String>,
    /// How much the outputs may change on these inputs: the norm of the change in units of their norm
    #[arg(long, value_name = "RATIO", requires = "input", value_parser = ratio)]
    pub most_error: Option<f64>,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Numbers that weights of a compiled graph are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoredWeights {
    /// 32-bit floats
    F32,
    /// 16-bit floats; sums are in 32 bits
    Bf16,
    /// 8-bit integers with scales
    Int8,
    /// 4-bit integers with scales, for large models and few rows
    Int4,
    /// Weights as they are: only removes operations, and changes no bit of the results
    Exact,
}
