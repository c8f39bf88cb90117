//! Streams: the items of a method that returns an iterator arrive while the method runs.

use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use burn::module::Param;
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use futures_core::Stream;
use ray_zerocopy::engine::Backend;
use ray_zerocopy::{ActorWrapper, CallError, Error, LocalPool, Pipeline, TaskWrapper, Threads};

/// Generates text word by word in a worker, and prints each word when it arrives
///
/// The model is a table of which word follows which, counted in one sentence. A language model has
/// the same loop: each word is one pass, and depends on the word before. The example shows the
/// words as they arrive, a stream that is dropped early, one that is awaited, one whose deadline
/// passes, and an actor that continues its text. Each step states what it expects, and the program
/// fails otherwise.
#[derive(Parser)]
#[command(after_help = "Try --pause 200 to read along, and --threads: the words are the same.")]
struct Args {
    /// Number of words to generate
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    words: u16,
    /// Milliseconds that each word takes in addition, as it would with a large model
    #[arg(long, default_value_t = 20)]
    pause: u64,
    /// Use a thread instead of a worker process
    #[arg(long)]
    threads: bool,
}

/// What the model has learned from. Its first word follows its last.
const TEXT: &str = "the worker computes a word and sends it while the caller prints the word before it and the worker \
                    computes the next word while the caller waits for it and a caller that has read enough drops the \
                    stream and the worker drops its loop and takes the next call and sends the next word";
const FIRST: &str = "the";
const SEED: u64 = 81_985_529_216_486_895;

#[derive(Pipeline)]
#[pipeline(init = Generator::new)]
struct Generator {
    /// A row for each word: the probabilities of the words after it.
    chances: Embedding,
    words: Vec<String>,
    #[pipeline(skip)]
    text: Text, // the state of one actor
}

/// A text in progress: its last word, as a row of the table, and the last random number.
#[derive(Clone, Copy)]
struct Text {
    word: usize,
    random: u64,
}

impl Text {
    /// Returns a random number from 0 to 1, by xorshift.
    fn random(&mut self) -> f32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 40) as f32 / (1 << 24) as f32
    }
}

#[ray_zerocopy::remote]
impl Generator {
    pub fn new(device: &Device) -> Self {
        let mut words: Vec<_> = TEXT.split_whitespace().map(str::to_owned).collect();
        words.sort_unstable();
        words.dedup();
        let chances = EmbeddingConfig::new(words.len(), words.len()).init(device);
        let word = words.iter().position(|word| word == FIRST).unwrap_or(0);
        Self { chances, words, text: Text { word, random: SEED } }
    }

    /// Counts which word follows which. Only the owner of the weights does that.
    fn learn(mut self) -> Self {
        let count = self.words.len();
        let text: Vec<_> = TEXT.split_whitespace().filter_map(|word| self.row(word)).collect();
        let mut follows = vec![0.0_f32; count * count];
        for (word, next) in text.iter().zip(text.iter().cycle().skip(1)) {
            follows[word * count + next] += 1.0;
        }
        let device = self.chances.weight.val().device();
        let follows = Tensor::<2>::from_data(TensorData::new(follows, [count, count]), &device);
        self.chances.weight = Param::from_tensor(follows.clone() / follows.sum_dim(1));
        self
    }

    fn row(&self, word: &str) -> Option<usize> {
        self.words.iter().position(|known| known == word)
    }

    /// Draws the next word of a text: one pass through the model.
    fn draw(&self, text: &mut Text, pause: Duration) -> String {
        std::thread::sleep(pause);
        let device = self.chances.weight.val().device();
        let last = Tensor::<2, Int>::from_data(TensorData::new(vec![text.word as i64], [1, 1]), &device);
        let chances = self.chances.forward(last).into_data();
        let mut left = text.random();
        let drawn = chances.iter::<f32>().position(|chance| {
            left -= chance;
            left < 0.0
        });
        text.word = drawn.unwrap_or(text.word);
        self.words[text.word].clone()
    }

