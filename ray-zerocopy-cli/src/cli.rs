//! The command line of `rzc`: commands, options, and the text of `--help`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use ray_zerocopy::Checkpoint;
use ray_zerocopy::checkpoint::CheckpointOptions;

use crate::cli_graph::{Compile, Graph, Profile};
use crate::cli_serve::Serve;
use crate::values::{bytes, fuse, not_empty, rename, seconds, split};

pub(crate) const EXIT: &str = "\
Exit status:
  0  success: the command is done, no damage was found, no difference was found
  1  `verify` found damage, or `diff` found a difference
  2  an error: a missing file, a file of another format, or wrong options";

/// Pack, inspect, verify and compare weights, and see which processes share them
///
/// A FILE is a saved arena, a packed checkpoint, a `.safetensors` or `.bpk` file, a `.pt`, `.pth`,
/// `.ckpt` or `.bin` file of PyTorch, the `.index.json` of a sharded checkpoint, or a folder that
/// contains one of them. The arena of a running process is a FILE too: `/proc/PID/fd/N`. The pickle
/// in a file of PyTorch is parsed as data and never executed.
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
    Variant(Variant),
    Inspect(Inspect),
    Verify(Verify),
    Ps(Ps),
    Hold(Hold),
    Drop(Drop),
    Swap(Swap),
    Diff(Diff),
    Run(Run),
    Compile(Compile),
    Graph(Graph),
    Profile(Profile),
    Serve(Serve),
    Worker(Worker),
    Completions(Completions),
    Man(Man),
}

/// Write a checkpoint as one file that can be borrowed in place
///
/// Every tensor is aligned to 256 bytes, equal tensors are stored once, and each has a BLAKE3
/// checksum. The file is read and written in parts, and gets its name when it is complete. Open it
/// with `Checkpoint::open`, and load it into a pipeline with `share_from`.
///
/// Tensors are changed in this order: --rename, --transpose, --split, --fuse, --tie. Each option
/// may be given several times, and its names are those after the preceding changes.
///
///     rzc pack bert.bin --rename '^bert\.=encoder.' --rename 'gamma$=weight' --rename 'beta$=bias'
///     rzc pack gpt2 --transpose '(c_attn|c_proj|c_fc)\.weight$' --tie lm_head.weight=wte.weight
///     rzc pack m.pth --split 'in_proj_(weight|bias)=query.$1,key.$1,value.$1'
#[allow(rustdoc::invalid_rust_codeblocks, reason = "indented text is formatted for `--help`, which prints it verbatim")]
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Pack {
    /// The checkpoint
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub input: PathBuf,
    /// The output file; by default FILE with the extension `.bpk`
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    /// Rename tensors: replace matches of the regular expression FROM with TO
    ///
    /// `$1` in TO is the first group of FROM; write `${1}` if a letter, a digit or `_` follows.
    /// Several renames apply one after the other.
    #[arg(long, value_name = "FROM=TO", value_parser = rename, verbatim_doc_comment)]
    pub rename: Vec<(String, String)>,
    /// Transpose the matrices whose name matches, such as the weights of GPT-2's Conv1D
    #[arg(long, value_name = "PATTERN")]
    pub transpose: Vec<String>,
    /// Split tensors by rows: replace matches of the regular expression FROM with each TO
    ///
    /// All parts have the same number of rows:
    /// `--split 'in_proj_(weight|bias)=query.$1,key.$1,value.$1'`
    #[arg(long, value_name = "FROM=TO,TO", value_parser = split, verbatim_doc_comment)]
    pub split: Vec<(String, Vec<String>)>,
    /// Concatenate tensors by rows: replace matches of each FROM with TO
    ///
    /// Tensors that get the same name become parts of one tensor, in the order of FROM:
    /// `--fuse 'query\.(weight|bias),key\.(weight|bias),value\.(weight|bias)=qkv.$1'`
    #[arg(long, value_name = "FROM,FROM=TO", value_parser = fuse, verbatim_doc_comment)]
    pub fuse: Vec<(Vec<String>, String)>,
    /// Give a tensor a second name; its data is stored once
    ///
    /// For an output layer that is tied to the embedding:
    /// `--tie lm_head.weight=model.embed_tokens.weight`
    #[arg(long, value_name = "NAME=TENSOR", value_parser = rename, verbatim_doc_comment)]
    pub tie: Vec<(String, String)>,
    #[command(flatten)]
    pub source: Source,
    /// Cast floating-point tensors to this type
    #[arg(long, value_enum)]
    pub floats: Option<Floats>,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Write the difference of an arena from another one
///
/// The variant stores the tensors and copied fields of TUNED that BASE does not have, and names BASE by
/// its id. Contents are compared by checksum, so both files are saved arenas or packed checkpoints.
/// `Arena::open_variant` opens it, and borrows the rest from the memory of BASE. Other commands read it
/// with --base.
///
///     rzc variant base.bpk tuned.bpk -o tuned.variant.bpk
///     rzc verify tuned.variant.bpk --base base.bpk
#[allow(rustdoc::invalid_rust_codeblocks, reason = "indented text is formatted for `--help`, which prints it verbatim")]
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Variant {
    /// The base
    #[arg(value_name = "BASE", value_hint = ValueHint::FilePath)]
    pub of: PathBuf,
    /// The arena that becomes a variant
    #[arg(value_name = "TUNED", value_hint = ValueHint::FilePath)]
    pub tuned: PathBuf,
    /// The output file
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub bases: Bases,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// The bases of variants.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bases {
    /// The base of a file that is a variant
    ///
    /// If the base is a variant too, name its own base first: `--base base.bpk --base tuned.bpk`.
    #[arg(id = "base", long, value_name = "FILE", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub files: Vec<PathBuf>,
}

/// Show the contents of a file of weights
///
/// Reads the metadata, not the weights. Tensors that share their storage are marked. For a file of
/// PyTorch, the tensors of its state dict are shown; if it has several, --key selects one.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Inspect {
    /// The file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub file: PathBuf,
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub bases: Bases,
    /// Show only tensors and copied fields whose path matches
    ///
    /// `*` matches any text, `?` any one character. A pattern without either matches anywhere in a
    /// path.
    #[arg(short, long, value_name = "PATTERN")]
    pub tensors: Option<String>,
    /// Show every tensor, not the first 40
    #[arg(short, long)]
    pub all: bool,
    /// Print one JSON object, for programs, with every tensor that matches
    #[arg(long)]
    pub json: bool,
}

