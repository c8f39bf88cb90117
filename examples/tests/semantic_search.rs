//! Runs the example with the real model and processes, and compares its results with those of
//! PyTorch.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn program() -> PathBuf {
    let folder = std::env::current_exe().unwrap();
    let program = folder.ancestors().nth(2).unwrap().join("examples").join("semantic_search");
    assert!(program.exists(), "{} is not built; run `cargo build --workspace --examples`", program.display());
    program
}

fn search(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = search(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("stdout is not one JSON object: {error}\n{errors}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn embeddings_of_workers_match_pytorch() {
    for [found, expected] in embedded(&[]) {
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "{worst} away from PyTorch");
    }
}

/// The texts of the reference, their embeddings by PyTorch, and those by workers with these arguments.
fn embedded(arguments: &[&str]) -> Vec<[Vec<f64>; 2]> {
    let reference: Value = serde_json::from_str(include_str!("../data/minilm_reference.json")).unwrap();
    let sentences = reference["sentences"].as_array().unwrap();
    let texts: Vec<_> = sentences.iter().map(|sentence| sentence["text"].as_str().unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.txt"), folder.path().join("out.json"));
    std::fs::write(&input, texts.join("\n")).unwrap();
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let mut all = vec!["--workers", "2", "--input", input, "--embeddings", output, "--json", "--no-compare"];
    all.extend(arguments);
    json(&all);
    let found: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(output).unwrap()).unwrap();
    assert_eq!(found.len(), sentences.len());
    let pairs = found.iter().zip(sentences).map(|(found, expected)| {
        assert_eq!(found["text"], expected["text"]);
        let [found, expected] = [found, expected].map(|of| numbers(&of["embedding"]));
        assert_eq!(found.len(), expected.len());
        [found, expected]
    });
    pairs.collect()
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// The index of the nearest other sentence of each one.
fn nearest(all: &[&Vec<f64>]) -> Vec<usize> {
    let of = |at: usize| {
        let others = (0..all.len()).filter(|other| *other != at);
        others.max_by(|one, other| dot(all[at], all[*one]).total_cmp(&dot(all[at], all[*other]))).unwrap()
    };
    (0..all.len()).map(of).collect()
}

#[test]
fn compiled_graphs_embed_like_pytorch() {
    for (weights, most) in [("f32", 1e-5), ("bf16", 2e-3)] {
        for [found, expected] in embedded(&[&format!("--compiled={weights}")]) {
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < most, "{weights}: {worst} away from PyTorch");
        }
    }
}

#[test]
fn compiled_graph_of_8_bits_finds_the_same_neighbours() {
    let pairs = embedded(&["--compiled=int8"]);
    for [found, expected] in &pairs {
        let cosine = dot(found, expected) / (dot(found, found) * dot(expected, expected)).sqrt();
        assert!(cosine >= 0.99, "a cosine of {cosine} to PyTorch");
    }
    // Among the sentences of the small corpus.
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.json");
    let neighbours = |arguments: &[&str]| {
        let mut all = vec!["--workers", "2", "--embeddings", output.to_str().unwrap(), "--json", "--no-compare"];
        all.extend(arguments);
        json(&all);
        let found: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&output).unwrap()).unwrap();
        let vectors: Vec<_> = found.iter().map(|found| numbers(&found["embedding"])).collect();
        nearest(&vectors.iter().collect::<Vec<_>>())
    };
    let (found, expected) = (neighbours(&["--compiled=int8"]), neighbours(&[]));
    let same = found.iter().zip(&expected).filter(|(found, expected)| found == expected).count();
    assert!(found.len() >= 200 && same * 100 >= found.len() * 95, "{same} of {} have the same neighbour", found.len());
}

