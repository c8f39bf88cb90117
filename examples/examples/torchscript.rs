//! A TorchScript module in workers: one copy of its weights and the results of PyTorch, without
//! Python.
//!
//! ```console
//! $ cargo xtask libtorch run --release -p examples --features torchscript --example torchscript
//! $ cargo xtask libtorch run --release -p examples --features torchscript --example torchscript -- --workers 4
//! ```
//!
//! The module is Silero VAD, which detects speech in each 32 milliseconds of a signal.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::{Device, Int, Tensor};
use clap::Parser;
use ray_zerocopy::gather;
use ray_zerocopy::jit::{JitActorWrapper, TorchScript, Values};
use ray_zerocopy_examples::silero::{self, RATE};

/// Detect speech with a TorchScript module, in workers that share one copy of its weights
///
/// The module (2 MB, MIT licence) is fetched from PyPI with pip at first use. LibTorch is set up by
/// `cargo xtask libtorch`. The signals are synthetic: silence, four syllables of a voice, and
/// silence.
#[derive(Parser)]
#[command(
    after_help = "Next: save the module as an arena with --save vad.rzg, and run it by hand:\n  rzc inspect vad.rzg\n  rzc run vad.rzg --method audio_forward --input x=audio.npy --input sr=16000"
)]
struct Options {
    /// Number of worker processes
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Number of voices
    #[arg(long, default_value_t = 4)]
    voices: usize,
    /// The file for the module with its weights, for `rzc` and other programs
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let options = Options::parse();
    let begun = Instant::now();
    let script = TorchScript::open(silero::module_file()?)?;
    println!(
        "{} in {:.1?}: {:.2} MB of weights",
        script.origin(),
        begun.elapsed(),
        script.arena().weight_bytes() as f64 / 1e6
    );
    for method in script.methods() {
        let arguments: Vec<_> =
            method.arguments.iter().map(|argument| format!("{}: {}", argument.name, argument.ty)).collect();
        println!("  {}({}) -> {}", method.name, arguments.join(", "), method.returns);
    }
    if let Some(path) = &options.save {
        script.save(path)?;
        println!("saved in {}", path.display());
    }

    let actors = JitActorWrapper::new(&script).spawn(options.workers)?;
    let device = Device::flex();
    let begun = Instant::now();
    let pitches: Vec<f64> = (0..options.voices).map(|voice| 110.0 + 35.0 * voice as f64).collect();
    let calls = pitches.iter().map(|pitch| {
        let signal = Tensor::<1>::from_floats(silero::voice(*pitch).as_slice(), &device).unsqueeze::<2>();
        // `forward` takes 32 milliseconds and is stateful. `audio_forward` takes a whole signal, so
        // any actor may run it.
        let inputs = Values::new().with("x", signal).with("sr", Tensor::<1, Int>::from_ints([RATE as i32], &device));
        actors.call("audio_forward", inputs)
    });
    let answers = gather(calls).wait()?;
    println!("\n{} voices of two seconds in {:.1?}, speech from left to right:", pitches.len(), begun.elapsed());
    for (pitch, answer) in pitches.iter().zip(answers) {
        let probabilities: Vec<f32> = answer.data("output")?.iter::<f32>().collect();
        let most = probabilities.iter().copied().reduce(f32::max).context("the module gave nothing")?;
        println!("  {pitch:>5} Hz  {}  at most {most:.2}", silero::drawn(&probabilities));
    }
    println!("\n{}", actors.report()?);
    Ok(())
}