/// Verify every byte against its checksum
///
/// Saved arenas and packed checkpoints have checksums. Other files, including those of PyTorch, do
/// not: only their structure is checked, and a note says that changed bytes would not be detected.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Verify {
    /// The files
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub bases: Bases,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Selects weights of a file or folder that contains several.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// The key of the state dict in a file of PyTorch: `ema`, `model.generator`
    ///
    /// Required if the file has several. All tensors below the key are read. The empty key is the
    /// top level.
    #[arg(long, value_name = "KEY", verbatim_doc_comment)]
    pub key: Option<String>,
    /// The variant of the weights in a folder: `fp16` for `model.fp16.safetensors`
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
}

impl Source {
    /// Converts to the options of the library.
    pub(crate) fn options(&self) -> CheckpointOptions {
        let options = Checkpoint::options();
        let options = self.key.iter().fold(options, |options, key| options.key(key));
        self.variant.iter().fold(options, |options, variant| options.variant(variant))
    }
}

/// Show which processes map which arena, their memory, what sharing saves, and who holds what
///
/// Examines the processes of this user, or all processes for root. The figures are the kernel's:
/// shared is the arena's Rss, private is Anonymous, saved is the arena's Rss minus its Pss.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Ps {
    /// Repeat every SECONDS seconds, until Ctrl-C
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub watch: Option<f64>,
    /// Print one JSON object, for programs; with --watch one on each line
    #[arg(long)]
    pub json: bool,
}

