//! Errors of tracing, and of inputs that a graph does not accept.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use ray_zerocopy::jit::{self, JitActorWrapper, JitTaskWrapper, TracedGraph, Values};
use ray_zerocopy::{Pipeline, share};
use ray_zerocopy_tests::traceable::{Mlp, Transformer, device, ids, random, traced};

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

/// The error of tracing a forward pass on an input of shape `[batch, 4]`.
fn refused(forward: impl Fn(&Plain, Tensor<2>) -> Tensor<2>) -> jit::TraceError {
    let plain = Plain::new(&device());
    let trace = jit::trace(&plain).input("x", random([3, 4])).symbol("batch", [("x", 0)]);
    trace.forward(|plain, inputs| Ok(forward(plain, inputs.float("x")?))).unwrap_err()
}

#[test]
fn dependence_on_tensor_values_is_refused() {
    // A branch on a computed value.
    let error = refused(|plain, x| {
        let y = plain.layer.forward(x);
        let sum: f32 = y.clone().sum().into_scalar();
        if sum > 0.0 { y } else { -y }
    });
    let jit::TraceError::Untraceable { reason, after: Some(after) } = &error else { panic!("{error}") };
    assert!(reason.contains("no concrete value"), "{reason}");
    assert_eq!(after, "Sum");
    assert!(error.to_string().contains("pass it as an input"), "{error}");

    // A shape that depends on values.
    let error = refused(|plain, x| {
        let places = plain.layer.forward(x.clone()).greater_elem(0.0).argwhere();
        x * places.dims()[0] as f32
    });
    assert!(matches!(error, jit::TraceError::Untraceable { .. }), "{error}");

    // The input has concrete values while it is recorded. They would become constants of the graph.
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
    assert_eq!((output.as_str(), which.as_str()), ("output", "other inputs, derived from the examples"));

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
fn nondeterministic_forward_pass_is_refused() {
    let error = refused(|_, x| x.random_like(Distribution::Default));
    let jit::TraceError::Differs { how, .. } = &error else { panic!("{error}") };
    assert!(how.starts_with("element 0 is "), "{how}");
}

#[test]
fn structure_that_varies_with_size_is_refused() {
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
fn sum_of_sizes_is_a_symbolic_number() {
    let plain = Plain::new(&device());
    let trace = jit::trace(&plain).input("x", random([3, 4])).symbol("batch", [("x", 0)]);
    let forward = |plain: &Plain, x: Tensor<2>| {
        let [batch, width] = x.dims();
        let device = x.device();
        let padded = Tensor::cat(vec![plain.layer.forward(x), Tensor::zeros([batch + 1, width], &device)], 0);
        padded * (2 * batch + 1) as f32
    };
    let graph = trace.forward(|plain, inputs| Ok(forward(plain, inputs.float("x")?))).unwrap();
    assert_eq!(graph.info().outputs().next().unwrap().shape, ["2·batch + 1", "4"]);
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
    // A batch may be empty, but a sequence may not, because its pooled output would be a mean of no
    // elements.
    let empty = Values::new()
        .with("ids", Tensor::<2, Int>::zeros([3, 0], &device()))
        .with("padding", Tensor::<2, Bool>::zeros([3, 0], &device()));
    assert_eq!(
        says(empty),
        "input `ids` is I32 of shape [3, 0], and the graph takes I32 of shape [batch, length], with `length` 1 at least, since \
         output `pooled` would not be empty"
    );

    // Calls to workers check the inputs before they send anything.
    let actors = JitActorWrapper::new(&graph).spawn(1).unwrap();
    let error = actors.run(good.clone().with("ids", random([3, 4]))).wait().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`run` has no result: input `ids` is F32 of shape [3, 4], and the graph takes I32 of shape [batch, length]"
    );
    assert!(actors.run(good.clone()).wait().is_ok());

    // An error that only the backend finds: the table of positions has 64 rows. The next run works.
    let long = Values::new().with("ids", ids([1, 65], 50)).with("padding", ids([1, 65], 5).greater_elem(3));
    let error = replay.run(long.clone()).unwrap_err();
    assert!(matches!(&error, jit::ReplayError::Operation { operation, .. } if operation == "Embedding"), "{error}");
    assert!(replay.run(good.clone()).is_ok());
    let error = actors.run(long).wait().unwrap_err();
    assert!(error.to_string().contains("(Embedding) failed: "), "{error}");
    assert!(actors.run(good).wait().is_ok());
}

#[test]
fn noncontiguous_inputs_keep_their_order() {
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
    assert_eq!(says(&|trace| trace.input("x", x()).input("x", x())), "example input `x`: two inputs have this name");
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
        "symbol `rows`: axis 0 of `x` already has a symbol"
    );
    assert_eq!(
        says(&|trace| trace.input("x", x()).symbol("batch", [("x", 0), ("x", 1)])),
        "symbol `batch`: axis 1 of `x` has size 4, but the axis of `x` has size 3"
    );
    assert_eq!(says(&|trace| trace.input("x", x()).symbol("batch", [])), "symbol `batch`: it does not name an axis");
    assert_eq!(
        says(&|trace| trace.input("y", x())),
        "invalid use of the inputs in the forward pass: there is no tensor `x`; there is `y`"
    );
    assert_eq!(
        says(&|trace| trace.input("x", ids([3, 4], 5))),
        "invalid use of the inputs in the forward pass: `x` is I32 of shape [3, 4], and a float tensor of rank 2 was asked for"
    );
}

