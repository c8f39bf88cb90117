//! Every kind of field of a pipeline: nested pipelines, maps, lists, options, enums, copied and
//! skipped fields.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Distribution, Int, Tensor};
use clap::Parser;
use ray_zerocopy::{ActorWrapper, Pipeline, gather};
use serde::{Deserialize, Serialize};

/// A pipeline with every kind of field
///
/// It has an encoder, a decoder, an optional discriminator, a map of embeddings for text and
/// images, settings that are copied, and statistics of each worker. The example prints the paths of
/// the shared weights, as errors and reports name them, and the memory of each process: `shared` is
/// what it reads in the arena, `private` is its own memory, and `saved` is what copies of the
/// weights would cost in addition.
#[derive(Parser)]
#[command(after_help = "Try --width 2048 --actors 8: `private` does not grow with the width, `saved` does.")]
struct Args {
    /// Width of the models; the size of the weights grows with its square
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=8192))]
    width: u16,
    /// Number of worker processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    actors: u16,
    /// Omit the discriminator
    #[arg(long)]
    without_discriminator: bool,
}

#[derive(Module, Debug)]
struct Encoder {
    layers: Vec<Linear>,
}

/// Models of two kinds under one type: a pipeline may be an enum.
#[derive(Pipeline)]
enum Embedder {
    Text(Embedding),
    Image { patches: Conv2d, brightness: f32 },
}

/// A nested pipeline: the same rules apply to its fields. The outer pipeline rebuilds it.
#[derive(Pipeline)]
struct Decoder {
    layers: Vec<Linear>,
    labels: Vec<String>,
}

#[derive(Pipeline)]
struct ComplexPipeline {
    #[pipeline(config)]
    config: ComplexConfig,
    encoder: Encoder,                           // a Module: shared
    decoder: Decoder,                           // a Pipeline: its Modules shared, its labels copied
    discriminator: Option<Linear>,              // a Module in an Option: shared
    embeddings: HashMap<String, Embedder>,      // Pipelines in a map: Modules shared
    preprocessing_config: HashMap<String, f32>, // serde: copied
    #[pipeline(skip)]
    stats: Stats,          // each worker's own, as created by `init`
}

#[derive(Default)]
struct Stats {
    calls: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ComplexConfig {
    width: usize,
    words: usize,
    discriminator: bool,
}

impl ComplexConfig {
    fn init(&self, device: &Device) -> ComplexPipeline {
        let width = self.width;
        let linear = |outputs| LinearConfig::new(width, outputs).init(device);
        let text = Embedder::Text(EmbeddingConfig::new(self.words, width).init(device));
        let patches = Conv2dConfig::new([3, width], [8, 8]).with_stride([8, 8]).init(device);
        let image = Embedder::Image { patches, brightness: 1.0 };
        ComplexPipeline {
            config: self.clone(),
            encoder: Encoder { layers: (0..3).map(|_| linear(width)).collect() },
            decoder: Decoder { layers: vec![linear(width), linear(2)], labels: Vec::new() },
            discriminator: self.discriminator.then(|| linear(1)),
            embeddings: [("text".to_owned(), text), ("image".to_owned(), image)].into(),
            preprocessing_config: HashMap::new(),
            stats: Stats::default(),
        }
    }
}

#[ray_zerocopy::remote]
impl ComplexPipeline {
    /// Encodes sentences of word numbers, `[sentences, words]`.
    pub fn encode_text(&self, words: Tensor<2, Int>) -> Result<Tensor<2>, String> {
        match self.embeddings.get("text") {
            Some(Embedder::Text(embedding)) => Ok(self.encode(embedding.forward(words))),
            _ => Err("this pipeline does not encode text".to_owned()),
        }
    }

    /// Encodes images, `[images, 3, height, width]`.
    pub fn encode_image(&self, pictures: Tensor<4>) -> Result<Tensor<2>, String> {
        match self.embeddings.get("image") {
            Some(Embedder::Image { patches, brightness }) => {
                let mean = self.preprocessing_config.get("mean").copied().unwrap_or_default();
                let patches = patches.forward((pictures - mean) * *brightness);
                Ok(self.encode(patches.flatten::<3>(2, 3).swap_dims(1, 2)))
            }
            _ => Err("this pipeline does not encode images".to_owned()),
        }
    }

