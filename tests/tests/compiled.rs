//! Compiled graphs: their answers, files, memory and workers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::module::Param;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::tensor::activation::{gelu, relu, sigmoid, softmax};
use burn::tensor::{Bool, DType, Device, Distribution, Tensor, TensorData};
use ray_zerocopy::jit::{self, Compile, JitActorWrapper, JitTaskWrapper, TracedGraph, Values, WeightFormat};
use ray_zerocopy::{LocalPool, Pipeline, Threads, gather};
use serde::{Deserialize, Serialize};

const WIDTH: usize = 24;

/// A transformer block, and what a compiler has to tell apart from it.
#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    attention: MultiHeadAttention,
    norm: LayerNorm,
    wide: Linear,
    narrow: Linear,
    /// Stored by columns, as PyTorch does.
    columns: Linear,
    /// The same weight twice.
    tied: [Linear; 2],
}

impl Model {
    fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let random = |layer: &mut LayerNorm| {
            let gamma = Tensor::random([WIDTH], Distribution::Default, device);
            layer.gamma = Param::from_tensor(gamma);
        };
        let mut norm = LayerNormConfig::new(WIDTH).init(device);
        random(&mut norm);
        let tied: Linear = linear(WIDTH, WIDTH);
        Self {
            attention: MultiHeadAttentionConfig::new(WIDTH, 3).with_dropout(0.0).init(device),
            norm,
            wide: linear(WIDTH, 50),
            narrow: linear(50, WIDTH),
            columns: LinearConfig::new(WIDTH, 33).with_layout(LinearLayout::Col).with_bias(false).init(device),
            tied: [tied.clone(), tied],
        }
    }

    /// `[batch, length, WIDTH]` and `[batch, length]` to `[batch, length, 33]`.
    fn forward(&self, x: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        let attended = self.attention.forward(MhaInput::self_attn(x.clone()).mask_pad(padding)).context;
        let x = self.norm.forward(x + attended);
        let x = self.narrow.forward(gelu(self.wide.forward(x.clone()))) + x;
        // Read twice, so it cannot become part of what follows.
        let both = self.tied[0].forward(x.clone());
        let x = relu(both.clone()) + sigmoid(self.tied[1].forward(both)).tanh();
        self.columns.forward(x)
    }
}

fn inputs(batch: usize, length: usize) -> (Tensor<3>, Tensor<2, Bool>) {
    let device = Device::flex();
    let x = Tensor::random([batch, length, WIDTH], Distribution::Normal(0.0, 1.0), &device);
    // The first sentence has no padding, each of the others one more token of it.
    let rows: Vec<bool> = (0..batch * length).map(|at| at % length + at / length >= length).collect();
    (x, Tensor::from_data(TensorData::new(rows, [batch, length]), &device))
}

fn traced(model: &Model) -> TracedGraph {
    let (x, padding) = inputs(3, 5);
    jit::trace(model)
        .input("x", x)
        .input("padding", padding)
        .symbol("batch", [("x", 0), ("padding", 0)])
        .symbol("length", [("x", 1), ("padding", 1)])
        .forward(|model, inputs| Ok(model.forward(inputs.float("x")?, inputs.bool("padding")?)))
        .unwrap()
}

fn values(batch: usize, length: usize) -> (Values, TensorData, Model) {
    let model = Model::new(&Device::flex());
    let (x, padding) = inputs(batch, length);
    let expected = model.forward(x.clone(), padding.clone()).into_data();
    (Values::new().with("x", x).with("padding", padding), expected, model)
}

/// The largest difference, in units of the largest number.
fn difference(found: &TensorData, expected: &TensorData) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let pairs = || found.iter::<f32>().zip(expected.iter::<f32>());
    let largest = pairs().map(|(_, expected)| expected.abs()).fold(0.0, f32::max);
    pairs().map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn answers_are_those_of_the_pipeline() {
    let device = Device::flex();
    let model = Model::new(&device);
    let compiled = traced(&model).compile(Compile::f32()).unwrap();
    let mut executable = compiled.load("cpu").unwrap();
    assert!(executable.copied().is_empty());
    for (batch, length) in [(3, 5), (1, 1), (2, 13), (7, 40), (1, 100)] {
        let (x, padding) = inputs(batch, length);
        let expected = model.forward(x.clone(), padding.clone()).into_data();
        let found = executable.run(Values::new().with("x", x).with("padding", padding));
        let worst = difference(&found.unwrap().data("output").unwrap(), &expected);
        assert!(worst < 1e-5, "{batch} × {length}: {worst}");
    }
}

