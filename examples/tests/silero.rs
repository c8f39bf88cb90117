//! Silero VAD gives the same results in Rust, in workers and in Python.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::tensor::{Device, Int, Tensor, TensorData};
use ray_zerocopy::gather;
use ray_zerocopy::jit::{JitActorWrapper, TorchScript, Values};
use ray_zerocopy_examples::silero::{RATE, module_file, voice};

/// Results of PyTorch 2.9.1 for the signal, written by `tests/torchscript/make.py`.
fn expected() -> Vec<f32> {
    let text = include_str!("../../tests/torchscript/expected.json");
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    all["silero"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn assert_close(found: &TensorData, expected: &[f32]) {
    let found: Vec<f32> = found.iter().collect();
    assert_eq!(found.len(), expected.len());
    let far = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
    assert!(far < 1e-4, "{far} from PyTorch's");
}

fn rate() -> Tensor<1, Int> {
    Tensor::from_ints([RATE as i32], &Device::flex())
}

fn whole() -> Values {
    let signal = Tensor::<1>::from_floats(voice(180.0).as_slice(), &Device::flex()).unsqueeze::<2>();
    Values::new().with("x", signal).with("sr", rate())
}

#[test]
fn speech_probabilities_match_python() {
    let expected = expected();
    // The reference detects a voice in the middle, and silence at both ends.
    assert!(expected.iter().any(|speech| *speech > 0.9) && expected[0] < 0.1 && *expected.last().unwrap() < 0.1);
    let script = TorchScript::open(module_file().unwrap()).unwrap();
    assert!(script.arena().weight_bytes() > 2_000_000, "the weights are shared: {:?}", script.arena());
    let here = script.load("cpu").unwrap().call("audio_forward", whole()).unwrap();
    assert_close(&here.data("output").unwrap(), &expected);
    let actors = JitActorWrapper::new(&script).spawn(2).unwrap();
    let answers = gather((0..6).map(|_| actors.call("audio_forward", whole()))).wait().unwrap();
    for answer in &answers {
        assert_close(&answer.data("output").unwrap(), &expected);
    }
}

#[test]
fn actor_keeps_its_state_between_chunks() {
    let script = TorchScript::open(module_file().unwrap()).unwrap();
    let actors = JitActorWrapper::new(&script).spawn(2).unwrap();
    let listener = actors.actor(1);
    listener.call("reset_states", Values::new()).wait().unwrap();
    let mut signal = voice(180.0);
    signal.resize(signal.len().next_multiple_of(512), 0.0);
    for (part, expected) in signal.chunks(512).zip(expected()) {
        let part = Tensor::<1>::from_floats(part, &Device::flex()).unsqueeze::<2>();
        let heard = listener.run(Values::new().with("x", part).with("sr", rate())).wait().unwrap();
        assert_close(&heard.data("output").unwrap(), &[expected]);
    }
}
