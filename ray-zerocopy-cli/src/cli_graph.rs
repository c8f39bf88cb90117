//! The options of `rzc graph` and `rzc profile`.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::cli::EXIT;
use crate::values::not_empty;

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