    /// Returns a label for each row, and the discriminator's confidence that it is real.
    pub fn decode(&self, encoded: Tensor<2>) -> Vec<(String, Option<f32>)> {
        let doubts = self.discriminator.as_ref().map(|layer| sigmoid(layer.forward(encoded.clone())).into_data());
        let doubts: Option<Vec<f32>> = doubts.map(|data| data.iter().collect());
        let scores = self.decoder.layers.iter().fold(encoded, |x, layer| layer.forward(relu(x)));
        let best = scores.argmax(1).into_data();
        let names = best.iter::<i64>().map(|class| self.decoder.labels[class as usize].clone());
        names.enumerate().map(|(at, name)| (name, doubts.as_ref().map(|doubts| doubts[at]))).collect()
    }

    /// Counts the calls of one actor.
    pub fn count(&mut self) -> usize {
        self.stats.calls += 1;
        self.stats.calls
    }

    #[remote(skip)]
    fn encode(&self, x: Tensor<3>) -> Tensor<2> {
        self.encoder.layers.iter().fold(x, |x, layer| relu(layer.forward(x))).mean_dim(1).squeeze_dim(1)
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    let device = Device::flex();
    let config = ComplexConfig { width: args.width.into(), words: 1000, discriminator: !args.without_discriminator };
    let mut pipeline = config.init(&device);
    pipeline.decoder.labels = vec!["a cat".to_owned(), "a dog".to_owned()];
    pipeline.preprocessing_config.insert("mean".to_owned(), 0.5);
    pipeline.stats.calls = 41; // a skipped field: workers do not get this value

    let shared = ActorWrapper::new(&pipeline)?;
    let paths: Vec<_> = shared.arena().paths().collect();
    println!("{} tensors in arena {}:", paths.len(), shared.arena().id());
    for path in &paths {
        println!("  {path}");
    }
    for expected in ["encoder.layers.0.weight", "embeddings[\"text\"].0.weight", "embeddings[\"image\"].patches.weight"]
    {
        ensure!(paths.contains(&expected), "`{expected}` is not shared");
    }
    let has_discriminator = paths.iter().any(|path| path.starts_with("discriminator."));
    ensure!(has_discriminator != args.without_discriminator, "the discriminator does not follow the config");

    let actors = shared.spawn(args.actors.into())?;
    let words = Tensor::<2, Int>::from_ints([[3, 1, 4], [1, 5, 9]], &device);
    let pictures = Tensor::<4>::random([2, 3, 32, 32], Distribution::Default, &device);
    let here = [pipeline.encode_text(words.clone()), pipeline.encode_image(pictures.clone())];
    for actor in actors.iter() {
        let text = actor.encode_text(words.clone());
        let image = actor.encode_image(pictures.clone());
        for (there, here) in gather([text, image]).wait()?.into_iter().zip(&here) {
            let (there, here) = (there.map_err(anyhow::Error::msg)?, here.clone().map_err(anyhow::Error::msg)?);
            ensure!(
                there.clone().into_data() == here.clone().into_data(),
                "an actor returns another result than this process"
            );
            ensure!(actor.decode(there).wait()? == pipeline.decode(here), "an actor decodes differently");
        }
        ensure!(actor.count().wait()? == 1, "an actor has the statistics of another process");
    }
    let [text, _] = here;
    println!("\ndecoded: {:?}", actors.decode(text.map_err(anyhow::Error::msg)?).wait()?);

    let report = actors.report()?;
    println!("\n{report}");
    ensure!(report.processes.len() == 1 + usize::from(args.actors), "a process is missing in the report");
    ensure!(report.processes.iter().all(|process| process.copied == 0), "a weight was copied");
    ensure!(report.saved() > 0, "nothing was saved");
    Ok(())
}