#[test]
fn a_method_that_cannot_be_traced_says_why() {
    let mlp = Mlp::new(&device());
    let trace = || jit::trace(&mlp).input("x", random([3, 8]));
    let says = |error: Result<TracedGraph, jit::TraceError>| error.unwrap_err().to_string();
    assert_eq!(
        says(trace().method("forwards")),
        "method `forwards`: it does not exist; there is `forward`, `scaled`, `described`"
    );
    assert_eq!(
        says(trace().method("scaled")),
        "method `scaled`: its parameter `by` is not a tensor: give it a value with `.value(\"by\", ..)`"
    );
    assert_eq!(
        says(jit::trace(&mlp).method("forward")),
        "method `forward`: its parameter `x` is a tensor: give an example with `.input(\"x\", ..)`"
    );
    assert_eq!(says(trace().value("y", &1).method("forward")), "method `forward`: it has no parameter `y`; it has `x`");
    assert_eq!(
        says(trace().method("described")),
        "method `described`: its result is not a tensor, or a tuple or array of tensors"
    );
    let error = trace().value("by", "two").method("scaled").unwrap_err();
    assert!(matches!(&error, jit::TraceError::Method { name, .. } if name == "scaled"), "{error}");
}

/// Without the feature, opening a module is an error that names the feature.
#[cfg(not(feature = "torchscript"))]
#[test]
fn a_module_of_pytorch_needs_a_feature() {
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/torchscript/mlp.pt");
    let error = jit::TorchScript::open(module).unwrap_err();
    assert!(matches!(error, jit::ScriptError::NotCompiled), "{error}");
    assert!(error.to_string().contains("features = [\"torchscript\"]"), "{error}");
    let error = jit::open(module, |_| ()).unwrap_err();
    assert!(error.to_string().contains("features = [\"torchscript\"]"), "{error}");
    // Other files are still distinguished from modules.
    let error = jit::TorchScript::open(file!()).unwrap_err();
    assert!(matches!(error, jit::ScriptError::Open { .. }), "{error}");
    let graph = jit::trace(&Mlp::new(&device())).input("x", random([3, 8])).method("forward").unwrap();
    let error = jit::TorchScript::from_arena(graph.arena()).unwrap_err();
    assert_eq!(error.to_string(), "expected a TorchScript module, found a traced graph");
}
