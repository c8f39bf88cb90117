//! What `rzc` takes: commands, options, and the words of `--help`. Does nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

const EXIT: &str = "\
Exit status:
  0  all is well: what was asked for is done; nothing is damaged; nothing differs
  1  `verify` found damage, or `diff` found a difference
  2  an error: a file that is missing or of another kind, wrong options";

/// Pack, inspect, verify and compare weights, and see which processes share them
///
/// A FILE is a saved arena, a packed checkpoint, a `.safetensors`, a `.bpk`, the
/// `.safetensors.index.json` of a sharded checkpoint, or a folder that has one of them. The arena of
/// a running process is a FILE too: `/proc/PID/fd/N`.
#[derive(Debug, Parser)]
#[command(name = "rzc", bin_name = "rzc", version, about, after_help = EXIT, verbatim_doc_comment)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Pack(Pack),
    Inspect(Inspect),
    Verify(Verify),
    Ps(Ps),
    Diff(Diff),
    Run(Run),
    Graph(Graph),
    Worker(Worker),
    Completions(Completions),
    Man(Man),
}

/// Write a checkpoint as one file that can be borrowed where it is
///
/// Every tensor is aligned to 256 bytes, equal tensors are stored once, and each has a BLAKE3
/// checksum. The file is read and written a part at a time, and appears under its name when it is
/// complete. Open it with `Checkpoint::open`, and put it into a pipeline with `share_from`.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Pack {
    /// The checkpoint
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub input: PathBuf,
    /// Where to write; FILE with the extension `.bpk` if it is not said
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Replace the output if it is there
    #[arg(short, long)]
    pub force: bool,
    /// Rename tensors: where the regular expression FROM matches, TO takes its place
    ///
    /// `$1` in TO is the first group of FROM. Several renames apply one after the other.
    #[arg(long, value_name = "FROM=TO", value_parser = rename)]
    pub rename: Vec<(String, String)>,
    /// Cast floating point tensors to this type
    #[arg(long, value_enum)]
    pub floats: Option<Floats>,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Show what is in a file of weights
///
/// Reads what the file says of itself, not the weights. Tensors that lie in the same place are marked.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Inspect {
    /// The file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub file: PathBuf,
    /// Show only tensors and copied fields whose path matches
    ///
    /// `*` is any text, `?` any one character; a pattern without either matches anywhere in a path.
    #[arg(short, long, value_name = "PATTERN")]
    pub tensors: Option<String>,
    /// Show every tensor, not the first 40
    #[arg(short, long)]
    pub all: bool,
    /// Print one JSON object, for programs, with every tensor that matches
    #[arg(long)]
    pub json: bool,
}

/// Compare every byte with its checksum
///
/// Saved arenas and packed checkpoints have checksums. Other files have none: of them the structure
/// is checked, and it is said that bytes that were changed would not be found.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Verify {
    /// The files
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Show which processes have which arena mapped, what they cost, and what sharing saves
///
/// Looks at the processes of this user, or at all of them for root. The figures are the kernel's:
/// shared is the arena's Rss, private is Anonymous, saved is the arena's Rss less its Pss.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Ps {
    /// Look again every so many seconds, until Ctrl-C
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub watch: Option<f64>,
    /// Print one JSON object, for programs; with --watch one on each line
    #[arg(long)]
    pub json: bool,
}

/// Compare the tensors of two files
///
/// Tensors are compared by their paths: those that one file lacks, those of another shape or type,
/// and those of other content. Content is compared by checksum where both files have one, else byte
/// by byte. Copied fields count if both files are arenas of a pipeline.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Diff {
    /// One file
    #[arg(value_name = "A", value_hint = ValueHint::AnyPath)]
    pub left: PathBuf,
    /// The other file
    #[arg(value_name = "B", value_hint = ValueHint::AnyPath)]
    pub right: PathBuf,
    /// Read floating point tensors that differ, and tell how far apart their values are
    ///
    /// Also those of different types. For each: the largest absolute difference, and how many
    /// values differ.
    #[arg(long, verbatim_doc_comment)]
    pub values: bool,
    /// Show every difference, not the first 40
    #[arg(short, long)]
    pub all: bool,
    /// Print one JSON object, for programs, with every difference
    #[arg(long)]
    pub json: bool,
}

