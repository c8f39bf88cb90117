//! The cases: models, their traced graphs, and inputs.

use anyhow::Result;
use benches::image_models::{DetectorConfig, ResNetConfig};
use benches::traced_models::{BlocksConfig, StackConfig};
use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::jit::{self, TracedGraph, Values};
use ray_zerocopy_examples::encoder::{Encoder, sentences};
use ray_zerocopy_examples::minilm::fetch::{self, ModelFiles};
use serde_json::json;

use crate::peers::Model;

/// A graph and its inputs.
pub struct Case {
    pub model: String,
    pub graph: TracedGraph,
    pub inputs: Values,
    /// What a peer runs instead of the graph. `None` if a peer does not have the model.
    pub peer: Option<Model>,
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Default, &Device::flex())
}

/// MiniLM as peers run it.
pub fn minilm(files: &ModelFiles) -> Model {
    Model { kind: "minilm", arguments: json!({ "weights": files.weights() }), has_same_weights: true }
}

/// Creates all cases.
pub fn cases(quick: bool) -> Result<Vec<Case>> {
    let device = Device::flex();
    let (width, layers) = if quick { (512, 2) } else { (4096, 4) };
    let mut cases = Vec::new();
    let files = fetch::model_files()?;
    let graph = Encoder::from_files(&files, &device)?.trace()?;
    for shape in [[1, 12], [8, 12], [32, 16], [8, 128]] {
        let (ids, padding) = sentences(shape);
        let inputs = Values::new().with("ids", ids).with("padding", padding);
        let [rows, tokens] = shape;
        let (model, peer) = (format!("MiniLM, {rows} × {tokens} tokens"), Some(minilm(&files)));
        cases.push(Case { model, graph: graph.clone(), inputs, peer });
    }
    let stack = StackConfig { width, layers }.init(&device);
    let graph = jit::trace(&stack)
        .input("x", random([2, width]))
        .symbol("batch", [("x", 0)])
        .forward(|stack, inputs| Ok(stack.forward(inputs.float::<2>("x")?)))?;
    for batch in [1, 8, 32] {
        let inputs = Values::new().with("x", random([batch, width]));
        let model = format!("{layers} linear layers of {width}, {batch} rows");
        let arguments = json!({ "width": width, "layers": layers });
        let peer = Some(Model { kind: "stack", arguments, has_same_weights: false });
        cases.push(Case { model, graph: graph.clone(), inputs, peer });
    }
    let (width, layers) = (64, 17);
    let blocks = BlocksConfig { width, layers }.init(&device);
    let graph = jit::trace(&blocks)
        .input("x", random([2, 16, width]))
        .forward(|blocks, inputs| Ok(blocks.forward(inputs.float::<3>("x")?)))?;
    let inputs = Values::new().with("x", random([2, 16, width]));
    let arguments = json!({ "width": width, "layers": layers, "heads": 4 });
    let peer = Some(Model { kind: "blocks", arguments, has_same_weights: false });
    cases.push(Case { model: format!("{layers} transformer blocks of {width}"), graph, inputs, peer });
    cases.extend([residual(quick, &device)?, detector(&device)?]);
    Ok(cases)
}

/// An image in ResNet-18, or in a smaller one.
fn residual(quick: bool, device: &Device) -> Result<Case> {
    let (channels, size) = if quick { (8, 64) } else { (64, 224) };
    let model = ResNetConfig { channels, classes: 1000 }.init(device);
    let graph = jit::trace(&model)
        .input("x", random([2, 3, size, size]))
        .symbol("batch", [("x", 0)])
        .forward(|model, inputs| Ok(model.forward(inputs.float::<4>("x")?)))?;
    let inputs = Values::new().with("x", random([1, 3, size, size]));
    let peer = Model { kind: "resnet18", arguments: json!({ "size": size }), has_same_weights: false };
    let model = format!("ResNet-18 of {channels}, {size} × {size} pixels");
    Ok(Case { model, graph, inputs, peer: (!quick).then_some(peer) })
}

/// A part of a signal in a detector of speech.
fn detector(device: &Device) -> Result<Case> {
    let (width, samples) = (128, DetectorConfig::SAMPLES);
    let model = DetectorConfig { width }.init(device);
    let (signal, state) = (random([1, samples]), random([1, width]));
    let graph = jit::trace(&model)
        .input("samples", signal.clone())
        .input("cell", state.clone())
        .input("hidden", state.clone())
        .forward(|model, inputs| {
            let [output, cell, hidden] =
                model.forward(inputs.float("samples")?, inputs.float("cell")?, inputs.float("hidden")?);
            Ok(Values::new().with("output", output).with("cell", cell).with("hidden", hidden))
        })?;
    let inputs = Values::new().with("samples", signal).with("cell", state.clone()).with("hidden", state);
    let arguments = json!({ "samples": samples, "width": width });
    let peer = Some(Model { kind: "detector", arguments, has_same_weights: false });
    Ok(Case { model: format!("convolutions and LSTM of {width}, {samples} samples"), graph, inputs, peer })
}