#[test]
fn linear_layers_are_packed_and_fused() {
    let model = Model::new(&Device::flex());
    let graph = traced(&model);
    let compiled = graph.compile(Compile::f32()).unwrap();
    let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    let count = |name: &str| names.iter().filter(|found| *found == name).count();
    // Query, key, value, the output of the attention with its residual, the two of the block, the tied ones, the last.
    assert_eq!(names.iter().filter(|name| name.starts_with("Linear")).count(), 9, "{names:?}");
    assert_eq!((count("Attention"), count("LayerNorm"), count("Linear + gelu")), (1, 1, 1), "{names:?}");
    assert_eq!((count("Linear + residual"), count("Linear + sigmoid")), (2, 1), "{names:?}");
    assert_eq!((count("Matmul"), count("Gelu")), (0, 0), "{names:?}");
    // One packed weight for the two layers that are tied, and no weight in its first form.
    let paths: Vec<_> = compiled.arena().paths().collect();
    assert_eq!(paths.iter().filter(|path| path.starts_with("graph.packed.")).count(), 8, "{paths:?}");
    assert!(!paths.contains(&"wide.weight") && paths.contains(&"wide.bias"), "{paths:?}");
    assert!(paths.contains(&"graph.packed.columns.weight.transposed"), "{paths:?}");
    assert_eq!(compiled.arena().bases().count(), 0, "it needs nothing of the graph");
    assert_eq!(compiled.compile(Compile::f32()).unwrap().arena().id(), compiled.arena().id());
    let same =
        |compiled: &TracedGraph| (compiled.info().inputs().collect::<Vec<_>>(), compiled.info().outputs().count());
    assert_eq!(same(&compiled), same(&graph));
}

#[test]
fn file_and_workers_give_the_same_answers() {
    let (values, expected, model) = values(2, 6);
    let graph = traced(&model).compile(Compile::f32()).unwrap();
    let here = graph.load("cpu").unwrap().run(values.clone()).unwrap().data("output").unwrap();
    assert!(difference(&here, &expected) < 1e-5);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.rzg");
    graph.save(&path).unwrap();
    drop((graph, model));
    let opened = TracedGraph::open(&path).unwrap();
    let actors = JitActorWrapper::new(&opened).strict().spawn(2).unwrap();
    let answers = gather(actors.iter().map(|actor| actor.run(values.clone()))).wait().unwrap();
    let pool = LocalPool::builder().workers(1).threads_per_worker(2).start().unwrap();
    let tasks = [
        JitTaskWrapper::on(&Threads::new(2), &opened).unwrap().strict(),
        JitTaskWrapper::on(&pool, &opened).unwrap().strict(),
    ];
    let others = tasks.iter().map(|tasks| tasks.run(values.clone()).wait().unwrap());
    for answer in answers.into_iter().chain(others) {
        assert_eq!(answer.data("output").unwrap(), here);
    }
    assert!(actors.report().unwrap().processes.iter().all(|process| process.copied == 0));
}

#[test]
fn calls_of_one_size_compute_in_the_same_memory() {
    let (first, ..) = values(2, 6);
    let (other, ..) = values(9, 50);
    let graph = traced(&Model::new(&Device::flex())).compile(Compile::f32()).unwrap();
    let mut executable = graph.load("cpu").unwrap();
    assert_eq!(executable.kept_bytes(), 0);
    let mut kept = |values: &Values, calls: usize| {
        let answers: Vec<_> =
            (0..calls).map(|_| executable.run(values.clone()).unwrap().data("output").unwrap()).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        executable.kept_bytes()
    };
    let small = kept(&first, 2);
    // At least the widest result, and not more than all of them.
    assert!((2 * 6 * 50 * 4..2 * 6 * 1000 * 4).contains(&small), "{small}");
    assert_eq!(kept(&first, 30), small);
    let both = kept(&other, 1);
    assert!(both > 10 * small, "{both} after calls of 75 times as many rows, {small} before");
    // The memory of a size that is not used any more is freed.
    assert_eq!(kept(&first, 30), small);
}

