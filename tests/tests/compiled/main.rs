//! Compiled graphs: their answers, files, memory and workers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod embeddings;
mod model;
mod quantised;
mod weights;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use ray_zerocopy::jit::{self, Compile, JitActorWrapper, JitTaskWrapper, TracedGraph, Values};
use ray_zerocopy::{LocalPool, Threads, gather};

use model::{Model, WIDTH, WideConfig, difference, inputs, traced, values};

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
