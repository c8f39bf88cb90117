//! TorchScript modules of PyTorch, run on shared weights and compared with PyTorch's outputs.
//!
//! `tests/torchscript/make.py` writes the modules and the outputs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::path::Path;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use ray_zerocopy::arena::ArenaFile;
use ray_zerocopy::jit::{
    GraphError, JitActorWrapper, JitTaskWrapper, ReplayError, ScriptError, TorchScript, TracedGraph, Values,
};
use ray_zerocopy::{Batching, CallError, Error, LocalPool};
use ray_zerocopy_tests::memory::rollup;
use ray_zerocopy_tests::torchscript::{assert_close, expected, module, open, rows, widened};

fn number(number: i64) -> Tensor<1, Int> {
    Tensor::from_data([number], &Device::flex())
}

#[test]
fn traced_module_matches_pytorch_without_copies() {
    let script = open("mlp");
    assert_eq!(script.origin(), "mlp.pt");
    let forward = &script.methods()[0];
    assert_eq!((forward.name.as_str(), forward.arguments[0].name.as_str()), ("forward", "rows"));
    assert_eq!(script.arena().weight_bytes(), (8 * 16 + 16 + 16 * 4 + 4) * 4);
    let mut replay = script.load("cpu").unwrap();
    assert!(replay.copied().is_empty(), "{:?}", replay.copied());
    for _ in 0..3 {
        let outputs = replay.run([("rows", rows([3, 8]))]).unwrap();
        assert_close(outputs.data("output").unwrap(), &expected("mlp"));
    }
    // Other numbers of rows than in the trace.
    assert_eq!(replay.run([("rows", rows([17, 8]))]).unwrap().float::<2>("output").unwrap().dims(), [17, 4]);
    // The same device in LibTorch's notation.
    let outputs = script.load("libtorch").unwrap().run([("rows", rows([3, 8]))]).unwrap();
    assert_close(outputs.data("output").unwrap(), &expected("mlp"));
}

#[test]
fn actors_and_tasks_share_its_weights() {
    let script = open("mlp");
    let wrapper = JitActorWrapper::new(&script).strict();
    let actors = wrapper.spawn(2).unwrap();
    let tasks = JitTaskWrapper::new(&script).unwrap();
    for _ in 0..4 {
        assert_close(actors.run([("rows", rows([3, 8]))]).wait().unwrap().data("output").unwrap(), &expected("mlp"));
        assert_close(tasks.run([("rows", rows([3, 8]))]).wait().unwrap().data("output").unwrap(), &expected("mlp"));
    }
    assert!(actors.workers().iter().all(|worker| worker.pid != std::process::id()));
    // LibTorch respects the number of threads of a worker.
    let one = wrapper.clone().threads_per_worker(1).spawn(1).unwrap();
    let environment = std::fs::read(format!("/proc/{}/environ", one.workers()[0].pid)).unwrap();
    assert!(environment.split(|byte| *byte == 0).any(|variable| variable == b"OMP_NUM_THREADS=1"));
    // Another process needs only the handle.
    let there: JitActorWrapper = serde_json::from_str(&serde_json::to_string(&wrapper).unwrap()).unwrap();
    assert_close(
        there.load().unwrap().run([("rows", rows([3, 8]))]).unwrap().data("output").unwrap(),
        &expected("mlp"),
    );
}

#[test]
fn calls_of_a_module_run_as_one() {
    let script = open("mlp");
    let one = LocalPool::builder().workers(1).threads_per_worker(1).start().unwrap();
    let tasks = JitTaskWrapper::on(&one, &script).unwrap().batch(Batching::default());
    let calls: Vec<_> = (0..20).map(|_| tasks.run([("rows", rows([3, 8]))])).collect();
    for call in calls {
        assert_close(call.wait().unwrap().data("output").unwrap(), &expected("mlp"));
    }
    let report = tasks.report().unwrap();
    assert_eq!((report.batches[0].calls, report.batches[0].rows), (20, 60));
    assert!(report.batches[0].batches < 15, "{}", report.batches[0]);
}

