//! Traced graphs: a recorded forward pass runs without the pipeline's type, and its outputs are
//! bit-identical.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, Lstm, LstmConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Bool, Device, Int, Tensor};
use ray_zerocopy::jit::{self, JitActorWrapper, JitTaskWrapper, TracedGraph, Values};
use ray_zerocopy::{ActorWrapper, Pipeline, share};
use ray_zerocopy_tests::traceable::{Mlp, Transformer, device, ids, random, traced};

#[test]
fn an_mlp_gives_the_same_bits_at_every_batch() {
    let mlp = Mlp::new(&device());
    let trace = jit::trace(&mlp).input("x", random([3, 8])).symbol("batch", [("x", 0)]);
    let graph = trace.forward(|mlp, inputs| Ok(mlp.forward(inputs.float::<2>("x")?))).unwrap();
    assert_eq!(graph.info().inputs().next().unwrap().shape, ["batch", "8"]);
    assert_eq!(graph.info().outputs().next().unwrap().shape, ["batch", "3"]);
    let mut replay = graph.load("cpu").unwrap();
    assert!(replay.copied().is_empty());
    for batch in [1, 2, 3, 7, 3, 64] {
        let x = random([batch, 8]);
        let outputs = replay.run([("x", x.clone())]).unwrap();
        assert_eq!(outputs.data("output").unwrap(), mlp.forward(x).into_data(), "batch {batch}");
    }
}

#[test]
fn empty_batch_gives_outputs_of_the_right_shape() {
    let transformer = Transformer::new(&device());
    let graph = traced(&transformer);
    let empty = || {
        Values::new()
            .with("ids", Tensor::<2, Int>::zeros([0, 4], &device()))
            .with("padding", Tensor::<2, Bool>::zeros([0, 4], &device()))
    };
    let full = || Values::new().with("ids", ids([3, 4], 50)).with("padding", ids([3, 4], 5).greater_elem(3));
    let mut replay = graph.load("cpu").unwrap();
    let actors = JitActorWrapper::new(&graph).spawn(1).unwrap();
    let tasks = JitTaskWrapper::new(&graph).unwrap();
    for found in [replay.run(empty()).unwrap(), actors.run(empty()).wait().unwrap(), tasks.run(empty()).wait().unwrap()]
    {
        for (name, value) in replay.run(full()).unwrap().iter() {
            let mut shape = value.shape();
            shape[0] = 0;
            let found = found.get(name).unwrap();
            assert_eq!((found.shape(), found.dtype()), (shape, value.dtype()), "{name}");
            assert_eq!(found.data().unwrap().as_bytes(), b"");
        }
    }
}

#[test]
fn a_method_is_traced_by_its_name() {
    let mlp = Mlp::new(&device());
    let graph = jit::trace(&mlp).input("x", random([3, 8])).value("by", &2.5_f32).method("scaled").unwrap();
    assert_eq!(graph.info().outputs().map(|port| port.name).collect::<Vec<_>>(), ["output.0", "output.1"]);
    let x = random([3, 8]);
    let outputs = graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap();
    let (scores, best) = mlp.scaled(x, 2.5);
    assert_eq!(outputs.data("output.0").unwrap(), scores.into_data());
    assert_eq!(outputs.data("output.1").unwrap(), best.into_data());
}

#[derive(Pipeline)]
#[pipeline(init = Cnn::new)]
struct Cnn {
    conv: Conv2d,
    norm: BatchNorm,
    head: Linear,
}

impl Cnn {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([3, 8], [3, 3]).init(device),
            norm: BatchNormConfig::new(8).init(device),
            head: LinearConfig::new(8, 5).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let features = relu(self.norm.forward(self.conv.forward(images)));
        let [batch, channels, height, width] = features.dims();
        self.head.forward(features.reshape([batch, channels, height * width]).mean_dim(2).squeeze_dim(2))
    }
}

#[test]
fn cnn_with_running_statistics_is_bit_identical() {
    let cnn = Cnn::new(&device());
    let trace = jit::trace(&cnn)
        .input("images", random([2, 3, 12, 10]))
        .symbol("batch", [("images", 0)])
        .symbol("height", [("images", 2)])
        .symbol("width", [("images", 3)]);
    let graph = trace.forward(|cnn, inputs| Ok(cnn.forward(inputs.float("images")?))).unwrap();
    let mut replay = graph.load("cpu").unwrap();
    for shape in [[1, 3, 12, 10], [5, 3, 20, 9], [2, 3, 12, 10]] {
        let images = random(shape);
        let outputs = replay.run([("images", images.clone())]).unwrap();
        assert_eq!(outputs.data("output").unwrap(), cnn.forward(images).into_data(), "{shape:?}");
    }
}

