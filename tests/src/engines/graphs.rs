//! Traced graphs.

use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::jit::{self, Compile, JitActorWrapper, JitTaskWrapper, ReplayError, TracedGraph};
use ray_zerocopy::{Batching, CallError, Error, Pending};

use super::EngineUnderTest;
use super::models::BatchModel;

fn model() -> BatchModel {
    BatchModel::new(&Device::flex())
}

fn input(rows: usize) -> Tensor<2> {
    Tensor::random([rows, 4], Distribution::Default, &Device::flex())
}

/// The forward pass, plus a number that is the same for all rows.
fn graph(model: &BatchModel) -> TracedGraph {
    jit::trace(model)
        .input("rows", input(2))
        .input("offset", Tensor::<1>::ones([1], &Device::flex()))
        .symbol("batch", [("rows", 0)])
        .forward(|model, inputs| {
            let rows = model.forward(inputs.float("rows")?);
            Ok(rows + inputs.float::<1>("offset")?.unsqueeze())
        })
        .unwrap()
}

pub fn calls_of_a_graph_run_as_one<E: EngineUnderTest>() {
    let model = model();
    let graph = graph(&model);
    let tasks = JitTaskWrapper::on(&E::backend(1), &graph).unwrap().batch(Batching::default());
    let inputs: Vec<_> = (0..30).map(|index| (input(1 + index % 3), (index % 2) as f32)).collect();
    let check = |calls: Vec<Pending<jit::Values>>| {
        for ((rows, offset), call) in inputs.iter().zip(calls) {
            let there = call.wait().unwrap().float::<2>("output").unwrap();
            let here = model.forward(rows.clone()) + *offset;
            assert_eq!(there.dims(), here.dims());
            let difference: f32 = (there - here).abs().max().into_scalar();
            assert!(difference < 1e-5, "{difference}");
        }
    };
    let offset = |offset| Tensor::<1>::full([1], offset, &Device::flex());
    let values = |(rows, number): &(Tensor<2>, f32)| {
        jit::Values::new().with("rows", rows.clone()).with("offset", offset(*number))
    };
    check(inputs.iter().map(|input| tasks.run(values(input))).collect());
    // Afterwards, since an actor of a Ray cluster keeps its CPUs.
    let actors = JitActorWrapper::on(&E::backend(1), &graph).unwrap().threads_per_worker(1).spawn(1).unwrap();
    let actors = actors.batch(Batching::default());
    check(inputs.iter().map(|input| actors.run(values(input))).collect());
    let report = tasks.report().unwrap();
    let batches = &report.batches[0];
    assert_eq!((batches.calls, batches.rows), (30, 60), "{batches}");
    assert!(batches.batches < 20, "{batches}");
}

/// A compiled graph gives the same answers in this process and in all workers, which borrow its packed weights.
pub fn compiled_graph_gives_the_same_answers<E: EngineUnderTest>() {
    let traced = graph(&model());
    let values = || {
        let offset = Tensor::<1>::full([1], 0.5, &Device::flex());
        jit::Values::new()
            .with("rows", Tensor::<2>::ones([3, 4], &Device::flex()).mul_scalar(0.3))
            .with("offset", offset)
    };
    let expected = traced.load("cpu").unwrap().run(values()).unwrap().data("output").unwrap();
    for (options, most) in [(Compile::f32(), 1e-5), (Compile::bf16(), 0.02), (Compile::int8(), 0.05)] {
        let compiled = traced.compile(options).unwrap();
        assert!(compiled.info().is_compiled());
        let here = compiled.load("cpu").unwrap().run(values()).unwrap().data("output").unwrap();
        let pairs = here.iter::<f32>().zip(expected.iter::<f32>());
        let worst = pairs.map(|(here, expected)| (here - expected).abs()).fold(0.0, f32::max);
        assert!(worst < most, "{worst}");
        let tasks = JitTaskWrapper::on(&E::backend(1), &compiled).unwrap().strict();
        assert_eq!(tasks.run(values()).wait().unwrap().data("output").unwrap(), here);
        let actors = JitActorWrapper::on(&E::backend(1), &compiled).unwrap().strict().threads_per_worker(1);
        let actors = actors.spawn(1).unwrap();
        assert_eq!(actors.run(values()).wait().unwrap().data("output").unwrap(), here);
        let processes = tasks.report().unwrap().processes;
        assert!(processes.iter().all(|process| process.copied == 0));
        let named = processes.iter().filter_map(|process| process.instructions.clone()).collect::<Vec<_>>();
        assert!(named.iter().all(|instructions| *instructions == jit::instruction_set()), "{named:?}");
        assert!(!named.is_empty() || !E::KNOWS_WORKERS, "{processes:?}");
    }
}

pub fn graph_without_rows_is_refused<E: EngineUnderTest>() {
    let model = model();
    let fixed = jit::trace(&model)
        .input("rows", input(2))
        .forward(|model, inputs| Ok(model.forward(inputs.float("rows")?)))
        .unwrap();
    let total = jit::trace(&model)
        .input("rows", input(2))
        .symbol("batch", [("rows", 0)])
        .forward(|model, inputs| Ok(model.forward(inputs.float("rows")?).sum_dim(0)))
        .unwrap();
    let cases = [
        (fixed, "calls cannot be put together: no input has a symbol as its first dimension; trace with `.symbol("),
        (
            total,
            "calls cannot be put together: output `output` has the shape [1, 3], and its first dimension has to be `batch`",
        ),
    ];
    for (graph, text) in cases {
        let tasks = JitTaskWrapper::on(&E::backend(1), &graph).unwrap();
        tasks.run([("rows", input(2))]).wait().unwrap();
        let error = tasks.batch(Batching::default()).run([("rows", input(2))]).wait().unwrap_err();
        let Error::Call(CallError::Graph { error, .. }) = &error else { panic!("{error}") };
        assert!(matches!(error, ReplayError::NotBatchable { .. }));
        assert!(error.to_string().starts_with(text), "{error}");
    }
}