#[test]
fn module_saved_as_an_arena_is_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tied.rzg");
    let script = open("tied");
    script.save(&path).unwrap();
    let again = TorchScript::open(&path).unwrap();
    assert_eq!(again.methods(), script.methods());
    let ids = Tensor::<1, Int>::from_data([0, 5, 2], &Device::flex());
    // Integers of flex have 32 bits here, and LibTorch accepts them as indices.
    let outputs = again.load("cpu").unwrap().run([("ids", ids)]).unwrap();
    assert_close(outputs.data("output").unwrap(), &expected("tied"));
    // One tensor with two names.
    assert_eq!(script.arena().tensors().count(), 2);
    let file = ArenaFile::open(&path).unwrap();
    assert_eq!(TorchScript::methods_of(&file).unwrap().unwrap(), script.methods());
    let stored: std::collections::HashSet<_> = file.tensors().map(|tensor| format!("{:?}", tensor.placed)).collect();
    assert_eq!(stored.len(), 1, "{stored:?}");
}

#[test]
fn elements_of_every_type_are_borrowed() {
    let script = open("kinds");
    let tensors: Vec<_> =
        script.arena().tensors().map(|tensor| format!("{} {:?}", tensor.path, tensor.dtype)).collect();
    let own: Vec<_> = script.copied().into_iter().map(|copied| copied.path).collect();
    for tensor in ["halves F16", "brains BF16", "doubles F64", "turned F32", "longs I64", "flags Bool(Native)"] {
        assert!(tensors.iter().any(|known| known == tensor), "{tensor} in {tensors:?}");
    }
    // burn has no tensors of rank 0, so this one stays in the module.
    assert_eq!(own, ["alone"]);
    let outputs = script.load("cpu").unwrap().run([("rows", rows([3, 4]))]).unwrap();
    assert_close(outputs.data("output").unwrap(), &expected("kinds"));
}

#[test]
fn non_tensor_values_go_in_and_out() {
    let script = open("structured");
    let rows = || rows([3, 4]);
    let inputs = || {
        Values::new()
            .with("rows", rows())
            .with("times", number(2))
            .with("state.0", rows())
            .with("state.1", rows() / 2.0)
            .with("more.0", rows())
            .with("more.1", rows())
            .with("named.a", rows())
            .with("named.b", rows())
            .with("mask", rows().greater_elem(0.0))
            .with("scale", Tensor::<1>::from_data([0.5], &Device::flex()))
            .with("negate", Tensor::<1, Bool>::from_data([true], &Device::flex()))
    };
    let mut replay = script.load("cpu").unwrap();
    let outputs = replay.run(inputs()).unwrap();
    assert_eq!(outputs.names().collect::<Vec<_>>(), ["total", "seen"]);
    assert_close(outputs.data("total").unwrap(), &expected("structured/total"));
    assert_close(outputs.data("seen").unwrap(), &expected("structured/seen"));
    // The fields of a named tuple keep their names, and a number becomes a tensor of one element.
    let outputs = replay.call("summed", [("rows", rows())]).unwrap();
    assert_eq!(outputs.names().collect::<Vec<_>>(), ["total", "count"]);
    assert_eq!(outputs.data("count").unwrap().iter::<i64>().collect::<Vec<_>>(), [12]);
    assert!(outputs.float::<1>("total").unwrap().into_scalar::<f32>().abs() < 1e-5);

    // The same in a worker, and errors with the names of missing inputs.
    let actors = JitActorWrapper::new(&script).spawn(1).unwrap();
    let outputs = actors.run(inputs()).wait().unwrap();
    assert_close(outputs.data("total").unwrap(), &expected("structured/total"));
    let says = |method: &str, inputs: Values| actors.call(method, inputs).wait().unwrap_err().to_string();
    let takes = "the graph takes `rows`, `times`, `state`, `more`, `named`, `mask`, `scale`, `negate`";
    assert_eq!(
        says("forward", Values::new().with("rows", rows())),
        format!("`forward` has no result: input `times` is missing; {takes}")
    );
    assert_eq!(
        says("forward", inputs().with("times", rows())),
        "`forward` has no result: input `times` is F32 of shape [3, 4], and the graph takes one int"
    );
    assert_eq!(
        says("forwards", inputs()),
        "`forwards` has no result: there is no method `forwards`; there is `forward`, `summed`, `text`"
    );
    // Errors that only LibTorch finds.
    let error = says("forward", inputs().with("more.7", rows()));
    assert!(error.contains("`forward` failed: `more.7` has no place in the arguments of `forward`"), "{error}");
    let error = says("text", Values::new());
    assert!(error.contains("`output` is a str, and tensors can be given back"), "{error}");
    let error = says("forward", inputs().with("named.a", Tensor::<2>::ones([5, 7], &Device::flex())));
    assert!(error.contains("The size of tensor a (4) must match the size of tensor b (7)"), "{error}");
    // The actor still works.
    assert_close(actors.run(inputs()).wait().unwrap().data("total").unwrap(), &expected("structured/total"));
}