/// Keep arenas in memory for other programs, until Ctrl-C or SIGTERM
///
/// Programs of this user that open one of the files with `Arena::shared`, or a file of the same
/// content, get this memory instead of a copy of their own. Without a holder, an arena ends with the
/// last program that uses it. `rzc ps` shows who holds what, and `rzc drop` lets an arena go.
///
/// As a service of systemd it may have no FILE: it also keeps what systemd has stored for it.
///
///     rzc hold minilm.bpk vad.rzg --limit 8G
#[allow(rustdoc::invalid_rust_codeblocks, reason = "indented text is formatted for `--help`, which prints it verbatim")]
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Hold {
    /// The files: saved arenas, packed checkpoints, graphs, and variants
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// The base of those that are variants, which is kept too
    ///
    /// If the base is a variant too, name its own base first: `--base base.bpk --base tuned.bpk`.
    #[arg(long = "base", value_name = "FILE", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub bases: Vec<PathBuf>,
    /// The most that may be kept: `512M`, `8G`; by default there is no limit
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub limit: Option<u64>,
    /// If a file does not fit the limit, let the arena go that was least recently asked for
    #[arg(long)]
    pub evict: bool,
}

/// Let arenas go that `rzc hold` keeps
///
/// Their memory returns when no program uses them any more.
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Drop {
    /// The files, or the first digits of the ids that `rzc ps` shows
    #[arg(required = true, value_name = "FILE|ID", value_hint = ValueHint::FilePath)]
    pub arenas: Vec<String>,
}

/// Give running programs new weights, without a restart and without a failed call
///
/// Every program of this user that follows NAME, with `tasks.follow("speech")` for example, gets the arena of
/// FILE: one copy in memory for all of them. Each swaps between two calls, or says why it keeps its weights.
/// `rzc ps` lists the names that programs follow.
///
///     rzc swap speech tuned.bpk
///     rzc swap speech tuned.variant.bpk --base speech.bpk
#[allow(rustdoc::invalid_rust_codeblocks, reason = "indented text is formatted for `--help`, which prints it verbatim")]
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Swap {
    /// The name that the programs follow
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The new weights: a saved arena, a variant, a graph
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    #[command(flatten)]
    pub bases: Bases,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Compare the tensors of two files
///
/// Tensors are matched by path. Reported are tensors that one file lacks, and those whose shape,
/// type or content differs. Content is compared by checksum if both files have one, otherwise byte
/// by byte. Copied fields are compared if both files are arenas of a pipeline.
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
    #[command(flatten)]
    pub bases: Bases,
    /// Compare the values of floating-point tensors that differ
    ///
    /// Tensors of different types are compared too. Reported are the largest absolute difference
    /// and the number of values that differ.
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
/// A graph is recorded by `jit::trace` and written by its `save`. A module is written by
/// `torch.jit.save`; running it requires an `rzc` that was built with the feature `torchscript`.
/// Inputs and outputs are `.npy` files, as numpy writes them. `rzc inspect GRAPH` shows the inputs
/// and outputs of the graph.
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
    /// The method of a TorchScript module; by default `forward`
    #[arg(short, long, value_name = "NAME")]
    pub method: Option<String>,
    /// An input: its name and file; the name may be omitted if the graph has one input
    ///
    /// For an argument of a TorchScript module that is a number, write the number instead of the
    /// file: `--input sr=16000`. Text before a `=` is a name if the graph has an input of this
    /// name; `./a=b.npy` is always a file.
    #[arg(short, long, value_name = "[NAME=]FILE", value_parser = not_empty, verbatim_doc_comment)]
    pub input: Vec<String>,
    /// The file for an output; other outputs are only described
    #[arg(short, long, value_name = "[NAME=]FILE", value_parser = not_empty)]
    pub output: Vec<String>,
    /// The device: `cpu`, `cuda:0`, `wgpu:0`, `libtorch:cuda:0`, if this `rzc` was built with it
    #[arg(short, long, default_value = "cpu")]
    pub device: String,
    /// Replace outputs that exist
    #[arg(short, long)]
    pub force: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Run as a worker process; started by programs, not by hand
///
/// A program that runs graphs starts it with `LocalPool::builder().program("rzc")`, or with
/// `JitActorWrapper::program("rzc")`. It does not depend on that program: a graph contains all of
/// its code.
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

/// A floating-point type.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Floats {
    /// Half precision
    F16,
    /// Half precision with the range of f32
    Bf16,
    /// Single precision
    F32,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn command_is_valid() {
        Arguments::command().debug_assert();
    }
}
