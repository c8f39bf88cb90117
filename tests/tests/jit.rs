//! Traced graphs: what a pipeline does is recorded, and runs without its type, with the same bits.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, Lstm,
    LstmConfig,
};
use burn::tensor::activation::{gelu, relu, softmax};
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use ray_zerocopy::jit::{self, JitActorWrapper, JitTaskWrapper, TracedGraph, Values};
use ray_zerocopy::{ActorWrapper, Pipeline, share};

fn device() -> Device {
    Device::flex()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Default, &device())
}

fn ids<const D: usize>(shape: [usize; D], below: i64) -> Tensor<D, Int> {
    let count = shape.iter().product::<usize>() as i64;
    Tensor::<1, Int>::arange(0..count, &device()).reshape(shape) * 7 % below
}

#[derive(Pipeline)]
#[pipeline(init = Mlp::new)]
struct Mlp {
    first: Linear,
    heads: BTreeMap<String, Vec<Linear>>,
    norm: LayerNorm,
}

#[ray_zerocopy::remote]
impl Mlp {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        let head = || LinearConfig::new(16, 3).init(device);
        Self {
            first: LinearConfig::new(8, 16).init(device),
            heads: BTreeMap::from([("a".to_owned(), vec![head(), head()]), ("b".to_owned(), vec![head()])]),
            norm: LayerNormConfig::new(16).init(device),
        }
    }

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self.norm.forward(gelu(self.first.forward(x)));
        let heads = self.heads.values().flatten().map(|head| head.forward(hidden.clone()));
        softmax(heads.reduce(|sum, head| sum + head).unwrap(), 1)
    }

    pub fn scaled(&self, x: Tensor<2>, by: f32) -> (Tensor<2>, Tensor<1, Int>) {
        let scores = self.forward(x) * by;
        let best = scores.clone().argmax(1).squeeze_dim(1);
        (scores, best)
    }

    pub fn described(&self, x: Tensor<2>) -> Vec<String> {
        vec![x.to_string()]
    }
}

#[test]
fn an_mlp_gives_the_same_bits_at_every_batch() {
    let mlp = Mlp::new(&device());
    let trace = jit::trace(&mlp).input("x", random([3, 8])).symbol("batch", [("x", 0)]);
    let graph = trace.forward(|mlp, inputs| Ok(mlp.forward(inputs.float::<2>("x")?))).unwrap();
    assert_eq!(graph.inputs().next().unwrap().shape, ["batch", "8"]);
    assert_eq!(graph.outputs().next().unwrap().shape, ["batch", "3"]);
    let mut replay = graph.load("cpu").unwrap();
    assert!(replay.copied().is_empty());
    for batch in [1, 2, 3, 7, 3, 64] {
        let x = random([batch, 8]);
        let outputs = replay.run([("x", x.clone())]).unwrap();
        assert_eq!(outputs.data("output").unwrap(), mlp.forward(x).into_data(), "batch {batch}");
    }
}