/// What a program prints that runs with the instructions that its environment names.
#[test]
fn role_of_a_program() {
    let (Ok(path), Ok(out)) = (std::env::var("RZ_TEST_GRAPH"), std::env::var("RZ_TEST_OUT")) else { return };
    let graph = TracedGraph::open(path).unwrap();
    let x = Tensor::<3>::ones([2, 6, WIDTH], &Device::flex()).mul_scalar(0.1);
    let padding = inputs(2, 6).1;
    let values = Values::new().with("x", x).with("padding", padding);
    let found = graph.load("cpu").unwrap().run(values).unwrap().data("output").unwrap();
    std::fs::write(out, found.as_bytes()).unwrap();
}

#[test]
fn all_instruction_sets_give_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.rzg");
    traced(&Model::new(&Device::flex())).compile(Compile::f32()).unwrap().save(&path).unwrap();
    let answers = ["portable", "avx2", "best"].map(|isa| {
        let out = folder.path().join(isa);
        let mut program = std::process::Command::new("/proc/self/exe");
        program.args(["--exact", "role_of_a_program"]).env("RAY_ZEROCOPY_ISA", isa);
        let status = program.env("RZ_TEST_GRAPH", &path).env("RZ_TEST_OUT", &out).status().unwrap();
        assert!(status.success());
        let bytes = std::fs::read(out).unwrap();
        let (words, _) = bytes.as_chunks::<4>();
        let numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        TensorData::new(numbers, [2, 6, 33])
    });
    for other in &answers[1..] {
        assert!(difference(other, &answers[0]) < 1e-5);
    }
}

#[test]
fn graph_that_was_cut_off_or_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.rzg");
    traced(&Model::new(&Device::flex())).compile(Compile::f32()).unwrap().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    // Inside of a packed weight, which the file has last.
    let mut changed = bytes.clone();
    let at = bytes.len() - 64;
    changed[at] ^= 1;
    std::fs::write(&path, changed).unwrap();
    let error = TracedGraph::open(&path).unwrap_err().to_string();
    assert!(error.contains("corrupted"), "{error}");
    std::fs::write(&path, &bytes[..bytes.len() - 4096]).unwrap();
    assert!(TracedGraph::open(&path).is_err());
}

/// The norm of the change in units of the norm.
fn relative(found: &TensorData, expected: &TensorData) -> f64 {
    let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
    let (change, all) = pairs.fold((0.0, 0.0), |(change, all), (found, expected)| {
        (change + (found - expected).powi(2), all + expected.powi(2))
    });
    (change / all).sqrt()
}

#[test]
fn weights_of_8_bits_give_about_the_same_answers() {
    let (values, expected, model) = values(4, 9);
    let graph = traced(&model);
    let compiled = graph.compile(Compile::int8()).unwrap();
    let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("Linear int8")).count(), 9, "{names:?}");
    assert!(names.contains(&"Linear int8 + gelu".to_owned()), "{names:?}");
    let mut executable = compiled.load("cpu").unwrap();
    assert!(executable.copied().is_empty(), "{:?}", executable.copied());
    let found = executable.run(values.clone()).unwrap().data("output").unwrap();
    let error = relative(&found, &expected);
    assert!((1e-6..0.05).contains(&error), "{error}");
    // Blocks are more exact, and have more scales.
    let blocks = graph.compile(Compile::int8().blocks_of(4).unwrap()).unwrap();
    let of_blocks = blocks.load("cpu").unwrap().run(values.clone()).unwrap().data("output").unwrap();
    assert!(relative(&of_blocks, &expected) < error);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("int8.rzg");
    compiled.save(&path).unwrap();
    let opened = TracedGraph::open(&path).unwrap();
    let pool = LocalPool::builder().workers(1).start().unwrap();
    let tasks = JitTaskWrapper::on(&pool, &opened).unwrap().strict();
    assert_eq!(tasks.run(values).wait().unwrap().data("output").unwrap(), found);
}

