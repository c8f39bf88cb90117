//! Execution of traced graphs on the device.

use burn::module::Module;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use ray_zerocopy::error::LoadError;
use ray_zerocopy::jit::{JitActorWrapper, ReplayError, TracedGraph, Values, trace};
use ray_zerocopy::{CallError, Error, Pipeline};

use super::Spec;

#[derive(Pipeline)]
#[pipeline(init = Mixed::new)]
struct Mixed {
    parts: Parts,
}

#[derive(Module, Debug)]
struct Parts {
    words: Embedding,
    attention: MultiHeadAttention,
    norm: LayerNorm,
    conv: Conv2d,
    statistics: BatchNorm,
}

impl Mixed {
    fn new(device: &Device) -> Self {
        let parts = Parts {
            words: EmbeddingConfig::new(20, 8).init(device),
            attention: MultiHeadAttentionConfig::new(8, 2).with_dropout(0.0).init(device),
            norm: LayerNormConfig::new(8).init(device),
            conv: Conv2dConfig::new([1, 4], [3, 3]).init(device),
            statistics: BatchNormConfig::new(4).init(device),
        };
        Self { parts }
    }

    fn forward(&self, ids: Tensor<2, Int>, padding: Tensor<2, Bool>) -> (Tensor<3>, Tensor<2, Bool>) {
        let Parts { words, attention, norm, conv, statistics } = &self.parts;
        let [batch, length] = ids.dims();
        let places = Tensor::<1, Int>::arange(0..length as i64, &ids.device()).unsqueeze::<2>();
        let hidden = norm.forward(words.forward(ids) + words.forward(places));
        let hidden = gelu(attention.forward(MhaInput::self_attn(hidden).mask_pad(padding.clone())).context);
        let image = statistics.forward(conv.forward(hidden.clone().reshape([batch, 1, length, 8])));
        (
            image.mean_dim(1).reshape([batch, length - 2, 6]),
            hidden.mean_dim(2).reshape([batch, length]).greater_elem(0.0) & padding.bool_not(),
        )
    }
}

fn inputs(batch: i64, length: i64, device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let ids = Tensor::<1, Int>::arange(0..batch * length, device).reshape([batch as usize, length as usize]) * 7 % 20;
    (ids.clone(), ids.greater_elem(17))
}

/// Traces a graph.
pub fn traced() -> TracedGraph {
    graph(&Mixed::new(&Device::flex()))
}

/// Inputs for the graph of [`traced`].
pub fn questions(batch: i64, length: i64) -> Values {
    let (ids, padding) = inputs(batch, length, &Device::flex());
    Values::new().with("ids", ids).with("padding", padding)
}

fn graph(model: &Mixed) -> TracedGraph {
    let (ids, padding) = inputs(2, 6, &Device::flex());
    let trace = trace(model)
        .input("ids", ids)
        .input("padding", padding)
        .symbol("batch", [("ids", 0), ("padding", 0)])
        .symbol("length", [("ids", 1), ("padding", 1)]);
    let forward = trace.forward(|model, inputs| {
        let (image, positive) = model.forward(inputs.int("ids")?, inputs.bool("padding")?);
        Ok(Values::new().with("image", image).with("positive", positive))
    });
    forward.unwrap()
}

