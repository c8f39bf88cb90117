//! Traced graphs: `rzc run`, `rzc inspect`, `rzc graph`, and `rzc` as the workers of another
//! program.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::Path;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor};
use common::{Folder, rzc};
use npyz::WriterBuilder;
use ray_zerocopy::jit::{JitActorWrapper, JitTaskWrapper, TracedGraph, Values, trace};
use ray_zerocopy::{LocalPool, Pipeline, TaskWrapper};

#[derive(Pipeline)]
#[pipeline(init = Scorer::new)]
struct Scorer {
    first: Linear,
    second: Linear,
}

#[ray_zerocopy::remote]
impl Scorer {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { first: LinearConfig::new(4, 8).init(device), second: LinearConfig::new(8, 3).init(device) }
    }

    pub fn scores(&self, rows: Tensor<2>, wanted: Tensor<1, Int>) -> (Tensor<2>, Tensor<2>) {
        let scores = self.second.forward(relu(self.first.forward(rows)));
        (scores.clone(), scores.select(0, wanted))
    }
}

fn rows(count: usize) -> Tensor<2> {
    Tensor::<1, Int>::arange(0..4 * count as i64, &Device::flex()).float().reshape([count, 4]) / 7.0
}

/// A scorer and the file of its graph.
fn saved(folder: &Folder) -> (Scorer, String) {
    let scorer = Scorer::new(&Device::flex());
    let graph = trace(&scorer)
        .input("rows", rows(3))
        .input("wanted", Tensor::<1, Int>::from_ints([2, 0], &Device::flex()))
        .symbol("batch", [("rows", 0)])
        .method("scores")
        .unwrap();
    let path = folder.at("scorer.rzg");
    graph.save(&path).unwrap();
    (scorer, path)
}

fn write<T: npyz::AutoSerialize + npyz::Serialize>(path: &str, shape: &[u64], numbers: impl IntoIterator<Item = T>) {
    let file = fs::File::create(path).unwrap();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(file).begin_nd().unwrap();
    writer.extend(numbers).unwrap();
    writer.finish().unwrap();
}