#[test]
fn weights_of_16_and_4_bits_give_about_the_same_answers() {
    let (values, expected, model) = values(4, 9);
    let graph = traced(&model);
    for (options, name, least, most) in
        [(Compile::bf16(), "Linear bf16", 1e-5, 3e-3), (Compile::int4(), "Linear int4", 1e-3, 0.1)]
    {
        let compiled = graph.compile(options).unwrap();
        assert_eq!(compiled.info().steps().filter(|step| step.name.starts_with(name)).count(), 9);
        let mut executable = compiled.load("cpu").unwrap();
        assert!(executable.copied().is_empty(), "{:?}", executable.copied());
        let error = relative(&executable.run(values.clone()).unwrap().data("output").unwrap(), &expected);
        assert!((least..most).contains(&error), "{name}: {error}");
    }
}

#[test]
fn layers_of_bf16_are_computed_on_their_weights_as_they_are() {
    let device = Device::flex();
    let mut layers = WideConfig { width: 40, layers: 2 }.init(&device);
    let cast = |param: Param<Tensor<2>>| Param::from_tensor(param.val().cast(DType::BF16));
    for layer in &mut layers.layers {
        layer.weight = cast(layer.weight.clone());
        layer.bias = layer.bias.take().map(|bias| Param::from_tensor(bias.val().cast(DType::BF16)));
    }
    let x = Tensor::<2>::random([5, 40], Distribution::Default, &device).cast(DType::BF16);
    let graph = jit::trace(&layers)
        .input("x", x.clone())
        .forward(|layers, inputs| {
            let x = inputs.float::<2>("x")?;
            Ok(layers.layers.iter().fold(x, |x, layer| relu(layer.forward(x.clone())) + x))
        })
        .unwrap();
    let compiled = graph.compile(Compile::f32()).unwrap();
    let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    assert_eq!(names, ["Linear bf16 + relu + residual"; 2], "{names:?}");
    let [found, expected] = [&compiled, &graph].map(|graph| {
        let output = graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap().data("output").unwrap();
        assert_eq!(output.dtype(), DType::BF16);
        output
    });
    // burn rounds after each operation, a compiled graph once for each layer.
    let error = relative(&found, &expected);
    assert!(error < 0.01, "{error}");
}

#[test]
fn arena_of_8_bits_is_a_quarter() {
    let wide = |format| {
        let device = Device::flex();
        let layers = WideConfig { width: 512, layers: 3 }.init(&device);
        let graph = jit::trace(&layers).input("x", Tensor::<2>::ones([2, 512], &device)).forward(|layers, inputs| {
            Ok(layers.layers.iter().fold(inputs.float::<2>("x")?, |x, layer| relu(layer.forward(x))))
        });
        graph.unwrap().compile(format).unwrap().arena().size_bytes() as f64
    };
    let ratio = wide(Compile::int8()) / wide(Compile::f32());
    assert!(ratio < 0.27, "{ratio}");
}

/// Linear layers, one after the other.
#[derive(Pipeline)]
struct Wide {
    #[pipeline(config)]
    config: WideConfig,
    layers: Vec<Linear>,
}

#[derive(Clone, Serialize, Deserialize)]
struct WideConfig {
    width: usize,
    layers: usize,
}

impl WideConfig {
    fn init(&self, device: &Device) -> Wide {
        let layer = |_| LinearConfig::new(self.width, self.width).init(device);
        Wide { config: self.clone(), layers: (0..self.layers).map(layer).collect() }
    }
}

