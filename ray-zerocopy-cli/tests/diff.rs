//! `rzc diff`: differences, distances and exit status.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use burn::tensor::f16;
use common::{Folder, Stored, checkpoint, floats, rzc};
use safetensors::Dtype;
use serde_json::{Value, json};

fn differences(done: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    done["differences"].as_array().unwrap().iter().map(|it| (text(&it["path"]), text(&it["what"]))).collect()
}

#[test]
fn equal_files_are_equal_however_they_are_written() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    let packed = folder.at("model.bpk");
    rzc(&["pack", &file]).well();
    let done = rzc(&["diff", &file, &packed]).well().out;
    assert_eq!(done, "equal; 8 tensors in A, 8 in B; compared: 0 by checksum, 8 byte by byte\n");
    let done = rzc(&["diff", &packed, &packed, "--json"]).well().json();
    assert_eq!((&done["equal"], &done["compared_by_checksum"]), (&json!(true), &json!(8)));
    let arena = folder.arena("arena.bpk", 8);
    rzc(&["diff", &arena, &arena]).well();
}

#[test]
fn each_kind_of_difference_is_told() {
    let folder = Folder::new();
    let left = folder.safetensors("left.safetensors", &checkpoint());
    let mut tensors = checkpoint();
    let named = |tensors: &[Stored], name: &str| tensors.iter().position(|tensor| tensor.0 == name).unwrap();
    let gone = named(&tensors, "a.twin");
    tensors.remove(gone);
    tensors.push(floats("z.new", &[2]));
    let content = named(&tensors, "net.one.bias");
    tensors[content].3[..4].copy_from_slice(&1000_f32.to_le_bytes());
    let shape = named(&tensors, "net.two.weight");
    tensors[shape].2.reverse();
    let dtype = named(&tensors, "net.two.bias");
    let halves = tensors[dtype].3.as_chunks().0.iter().map(|&bytes| f16::from_f32(f32::from_le_bytes(bytes)));
    let halves: Vec<u8> = halves.flat_map(f16::to_le_bytes).collect();
    tensors[dtype] = Stored("net.two.bias".to_owned(), Dtype::F16, vec![7], halves);
    let right = folder.safetensors("right.safetensors", &tensors);

    let expected = [
        ("a.twin", "only_in_a"),
        ("net.one.bias", "content"),
        ("net.two.bias", "dtype"),
        ("net.two.weight", "shape"),
        ("z.new", "only_in_b"),
    ];
    for pack in [false, true] {
        let mut files = [left.clone(), right.clone()];
        if pack {
            for file in &mut files {
                rzc(&["pack", file, "--force"]).well();
                *file = file.replace(".safetensors", ".bpk");
            }
        }
        let done = rzc(&["diff", &files[0], &files[1], "--json"]);
        assert_eq!((done.code, done.err.as_str()), (Some(1), ""));
        let json = done.json();
        let mut found = differences(&json);
        found.sort();
        assert_eq!(found, expected.map(|(path, what)| (path.to_owned(), what.to_owned())));
        assert!(json["differences"].as_array().unwrap().iter().all(|it| it["max_abs_difference"].is_null()));

        let json = rzc(&["diff", &files[0], &files[1], "--json", "--values"]).json();
        let find = |path: &str| json["differences"].as_array().unwrap().iter().find(|it| it["path"] == path).unwrap();
        let content = find("net.one.bias");
        assert_eq!(content["differing_values"], json!(1));
        assert!((999.0..=1001.0).contains(&content["max_abs_difference"].as_f64().unwrap()), "{content}");
        let dtype = find("net.two.bias");
        assert!(dtype["differing_values"].as_u64().unwrap() > 0, "{dtype}");
        assert!((1e-7..1e-3).contains(&dtype["max_abs_difference"].as_f64().unwrap()), "{dtype}");
        assert!(find("net.two.weight")["max_abs_difference"].is_null());
    }
    let text = rzc(&["diff", &left, &right]);
    assert_eq!(text.code, Some(1));
    assert!(text.out.contains("only in A  f32 [3, 5]") && text.out.contains("5 differences"), "{text:?}");
    let text = rzc(&["diff", &left, &right, "--values"]).out;
    assert!(text.contains("max diff  values") && text.contains("1.000e3       1"), "{text}");
}

#[test]
fn numbers_that_are_none_are_told_too() {
    let folder = Folder::new();
    let of = |name: &str, values: [f32; 3]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        folder.safetensors(name, &[Stored("x".to_owned(), Dtype::F32, vec![3], bytes)])
    };
    let left = of("left.safetensors", [1.0, f32::NAN, 0.0]);
    let right = of("right.safetensors", [1.0, 2.0, -0.0]);
    let done = rzc(&["diff", &left, &right, "--values", "--json"]);
    assert_eq!(done.code, Some(1));
    let it = &done.json()["differences"][0];
    assert_eq!((&it["max_abs_difference"], &it["differing_values"]), (&json!(null), &json!(1)));
    assert!(rzc(&["diff", &left, &right, "--values"]).out.contains("NaN"));
}

#[test]
fn arenas_of_pipelines_are_compared_with_what_they_copy() {
    let folder = Folder::new();
    let (one, two) = (folder.arena("one.bpk", 8), folder.arena("two.bpk", 8));
    let done = rzc(&["diff", &one, &two, "--json"]);
    assert_eq!(done.code, Some(1));
    // All weights are random, including biases; copied fields are equal.
    let found = differences(&done.json());
    assert!(found.iter().all(|(path, what)| what == "content" && !path.contains("labels")), "{found:?}");
    assert_eq!(done.json()["compared_by_checksum"], json!(4));

    let wide = folder.arena("wide.bpk", 9);
    let done = rzc(&["diff", &one, &wide, "--json"]).json();
    let field = done["differences"].as_array().unwrap().iter().find(|it| it["kind"] == "copied_field").unwrap();
    assert_eq!((&field["path"], &field["what"]), (&json!("width"), &json!("content")));
    // A checkpoint does not have copied fields, so their absence is not a difference.
    let packed = folder.at("packed.bpk");
    rzc(&["pack", &one, "-o", &packed]).well();
    rzc(&["diff", &one, &packed]).well();
}

#[test]
fn many_differences_are_cut() {
    let folder = Folder::new();
    let of = |name: &str, prefix: &str| {
        let tensors: Vec<_> = (0..50).map(|at| floats(&format!("{prefix}{at}"), &[1])).collect();
        folder.safetensors(name, &tensors)
    };
    let (left, right) = (of("left.safetensors", "l"), of("right.safetensors", "r"));
    let done = rzc(&["diff", &left, &right]).out;
    assert!(done.contains("and 60 more: --all shows all of them") && done.contains("100 differences"), "{done}");
    assert!(!rzc(&["diff", &left, &right, "--all"]).out.contains("more:"));
}

#[test]
fn trouble_is_neither_equal_nor_different() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    let nowhere = folder.at("nowhere.bpk");
    for (arguments, side) in [([&file, &nowhere], "B"), ([&nowhere, &file], "A")] {
        let done = rzc(&["diff", arguments[0], arguments[1]]);
        assert!(done.error().starts_with(&format!("error: {side}: `")), "{done:?}");
        assert!(done.error().contains("does not exist"), "{done:?}");
    }
    assert!(rzc(&["diff", &file, &folder.write("text", b"hello, world")]).error().contains("is neither a"));
    assert_eq!(rzc(&["diff", &file]).code, Some(2));
}