#[test]
fn a_method_is_traced_by_its_name() {
    let mlp = Mlp::new(&device());
    let graph = jit::trace(&mlp).input("x", random([3, 8])).value("by", &2.5_f32).method("scaled").unwrap();
    assert_eq!(graph.outputs().map(|port| port.name).collect::<Vec<_>>(), ["output.0", "output.1"]);
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
fn a_cnn_with_running_statistics_gives_the_same_bits() {
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

#[derive(Pipeline)]
#[pipeline(init = Transformer::new)]
struct Transformer {
    words: Embedding,
    positions: Embedding,
    encoder: TransformerEncoder,
    causal: MultiHeadAttention,
    head: Linear,
}

impl Transformer {
    fn new(device: &Device) -> Self {
        Self {
            words: EmbeddingConfig::new(50, 32).init(device),
            positions: EmbeddingConfig::new(64, 32).init(device),
            encoder: TransformerEncoderConfig::new(32, 64, 4, 2).with_dropout(0.0).init(device),
            causal: MultiHeadAttentionConfig::new(32, 4).with_dropout(0.0).init(device),
            head: LinearConfig::new(32, 50).init(device),
        }
    }

    fn forward(&self, ids: Tensor<2, Int>, padding: Tensor<2, Bool>) -> (Tensor<3>, Tensor<2>) {
        let [batch, length] = ids.dims();
        let device = ids.device();
        let positions = Tensor::<1, Int>::arange(0..length as i64, &device).unsqueeze::<2>();
        let hidden = self.words.forward(ids) + self.positions.forward(positions);
        let hidden = self.encoder.forward(TransformerEncoderInput::new(hidden).mask_pad(padding));
        let mask = generate_autoregressive_mask(batch, length, &device);
        let hidden = self.causal.forward(MhaInput::self_attn(hidden).mask_attn(mask)).context;
        let pooled = hidden.clone().mean_dim(1).reshape([batch, 32]);
        (self.head.forward(hidden.reshape([batch * length, 32])).reshape([batch, length, 50]), pooled)
    }
}

fn traced(transformer: &Transformer) -> TracedGraph {
    let padding = ids([2, 5], 5).greater_elem(3);
    let trace = jit::trace(transformer)
        .input("ids", ids([2, 5], 50))
        .input("padding", padding)
        .symbol("batch", [("ids", 0), ("padding", 0)])
        .symbol("length", [("ids", 1), ("padding", 1)]);
    let forward = trace.forward(|model, inputs| {
        let (logits, pooled) = model.forward(inputs.int("ids")?, inputs.bool("padding")?);
        Ok(Values::from([("logits", logits.into()), ("pooled", jit::Value::from(pooled))]))
    });
    forward.unwrap()
}

#[test]
fn a_transformer_gives_the_same_bits_at_every_batch_and_length() {
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
    // Its length is in its structure.
    let error = jit::trace(&model)
        .input("x", random([2, 4, 6]))
        .symbol("length", [("x", 1)])
        .forward(|model, inputs| Ok(model.lstm.forward(inputs.float("x")?, None).0))
        .unwrap_err();
    assert!(matches!(&error, jit::TraceError::Structure { .. }), "{error}");
    assert!(error.to_string().contains("at other sizes of `length`: it has "), "{error}");
}

#[test]
fn actors_and_tasks_run_a_graph_as_the_pipeline_would() {
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
    assert!(graph.origin().ends_with("Mlp"), "{}", graph.origin());
    let outputs = graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap();
    assert_eq!(outputs.data("output").unwrap(), mlp.forward(x).into_data());
}

#[test]
fn weights_that_are_shared_already_are_not_shared_again() {
    let mlp = Mlp::new(&device());
    let shared = share(&mlp).unwrap();
    let graph = jit::trace(&mlp)
        .arena(&shared)
        .input("x", random([3, 8]))
        .forward(|mlp, inputs| Ok(mlp.forward(inputs.float("x")?)))
        .unwrap();
    // The graph has weights of its own in no byte: what is in its container is less than they take.
    let own = graph.arena().len() - graph.arena().stored_bytes();
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

/// A pipeline whose forward pass is whatever a test says.
#[derive(Pipeline)]
#[pipeline(init = Plain::new)]
struct Plain {
    layer: Linear,
}

impl Plain {
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(4, 4).init(device) }
    }
}

/// What tracing a forward pass of `[batch, 4]` says.
fn refused(forward: impl Fn(&Plain, Tensor<2>) -> Tensor<2>) -> jit::TraceError {
    let plain = Plain::new(&device());
    let trace = jit::trace(&plain).input("x", random([3, 4])).symbol("batch", [("x", 0)]);
    trace.forward(|plain, inputs| Ok(forward(plain, inputs.float("x")?))).unwrap_err()
}

#[test]
fn what_depends_on_values_is_refused() {
    // A branch on what was computed.
    let error = refused(|plain, x| {
        let y = plain.layer.forward(x);
        let sum: f32 = y.clone().sum().into_scalar();
        if sum > 0.0 { y } else { -y }
    });
    let jit::TraceError::Untraceable { reason, after: Some(after) } = &error else { panic!("{error}") };
    assert!(reason.contains("no concrete value"), "{reason}");
    assert_eq!(after, "Sum");
    assert!(error.to_string().contains("pass it as an input"), "{error}");

    // Where something is.
    let error = refused(|plain, x| {
        let places = plain.layer.forward(x.clone()).greater_elem(0.0).argwhere();
        x * places.dims()[0] as f32
    });
    assert!(matches!(error, jit::TraceError::Untraceable { .. }), "{error}");

    // The input itself has values while it is recorded, which would be in the graph for ever.
    let error = refused(|_, x| {
        let first: f32 = x.clone().slice([0..1, 0..1]).into_data().iter::<f32>().next().unwrap();
        x * first
    });
    assert!(matches!(error, jit::TraceError::Untraceable { .. }), "{error}");
    let error = refused(|_, x| {
        let first: f32 = x.clone().into_data().iter::<f32>().next().unwrap();
        x * first
    });
    let jit::TraceError::Differs { output, which, .. } = &error else { panic!("{error}") };
    assert_eq!((output.as_str(), which.as_str()), ("output", "other inputs, made of the example"));

    // An operation that burn does not record.
    let error = refused(|_, x| {
        device().seed(7);
        x.device().seed(7);
        x
    });
    let jit::TraceError::Untraceable { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains("seeding is not supported"), "{reason}");
}

#[test]
fn what_is_not_the_same_each_time_is_refused() {
    let error = refused(|_, x| x.random_like(Distribution::Default));
    let jit::TraceError::Differs { how, .. } = &error else { panic!("{error}") };
    assert!(how.starts_with("element 0 is "), "{how}");
}

#[test]
fn what_is_another_thing_at_another_size_is_refused() {
    let error = refused(|plain, x| {
        let [batch, _] = x.dims();
        if batch > 4 { plain.layer.forward(x) } else { x }
    });
    let jit::TraceError::Structure { symbols, reason } = &error else { panic!("{error}") };
    assert_eq!(symbols, "`batch`");
    assert!(reason.starts_with("it has 0 operations at one size, and "), "{reason}");

    let error = refused(|_, x| {
        let [batch, _] = x.dims();
        x / (batch as f32).sqrt()
    });
    let jit::TraceError::Number { operation, .. } = &error else { panic!("{error}") };
    assert_eq!(operation, "operation 0 (DivScalar)");

    let error = refused(|_, x| {
        let [batch, _] = x.dims();
        let squares: Vec<f32> = (0..batch).map(|row| (row * row) as f32).collect();
        let device = x.device();
        x * Tensor::<1>::from_floats(squares.as_slice(), &device).reshape([batch, 1])
    });
    let jit::TraceError::Constant { operation, shape, .. } = &error else { panic!("{error}") };
    assert_eq!((operation.as_str(), shape.as_str()), ("Reshape", "[3]"));
}

#[test]
fn a_number_that_is_a_sum_of_sizes_is_known() {
    let plain = Plain::new(&device());
    let trace = jit::trace(&plain).input("x", random([3, 4])).symbol("batch", [("x", 0)]);
    let forward = |plain: &Plain, x: Tensor<2>| {
        let [batch, width] = x.dims();
        let device = x.device();
        let padded = Tensor::cat(vec![plain.layer.forward(x), Tensor::zeros([batch + 1, width], &device)], 0);
        padded * (2 * batch + 1) as f32
    };
    let graph = trace.forward(|plain, inputs| Ok(forward(plain, inputs.float("x")?))).unwrap();
    assert_eq!(graph.outputs().next().unwrap().shape, ["2·batch + 1", "4"]);
    for batch in [1, 3, 10] {
        let x = random([batch, 4]);
        let outputs = graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap();
        assert_eq!(outputs.data("output").unwrap(), forward(&plain, x).into_data());
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let transformer = Transformer::new(&device());
    let graph = traced(&transformer);
    let mut replay = graph.load("cpu").unwrap();
    let (tokens, padding) = (ids([3, 4], 50), ids([3, 4], 5).greater_elem(3));
    let good = Values::new().with("ids", tokens).with("padding", padding);
    let mut says = |values: Values| replay.run(values).unwrap_err().to_string();
    assert_eq!(
        says(Values::new().with("ids", ids([3, 4], 50))),
        "input `padding` is missing; the graph takes `ids`, `padding`"
    );
    assert_eq!(
        says(good.clone().with("mask", ids([3, 4], 50))),
        "input `mask` is not one of the graph's; the graph takes `ids`, `padding`"
    );
    assert_eq!(
        says(good.clone().with("ids", random([3, 4]))),
        "input `ids` is F32 of shape [3, 4], and the graph takes I32 of shape [batch, length]"
    );
    assert_eq!(
        says(good.clone().with("ids", ids([12], 50))),
        "input `ids` is I32 of shape [12], and the graph takes I32 of shape [batch, length]"
    );
    assert_eq!(
        says(good.clone().with("padding", ids([3, 5], 5).greater_elem(3))),
        "input `padding` is Bool of shape [3, 5], and the graph takes Bool of shape [batch, length], where `length` is 4 by `ids`"
    );
    let empty = Values::new()
        .with("ids", Tensor::<2, Int>::zeros([0, 4], &device()))
        .with("padding", Tensor::<2, Bool>::zeros([0, 4], &device()));
    assert!(says(empty).contains("with one element at least"));

    // In workers they are found before anything is sent.
    let actors = JitActorWrapper::new(&graph).spawn(1).unwrap();
    let error = actors.run(good.clone().with("ids", random([3, 4]))).wait().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`run` has no result: input `ids` is F32 of shape [3, 4], and the graph takes I32 of shape [batch, length]"
    );
    assert!(actors.run(good.clone()).wait().is_ok());

    // What only the backend sees: the table of positions has 64 rows. The next run is as good as ever.
    let long = Values::new().with("ids", ids([1, 65], 50)).with("padding", ids([1, 65], 5).greater_elem(3));
    let error = replay.run(long.clone()).unwrap_err();
    assert!(matches!(&error, jit::ReplayError::Operation { operation, .. } if operation == "Embedding"), "{error}");
    assert!(replay.run(good.clone()).is_ok());
    let error = actors.run(long).wait().unwrap_err();
    assert!(error.to_string().contains("(Embedding) failed: "), "{error}");
    assert!(actors.run(good).wait().is_ok());
}

#[test]
fn inputs_that_are_not_contiguous_are_read_in_their_order() {
    let mlp = Mlp::new(&device());
    let trace = jit::trace(&mlp).input("x", random([3, 8])).symbol("batch", [("x", 0)]);
    let graph = trace.forward(|mlp, inputs| Ok(mlp.forward(inputs.float::<2>("x")?))).unwrap();
    let x = random([8, 5]).swap_dims(0, 1);
    let here = mlp.forward(x.clone()).into_data();
    assert_eq!(graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap().data("output").unwrap(), here);
    let tasks = JitTaskWrapper::new(&graph).unwrap();
    assert_eq!(tasks.run([("x", x)]).wait().unwrap().data("output").unwrap(), here);
}

#[test]
fn a_trace_that_is_set_up_wrongly_says_where() {
    let plain = Plain::new(&device());
    let says = |set: &dyn Fn(jit::Tracer<'static, Plain>) -> jit::Tracer<'static, Plain>| {
        let trace = jit::trace(&plain).arena(&share(&plain).unwrap());
        let forward = |plain: &Plain, inputs: &Values| Ok(plain.layer.forward(inputs.float::<2>("x")?));
        set(trace).forward(forward).unwrap_err().to_string()
    };
    let x = || random([3, 4]);
    assert_eq!(says(&|trace| trace.input("x", x()).input("x", x())), "example input `x`: there are two of this name");
    assert_eq!(says(&|trace| trace.input("x", random([0, 4]))), "example input `x`: it is empty: its shape is [0, 4]");
    assert_eq!(
        says(&|trace| trace.input("x", x()).symbol("batch", [("y", 0)])),
        "symbol `batch`: there is no input `y`; there is `x`"
    );
    assert_eq!(
        says(&|trace| trace.input("x", x()).symbol("batch", [("x", 2)])),
        "symbol `batch`: `x` has no axis 2: its shape is [3, 4]"
    );
    assert_eq!(
        says(&|trace| trace.input("x", x()).symbol("batch", [("x", 0)]).symbol("rows", [("x", 0)])),
        "symbol `rows`: axis 0 of `x` has a symbol already"
    );
    assert_eq!(
        says(&|trace| trace.input("x", x()).symbol("batch", [("x", 0), ("x", 1)])),
        "symbol `batch`: axis 1 of `x` is 4 long, and that of `x` is 3"
    );
    assert_eq!(says(&|trace| trace.input("x", x()).symbol("batch", [])), "symbol `batch`: it names no axis");
    assert_eq!(
        says(&|trace| trace.input("y", x())),
        "the forward pass took its inputs wrongly: there is no tensor `x`; there is `y`"
    );
    assert_eq!(
        says(&|trace| trace.input("x", ids([3, 4], 5))),
        "the forward pass took its inputs wrongly: `x` is I32 of shape [3, 4], and a float tensor of rank 2 was asked for"
    );
}

#[test]
fn a_method_that_cannot_be_traced_says_why() {
    let mlp = Mlp::new(&device());
    let trace = || jit::trace(&mlp).input("x", random([3, 8]));
    let says = |error: Result<TracedGraph, jit::TraceError>| error.unwrap_err().to_string();
    assert_eq!(
        says(trace().method("forwards")),
        "method `forwards`: there is none of this name; there is `forward`, `scaled`, `described`"
    );
    assert_eq!(
        says(trace().method("scaled")),
        "method `scaled`: its parameter `by` is no tensor: give it a value with `.value(\"by\", ..)`"
    );
    assert_eq!(
        says(jit::trace(&mlp).method("forward")),
        "method `forward`: its parameter `x` is a tensor: give an example with `.input(\"x\", ..)`"
    );
    assert_eq!(says(trace().value("y", &1).method("forward")), "method `forward`: it has no parameter `y`; it has `x`");
    assert_eq!(
        says(trace().method("described")),
        "method `described`: a graph gives tensors, tuples of tensors and arrays of tensors, and nothing else"
    );
    let error = trace().value("by", "two").method("scaled").unwrap_err();
    assert!(matches!(&error, jit::TraceError::Method { name, .. } if name == "scaled"), "{error}");
}

#[test]
fn a_device_that_has_no_interpreter_is_an_error() {
    let mlp = Mlp::new(&device());
    let graph = jit::trace(&mlp).input("x", random([3, 8])).method("forward").unwrap();
    let error = graph.load("tpu").unwrap_err();
    assert!(matches!(error, jit::ReplayError::Device(_)), "{error}");
    let error = jit::TracedGraph::from_arena(&share(&mlp).unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("it holds no graph, but jit::Mlp; "), "{error}");
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
    // One of another pipeline is none of a graph.
    let other = serde_json::to_string(&ActorWrapper::new(&mlp).unwrap()).unwrap();
    let error = serde_json::from_str::<JitActorWrapper>(&other).unwrap_err();
    assert!(error.to_string().contains("it holds no graph, but jit::Mlp"), "{error}");
}

#[test]
fn more_sizes_than_are_kept_are_as_right_as_the_first() {
    let mlp = Mlp::new(&device());
    let trace = jit::trace(&mlp).input("x", random([3, 8])).symbol("batch", [("x", 0)]);
    let mut replay = trace.method("forward").unwrap().load("cpu").unwrap();
    for batch in (1..=40).chain(1..=3).chain([40, 20]) {
        let x = random([batch, 8]);
        let outputs = replay.run([("x", x.clone())]).unwrap();
        assert_eq!(outputs.data("output").unwrap(), mlp.forward(x).into_data(), "batch {batch}");
    }
}
