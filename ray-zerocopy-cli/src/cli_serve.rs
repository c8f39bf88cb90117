//! The options of `rzc serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use crate::cli::EXIT;
use crate::values::{bytes, not_empty, seconds};

/// Serve models over HTTP and gRPC, on one copy of their weights
///
/// A MODEL is a traced graph, a compiled one, or a TorchScript module. Its name is that of the file
/// without its extension, or the one before the `=`. Workers are processes that borrow the weights.
///
///     rzc serve minilm.rzg vad=silero.jit --workers 4
///     curl localhost:8000/v2/models/minilm                    # inputs and outputs
///     curl localhost:8000/v2/models/minilm/infer -d '{"inputs":
///       [{"name": "ids", "shape": [1, 2], "datatype": "INT32", "data": [101, 102]}, …]}'
///
/// HTTP has KServe v2 (Open Inference Protocol) with JSON and binary tensors, and gRPC has the same,
/// so that Triton's clients work. With a file `minilm.tokenizer.json` beside the graph, or with
/// --tokenizer, `POST /v1/embeddings` embeds texts, in OpenAI's form:
///
///     curl localhost:8000/v1/embeddings -H 'Content-Type: application/json' \
///       -d '{"model": "minilm", "input": "How do trains stop?"}'
///
/// A model is loaded again, without a failed call, when its file changes, on SIGHUP, and by
/// `POST /v2/repository/models/NAME/load`. The new file must answer an example first: the inputs of
/// the first call, or zeros. If it does not, or cannot be read, the old one stays, and a line on
/// standard error says so. With --folder, clients may load and unload the models of that folder, and
/// no others.
///
/// On SIGTERM and SIGINT, `/v2/health/ready` turns false, further calls are refused with 503, and those in flight end
/// first. A second signal ends it at once. A full queue is 429, a passed deadline 504; a
/// request may ask for a shorter one than --timeout, with the header `X-Request-Timeout-Ms`.
///
/// With --otlp, each request is a span, as part of the trace that its header `traceparent` names, with
/// the call, its time in the queue, its batch and the worker inside of it.
#[allow(rustdoc::invalid_rust_codeblocks, reason = "indented text is formatted for `--help`, which prints it verbatim")]
#[derive(Debug, Args)]
#[command(after_help = EXIT, verbatim_doc_comment)]
pub(crate) struct Serve {
    /// The models
    #[arg(value_name = "[NAME=]MODEL", value_parser = not_empty, value_hint = ValueHint::FilePath)]
    pub models: Vec<String>,
    /// A folder from which clients may load models: `NAME.rzg`, or `NAME/model.rzg`, and so on
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folder: Option<PathBuf>,
    /// The tokenizer of a model; NAME may be omitted if there is one model
    #[arg(long, value_name = "[NAME=]FILE", value_parser = not_empty, value_hint = ValueHint::FilePath)]
    pub tokenizer: Vec<String>,
    /// Number of worker processes; by default one for each core
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: Option<u16>,
    /// Number of threads of each worker; by default the cores divided by the workers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// The device of the workers, if this `rzc` was built with it: `cpu`, `cuda:0`, `wgpu:0`
    #[arg(short, long, default_value = "cpu")]
    pub device: String,
    /// The address to listen at; `0.0.0.0` is all of this machine
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: String,
    /// The port of HTTP, where gRPC is available too; 0 is any free one
    #[arg(short, long, default_value_t = 8000)]
    pub port: u16,
    /// The port of gRPC alone; 0 is any free one
    #[arg(long, default_value_t = 8001)]
    pub grpc_port: u16,
    /// Most rows of a batch, into which waiting calls are put together; 1 runs each call alone
    #[arg(long, default_value_t = 64, value_name = "ROWS")]
    pub max_batch: usize,
    /// Most calls that wait or run; a further one is refused with 429
    #[arg(long, default_value_t = 1024, value_name = "CALLS")]
    pub max_calls: usize,
    /// Most bytes of all requests that wait or run: `1G`
    #[arg(long, default_value = "1G", value_name = "SIZE", value_parser = bytes)]
    pub max_bytes: u64,
    /// Most bytes of one request; a larger one is refused with 413
    #[arg(long, default_value = "256M", value_name = "SIZE", value_parser = bytes)]
    pub max_request: u64,
    /// Most connections; further ones are closed
    #[arg(long, default_value_t = 4096, value_name = "N")]
    pub max_connections: usize,
    /// Longest duration of a call, including its time in the queue
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: f64,
    /// Time in which a client must send its headers, and then its body
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub receive_timeout: f64,
    /// A file with bearer tokens, one on each line, of which a client needs one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub tokens: Option<PathBuf>,
    /// The certificate chain of the server, a PEM file: HTTP and gRPC over TLS
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Require certificates of clients, of the authority in this PEM file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// On SIGTERM, go on taking calls for this time while not ready, so that load balancers notice
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub drain_delay: Option<f64>,
    /// On SIGTERM, time for the calls in flight to end
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub drain: f64,
    /// Do not load models again when their files change
    #[arg(long)]
    pub no_watch: bool,
    /// Log each request to standard error, and what workers log; `RUST_LOG` selects more or less
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log: Option<Log>,
    /// Export the spans of requests, calls and workers to this collector: `http://localhost:4317`; `https://` for TLS
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "ENDPOINT", value_parser = not_empty, value_hint = ValueHint::Url)]
    pub otlp: Option<String>,
    /// Let other programs of this user have the same memory for the same graphs, as `rzc hold` does
    #[arg(long)]
    pub hold: bool,
}

/// Form of the lines of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    /// Text for people
    Text,
    /// One JSON object on each line
    Json,
}
