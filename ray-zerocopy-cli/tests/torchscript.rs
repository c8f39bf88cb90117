//! TorchScript modules: `rzc run`, `rzc inspect`, saved modules, and `rzc` as the workers of
//! another program.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;
#[path = "serve/server.rs"]
#[expect(dead_code, reason = "the tests of graphs use the rest")]
mod server;

use std::fs;
use std::io::BufReader;

use burn::tensor::{Device, Tensor};
use common::{Folder, rzc};
use npyz::WriterBuilder;
use ray_zerocopy::LocalPool;
use ray_zerocopy::jit::{JitActorWrapper, JitTaskWrapper, TorchScript};

fn module(name: &str) -> String {
    format!("{}/../tests/torchscript/{name}.pt", env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<f32> {
    (0..24).map(|at| -1.0 + 2.0 * at as f32 / 23.0).collect()
}

fn write(path: &str, shape: &[u64], numbers: Vec<f32>) {
    let file = fs::File::create(path).unwrap();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(file).begin_nd().unwrap();
    writer.extend(numbers).unwrap();
    writer.finish().unwrap();
}

fn read(path: &str) -> (Vec<u64>, Vec<f32>) {
    let file = npyz::NpyFile::new(BufReader::new(fs::File::open(path).unwrap())).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

#[test]
fn a_module_runs_on_files_as_it_does_in_a_program() {
    let folder = Folder::new();
    let (x, y, saved, again) = (folder.at("x.npy"), folder.at("y.npy"), folder.at("mlp.rzg"), folder.at("again.npy"));
    write(&x, &[3, 8], rows());
    let done = rzc(&["run", &module("mlp"), "--input", &x, "--output", &y]).well();
    assert!(done.out.contains("`forward` in "), "{}", done.out);
    let script = TorchScript::open(module("mlp")).unwrap();
    let tensor = || Tensor::<1>::from_floats(rows().as_slice(), &Device::flex()).reshape([3, 8]);
    let here = script.load("cpu").unwrap().run([("rows", tensor())]).unwrap().data("output").unwrap();
    assert_eq!(read(&y), (vec![3, 4], here.iter::<f32>().collect()));
    // Saved as an arena, and run by workers that are `rzc`, the module gives the same result.
    script.save(&saved).unwrap();
    rzc(&["run", &saved, "--input", &format!("rows={x}"), "--output", &format!("output={again}")]).well();
    assert_eq!(read(&again), read(&y));
    let program = env!("CARGO_BIN_EXE_rzc");
    let local = LocalPool::builder().program(program).workers(2).start().unwrap();
    let tasks = JitTaskWrapper::on(&local, &script).unwrap();
    assert_eq!(tasks.run([("rows", tensor())]).wait().unwrap().data("output").unwrap(), here);
    let actors = JitActorWrapper::new(&script).program(program).spawn(1).unwrap();
    assert_eq!(actors.run([("rows", tensor())]).wait().unwrap().data("output").unwrap(), here);
}

#[test]
fn a_module_is_served_beside_a_graph() {
    let folder = Folder::new();
    server::write(&folder, "sum.rzg", 1.0);
    fs::copy(module("mlp"), folder.at("mlp.pt")).unwrap();
    let served = server::Served::start(&folder, &["sum.rzg", "mlp.pt", "--workers", "2"]);
    assert_eq!(served.sum(), (4.0, "1".to_owned()));
    let (status, metadata) = server::get(&served.http, "/v2/models/mlp");
    let input = metadata["inputs"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!((status, metadata["platform"].as_str()), (200, Some("pytorch_torchscript")), "{metadata}");

    let mut script = TorchScript::open(module("mlp")).unwrap().load("cpu").unwrap();
    let tensor = Tensor::<1>::from_floats(rows().as_slice(), &Device::flex()).reshape([3, 8]);
    let here = script.run([(input.as_str(), tensor)]).unwrap().data("output").unwrap();
    let input = |shape: [usize; 2], data: &[f32]| {
        serde_json::json!({ "inputs": [{ "name": input, "shape": shape, "datatype": "FP32", "data": data }] })
            .to_string()
    };
    for _ in 0..8 {
        let (status, answer) = server::post(&served.http, "/v2/models/mlp/infer", &input([3, 8], &rows()));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            (&answer["outputs"][0]["name"], &answer["outputs"][0]["shape"]),
            (&"output".into(), &serde_json::json!([3, 4]))
        );
        let found = answer["outputs"][0]["data"].as_array().unwrap();
        let found: Vec<_> = found.iter().map(|number| number.as_f64().unwrap() as f32).collect();
        assert_eq!(found, here.iter::<f32>().collect::<Vec<_>>());
    }
    let (status, answer) = server::post(&served.http, "/v2/models/mlp/infer", &input([4, 6], &rows()));
    assert!(status != 200 && answer["error"].is_string(), "{status}: {answer}");
    assert_eq!(served.sum().0, 4.0);
}

#[test]
fn methods_numbers_and_parts_of_lists_are_given_by_name() {
    let folder = Folder::new();
    let x = folder.at("x.npy");
    write(&x, &[3, 4], rows()[..12].to_vec());
    let input = |name: &str| format!("{name}={x}");
    let module = module("structured");
    let mut arguments = vec!["run".to_owned(), module.clone(), "--json".to_owned()];
    for input in [input("rows"), "times=2".to_owned(), input("state.0"), input("state.1"), "scale=0.5".to_owned()] {
        arguments.extend(["--input".to_owned(), input]);
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let json = rzc(&arguments).well().json();
    let names: Vec<_> =
        json["outputs"].as_array().unwrap().iter().map(|output| output["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["total", "seen"]);
    let json = rzc(&["run", &module, "--method", "summed", "--input", &x, "--json"]).well().json();
    assert_eq!(json["outputs"][1]["mean"].as_f64(), Some(12.0));
    let says = |arguments: &[&str], expected: &str| {
        let done = rzc(&[&["run", module.as_str()], arguments].concat());
        assert!(done.error().contains(expected), "{done:?}");
    };
    says(&["--method", "sum"], "there is no method `sum`; there is `forward`, `summed`, `text`");
    says(&["--input", &input("row")], "the graph has no input `row`; it has `rows`, `times`, `state`");
    says(&["--input", &input("rows")], "input `times` is missing");
    says(&["--input", "times=two.npy"], "two.npy cannot be read as a numpy file");
}

#[test]
fn a_module_is_shown() {
    let done = rzc(&["inspect", &module("structured")]).well();
    assert!(done.out.contains("a TorchScript module"), "{}", done.out);
    assert!(done.out.contains("method       summed(rows: Tensor) -> __torch__.Answer"), "{}", done.out);
    assert!(done.out.contains("scale: float = .."), "{}", done.out);
    let json = rzc(&["inspect", &module("mlp"), "--json"]).well().json();
    assert_eq!(json["format"], "torchscript");
    assert_eq!(json["methods"][0]["arguments"][0]["name"], "rows");
    assert_eq!(json["totals"]["tensors"], 4);
    assert!(rzc(&["graph", &module("mlp")]).error().contains("has operations of LibTorch"));
    assert!(rzc(&["run", &module("writes"), "-i", "x.npy"]).error().contains("`weight` cannot be shared"));
}