#[test]
fn unsupported_element_type_is_an_error() {
    let words = TensorData::new(vec![1_u32, 2], [2]);
    let words = ray_zerocopy::jit::Value::from_data(words, &Device::flex()).unwrap();
    let error = open("mlp").load("cpu").unwrap().run(Values::new().with("rows", words)).unwrap_err();
    assert!(error.to_string().contains("LibTorch does not compute with U32"), "{error}");
}

#[test]
fn module_state_is_private_to_each_worker() {
    let script = open("counter");
    let own: Vec<_> = script.copied().into_iter().map(|copied| copied.path).collect();
    for path in ["calls", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"] {
        assert!(own.iter().any(|known| known == path), "{path} in {own:?}");
    }
    let shared: Vec<_> = script.arena().tensors().map(|tensor| tensor.path.to_owned()).collect();
    assert_eq!(shared, ["scale", "last", "norm.weight", "norm.bias"], "a buffer that is never written is shared");
    let actors = JitActorWrapper::new(&script).spawn(2).unwrap();
    let calls = |outputs: Values| outputs.data("output.1").unwrap().iter::<i64>().next().unwrap();
    let input = || [("rows", rows([3, 4]))];
    for call in 1..=3 {
        let outputs = actors.actor(0).run(input()).wait().unwrap();
        assert_eq!(calls(outputs.clone()), call);
        let expected = expected("counter");
        assert_close(outputs.data("output.0").unwrap(), &expected[..12]);
    }
    assert_eq!(calls(actors.actor(1).run(input()).wait().unwrap()), 1);
    let last = actors.actor(0).call("remembered", Values::new()).wait().unwrap();
    assert_eq!(last.data("output").unwrap(), rows([3, 4]).slice([0..1, 0..4]).reshape([4]).into_data());
    let error = JitActorWrapper::new(&script).strict().spawn(1).unwrap_err();
    assert!(error.to_string().contains("calls"), "{error}");
}

#[test]
fn object_state_is_private_to_each_worker() {
    let script = open("holder");
    assert_eq!(script.copied().into_iter().map(|copied| copied.path).collect::<Vec<_>>(), ["cell.value"]);
    let actors = JitActorWrapper::new(&script).spawn(2).unwrap();
    let run = |actor: usize| {
        let ones = Tensor::<1>::ones([4], &Device::flex());
        actors.actor(actor).run([("rows", ones)]).wait().unwrap().data("output").unwrap()
    };
    assert_eq!([run(0), run(0), run(1)], [1.0_f32, 2.0, 1.0].map(|sum| TensorData::from([sum; 4])));
}

#[test]
fn constant_running_means_are_shared() {
    let script = open("normed");
    let written: Vec<_> = script.copied().into_iter().map(|copied| copied.path).collect();
    // A tensor of rank 0 with 8 bytes.
    assert_eq!(written, ["0.num_batches_tracked"]);
    assert!(script.arena().tensors().any(|tensor| tensor.path == "0.running_var"));
    let name = script.methods()[0].arguments[0].name.clone();
    let outputs = script.load("cpu").unwrap().run([(name, rows([3, 4]))]).unwrap();
    assert_close(outputs.data("output").unwrap(), &expected("normed"));
}

