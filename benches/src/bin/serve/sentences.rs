//! Sentences that many clients embed one by one: the graph in this process, over HTTP, and by other servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::stats::{self, Ratio, Samples};
use benches::{Progress, Table, Target, corpora};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use ray_zerocopy::jit::{Compile, JitTaskWrapper, Model, Values};
use ray_zerocopy::{Batching, LocalPool};
use ray_zerocopy_examples::encoder::Encoder;
use ray_zerocopy_examples::minilm::fetch::ModelFiles;
use ray_zerocopy_examples::minilm::{Tokenizer, tokenize};
use ray_zerocopy_serve::ModelRepository;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Args;
use crate::clients::receive;
use crate::peers::{PEERS, Peer};

/// Name of the model.
pub(crate) const MODEL: &str = "minilm";
/// Sentences that are sent again and again.
const SENTENCES: usize = 256;
/// Largest difference of a number from what the graph returns here: the others compute in other orders.
const TOLERANCE: f32 = 1e-3;

/// A row of the results.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    way: String,
    clients: u16,
    sentences_per_s_median: f64,
    sentences_per_s_quartiles: (f64, f64),
    over_in_process: Ratio,
    p50_ms: f64,
    p99_ms: f64,
}

/// Sentences and their vectors.
struct Known {
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

/// A contestant.
enum Server {
    InProcess(Arc<InProcess>),
    Http { address: SocketAddr, path: &'static str },
}

struct InProcess {
    tokenizer: Tokenizer,
    tasks: JitTaskWrapper,
}

/// Adds the compiled model to the repository, which has its tokenizer.
pub(crate) fn add(models: &ModelRepository, files: &ModelFiles) -> Result<()> {
    let graph = Encoder::from_files(files, &Device::flex())?.trace()?.compile(Compile::f32())?;
    Ok(models.add(MODEL, Model::Graph(graph))?)
}

/// Measures sentences per second of all contestants, in turns.
pub(crate) async fn measure(
    args: &Args,
    pool: &LocalPool,
    files: &ModelFiles,
    http: SocketAddr,
    progress: &Progress,
) -> Result<Vec<Row>> {
    let graph = Encoder::from_files(files, &Device::flex())?.trace()?.compile(Compile::f32())?;
    let tokenizer = tokenize::load(&files.tokenizer())?;
    let tasks = JitTaskWrapper::on(pool, &graph)?.batch(Batching::default());
    let here = Arc::new(InProcess { tokenizer: tokenizer.clone(), tasks });
    let one_by_one = Arc::new(InProcess { tokenizer, tasks: JitTaskWrapper::on(pool, &graph)? });
    let texts = corpora::sentences(if args.common.quick { 8 } else { SENTENCES }, 7).texts;
    let mut vectors = Vec::new();
    for text in &texts {
        vectors.push(here.embed(text).await?);
    }
    let known = Arc::new(Known { texts, vectors });
    let mut contestants = vec![
        ("in process, batched".to_owned(), Server::InProcess(here)),
        ("in process, one by one".to_owned(), Server::InProcess(one_by_one)),
        ("HTTP, /v1/embeddings".to_owned(), Server::Http { address: http, path: "/v1/embeddings" }),
    ];
    let mut running = Vec::new();
    for kind in PEERS.iter().filter(|_| args.peers) {
        let peer = Peer::start(kind, files).await?;
        contestants.push((kind.name.to_owned(), Server::Http { address: peer.address, path: kind.path }));
        running.push(peer);
    }
    let (rounds, time) = args.length();
    let mut rates = vec![Vec::new(); contestants.len()];
    let mut samples: Vec<Samples> = contestants.iter().map(|_| Samples::default()).collect();
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let index = (turn + usize::from(round)) % contestants.len();
            let (name, server) = &contestants[index];
            let (calls, took, durations) =
                load(server, &known, args.clients, time).await.with_context(|| name.clone())?;
            rates[index].push(calls as f64 / took.as_secs_f64());
            samples[index].extend(durations);
            progress.step(name);
        }
    }
    for peer in running {
        peer.end()?;
    }
    let rows = contestants.iter().zip(&rates).zip(&samples).map(|(((name, _), figures), samples)| Row {
        way: name.clone(),
        clients: args.clients,
        sentences_per_s_median: stats::median(figures),
        sentences_per_s_quartiles: stats::quartiles(figures),
        over_in_process: Ratio::of(figures, &rates[0]),
        p50_ms: samples.summary().p50_us / 1000.0,
        p99_ms: samples.summary().p99_us / 1000.0,
    });
    Ok(rows.collect())
}

impl InProcess {
    async fn embed(&self, text: &str) -> Result<Vec<f32>> {
        let tokens = tokenize::token_ids(&self.tokenizer, &[text.to_owned()])?;
        let ids: Vec<i64> = tokens.iter().flatten().map(|&token| i64::from(token)).collect();
        let len = ids.len();
        let device = Device::flex();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, len]), &device);
        let padding = Tensor::<2, Bool>::from_data(TensorData::new(vec![false; len], [1, len]), &device);
        let outputs = self.tasks.run(Values::new().with("ids", ids).with("padding", padding)).await?;
        Ok(outputs.data("output")?.iter().collect())
    }
}