/// Where the device has an interpreter, the graph's outputs are those of the pipeline within the
/// device's tolerance, for inputs on any device.
pub fn graph_matches_the_pipeline(spec: &Spec, device: &Device) {
    let model = Mixed::new(&Device::flex());
    let graph = graph(&model);
    if spec.name.starts_with("libtorch") {
        let error = graph.load(spec.name).unwrap_err();
        assert!(matches!(&error, ReplayError::NoInterpreter { device } if device == spec.name), "{error}");
        return;
    }
    let mut replay = graph.load(spec.name).unwrap();
    assert_eq!(replay.copied().is_empty(), spec.borrows);
    for (batch, length) in [(1, 3), (4, 9), (2, 6), (4, 9)] {
        let (ids, padding) = inputs(batch, length, &Device::flex());
        let (image, positive) = model.forward(ids.clone(), padding.clone());
        let (there, _) = inputs(batch, length, device);
        for ids in [ids, there] {
            let outputs = replay.run(Values::new().with("ids", ids).with("padding", padding.clone())).unwrap();
            spec.same(outputs.data("image").unwrap(), image.clone().into_data());
            let found: Vec<bool> = outputs.data("positive").unwrap().iter().collect();
            assert_eq!(found, positive.clone().into_data().iter::<bool>().collect::<Vec<_>>());
        }
    }
    let wrong = Tensor::<2>::random([2, 6], Distribution::Default, device);
    let error = replay.run(Values::new().with("ids", wrong)).unwrap_err();
    assert!(matches!(&error, ReplayError::Input { name, .. } if name == "ids"), "{error}");
}

/// Devices with a command queue record the kernels of a graph, and give the same results as before for other inputs.
pub fn kernels_are_recorded(spec: &Spec, _: &Device) {
    if spec.name.starts_with("libtorch") {
        return;
    }
    let model = Mixed::new(&Device::flex());
    let mut replay = graph(&model).load(spec.name).unwrap();
    let mut check = |batch: i64, length: i64, round: i64| {
        let (ids, padding) = inputs(batch, length, &Device::flex());
        let ids = (ids + round) % 20;
        let (image, positive) = model.forward(ids.clone(), padding.clone());
        let outputs = replay.run(Values::new().with("ids", ids).with("padding", padding)).unwrap();
        spec.same(outputs.data("image").unwrap(), image.into_data());
        let found: Vec<bool> = outputs.data("positive").unwrap().iter().collect();
        assert_eq!(found, positive.into_data().iter::<bool>().collect::<Vec<_>>());
        replay.recorded()
    };
    let recorded: Vec<_> = (0..6).map(|round| check(2, 6, round)).collect();
    assert_eq!(recorded[5].refused, None);
    let expected = if spec.is_host { [0; 6] } else { [0, 0, 0, 1, 1, 1] };
    assert_eq!(recorded.iter().map(|recorded| recorded.shapes).collect::<Vec<_>>(), expected);
    // Other shapes are recorded apart, and the first ones are still there.
    let shapes: Vec<_> = (0..4).map(|round| check(3, 5, round)).map(|recorded| recorded.shapes).collect();
    assert_eq!(shapes, if spec.is_host { [0; 4] } else { [1, 1, 1, 2] });
    check(2, 6, 3);
    // Eight are kept. The one that was used least recently makes room.
    for length in 3..12 {
        (0..4).for_each(|round| drop(check(1, length, round)));
    }
    assert_eq!(check(1, 11, 5).shapes, if spec.is_host { 0 } else { 8 });
    let again = check(3, 5, 7);
    assert_eq!((again.shapes, again.refused), (if spec.is_host { 0 } else { 8 }, None));
}

/// Workers run a graph on the device without the pipeline's type.
pub fn workers_run_a_graph(spec: &Spec, _: &Device) {
    if spec.name.starts_with("libtorch") {
        return;
    }
    let model = Mixed::new(&Device::flex());
    let graph = graph(&model);
    let (ids, padding) = inputs(3, 5, &Device::flex());
    let expected = model.forward(ids.clone(), padding.clone()).0.into_data();
    let shared = JitActorWrapper::new(&graph).device(spec.name).unwrap();
    let actors = shared.spawn(2).unwrap();
    for actor in actors.iter() {
        let outputs =
            actor.run(Values::new().with("ids", ids.clone()).with("padding", padding.clone())).wait().unwrap();
        spec.same(outputs.data("image").unwrap(), expected.clone());
    }
    let strict = shared.strict().spawn(1).map(drop);
    if spec.borrows {
        strict.unwrap()
    } else {
        let error = strict.unwrap_err();
        let refused =
            |error: &Error| matches!(error, Error::Call(CallError::Load { error: LoadError::Copied { .. }, .. }));
        assert!(refused(&error), "{error}");
    }
}