/// Run a traced graph, or a TorchScript module, on tensors from files
///
/// A graph is what `jit::trace` has recorded and `save` has written; a module is what `torch.jit.save` has written,
/// if this `rzc` was built with the feature `torchscript`. Inputs and outputs are `.npy` files, as numpy writes them.
/// `rzc inspect GRAPH` shows what the graph takes and gives.
///
///     rzc run model.rzg --input x.npy --output y.npy
///     rzc run model.rzg --input ids=ids.npy --input mask=mask.npy --output hidden=h.npy
///     rzc run vad.jit --method audio_forward --input x=audio.npy --input sr=16000 --output speech.npy
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Run {
    /// The graph, or the module
    #[arg(value_name = "GRAPH", value_hint = ValueHint::FilePath)]
    pub graph: PathBuf,
    /// The method of a TorchScript module; `forward` if nothing is said
    #[arg(short, long, value_name = "NAME")]
    pub method: Option<String>,
    /// An input: its name, and the file; the name may be left out if the graph has one input
    ///
    /// A number that a TorchScript module takes may stand in the place of the file: `--input sr=16000`.
    #[arg(short, long, value_name = "[NAME=]FILE", value_parser = named)]
    pub input: Vec<(Option<String>, PathBuf)>,
    /// Where to write an output; what is not written is described
    #[arg(short, long, value_name = "[NAME=]FILE", value_parser = named)]
    pub output: Vec<(Option<String>, PathBuf)>,
    /// Where to compute: `cpu`, `cuda:0`, `wgpu:0`, `libtorch:cuda:0`; what this `rzc` was built with
    #[arg(short, long, default_value = "cpu")]
    pub device: String,
    /// Replace outputs that are there
    #[arg(short, long)]
    pub force: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Show the operations of a traced graph, as a list or as a picture
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Graph {
    /// The graph
    #[arg(value_name = "GRAPH", value_hint = ValueHint::FilePath)]
    pub graph: PathBuf,
    /// Draw it into this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    /// Leave out what only looks at a tensor in another way: reshapes, transpositions and the like
    #[arg(long)]
    pub compute: bool,
    /// Show every operation, not the first 40
    #[arg(short, long)]
    pub all: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Be a worker process; started by programs, not by hand
///
/// A program that runs graphs starts it with `Local::builder().program("rzc")`, or with
/// `JitActorWrapper::program("rzc")`. It needs nothing of that program: graphs bring all of their code.
#[derive(Debug, Args)]
pub(crate) struct Worker {}

/// Print a script that completes commands and options
///
/// For bash: `rzc completions bash > ~/.local/share/bash-completion/completions/rzc`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Print the man page, or write one for each command
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write `rzc.1`, `rzc-pack.1` and so on into this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

/// A floating point type.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Floats {
    /// Half precision
    F16,
    /// Half precision with the range of f32
    Bf16,
    /// Single precision
    F32,
}

fn rename(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("FROM=TO is expected, as in `^bert\\.=encoder.`".to_owned()),
    }
}

fn named(text: &str) -> Result<(Option<String>, PathBuf), String> {
    match text.split_once('=') {
        Some(("", _) | (_, "")) => Err("NAME=FILE is expected, or FILE alone".to_owned()),
        Some((name, file)) => Ok((Some(name.to_owned()), file.into())),
        None => Ok((None, text.into())),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match (0.1..=86_400.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("from 0.1 to 86400 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Arguments, rename, seconds};

    #[test]
    fn clap_finds_nothing_wrong_with_it() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(rename("^a=b=c"), Ok(("^a".to_owned(), "b=c".to_owned())));
        assert_eq!(rename("a="), Ok(("a".to_owned(), String::new())));
        assert!(rename("=b").is_err() && rename("b").is_err());
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(["0", "-1", "nan", "inf", "x", "1e9"].iter().all(|text| seconds(text).is_err()));
    }
}