fn read(path: impl AsRef<Path>) -> (Vec<u64>, Vec<f32>) {
    let file = npyz::NpyFile::new(BufReader::new(fs::File::open(path).unwrap())).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

#[test]
fn a_graph_runs_on_files() {
    let folder = Folder::new();
    let (scorer, graph) = saved(&folder);
    let (x, wanted, all, some) =
        (folder.at("x.npy"), folder.at("wanted.npy"), folder.at("all.npy"), folder.at("some.npy"));
    write(&x, &[5, 4], rows(5).into_data().iter::<f32>());
    // Numpy writes 64-bit integers; those of the graph have 32 bits.
    write(&wanted, &[2], [4_i64, 1]);
    let (rows_at, wanted_at) = (format!("rows={x}"), format!("wanted={wanted}"));
    let (all_at, some_at) = (format!("output.0={all}"), format!("output.1={some}"));
    let arguments = ["run", &graph, "--input", &rows_at, "-i", &wanted_at, "--output", &all_at, "-o", &some_at];
    let done = rzc(&arguments).well();
    assert!(done.out.contains("operations in ") && done.out.contains(&all), "{}", done.out);
    let (scores, picked) = scorer.scores(rows(5), Tensor::from_ints([4, 1], &Device::flex()));
    assert_eq!(read(&all), (vec![5, 3], scores.into_data().iter::<f32>().collect()));
    assert_eq!(read(&some), (vec![2, 3], picked.into_data().iter::<f32>().collect()));

    // Paths may contain a `=`.
    let (odd_x, odd) = (folder.at("lr=0.1.npy"), folder.at("a=b.npy"));
    fs::copy(&x, &odd_x).unwrap();
    let (odd_rows, odd_at) = (format!("rows={odd_x}"), format!("output.0={odd}"));
    rzc(&["run", &graph, "-i", &odd_rows, "-i", &wanted_at, "-o", &odd_at]).well();
    assert_eq!(read(&odd), read(&all));

    // Existing files are not replaced without --force.
    assert!(rzc(&arguments).error().ends_with("all.npy already exists; --force replaces it"));
    rzc(&[&arguments[..], &["--force"]].concat()).well();
    let json = rzc(&["run", &graph, "-i", &rows_at, "-i", &wanted_at, "--json"]).well().json();
    assert_eq!(json["outputs"][1]["shape"], serde_json::json!([2, 3]));
    assert_eq!((json["device"].as_str(), json["copied_bytes"].as_u64()), (Some("cpu"), Some(0)));
}

#[test]
fn wrong_inputs_are_errors_that_name_them() {
    let folder = Folder::new();
    let (_, graph) = saved(&folder);
    let (x, large, text) = (folder.at("x.npy"), folder.at("large.npy"), folder.at("text.npy"));
    write(&x, &[5, 4], rows(5).into_data().iter::<f32>());
    write(&large, &[1], [1_i64 << 40]);
    fs::write(&text, "no numbers").unwrap();
    let says = |inputs: &[&str], expected: &str| {
        let mut arguments = vec!["run", &graph];
        for input in inputs {
            arguments.extend(["--input", input]);
        }
        let done = rzc(&arguments);
        assert!(done.error().contains(expected), "{done:?}");
    };
    says(&[&format!("rows={x}")], "input `wanted` is missing; the graph takes `rows`, `wanted`");
    says(&[&x], "the graph has 2 inputs, `rows`, `wanted`: select one with --input NAME=FILE");
    says(&[&format!("row={x}")], "the graph has no input `row`; it has `rows`, `wanted`");
    says(&[&format!("wanted={x}")], "input `wanted`: the file holds F32, and the graph takes I32 [2]");
    says(&[&format!("wanted={large}")], "input `wanted`: element 0 is too large for I32");
    says(&[&format!("rows={text}")], "text.npy cannot be read as a numpy file");
    says(&["rows=nowhere.npy"], "nowhere.npy cannot be read as a numpy file: No such file");
    let missing = rzc(&["run", &folder.arena("arena.bpk", 8)]);
    assert!(missing.error().contains("expected a traced graph, found "), "{missing:?}");
    assert!(rzc(&["run", &graph, "--device", "tpu"]).error().contains("`tpu` is not a device"));
}

#[test]
fn a_graph_is_shown_and_drawn() {
    let folder = Folder::new();
    let (_, graph) = saved(&folder);
    let done = rzc(&["inspect", &graph]).well();
    for line in
        ["Scorer::scores, ", "input        rows: F32 [batch, 4]", "output       output.1: F32 [2, 3]", "first.weight"]
    {
        assert!(done.out.contains(line), "{line}: {}", done.out);
    }
    rzc(&["verify", &graph]).well();
    let list = rzc(&["graph", &graph]).well().out;
    assert!(list.contains("Relu") && list.contains("second.weight"), "{list}");
    let json = rzc(&["graph", &graph, "--json"]).well().json();
    assert_eq!(json["inputs"][0]["shape"], serde_json::json!(["batch", "4"]));
    assert!(json["steps"].as_array().unwrap().len() >= 3, "{json}");
    let (svg, html) = (folder.at("graph.svg"), folder.at("graph.html"));
    let done = rzc(&["graph", &graph, "--svg", &svg, "--html", &html]).well();
    assert!(done.out.contains(&svg) && done.out.contains(&html), "{done:?}");
    for file in [&svg, &html] {
        let picture = fs::read_to_string(file).unwrap();
        for part in ["<svg", "Relu", "rows", "output.1", "first.weight", "F32 [batch, 8]", "matrix product"] {
            assert!(picture.contains(part) || (file == &html && part == "<svg"), "{file}: {part}");
        }
    }
    // Views are shown only if all operations are.
    let views = |arguments: &[&str]| rzc(arguments).well().out.contains("Reshape");
    assert!(!views(&["graph", &graph]) && views(&["graph", &graph, "--all"]));
    let nowhere = rzc(&["graph", &graph, "--html", &folder.at("no/such/folder.html")]);
    assert!(nowhere.error().contains("folder.html cannot be written"), "{nowhere:?}");
    let arena = rzc(&["graph", &folder.arena("arena.bpk", 8), "--svg", &svg]);
    assert!(arena.error().contains("expected a traced graph, found "), "{arena:?}");
}

const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\u{1b}\"'&";

/// Layers by name.
#[derive(Pipeline)]
#[pipeline(init = Named::new)]
struct Named {
    layers: BTreeMap<String, Linear>,
}

impl Named {
    fn new(device: &Device) -> Self {
        let layer = |name: &str| (name.to_owned(), LinearConfig::new(4, 4).init(device));
        Self { layers: [HOSTILE, "b"].map(layer).into() }
    }
}

#[test]
fn hostile_names_are_text_in_pictures() {
    let folder = Folder::new();
    let graph = trace(&Named::new(&Device::flex()))
        .input(HOSTILE, rows(3))
        .forward(|named, inputs| {
            let x = inputs.float::<2>(HOSTILE)?;
            Ok(named.layers.values().fold(x, |x, layer| relu(layer.forward(x))))
        })
        .unwrap();
    let path = folder.at("hostile.rzg");
    graph.save(&path).unwrap();
    let (svg, html) = (folder.at("graph.svg"), folder.at("graph.html"));
    rzc(&["graph", &path, "--svg", &svg, "--html", &html]).well();
    let (svg, html) = (fs::read_to_string(svg).unwrap(), fs::read_to_string(html).unwrap());
    let weight = "<title>layers[&quot;&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;";
    assert!(svg.contains(weight), "{svg}");
    assert!(!svg.contains("<img") && !svg.contains("</script") && !svg.contains('\u{1b}'), "{svg}");
    // The page ends its two scripts, and no other one.
    assert_eq!((html.matches("</script").count(), html.matches("<img").count()), (2, 0));
    assert!(html.contains("layers[\\\"\\u003c/script>\\u003cimg src=x onerror=alert(1)>"), "{html}");
}

#[test]
fn rzc_runs_as_a_worker() {
    let folder = Folder::new();
    let (scorer, path) = saved(&folder);
    let graph = TracedGraph::open(&path).unwrap();
    let program = env!("CARGO_BIN_EXE_rzc");
    let wanted = Tensor::<1, Int>::from_ints([0, 6], &Device::flex());
    let inputs = Values::new().with("rows", rows(7)).with("wanted", wanted.clone());
    let expected = scorer.scores(rows(7), wanted).0.into_data();

    let local = LocalPool::builder().workers(2).program(program).start().unwrap();
    let tasks = JitTaskWrapper::on(&local, &graph).unwrap().strict();
    assert_eq!(tasks.run(inputs.clone()).wait().unwrap().data("output.0").unwrap(), expected);
    let worker = local.workers()[0].pid;
    let exe = fs::read_link(format!("/proc/{worker}/exe")).unwrap();
    assert_eq!(exe, fs::canonicalize(program).unwrap());
    let actors = JitActorWrapper::new(&graph).strict().program(program).spawn(2).unwrap();
    for actor in actors.iter() {
        assert_eq!(actor.run(inputs.clone()).wait().unwrap().data("output.0").unwrap(), expected);
    }

    // `rzc` does not contain the code of this program.
    let typed = TaskWrapper::on(&local, &scorer).unwrap();
    let error = typed.scores(rows(1), Tensor::from_ints([0], &Device::flex())).wait().map(drop).unwrap_err();
    assert!(error.to_string().contains("which does not have the code of this program"), "{error}");
    local.shut_down();

    let by_hand = rzc(&["worker"]);
    assert!(by_hand.error().contains("a worker is started by the program whose graphs it runs"), "{by_hand:?}");
    let error = LocalPool::builder().program("/bin/true").workers(1).start().map(drop).unwrap_err();
    assert!(error.to_string().contains("is `/bin/true` a program with this version of ray-zerocopy?"), "{error}");
    let error = LocalPool::builder().program("/no/such/program").workers(1).start().map(drop).unwrap_err();
    assert!(error.to_string().contains("`/no/such/program` could not be started"), "{error}");
}

#[cfg(not(feature = "torchscript"))]
#[test]
fn a_module_of_pytorch_needs_another_rzc() {
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/torchscript/mlp.pt");
    for command in ["run", "inspect", "graph"] {
        assert!(rzc(&[command, module]).error().contains("features = [\"torchscript\"]"), "{command}");
    }
}

#[test]
fn compiled_graph_is_a_graph_of_the_same_answers() {
    let folder = Folder::new();
    let (_, graph) = saved(&folder);
    let done = rzc(&["compile", &graph]).well();
    let compiled = graph.replace(".rzg", ".compiled.rzg");
    assert!(done.out.starts_with(&format!("{compiled}: id ")) && done.out.contains("2 of them fused"), "{done:?}");
    let listed = rzc(&["graph", &compiled]).well().out;
    assert!(listed.contains("Linear + relu"), "{listed}");
    let open = |path: &str| TracedGraph::open(path).unwrap();
    let wanted = Tensor::<1, Int>::from_ints([2, 0], &Device::flex());
    let run = |path: &str| {
        let values = Values::new().with("rows", rows(3)).with("wanted", wanted.clone());
        open(path).load("cpu").unwrap().run(values).unwrap()
    };
    let (fast, plain) = (run(&compiled), run(&graph));
    for name in fast.names() {
        let [fast, plain] = [&fast, &plain].map(|values| values.data(name).unwrap());
        fast.assert_approx_eq::<f32>(&plain, burn::tensor::Tolerance::absolute(1e-5));
    }

    // What was packed and fused is shown, and in the picture.
    let inspected = rzc(&["inspect", &compiled]).well().out;
    assert!(inspected.contains("compiled     2 Linear (1 with relu); "), "{inspected}");
    assert!(inspected.contains("packed 4 × 8") && inspected.contains("packed 8 × 3"), "{inspected}");
    let json = rzc(&["inspect", &compiled, "--json"]).well().json();
    let packed = json["tensors"].as_array().unwrap().iter().filter(|tensor| !tensor["packed"].is_null());
    let mut packed: Vec<_> = packed.map(|tensor| (tensor["packed"].to_string(), &tensor["bytes"])).collect();
    packed.sort_by_key(|(shape, _)| shape.clone());
    assert!(matches!(&packed[..], [(one, _), (two, _)] if one == "[4,8]" && two == "[8,3]"), "{packed:?}");
    let bytes: u64 = packed.iter().map(|(_, bytes)| bytes.as_u64().unwrap()).sum();
    let fused = serde_json::json!({ "Linear": 1, "Linear + relu": 1 });
    let expected = serde_json::json!({ "fused": fused, "packed_tensors": 2, "packed_bytes": bytes });
    assert_eq!(json["graph"]["compiled"], expected);
    assert_eq!(rzc(&["inspect", &graph, "--json"]).well().json()["graph"]["compiled"], serde_json::Value::Null);
    let svg = folder.at("compiled.svg");
    rzc(&["graph", &compiled, "--svg", &svg]).well();
    let picture = fs::read_to_string(svg).unwrap();
    for part in ["class=\"product fused\"", "Linear + relu", "first · 4 × 8 packed", "fused or packed"] {
        assert!(picture.contains(part), "{part}");
    }

    let error = rzc(&["compile", &graph]);
    assert!(error.error().contains("already exists"), "{error:?}");
    let json = rzc(&["compile", &graph, "--force", "--json"]).well().json();
    assert_eq!((&json["fused_operations"], &json["output"]), (&2.into(), &compiled.as_str().into()));
    let error = rzc(&["compile", &compiled]);
    assert!(error.error().contains("is compiled already"), "{error:?}");
    assert_eq!(json["calibration"], serde_json::Value::Null);
}

#[test]
fn graph_is_calibrated_on_inputs() {
    let folder = Folder::new();
    let (_, graph) = saved(&folder);
    let (first, second, wanted) = (folder.at("first.npy"), folder.at("second.npy"), folder.at("wanted.npy"));
    write(&first, &[3, 4], (0..12).map(|at| at as f32 / 7.0));
    write(&second, &[2, 4], (0..8).map(|at| (at as f32).sin()));
    write(&wanted, &[2], [1_i64, 0]);
    let [first, second, wanted] =
        [("rows", first), ("rows", second), ("wanted", wanted)].map(|(name, file)| format!("{name}={file}"));
    let samples = ["-i", &first, "-i", &wanted, "-i", &wanted, "-i", &second];
    let compile = |weights: &str, others: &[&str]| {
        let mut arguments = vec!["compile", &graph, "--force", "--weights", weights];
        arguments.extend(others);
        rzc(&arguments)
    };
    let mut loose = samples.to_vec();
    loose.extend(["--most-error", "0.1"]);
    let done = compile("int8", &loose).well().out;
    assert!(done.contains("2 of 2 layers in int8, error of the outputs") && done.contains("  second.weight"), "{done}");
    assert!(done.contains("compiled: 2 Linear int8 (1 with relu); "), "{done}");
    loose.push("--json");
    let json = compile("int8", &loose).well().json();
    let calibration = &json["calibration"];
    assert!(calibration["error"].as_f64().unwrap() <= 0.1, "{json}");
    let layers = calibration["layers"].as_array().unwrap();
    assert!(layers.len() == 2 && layers.iter().all(|layer| layer["weights"] == "int8"), "{json}");

    let mut tight = samples.to_vec();
    tight.extend(["--most-error", "1e-12"]);
    let error = compile("int8", &tight);
    assert!(error.error().contains("may change by 1.0e-12"), "{error:?}");
    let error = compile("int8", &["-i", &first, "--most-error", "0.1"]);
    assert!(error.error().contains("1 inputs are given, and each sample has 2"), "{error:?}");
    let error = compile("int8", &["-i", &first, "-i", &second, "--most-error", "0.1"]);
    assert!(error.error().contains("sample 1: an input is given twice"), "{error:?}");
    let error = compile("f32", &["-i", &first, "-i", &wanted, "--most-error", "0.1"]);
    assert!(error.error().contains("no layer to choose"), "{error:?}");
    assert!(compile("int8", &["-i", &first]).err.contains("--most-error"));
    assert!(compile("int8", &["-i", &first, "--most-error", "0"]).err.contains("a positive number is expected"));
    let error = compile("int8", &["--blocks", "5"]);
    assert!(error.error().contains("blocks of 5 rows"), "{error:?}");
    let error = compile("int8", &["--keep", "third.weight"]);
    assert!(error.error().contains("`third.weight`"), "{error:?}");

    for (weights, named) in [("bf16", "Linear bf16"), ("int4", "Linear int4"), ("int8", "Linear int8")] {
        let done = compile(weights, &["--keep", "first.weight"]).well().out;
        assert!(done.contains(&format!("1 {named}")) && done.contains("1 Linear (1 with relu)"), "{done}");
        let inspected = rzc(&["inspect", &graph.replace(".rzg", ".compiled.rzg")]).well().out;
        assert!(inspected.contains("packed 8 × 3"), "{inspected}");
    }
    let exact = compile("exact", &[]).well().out;
    assert!(exact.contains("0 of them fused"), "{exact}");
}

#[test]
fn profile_has_every_operation_that_runs() {
    let folder = Folder::new();
    let (_, graph) = saved(&folder);
    let (x, wanted) = (folder.at("x.npy"), folder.at("wanted.npy"));
    write(&x, &[5, 4], rows(5).into_data().iter::<f32>());
    write(&wanted, &[2], [4_i64, 1]);
    let (rows_at, wanted_at) = (format!("rows={x}"), format!("wanted={wanted}"));
    let html = folder.at("profile.html");
    let arguments = ["profile", &graph, "-i", &rows_at, "-i", &wanted_at, "--runs", "3"];
    let done = rzc(&[&arguments[..], &["--html", &html]].concat()).well();
    for text in ["median of 3 runs on cpu", "matrix product", "Relu", "first.weight", &html] {
        assert!(done.out.contains(text), "{text}: {}", done.out);
    }
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("median of 3 runs on cpu") && page.contains("\"timed\":true"), "{page}");

    let json = rzc(&[&arguments[..], &["--json"]].concat()).well().json();
    let found = common::fields(&json).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(
        found,
        "device graph instructions kinds kinds.kind kinds.milliseconds kinds.operations kinds.percent kinds.read_bytes \
         kinds.written_bytes milliseconds runs steps steps.kind steps.milliseconds steps.name steps.number steps.percent \
         steps.read_bytes steps.weights steps.written_bytes"
    );
    assert_eq!(json["instructions"], serde_json::Value::Null);
    let compiled = graph.replace(".rzg", ".compiled.rzg");
    rzc(&["compile", &graph]).well();
    let of_compiled = rzc(&["profile", &compiled, "-i", &rows_at, "-i", &wanted_at, "--runs", "1"]).well().out;
    let instructions = ray_zerocopy::jit::instruction_set();
    assert!(of_compiled.contains(&format!("median of 1 run on cpu with {instructions}")), "{of_compiled}");
    let (kinds, steps) = (json["kinds"].as_array().unwrap(), json["steps"].as_array().unwrap());
    for field in ["milliseconds", "percent", "read_bytes", "written_bytes"] {
        let sum = |list: &[serde_json::Value]| list.iter().map(|entry| entry[field].as_f64().unwrap()).sum::<f64>();
        assert!((sum(kinds) - sum(steps)).abs() < 1e-6, "{field}: {kinds:?}");
        assert!(field != "percent" || (sum(steps) - 100.0).abs() < 1e-6, "{steps:?}");
    }
    let relu = steps.iter().find(|step| step["name"] == "Relu").unwrap();
    let bytes = 5 * 8 * 4;
    assert_eq!((&relu["read_bytes"], &relu["written_bytes"]), (&bytes.into(), &bytes.into()));
    let select = steps.iter().find(|step| step["name"] == "Select").unwrap();
    assert_eq!((select["read_bytes"].as_u64(), select["written_bytes"].as_u64()), (Some(2 * 3 * 4 + 2 * 4), Some(24)));

    let says = |arguments: &[&str], expected: &str| {
        let done = rzc(arguments);
        assert!(done.error().contains(expected), "{done:?}");
    };
    says(&["profile", &graph, "-i", &rows_at], "input `wanted` is missing; the graph takes `rows`, `wanted`");
    says(&["profile", &folder.arena("arena.bpk", 8)], "expected a traced graph, found ");
    let none = rzc(&["profile", &graph, "--runs", "0"]);
    assert!(none.code == Some(2) && none.err.contains("--runs"), "{none:?}");
}

/// Chains of as many operations as the largest models have.
#[test]
fn thousands_of_operations_are_drawn() {
    let folder = Folder::new();
    let scorer = Scorer::new(&Device::flex());
    let graph = trace(&scorer)
        .input("rows", rows(1))
        .forward(|scorer, inputs| {
            let x = scorer.first.forward(inputs.float::<2>("rows")?);
            Ok((0..3000).fold(x, |x, _| relu(x)))
        })
        .unwrap();
    let (path, svg) = (folder.at("deep.rzg"), folder.at("deep.svg"));
    graph.save(&path).unwrap();
    rzc(&["graph", &path, "--svg", &svg]).well();
    let picture = fs::read_to_string(svg).unwrap();
    assert!(picture.contains("3000 operations"), "those after the weights are in a group, which is closed");
    assert!(picture.len() < 100_000, "{}", picture.len());
}
