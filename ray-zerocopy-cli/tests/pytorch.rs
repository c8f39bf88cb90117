//! `rzc` on files of PyTorch, on published checkpoints, and on files that are not checkpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use common::{Folder, floats, rzc};
use serde_json::{Value, json};

/// Returns the path of a file of the repository's tests.
fn file(name: &str) -> String {
    format!("{}/../tests/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn shape(report: &Value, path: &str) -> Value {
    let tensors = report["tensors"].as_array().unwrap();
    tensors.iter().find(|tensor| tensor["path"] == path).unwrap_or_else(|| panic!("no {path} in {report}"))["shape"]
        .clone()
}

#[test]
fn a_state_dict_is_inspected_packed_compared_and_verified() {
    let folder = Folder::new();
    for name in ["zip.pt", "legacy.pt"] {
        let state = file(&format!("pytorch/{name}"));
        let done = rzc(&["inspect", &state]).well().out;
        assert!(
            done.contains("zip.pt: a PyTorch checkpoint") || done.contains("legacy.pt: a PyTorch checkpoint"),
            "{done}"
        );
        assert!(done.contains("not contiguous") && done.contains("= table") && done.contains("bf16"), "{done}");
        let report = rzc(&["inspect", &state, "--json"]).well().json();
        assert_eq!((&report["format"], shape(&report, "scalar")), (&json!("pytorch"), json!([])));

        let packed = folder.at(&format!("{name}.bpk"));
        let done = rzc(&["pack", &state, "-o", &packed]).well().out;
        assert!(done.contains("tensors of") && done.contains("pytorch"), "{done}");
        let done = rzc(&["diff", &state, &packed]).well().out;
        assert!(done.starts_with("equal; "), "{done}");
        assert!(rzc(&["verify", &packed]).well().out.contains("all checksums match"));
        assert!(rzc(&["verify", &state]).well().out.contains("no checksums"));
    }
    let [zip, legacy] = ["zip.pt", "legacy.pt"].map(|name| file(&format!("pytorch/{name}")));
    rzc(&["diff", &zip, &legacy]).well();
    let done = rzc(&["diff", &zip, &file("pytorch/parameters.pt")]);
    assert_eq!(done.code, Some(1), "{done:?}");
    // Including values that are not contiguous in the file.
    let turned = folder.at("turned.bpk");
    rzc(&["pack", &zip, "-o", &turned, "--transpose", "^columns$"]).well();
    let done = rzc(&["diff", &zip, &turned, "--json"]).json();
    assert_eq!(
        (&done["differences"][0]["path"], &done["differences"][0]["what"]),
        (&json!("columns"), &json!("shape"))
    );
}

#[test]
fn a_key_chooses_among_state_dicts() {
    let several = file("pytorch/several.pt");
    for command in ["inspect", "verify", "pack"] {
        let done = rzc(&[command, &several]);
        let words = "tensors in several places: `generator`, `discriminator`; choose one by its key";
        assert!(done.error().contains(words), "{done:?}");
    }
    let folder = Folder::new();
    let packed = folder.at("ema.bpk");
    rzc(&["pack", &several, "--key", "ema", "-o", &packed]).well();
    let report = rzc(&["inspect", &several, "--key", "ema", "--json"]).well().json();
    assert_eq!(shape(&report, "a.weight"), json!([4, 3]));
    rzc(&["verify", &several, "--key", "ema"]).well();
    rzc(&["diff", &several, &packed, "--key", "ema"]).well();
}

#[test]
fn a_pickle_that_imports_is_refused_by_name() {
    let hostile = file("hostile/checkpoint/imports-beside.pt");
    for command in ["inspect", "pack"] {
        let done = rzc(&[command, &hostile]);
        assert!(done.error().contains("imports `posix.system`, which does not belong in a state dict"), "{done:?}");
    }
    assert_eq!(rzc(&["verify", &hostile]).code, Some(2));
}

#[test]
fn tensors_are_tied_split_fused_and_transposed() {
    let folder = Folder::new();
    let output = folder.at("out.bpk");
    let packed = |arguments: &[&str]| {
        rzc(&[&["pack", "-f", "-o", &output], arguments].concat()).well();
        rzc(&["inspect", &output, "--json"]).well().json()
    };
    let report = packed(&[&file("cases/qkv.safetensors"), "--split", "in_proj_(weight|bias)=query.$1,key.$1,value.$1"]);
    assert_eq!((shape(&report, "attn.key.weight"), shape(&report, "attn.value.bias")), (json!([4, 4]), json!([4])));
    let split = folder.at("split.bpk");
    std::fs::rename(&output, &split).unwrap();
    let names = r"query\.(weight|bias),key\.(weight|bias),value\.(weight|bias)=in_proj_$1";
    packed(&[&split, "--fuse", names]);
    rzc(&["diff", &file("cases/qkv.safetensors"), &output]).well();

    let tied = ["--tie", "lm_head.weight=model.embed.weight"];
    let report = packed(&[&[&file("cases/tied.safetensors")[..]], &tied[..]].concat());
    let tensors = report["tensors"].as_array().unwrap();
    assert!(tensors.iter().any(|tensor| tensor["same_as"] == "model.embed.weight"), "{report}");
    assert_eq!(report["totals"]["stored_bytes"], json!(96 + 16));

    let matrix = folder.safetensors("matrix.safetensors", &[floats("c_attn.weight", &[3, 5])]);
    let report = packed(&[&matrix, "--transpose", r"c_attn\.weight"]);
    assert_eq!(shape(&report, "c_attn.weight"), json!([5, 3]));
    packed(&[&output.clone(), "--transpose", "c_attn"]);
    rzc(&["diff", &matrix, &output]).well();

    let error = |arguments: &[&str]| {
        let done = rzc(&[&["pack", "-f", "-o", &output], arguments].concat());
        assert_eq!(done.code, Some(2), "{done:?}");
        done.err
    };
    let layers = file("cases/layers.safetensors");
    let said = error(&[&layers, "--rename", r"layers\.(\d+)\.=blk$1_"]);
    assert!(said.contains("there is no group `1_`") && said.contains("write `${1}_`"), "{said}");
    let report = packed(&[&layers, "--rename", r"layers\.(\d+)\.=blk${1}_"]);
    assert_eq!(shape(&report, "blk3_w"), json!([2, 2]));
    assert!(error(&[&matrix, "--tie", "a=b"]).contains("the checkpoint has no `b`"));
    assert!(error(&[&matrix, "--split", "c_attn="]).contains("FROM=TO,TO is expected"));
    assert!(error(&[&matrix, "--split", "c_attn=a,b"]).contains("its 3 rows are not a multiple of 2"));
}

#[test]
fn shapes_without_a_dimension_stay_as_they_are() {
    let folder = Folder::new();
    let [scalar, packed] = [file("cases/scalar.safetensors"), folder.at("scalar.bpk")];
    rzc(&["pack", &scalar, "-o", &packed]).well();
    for path in [&scalar, &packed] {
        let report = rzc(&["inspect", path, "--json"]).well().json();
        assert_eq!(shape(&report, "logit_scale"), json!([]));
        rzc(&["verify", path]).well();
    }
    rzc(&["diff", &scalar, &packed]).well();
}

#[test]
fn what_is_not_a_checkpoint_is_named() {
    let done = rzc(&["inspect", &file("cases/lfs-pointer.safetensors")]);
    assert!(done.error().contains("a Git LFS pointer to it (of 123456789 bytes): run `git lfs pull`"), "{done:?}");
    rzc(&["inspect", &file("cases/diffusers")]).well();
    let folder = Folder::new();
    folder.safetensors("model.fp16.safetensors", &[floats("a", &[2])]);
    folder.safetensors("model.bf16.safetensors", &[floats("b", &[2])]);
    let path = folder.path().display().to_string();
    assert!(rzc(&["inspect", &path]).error().contains("has several variants of the weights"));
    let report = rzc(&["inspect", &path, "--variant", "bf16", "--json"]).well().json();
    assert_eq!(shape(&report, "b"), json!([2]));
    let cut = std::fs::read(file("pytorch/zip.pt")).unwrap();
    let cut = folder.write("cut.pt", &cut[..1000]);
    let done = rzc(&["verify", &cut]);
    assert!(done.code == Some(1) && done.out.contains("is incomplete, as a download that was cut"), "{done:?}");
}