/// LibTorch writes them although the signature of the operation does not declare it. If they were
/// shared, the worker would die.
#[test]
fn statistics_written_in_evaluation_are_private() {
    let script = open("instance");
    let own: Vec<_> = script.copied().into_iter().map(|copied| copied.path).collect();
    assert!(
        own.iter().any(|path| path == "0.running_mean") && own.iter().any(|path| path == "0.running_var"),
        "{own:?}"
    );
    let name = script.methods()[0].arguments[0].name.clone();
    let actors = JitActorWrapper::new(&script).spawn(1).unwrap();
    let outputs = actors.run([(name, rows([1, 4, 6]))]).wait().unwrap();
    assert_close(outputs.data("output").unwrap(), &expected("instance"));
}

#[test]
fn packed_weights_stay_with_the_module() {
    let script = open("quantised");
    let name = script.methods()[0].arguments[0].name.clone();
    let outputs = script.load("cpu").unwrap().run([(name, rows([3, 8]))]).unwrap();
    // Rounding of 8-bit weights differs between processors.
    let (found, expected) = (outputs.data("output").unwrap(), expected("quantised"));
    assert!(found.iter::<f64>().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.02));
}

#[test]
fn frozen_constants_are_counted() {
    let script = open("frozen");
    let copied = script.copied();
    assert_eq!(copied.len(), 1, "{copied:?}");
    assert_eq!(copied[0].path, "the constants of the code");
    assert!(copied[0].bytes > 3300 * 6 * 4, "{copied:?}");
}

#[test]
fn write_into_an_input_changes_a_copy() {
    let script = open("scribbler");
    let x = Tensor::<1>::ones([4], &Device::flex());
    let mut replay = script.load("cpu").unwrap();
    let outputs = replay.run([("rows", x.clone())]).unwrap();
    assert_eq!(outputs.data("output").unwrap(), TensorData::from([3.0_f32; 4]));
    assert_eq!(x.into_data(), TensorData::from([1.0_f32; 4]), "the caller's");
}

#[test]
fn write_into_a_parameter_is_refused() {
    let writes = |name| match TorchScript::open(module(name)) {
        Err(ScriptError::Writes { parameter, what }) => (parameter, what),
        other => panic!("{name}: {other:?}"),
    };
    let owned = |parameter: &str, what: &str| (parameter.to_owned(), what.to_owned());
    assert_eq!(writes("writes"), owned("weight", "forward writes into it by aten::add_"));
    assert_eq!(writes("writesview"), owned("inner.weight", "forward writes into it by aten::copy_"));
    assert_eq!(writes("keeps"), owned("weight", "forward keeps it under another name"));
    let error = TorchScript::open(module("writes")).unwrap_err().to_string();
    assert!(error.contains("`register_buffer`"), "{error}");
}

#[test]
fn write_into_a_new_tensor_is_allowed() {
    let script = open("encoder");
    assert!(script.copied().is_empty(), "{:?}", script.copied());
    let actors = JitActorWrapper::new(&script).strict().spawn(1).unwrap();
    let outputs = actors.run([("src", rows([1, 3, 8]))]).wait().unwrap();
    assert_close(outputs.data("output").unwrap(), &expected("encoder"));
}

/// LibTorch's alias analysis uses signatures, and some operations do not declare their writes. Such
/// a write goes to a private page of the worker: it does not crash, and other processes do not see
/// it.
#[test]
fn stray_write_stays_in_its_worker() {
    let script = open("hidden");
    assert!(script.copied().is_empty(), "found by now? {:?}", script.copied());
    let actors = JitActorWrapper::new(&script).spawn(2).unwrap();
    let run = |actor: usize| {
        let ones = Tensor::<1>::ones([4], &Device::flex());
        actors.actor(actor).run([("rows", ones)]).wait().unwrap().data("output").unwrap()
    };
    assert_eq!([run(0), run(0), run(1)], [4.0_f32, 6.0, 4.0].map(|sum| TensorData::from([sum; 4])));
    script.arena().verify().unwrap();
    assert_eq!(run(1), TensorData::from([6.0_f32; 4]));
}