#[test]
fn transformer_is_bit_identical_at_every_size() {
    let transformer = Transformer::new(&device());
    let graph = traced(&transformer);
    let mut replay = graph.load("cpu").unwrap();
    for (batch, length) in [(1, 1), (1, 7), (4, 3), (3, 3), (2, 33)] {
        let (tokens, padding) = (ids([batch, length], 50), ids([batch, length], 5).greater_elem(3));
        let outputs = replay.run(Values::new().with("ids", tokens.clone()).with("padding", padding.clone())).unwrap();
        let (logits, pooled) = transformer.forward(tokens, padding);
        assert_eq!(outputs.data("logits").unwrap(), logits.into_data(), "{batch} × {length}");
        assert_eq!(outputs.data("pooled").unwrap(), pooled.into_data(), "{batch} × {length}");
    }
}

#[derive(Pipeline)]
#[pipeline(init = Recurrent::new)]
struct Recurrent {
    lstm: Lstm,
}

impl Recurrent {
    fn new(device: &Device) -> Self {
        Self { lstm: LstmConfig::new(6, 10, true).init(device) }
    }
}

#[test]
fn an_lstm_is_unrolled_for_its_length() {
    let model = Recurrent::new(&device());
    let graph = jit::trace(&model)
        .input("x", random([2, 4, 6]))
        .symbol("batch", [("x", 0)])
        .forward(|model, inputs| Ok(model.lstm.forward(inputs.float("x")?, None).0))
        .unwrap();
    let mut replay = graph.load("cpu").unwrap();
    for batch in [1, 2, 9] {
        let x = random([batch, 4, 6]);
        let outputs = replay.run([("x", x.clone())]).unwrap();
        assert_eq!(outputs.data("output").unwrap(), model.lstm.forward(x, None).0.into_data());
    }
    // The length is fixed, because the loop over it is unrolled.
    let error = jit::trace(&model)
        .input("x", random([2, 4, 6]))
        .symbol("length", [("x", 1)])
        .forward(|model, inputs| Ok(model.lstm.forward(inputs.float("x")?, None).0))
        .unwrap_err();
    assert!(matches!(&error, jit::TraceError::Structure { .. }), "{error}");
    assert!(error.to_string().contains("at all sizes of `length`: it has "), "{error}");
}

#[test]
fn actors_and_tasks_match_the_pipeline() {
    let transformer = Transformer::new(&device());
    let graph = traced(&transformer);
    let (tokens, padding) = (ids([3, 4], 50), ids([3, 4], 5).greater_elem(3));
    let inputs = Values::new().with("ids", tokens.clone()).with("padding", padding.clone());
    let here = transformer.forward(tokens, padding).0.into_data();

    let actors = JitActorWrapper::new(&graph).strict().spawn(2).unwrap();
    for actor in actors.iter() {
        assert_eq!(actor.run(inputs.clone()).wait().unwrap().data("logits").unwrap(), here);
    }
    let tasks = JitTaskWrapper::new(&graph).unwrap().strict();
    assert_eq!(tasks.run(inputs).wait().unwrap().data("logits").unwrap(), here);
    let report = tasks.report().unwrap();
    assert!(report.processes.len() > 1, "{report}");
}

#[test]
fn a_graph_file_has_everything() {
    let mlp = Mlp::new(&device());
    let x = random([3, 8]);
    let graph = jit::trace(&mlp)
        .input("x", x.clone())
        .symbol("batch", [("x", 0)])
        .forward(|mlp, inputs| Ok(mlp.forward(inputs.float("x")?)))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mlp.rzg");
    graph.save(&path).unwrap();
    drop(graph);
    let graph = TracedGraph::open(&path).unwrap();
    assert!(graph.info().origin().ends_with("Mlp"), "{}", graph.info().origin());
    let outputs = graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap();
    assert_eq!(outputs.data("output").unwrap(), mlp.forward(x).into_data());
}

#[test]
fn graph_borrows_weights_of_a_shared_arena() {
    let mlp = Mlp::new(&device());
    let shared = share(&mlp).unwrap();
    let graph = jit::trace(&mlp)
        .arena(&shared)
        .input("x", random([3, 8]))
        .forward(|mlp, inputs| Ok(mlp.forward(inputs.float("x")?)))
        .unwrap();
    // The graph's container has no weights: it adds less than the weights take.
    let own = graph.arena().size_bytes() - graph.arena().stored_bytes();
    assert_eq!(graph.arena().stored_bytes(), shared.stored_bytes());
    assert!(own > 0);
    let wrapper = ActorWrapper::<Mlp>::from_arena(shared);
    let actors = wrapper.spawn(1).unwrap();
    let x = random([3, 8]);
    let there = actors.forward(x.clone()).wait().unwrap().into_data();
    let outputs = JitActorWrapper::new(&graph).load().unwrap().run([("x", x)]).unwrap();
    assert_eq!(outputs.data("output").unwrap(), there);
}