/// Lets clients embed sentences for some time. Returns the number of calls, the time, and how long they took.
async fn load(server: &Server, known: &Arc<Known>, clients: u16, time: Duration) -> Result<(usize, Duration, Samples)> {
    let mut tasks = JoinSet::new();
    for client in 0..usize::from(clients) {
        let mut client = Client::connect(server, known, client).await?;
        tasks.spawn(async move {
            // Not measured, and compared.
            client.call(true).await?;
            let (begun, mut durations) = (Instant::now(), Samples::default());
            let mut calls = 0;
            while begun.elapsed() < time {
                let call = Instant::now();
                client.call(false).await?;
                durations.push(call.elapsed());
                calls += 1;
            }
            Ok::<_, anyhow::Error>((calls, begun.elapsed(), durations))
        });
    }
    let (mut calls, mut longest, mut samples) = (0, Duration::ZERO, Samples::default());
    while let Some(done) = tasks.join_next().await {
        let (made, took, durations) = done??;
        calls += made;
        longest = longest.max(took);
        samples.extend(durations);
    }
    Ok((calls, longest, samples))
}

/// A client, which embeds one sentence after the other.
struct Client {
    known: Arc<Known>,
    at: usize,
    way: Way,
}

enum Way {
    InProcess(Arc<InProcess>),
    Http { stream: BufReader<TcpStream>, path: &'static str, body: Vec<u8> },
}

impl Client {
    async fn connect(server: &Server, known: &Arc<Known>, number: usize) -> Result<Self> {
        let way = match server {
            Server::InProcess(here) => Way::InProcess(Arc::clone(here)),
            Server::Http { address, path } => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Way::Http { stream: BufReader::with_capacity(1 << 16, stream), path, body: Vec::new() }
            }
        };
        // Clients begin at different sentences.
        Ok(Self { known: Arc::clone(known), at: number * 5, way })
    }

    /// Embeds the next sentence. Compares the vector if `is_compared`.
    async fn call(&mut self, is_compared: bool) -> Result<()> {
        let at = self.at % self.known.texts.len();
        self.at += 1;
        let text = &self.known.texts[at];
        let found: Vec<f32> = match &mut self.way {
            Way::InProcess(here) => here.embed(text).await?,
            Way::Http { stream, path, body } => {
                let request = json!({ "model": MODEL, "input": text }).to_string();
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    request.len()
                );
                stream.get_mut().write_all(&[head.as_bytes(), request.as_bytes()].concat()).await?;
                receive(stream, body).await?;
                if !is_compared {
                    ensure!(body.len() > 1000, "the server returned {}", String::from_utf8_lossy(body));
                    return Ok(());
                }
                let answer: Value = serde_json::from_slice(body)?;
                let vector = answer["data"][0]["embedding"].as_array();
                let vector = vector.with_context(|| format!("the server returned {answer}"))?;
                vector.iter().filter_map(Value::as_f64).map(|number| number as f32).collect()
            }
        };
        if is_compared {
            let difference = stats::difference_max(&self.known.vectors[at], &found);
            ensure!(difference <= TOLERANCE, "a vector differs by {difference}, at most {TOLERANCE} was expected");
        }
        Ok(())
    }
}

/// The figures that are wanted.
pub(crate) fn targets(rows: &[Row]) -> Vec<Target> {
    let of = |way: &str| rows.iter().find(|row| row.way.starts_with(way)).map(|row| row.sentences_per_s_median);
    let (here, http) = (of("in process"), of("HTTP"));
    let least = |what: &str, part: f64, of: Option<f64>| {
        let ratio = of.zip(http).map(|(of, http)| part * of / http);
        ratio.map(|ratio| Target::at_most(what, 1.0, ratio))
    };
    [
        least("0.9 of the sentences per second in process, of those over HTTP", 0.9, here),
        least("1.5 × those of infinity, of those over HTTP", 1.5, of(PEERS[0].name)),
        least("those of ONNX Runtime behind FastAPI, of those over HTTP", 1.0, of(PEERS[1].name)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "sentences of MiniLM",
        ">clients",
        ">sentences/s",
        ">quartiles",
        ">of in process",
        ">p50, ms",
        ">p99, ms",
    ]);
    for row in rows {
        let (low, high) = row.sentences_per_s_quartiles;
        table.row([
            row.way.clone(),
            row.clients.to_string(),
            format!("{:.0}", row.sentences_per_s_median),
            format!("{low:.0}–{high:.0}"),
            row.over_in_process.to_string(),
            format!("{:.1}", row.p50_ms),
            format!("{:.1}", row.p99_ms),
        ]);
    }
    table
}
