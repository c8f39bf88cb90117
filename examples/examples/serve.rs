//! A pipeline of your own as a service: its methods as JSON, a stream as server-sent events, and a graph over KServe v2.

use anyhow::Result;
use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use ray_zerocopy::{Pipeline, TaskWrapper, jit};
use ray_zerocopy_serve::{Methods, ModelRepository, Server, Service};

/// Serve a pipeline over HTTP and gRPC, on one copy of its weights
///
/// The model tells the language of a text by its letters. Workers are processes that borrow its
/// weights. The server ends on Ctrl-C or SIGTERM, after the calls in flight.
#[derive(Parser)]
#[command(after_help = "While it runs:
  curl localhost:8000/v1/pipelines/languages/classify -d '{\"text\": \"le chat dort dans le jardin\"}'
  curl -N localhost:8000/v1/pipelines/languages/words -d '[\"der Hund schläft im Garten\"]'
  curl localhost:8000/v1/pipelines
  curl localhost:8000/v2/models/letters")]
struct Args {
    /// The port of HTTP; 0 is any free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Number of worker processes
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

/// A sentence in each language, from which the model has its weights.
const SENTENCES: [(&str, &str); 3] = [
    ("English", "the quick brown fox jumps over the lazy dog while those who watch think that this is what they want"),
    ("French", "le renard brun saute par dessus le chien paresseux quand les gens qui regardent disent que c est beau"),
    (
        "German",
        "der kleine Hund schwimmt im kalten Wasser und wir gehen morgen wieder nach Hause weil es schon dunkel wird",
    ),
];
/// Number of pairs of letters, with one for the space between words.
const PAIRS: usize = 27 * 27;

#[derive(Pipeline)]
#[pipeline(init = Languages::new)]
struct Languages {
    /// A column for each language: how often it has each pair of letters.
    pairs: Linear,
}

#[ray_zerocopy::remote]
impl Languages {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { pairs: LinearConfig::new(PAIRS, SENTENCES.len()).with_bias(false).init(device) }
    }

    /// The language of a text.
    pub fn classify(&self, text: String) -> Result<String, String> {
        if text.trim().is_empty() {
            return Err("the text is empty".to_owned());
        }
        let device = self.pairs.weight.val().device();
        let best = self.pairs.forward(counts(&text, &device)).argmax(1).into_data();
        let best = best.iter::<i64>().next().and_then(|best| SENTENCES.get(best as usize));
        best.map(|(language, _)| (*language).to_owned()).ok_or("the model has no languages".to_owned())
    }

    /// Each word with its language, one after the other.
    #[remote(stream)]
    pub fn words(&self, text: String) -> impl Iterator<Item = (String, String)> {
        let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        words.into_iter().filter_map(|word| Some((word.clone(), self.classify(word).ok()?)))
    }
}

/// How often a text has each pair of letters.
fn counts(text: &str, device: &Device) -> Tensor<2> {
    let mut counts = vec![0.0_f32; PAIRS];
    let letter = |c: char| if c.is_ascii_alphabetic() { c.to_ascii_lowercase() as usize - 'a' as usize + 1 } else { 0 };
    let letters: Vec<_> = format!(" {text} ").chars().map(letter).collect();
    for pair in letters.windows(2) {
        counts[pair[0] * 27 + pair[1]] += 1.0;
    }
    Tensor::from_data(TensorData::new(counts, [1, PAIRS]), device)
}

/// Counts the pairs of each language.
fn learned(device: &Device) -> Languages {
    let mut languages = Languages::new(device);
    let columns = SENTENCES.map(|(_, text)| counts(text, device).transpose());
    languages.pairs.weight = Param::from_tensor(Tensor::cat(columns.to_vec(), 1));
    languages
}

#[tokio::main]
async fn main() -> Result<()> {
    ray_zerocopy::init(); // workers are this executable, started again
    let args = Args::parse();
    let device = Device::flex();
    let languages = learned(&device);

    // The service: a pool of workers, and methods of the pipeline on it.
    let models = ModelRepository::builder().workers(args.workers).start()?;
    let tasks = TaskWrapper::on(models.pool(), &languages)?;
    let methods = Methods::all("languages", &tasks);

    // A graph of it, for clients of KServe v2 and Triton.
    let graph = jit::trace(&languages)
        .input("counts", counts("text", &device))
        .symbol("batch", [("counts", 0)])
        .forward(|languages, inputs| Ok([("scores", languages.pairs.forward(inputs.float::<2>("counts")?))]))?;
    models.add("letters", jit::Model::Graph(graph))?;

    let service = Service::builder(models).methods(methods).build();
    let server = Server::new(service).http(format!("127.0.0.1:{}", args.port)).start()?;
    if let Some(address) = server.http_address() {
        println!("listening at http://{address}; try the commands of --help");
    }
    wait_for_the_end().await?;
    let left = server.shut_down().await;
    println!("ended; {left} calls were cancelled");
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM. `Server::run` does that and all of the above.
async fn wait_for_the_end() -> Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        signal = tokio::signal::ctrl_c() => signal?,
        _ = term.recv() => {}
    }
    Ok(())
}