#[derive(Module, Debug)]
struct Tied {
    first: Linear,
    second: Linear,
}

#[derive(Pipeline)]
#[pipeline(init = Ports::new)]
struct Ports {
    tied: Tied,
}

impl Ports {
    fn new(device: &Device) -> Self {
        let first = LinearConfig::new(4, 4).init(device);
        Self { tied: Tied { second: first.clone(), first } }
    }
}

#[test]
fn outputs_may_be_inputs_and_each_other() {
    let model = Ports::new(&device());
    let graph = jit::trace(&model)
        .input("x", random([2, 4]))
        .input("chosen", ids([2], 2))
        .input("mask", ids([2, 4], 2).equal_elem(1))
        .symbol("batch", [("x", 0), ("mask", 0)])
        .symbol("chosen", [("chosen", 0)])
        .forward(|model, inputs| {
            let (x, mask) = (inputs.float::<2>("x")?, inputs.bool::<2>("mask")?);
            let hidden = model.tied.second.forward(model.tied.first.forward(x.clone()));
            let masked = hidden.clone().mask_fill(mask.clone(), f32::NEG_INFINITY);
            let picked = masked.clone().select(0, inputs.int::<1>("chosen")?);
            Ok(Values::new()
                .with("x", x)
                .with("masked", masked.clone())
                .with("again", masked)
                .with("picked", picked)
                .with("unmasked", mask.bool_not()))
        })
        .unwrap();
    let x = random([3, 4]);
    let mask = ids([3, 4], 3).equal_elem(1);
    let inputs = Values::new().with("x", x.clone()).with("chosen", ids([5], 3)).with("mask", mask.clone());
    let mut replay = graph.load("cpu").unwrap();
    for _ in 0..3 {
        let outputs = replay.run(inputs.clone()).unwrap();
        assert_eq!(outputs.data("x").unwrap(), x.clone().into_data());
        let masked =
            model.tied.second.forward(model.tied.first.forward(x.clone())).mask_fill(mask.clone(), f32::NEG_INFINITY);
        assert_eq!(outputs.data("masked").unwrap(), masked.clone().into_data());
        assert_eq!(outputs.data("again").unwrap(), masked.clone().into_data());
        assert_eq!(outputs.data("picked").unwrap(), masked.select(0, ids([5], 3)).into_data());
        assert_eq!(outputs.data("unmasked").unwrap(), mask.clone().bool_not().into_data());
    }
}

/// A pipeline whose forward pass is given by the test.
#[test]
fn a_device_that_has_no_interpreter_is_an_error() {
    let mlp = Mlp::new(&device());
    let graph = jit::trace(&mlp).input("x", random([3, 8])).method("forward").unwrap();
    let error = graph.load("tpu").unwrap_err();
    assert!(matches!(error, jit::ReplayError::Device(_)), "{error}");
    let error = jit::TracedGraph::from_arena(&share(&mlp).unwrap()).unwrap_err();
    let expected = "expected a traced graph, found ray_zerocopy_tests::traceable::Mlp; ";
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[test]
fn a_handle_of_a_graph_travels() {
    let mlp = Mlp::new(&device());
    let graph = jit::trace(&mlp).input("x", random([3, 8])).method("forward").unwrap();
    let x = random([3, 8]);
    let here = mlp.forward(x.clone()).into_data();
    let wrapper = JitActorWrapper::new(&graph);
    let text = serde_json::to_string(&wrapper).unwrap();
    let there: JitActorWrapper = serde_json::from_str(&text).unwrap();
    assert_eq!(there.arena().id(), graph.arena().id());
    assert_eq!(there.load().unwrap().run([("x", x)]).unwrap().data("output").unwrap(), here);
    // A handle of a pipeline is not a handle of a graph.
    let other = serde_json::to_string(&ActorWrapper::new(&mlp).unwrap()).unwrap();
    let error = serde_json::from_str::<JitActorWrapper>(&other).unwrap_err();
    assert!(error.to_string().contains("expected a traced graph, found ray_zerocopy_tests::traceable::Mlp"), "{error}");
}

#[test]
fn sizes_beyond_the_plan_cache_are_correct() {
    let mlp = Mlp::new(&device());
    let trace = jit::trace(&mlp).input("x", random([3, 8])).symbol("batch", [("x", 0)]);
    let mut replay = trace.method("forward").unwrap().load("cpu").unwrap();
    for batch in (1..=40).chain(1..=3).chain([40, 20]) {
        let x = random([batch, 8]);
        let outputs = replay.run([("x", x.clone())]).unwrap();
        assert_eq!(outputs.data("output").unwrap(), mlp.forward(x).into_data(), "batch {batch}");
    }
}