#[test]
fn three_workers_search_on_one_copy() {
    let outcome = json(&["--workers", "3", "--query", "What makes dough grow?", "--top", "2", "--json"]);
    assert_eq!(outcome["workers"], 3);
    let number = |key: &str| outcome[key].as_f64().unwrap_or_else(|| panic!("no {key} in {outcome}"));
    let (model, arena) = (number("model_mib"), number("arena_mib"));
    assert!(model > 80.0 && arena >= model * 0.99 && arena < model + 3.0, "{model} MiB of model, {arena} of arena");
    // One copy and the other memory of four processes; a second copy would exceed the limit.
    assert!(number("sum_pss_mib") < 2.0 * model, "{outcome}");
    let private = numbers(&outcome["anonymous_mib"]);
    assert_eq!((private.len(), numbers(&outcome["attach_ms"]).len()), (3, 3));
    let own = outcome["own_copy"]["anonymous_mib"].as_f64().unwrap();
    assert!(own > model, "{outcome}");
    assert!(private.iter().all(|&private| private < own - model * 0.8), "{outcome}");
    assert!(number("sentences_per_s") > 0.0);
    let best = outcome["hits"][0]["hits"].as_array().unwrap();
    assert_eq!(best.len(), 2);
    assert!(best[0]["text"].as_str().unwrap().contains("yeast"), "{best:?}");
}

#[test]
fn output_is_a_table_without_json() {
    let output = search(&["--workers", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in ["What makes bread rise?", "worker 1", "own copy, MiB", "saved, MiB", "sum"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (empty, latin) = (path("empty.txt", b"\n \n"), path("latin.txt", b"one\ntwo\xe9\n"));
    for (arguments, expected) in [
        (vec!["--input", "/nowhere/notes.txt"], "/nowhere/notes.txt cannot be read"),
        (vec!["--input", &empty], "has no sentences: write one per line"),
        (vec!["--input", &latin], "is not UTF-8 text: line 2 has other bytes"),
        (vec!["--workers", "0"], "0 is not in 1..=512"),
        (vec!["--threads", "0"], "0 is not in 1..=65535"),
        (vec!["--device", "tpu"], "`tpu` is not a device; write `cpu`, `cuda`"),
        (vec!["--device", "cuda"], "needs the feature `cuda`"),
    ] {
        let output = search(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(expected), "{arguments:?}: {errors}");
    }
}

#[test]
fn wrong_paths_are_reported_first() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere/out.json");
    // The model is missing, but the wrong path is reported first.
    let output = Command::new(program())
        .args(["--embeddings", nowhere.to_str().unwrap()])
        .env("RAY_ZEROCOPY_MODELS", folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(errors.contains("the embeddings could not be written to") && errors.contains("nowhere"), "{errors}");
}

#[test]
fn lines_of_every_kind_stay_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.txt"), folder.path().join("out.json"));
    let long = "word ".repeat(2000);
    std::fs::write(&input, format!("one\r\n\r\n{long}\r\n日本語 🎉 مرحبا\n\u{2028}in the middle\u{c}\nlast")).unwrap();
    // Existing contents are replaced, even if they are longer.
    std::fs::write(&output, "x".repeat(1 << 20)).unwrap();
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let outcome = json(&["--workers", "2", "--input", input, "--embeddings", output, "--json", "--no-compare"]);
    assert_eq!(outcome["sentences"], 6);
    let rows: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(output).unwrap()).unwrap();
    let texts: Vec<_> = rows.iter().map(|row| row["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["one", "", &long, "日本語 🎉 مرحبا", "\u{2028}in the middle\u{c}", "last"]);
    for row in &rows {
        let embedding = numbers(&row["embedding"]);
        assert_eq!(embedding.len(), 384);
        assert!((embedding.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-4, "{row}");
    }
}

#[test]
fn help_lists_options_and_examples() {
    let text = String::from_utf8(search(&["--help"]).stdout).unwrap();
    for part in ["--workers", "--input", "--query", "--embeddings", "--json", "RAY_ZEROCOPY_MODELS", "Examples:"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}