    /// Generates a text from its beginning.
    #[remote(stream)]
    pub fn generate(&self, words: usize, pause: Duration) -> impl Iterator<Item = String> {
        let mut text = self.text;
        (0..words).map(move |_| self.draw(&mut text, pause))
    }

    /// Continues the text of this actor.
    #[remote(stream)]
    pub fn go_on(&mut self, words: usize, pause: Duration) -> impl Iterator<Item = String> {
        (0..words).map(move |_| {
            let mut text = self.text;
            let word = self.draw(&mut text, pause);
            self.text = text;
            word
        })
    }

    /// Returns `true` if the model can generate this word.
    pub fn knows(&self, word: String) -> bool {
        self.row(&word).is_some()
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    if args.threads { show(&Threads::new(1), &args) } else { show(&LocalPool::builder().workers(1).start()?, &args) }
}

fn show(backend: &impl Backend, args: &Args) -> Result<()> {
    let (words, pause) = (usize::from(args.words), Duration::from_millis(args.pause));
    let generator = Generator::new(&Device::flex()).learn();
    let tasks = TaskWrapper::on(backend, &generator)?;
    ensure!(tasks.knows(FIRST.to_owned()).wait()?, "the model does not know `{FIRST}`");

    // The loop runs while the worker computes.
    print!("words          {FIRST}");
    let (begun, mut times, mut text) = (Instant::now(), Vec::new(), Vec::new());
    for word in tasks.generate(words, pause) {
        let word = word?;
        times.push(begun.elapsed());
        print!(" {word}");
        std::io::stdout().flush()?;
        text.push(word);
    }
    let (first, last) = (times.first().context("no word has arrived")?, times.last().context("no word has arrived")?);
    println!("\n               the first after {first:.1?}, the last after {last:.1?}");
    let here: Vec<_> = generator.generate(words, Duration::ZERO).collect();
    ensure!(text == here, "a worker generates another text: {text:?}, and not {here:?}");
    println!("               the same as in this process");

    // A stream that is dropped ends the loop in the worker, which has no end by itself. The only
    // worker is free again.
    let five: Vec<_> = tasks.generate(usize::MAX, pause).take(5).collect::<ray_zerocopy::Result<_>>()?;
    ensure!(tasks.knows(FIRST.to_owned()).wait()?, "the model has forgotten `{FIRST}`");
    println!("drop           after {five:?}; the worker takes the next call");

    // A stream is also an async stream, on any executor.
    let awaited = pollster::block_on(async {
        let (mut stream, mut text) = (tasks.generate(words, pause).into_stream(), Vec::new());
        while let Some(word) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
            text.push(word?);
        }
        Ok::<_, Error>(text)
    })?;
    ensure!(awaited == here, "an awaited stream has other words: {awaited:?}");
    println!("await          {} words, on any executor", awaited.len());

    // An error follows the words that have arrived. A deadline is that of the whole stream.
    let mut late = tasks.clone().deadline(Duration::from_millis(300)).generate(usize::MAX, pause);
    let mut seen = 0;
    let error = loop {
        match late.next().context("a text without an end has ended")? {
            Ok(_) => seen += 1,
            Err(error) => break error,
        }
    };
    let Error::Call(CallError::Deadline { .. }) = &error else { bail!("expected `Deadline`, found: {error}") };
    ensure!(late.next().is_none(), "a word follows the error");
    println!("deadline       {seen} words, then: {error}");

    let actors = ActorWrapper::on(backend, &generator)?.spawn(1)?;
    let mut text: Vec<_> = actors.go_on(4, pause).collect::<ray_zerocopy::Result<_>>()?;
    println!("actor          {text:?}");
    let more: Vec<_> = actors.go_on(4, pause).collect::<ray_zerocopy::Result<_>>()?;
    println!("               {more:?}: it goes on where it has ended");
    text.extend(more);
    let here: Vec<_> = generator.generate(8, Duration::ZERO).collect();
    ensure!(text == here, "an actor continues another text: {text:?}, and not {here:?}");
    Ok(())
}