#[test]
fn other_file_is_not_a_module() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.pt");
    std::fs::write(&other, "not a module").unwrap();
    let error = TorchScript::open(&other).unwrap_err();
    assert!(matches!(&error, ScriptError::Open { file, .. } if file.ends_with("other.pt")), "{error}");
    assert!(error.to_string().contains("create one with `torch.jit.trace` or `torch.jit.script`"), "{error}");
    let error = TorchScript::open(folder.path().join("nowhere.pt")).unwrap_err().to_string();
    assert!(error.contains("nowhere.pt"), "{error}");
    // Truncated files, and files with changed bytes.
    let whole = std::fs::read(module("mlp")).unwrap();
    for cut in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&other, &whole[..cut]).unwrap();
        assert!(TorchScript::open(&other).is_err(), "{cut}");
    }
    // A saved module is an arena, whose checksums find the change.
    let saved = folder.path().join("mlp.rzg");
    open("mlp").save(&saved).unwrap();
    let mut bytes = std::fs::read(&saved).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&saved, bytes).unwrap();
    assert!(TorchScript::open(&saved).is_err());
}

#[test]
fn a_graph_and_a_module_are_told_apart() {
    let script = open("mlp");
    let error = TracedGraph::from_arena(script.arena()).unwrap_err();
    assert!(matches!(error, GraphError::NoGraph { .. }), "{error}");
    assert!(error.to_string().contains("a TorchScript module, which `jit::TorchScript` opens"), "{error}");
    let packed = ray_zerocopy_tests::conformance::graphs::traced();
    let error = TorchScript::from_arena(packed.arena()).unwrap_err();
    assert_eq!(error.to_string(), "expected a TorchScript module, found a traced graph");
    // A traced graph has only the method `run`.
    let error = packed.load("cpu").unwrap().call("forward", Values::new()).unwrap_err();
    assert_eq!(error.to_string(), "there is no method `forward`; there is `run`");
}

#[test]
fn a_device_that_is_not_libtorchs_is_an_error() {
    let script = open("mlp");
    let error = script.load("libtorch:cuda:7").unwrap_err();
    assert!(matches!(error, ReplayError::Device(_)), "{error}");
    #[cfg(feature = "wgpu")]
    {
        let error = script.load("wgpu:0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "TorchScript modules do not run on `wgpu:0`; they run on `cpu` and `libtorch:cuda:0`"
        );
        let error = JitActorWrapper::new(&script).device("wgpu:0").unwrap().spawn(1).unwrap_err();
        assert!(error.to_string().contains("TorchScript modules do not run on"), "{error}");
    }
    let error = JitActorWrapper::new(&script).device("libtorch:cuda:7").unwrap().spawn(1).unwrap_err();
    assert!(matches!(error, Error::Call(CallError::Load { .. })), "{error:?}");
}

/// Private memory of a worker is that of LibTorch itself: the same with a small module as with a
/// large one.
#[test]
fn workers_hold_one_copy_of_a_large_module() {
    const WIDTH: usize = 2048;
    let folder = tempfile::tempdir().unwrap();
    let large = widened(&module("mlp"), WIDTH, folder.path());
    let private = |path: &Path, width: usize| {
        let script = TorchScript::open(path).unwrap();
        let actors = JitActorWrapper::new(&script).strict().spawn(4).unwrap();
        for actor in actors.iter() {
            let outputs = actor.run([("rows", Tensor::<2>::ones([2, width], &Device::flex()))]).wait().unwrap();
            assert!(outputs.names().eq(["output"]));
        }
        let of = |worker: ray_zerocopy::engine::Worker| rollup(worker.pid, "Anonymous");
        let all: Vec<u64> = actors.workers().into_iter().map(of).collect();
        (all, script.arena().weight_bytes())
    };
    let (small, _) = private(&module("mlp"), 8);
    let (wide, weights) = private(&large, WIDTH);
    assert!(weights > 2 * (WIDTH * WIDTH * 4) as u64, "{weights}");
    // The maximum over the workers. LibTorch's scratch memory for a wider product is a few MiB.
    let (small, wide) = (small.into_iter().min().unwrap(), wide.into_iter().max().unwrap());
    assert!(wide < small + weights / 2, "{wide} bytes of its own beside {small} for {weights} bytes of weights");
}
