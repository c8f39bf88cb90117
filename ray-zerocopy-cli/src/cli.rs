//! What `rzc` takes: commands, options, and the words of `--help`. Does nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use ray_zerocopy::Checkpoint;
use ray_zerocopy::checkpoint::CheckpointOptions;

const EXIT: &str = "\
Exit status:
  0  all is well: what was asked for is done; nothing is damaged; nothing differs
  1  `verify` found damage, or `diff` found a difference
  2  an error: a file that is missing or of another kind, wrong options";

/// Pack, inspect, verify and compare weights, and see which processes share them
///
/// A FILE is a saved arena, a packed checkpoint, a `.safetensors`, a `.bpk`, a `.pt`, `.pth`, `.ckpt`
/// or `.bin` of PyTorch, the `.index.json` of a sharded checkpoint, or a folder that has one of them.
/// The arena of a running process is a FILE too: `/proc/PID/fd/N`. The pickle in a file of PyTorch is
/// read as data: nothing of it is run.
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
///
/// What changes tensors applies in this order: --rename, --transpose, --split, --fuse, --tie. Each may
/// be given several times, and names are those after the changes before it.
///
///     rzc pack bert.bin --rename '^bert\.=encoder.' --rename 'gamma$=weight' --rename 'beta$=bias'
///     rzc pack gpt2 --transpose '(c_attn|c_proj|c_fc)\.weight$' --tie lm_head.weight=wte.weight
///     rzc pack m.pth --split 'in_proj_(weight|bias)=query.$1,key.$1,value.$1'
#[allow(rustdoc::invalid_rust_codeblocks, reason = "what is indented is for `--help`, which shows it as it stands")]
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
    /// `$1` in TO is the first group of FROM; write `${1}` if a letter, a digit or `_` follows.
    /// Several renames apply one after the other.
    #[arg(long, value_name = "FROM=TO", value_parser = rename, verbatim_doc_comment)]
    pub rename: Vec<(String, String)>,
    /// Transpose the matrices whose name matches, as the weights of GPT-2's Conv1D
    #[arg(long, value_name = "PATTERN")]
    pub transpose: Vec<String>,
    /// Split tensors by rows: where the regular expression FROM matches, each TO takes its place
    ///
    /// All parts have the same number of rows:
    /// `--split 'in_proj_(weight|bias)=query.$1,key.$1,value.$1'`
    #[arg(long, value_name = "FROM=TO,TO", value_parser = split, verbatim_doc_comment)]
    pub split: Vec<(String, Vec<String>)>,
    /// Put tensors together by rows: where one of FROM matches, TO takes its place
    ///
    /// Those that get the same name are parts of one tensor, in the order of FROM:
    /// `--fuse 'query\.(weight|bias),key\.(weight|bias),value\.(weight|bias)=qkv.$1'`
    #[arg(long, value_name = "FROM,FROM=TO", value_parser = fuse, verbatim_doc_comment)]
    pub fuse: Vec<(Vec<String>, String)>,
    /// Give a tensor a second name, which is stored once
    ///
    /// For an output layer that is tied to the embedding:
    /// `--tie lm_head.weight=model.embed_tokens.weight`
    #[arg(long, value_name = "NAME=TENSOR", value_parser = rename, verbatim_doc_comment)]
    pub tie: Vec<(String, String)>,
    #[command(flatten)]
    pub source: Source,
    /// Cast floating point tensors to this type
    #[arg(long, value_enum)]
    pub floats: Option<Floats>,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Show what is in a file of weights
///
/// Reads what the file says of itself, not the weights. Tensors that lie in the same place are marked. A
/// file of PyTorch shows the tensors of its state dict; if it has several, --key chooses one.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Inspect {
    /// The file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub file: PathBuf,
    #[command(flatten)]
    pub source: Source,
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
/// Saved arenas and packed checkpoints have checksums. Other files, those of PyTorch too, have none: of
/// them the structure is checked, and it is said that bytes that were changed would not be found.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Verify {
    /// The files
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub source: Source,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Which weights of a file or folder are meant, if there are several.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// The key under which a file of PyTorch has its state dict: `ema`, `model.generator`
    ///
    /// It is needed if the file has several. All tensors below it are taken. The empty key is the top.
    #[arg(long, value_name = "KEY", verbatim_doc_comment)]
    pub key: Option<String>,
    /// The variant of the weights in a folder: `fp16` for `model.fp16.safetensors`
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
}

impl Source {
    /// The library's own options.
    pub(crate) fn options(&self) -> CheckpointOptions {
        let options = Checkpoint::options();
        let options = self.key.iter().fold(options, |options, key| options.key(key));
        self.variant.iter().fold(options, |options, variant| options.variant(variant))
    }
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
    #[command(flatten)]
    pub source: Source,
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
    /// What stands in front of a `=` is a name if the graph has it; `./a=b.npy` is always a file.
    #[arg(short, long, value_name = "[NAME=]FILE", value_parser = not_empty, verbatim_doc_comment)]
    pub input: Vec<String>,
    /// Where to write an output; what is not written is described
    #[arg(short, long, value_name = "[NAME=]FILE", value_parser = not_empty)]
    pub output: Vec<String>,
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
/// A program that runs graphs starts it with `LocalPool::builder().program("rzc")`, or with
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

fn split(text: &str) -> Result<(String, Vec<String>), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && to.split(',').all(|name| !name.is_empty()) => {
            Ok((from.to_owned(), to.split(',').map(str::to_owned).collect()))
        }
        _ => Err("FROM=TO,TO is expected, as in `qkv=query,key,value`".to_owned()),
    }
}

fn fuse(text: &str) -> Result<(Vec<String>, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !to.is_empty() && from.split(',').all(|name| !name.is_empty()) => {
            Ok((from.split(',').map(str::to_owned).collect(), to.to_owned()))
        }
        _ => Err("FROM,FROM=TO is expected, as in `query,key,value=qkv`".to_owned()),
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') || text.ends_with('=') {
        return Err("NAME=FILE is expected, or FILE alone".to_owned());
    }
    Ok(text.to_owned())
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

    use super::{Arguments, fuse, not_empty, rename, seconds, split};

    #[test]
    fn clap_finds_nothing_wrong_with_it() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(rename("^a=b=c"), Ok(("^a".to_owned(), "b=c".to_owned())));
        assert_eq!(rename("a="), Ok(("a".to_owned(), String::new())));
        assert!(rename("=b").is_err() && rename("b").is_err());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(split("a(b)=$1,c"), Ok(("a(b)".to_owned(), names(&["$1", "c"]))));
        assert_eq!(fuse("a,b=c"), Ok((names(&["a", "b"]), "c".to_owned())));
        assert!(["a", "a=", "a=b,", "=b"].iter().all(|text| split(text).is_err()));
        assert!(["a", "a=", "a,=b", "=b"].iter().all(|text| fuse(text).is_err()));
        assert!(not_empty("a=b=c").is_ok() && ["", "=a", "a="].iter().all(|text| not_empty(text).is_err()));
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(["0", "-1", "nan", "inf", "x", "1e9"].iter().all(|text| seconds(text).is_err()));
    }
}