#[test]
fn exact_changes_no_bit_and_removes_repeated_reshapes() {
    let device = Device::flex();
    let layers = WideConfig { width: 12, layers: 1 }.init(&device);
    let x = Tensor::<2>::random([6, 12], Distribution::Default, &device);
    let graph = jit::trace(&layers)
        .input("x", x.clone())
        .symbol("rows", [("x", 0)])
        .forward(|layers, inputs| {
            let x = inputs.float::<2>("x")?;
            let rows = x.dims()[0];
            // Of the three, the last one stays, and of the two behind the layer none.
            let x = x.reshape([rows, 3, 4]).reshape([rows, 2, 6]).reshape([rows, 12, 1]).reshape([rows, 12]);
            let y = layers.layers[0].forward(x).reshape([rows, 4, 3]).reshape([rows, 12]);
            Ok(y.exp().reshape([rows, 6, 2]).reshape([rows, 3, 4]))
        })
        .unwrap();
    let exact = graph.compile(Compile::exact()).unwrap();
    let reshapes = |graph: &TracedGraph| graph.info().steps().filter(|step| step.name == "Reshape").count();
    // That of the bias, and the last one.
    assert!(reshapes(&graph) >= 8 && reshapes(&exact) <= 2, "{} {}", reshapes(&graph), reshapes(&exact));
    assert!(!exact.info().is_compiled() && exact.arena().paths().any(|path| path == "layers.0.weight"));
    for rows in [1, 6, 50] {
        let x = Tensor::<2>::random([rows, 12], Distribution::Default, &device);
        let answer =
            |graph: &TracedGraph| graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap().data("output").unwrap();
        assert_eq!(answer(&exact), answer(&graph), "{rows} rows");
        assert_eq!(answer(&exact).shape().to_vec(), [rows, 3, 4]);
    }
}

#[test]
fn softmax_of_the_last_dimension_is_fused() {
    let device = Device::flex();
    let layers = WideConfig { width: 20, layers: 1 }.init(&device);
    let x = Tensor::<2>::random([6, 20], Distribution::Normal(0.0, 3.0), &device);
    let graph = jit::trace(&layers)
        .input("x", x.clone())
        .symbol("rows", [("x", 0)])
        .forward(|layers, inputs| Ok(softmax(softmax(layers.layers[0].forward(inputs.float::<2>("x")?), 1), 0)))
        .unwrap();
    let compiled = graph.compile(Compile::f32()).unwrap();
    let steps: Vec<_> = compiled.info().steps().map(|step| (step.name, step.is_fused)).collect();
    let expected = [("Linear", true), ("Softmax", true), ("Softmax", false)].map(|(name, is)| (name.to_owned(), is));
    assert_eq!(steps, expected);
    for rows in [1, 6, 37] {
        let x = Tensor::<2>::random([rows, 20], Distribution::Normal(0.0, 3.0), &device);
        let [found, expected] = [&compiled, &graph]
            .map(|graph| graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap().data("output").unwrap());
        assert!(difference(&found, &expected) < 1e-5);
    }
}

#[test]
fn calibration_keeps_the_bound() {
    let model = Model::new(&Device::flex());
    let graph = traced(&model);
    let samples: Vec<Values> = [(3, 5), (2, 9), (1, 20)]
        .into_iter()
        .map(|(batch, length)| {
            let (x, padding) = inputs(batch, length);
            Values::new().with("x", x).with("padding", padding)
        })
        .collect();
    let error = |options: Compile| {
        let (mut fast, mut plain) = (graph.compile(options).unwrap().load("cpu").unwrap(), graph.load("cpu").unwrap());
        let pairs = samples.iter().map(|sample| {
            let [found, expected] = [&mut fast, &mut plain].map(|graph| graph.run(sample.clone()).unwrap());
            (found.data("output").unwrap(), expected.data("output").unwrap())
        });
        let all: Vec<_> = pairs.collect();
        let flat = |of: &dyn Fn(&(TensorData, TensorData)) -> Vec<f32>| {
            let elements: Vec<f32> = all.iter().flat_map(of).collect();
            TensorData::new(elements.clone(), [elements.len()])
        };
        relative(&flat(&|pair| pair.0.iter::<f32>().collect()), &flat(&|pair| pair.1.iter::<f32>().collect()))
    };
    let most = error(Compile::int8());
    let loose = graph.calibrate(&Compile::int8(), samples.clone(), 2.0 * most, |_, _| ()).unwrap();
    assert_eq!(loose.layers().len(), 8, "the tied weight once");
    assert!(loose.layers().iter().all(|layer| layer.format != WeightFormat::F32));
    assert!((loose.error() / most - 1.0).abs() < 0.01, "{} {most}", loose.error());
    let text = loose.to_string();
    assert!(text.starts_with("8 of 8 layers in int8") && text.contains("attention.query.weight"), "{text}");

    println!("{loose}");
    let mut seen = Vec::new();
    let tell = |done, all| seen.push((done, all));
    let tight = graph.calibrate(&Compile::int8(), samples.clone(), 0.7 * most, tell).unwrap();
    assert!(seen.iter().enumerate().all(|(at, (done, all))| *done == at + 1 && done <= all), "{seen:?}");
    assert!(seen.len() > 9, "each of 8 layers alone, all of them, and a bisection: {seen:?}");
    let kept: Vec<_> = tight.options().kept().map(str::to_owned).collect();
    assert!(!kept.is_empty() && kept.len() < 8, "{tight}");
    assert!(tight.error() <= 0.7 * most, "{tight}");
    // Those that stay are those with the largest errors.
    let formats: Vec<_> = tight.layers().iter().map(|layer| layer.format == WeightFormat::F32).collect();
    assert!(formats.is_sorted_by(|one, other| one >= other), "{tight}");
    assert!((error(tight.options()) / tight.error() - 1.0).abs() < 0.01);

    let refused = |options: &Compile, samples: Vec<Values>, most| {
        graph.calibrate(options, samples, most, |_, _| ()).unwrap_err().to_string()
    };
    let text = refused(&Compile::int8(), samples.clone(), 1e-9);
    assert!(text.contains("may change by 1.0e-9") && text.contains("in int8 they change by"), "{text}");
    assert!(refused(&Compile::int8(), Vec::new(), 0.1).contains("no samples"));
    assert!(refused(&Compile::f32(), samples.clone(), 0.1).contains("no layer to choose"));
    let wrong = vec![Values::new().with("y", inputs(1, 1).0)];
    assert!(refused(&Compile::int8(), wrong, 0.1).contains("`y`"));
    let compiled = graph.compile(tight.options()).unwrap();
    let again = compiled.calibrate(&Compile::int8(), samples, 0.1, |_, _| ()).unwrap_err();
    assert!(again.to_string().contains("compiled already"));
}

#[test]
fn outputs_that_cannot_be_compared() {
    let device = Device::flex();
    let layers = WideConfig { width: 16, layers: 1 }.init(&device);
    let x = Tensor::<2>::random([6, 16], Distribution::Default, &device);
    let samples = || [Values::new().with("x", x.clone())];
    let labels = jit::trace(&layers)
        .input("x", x.clone())
        .forward(|layers, inputs| Ok(layers.layers[0].forward(inputs.float::<2>("x")?).argmax(1)))
        .unwrap();
    let error = labels.calibrate(&Compile::int8(), samples(), 0.5, |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("no floating-point number to compare"), "{error}");
    // Infinities that do not change are no error.
    let masked = jit::trace(&layers)
        .input("x", x.clone())
        .forward(|layers, inputs| {
            let x = inputs.float::<2>("x")?;
            Ok(layers.layers[0].forward(x.clone()).mask_fill(x.greater_elem(0.5), f32::NEG_INFINITY))
        })
        .unwrap();
    let calibration = masked.calibrate(&Compile::int8(), samples(), 0.5, |_, _| ()).unwrap();
    assert!(calibration.error() > 0.0 && calibration.error() < 0.05, "{calibration}");
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let graph = traced(&Model::new(&Device::flex()));
    let error = graph.compile(Compile::int8().keep("wide.wait")).unwrap_err().to_string();
    assert!(error.contains("`wide.wait` was given") && error.contains("the path of a weight"), "{error}");
    let kept = graph.compile(Compile::int8().keep("wide.weight")).unwrap();
    let names: Vec<_> = kept.info().steps().map(|step| step.name).collect();
    assert!(names.contains(&"Linear + gelu".to_owned()), "{names:?}");
    for rows in [0, 3, 6, 1 << 20] {
        let error = Compile::int8().blocks_of(rows).unwrap_err().to_string();
        assert!(error.contains(&format!("blocks of {rows} rows")) && error.contains("multiple of 4"), "{error}");
    }
    assert!(Compile::f32().blocks_of(4).unwrap_err().to_string().contains("whose weights have blocks"));
}
