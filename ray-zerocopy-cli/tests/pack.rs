//! `rzc pack`: a packed file is borrowed completely and gives the same results.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_pack::Writer;
use common::{Column, Folder, Model, Stored, checkpoint, floats, in_file, rzc, sharded};
use ray_zerocopy::arena::Location;
use ray_zerocopy::error::LoadError;
use ray_zerocopy::{Arena, Checkpoint, load, share_from};
use safetensors::Dtype;
use serde_json::json;

fn x() -> Tensor<2> {
    Tensor::<1, Int>::arange(0..96, &Device::flex()).float().reshape([3, 32]).sin()
}

fn arena(checkpoint: Checkpoint) -> Arena {
    share_from(&Column::new(&Device::flex()), &checkpoint.from_pytorch()).unwrap()
}

fn run(arena: &Arena) -> TensorData {
    load::<Column>(arena, &Device::flex()).unwrap().strict().unwrap().run(x()).into_data()
}

#[test]
fn what_is_packed_is_borrowed_whole_and_answers_the_same() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    let original = arena(Checkpoint::open(&file).unwrap());
    // The source file is not aligned, so not all of it can be borrowed.
    let unpacked = arena(Checkpoint::open(&file).unwrap().placement(in_file()));
    assert!(unpacked.borrowed_bytes() < unpacked.weight_bytes());

    let done = rzc(&["pack", &file]).well();
    assert!(done.out.starts_with("packed 8 tensors of "), "{done:?}");
    assert!(done.out.contains("aligned to  4 bytes      256 bytes"), "{done:?}");
    assert!(done.out.contains("1 tensor is stored once together with an equal one, which saves 60 B"), "{done:?}");
    assert_eq!(folder.names(), ["model.bpk", "model.safetensors"]);
    // The mode of a normal file, not that of a temporary one.
    let other = Folder::new();
    let mode = |path: String| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(folder.at("model.bpk")), mode(other.write("any", b"")));

    let packed = arena(Checkpoint::open(folder.at("model.bpk")).unwrap().placement(in_file()));
    assert_eq!(packed.borrowed_bytes(), packed.weight_bytes());
    for tensor in packed.tensors() {
        assert!(matches!(tensor.placed, Location::File { offset, .. } if offset % 256 == 0), "{tensor:?}");
    }
    assert_eq!(run(&packed), run(&original));
    // The same in sealed memory.
    assert_eq!(run(&arena(Checkpoint::open(folder.at("model.bpk")).unwrap())), run(&original));
}

#[test]
fn loading_a_packed_checkpoint_as_a_pipeline_gives_advice() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    rzc(&["pack", &file]).well();
    let arena = Arena::open(folder.at("model.bpk")).unwrap();
    assert_eq!(arena.pipeline(), "");
    let error = load::<Column>(&arena, &Device::flex()).map(drop).unwrap_err();
    assert!(matches!(error, LoadError::NoPipeline { .. }));
    assert!(error.to_string().contains("share_from"), "{error}");
    let wrapper = ray_zerocopy::ActorWrapper::<Model>::from_arena(arena);
    let error = wrapper.spawn(1).map(drop).unwrap_err().to_string();
    assert!(error.contains("share_from"), "{error}");
}

#[test]
fn names_and_types_change_as_they_are_told_to() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    let output = folder.at("other.bpk");
    let renames = ["--rename", r"^net\.(one|two)=$1", "--rename", "^one=eins"];
    let arguments = [&["pack", &file, "-o", &output, "--floats", "f16", "--json"], &renames[..]].concat();
    let done = rzc(&arguments).well().json();
    assert_eq!((&done["tensors"], &done["renamed"]), (&json!(8), &json!(4)));
    assert_eq!(done["before"]["dtypes"], json!(["f32"]));
    assert_eq!(done["after"]["dtypes"], json!(["f16"]));
    assert_eq!(done["weight_bytes"], json!((3 * 5 * 2 + 3 * 64 + 64 * 32 + 7 + 7 * 64) * 2));

    let packed = Checkpoint::open(&output).unwrap();
    let names: Vec<_> = packed.tensors().map(|tensor| tensor.name).collect();
    assert!(names.contains(&"eins.weight") && names.contains(&"two.bias") && names.contains(&"net.norm.bias"));
    assert!(packed.tensors().all(|tensor| tensor.dtype == Ok(burn::tensor::DType::F16)));
}

#[test]
fn sharded_checkpoints_folders_and_burnpack_files_are_packed() {
    let folder = Folder::new();
    let index = sharded(&folder, &checkpoint());
    let done = rzc(&["pack", index.to_str().unwrap(), "--json"]).well().json();
    assert_eq!((&done["before"]["files"], &done["after"]["files"]), (&json!(2), &json!(1)));
    assert_eq!(done["output"], json!(folder.at("model.bpk")));
    let whole = folder.at("whole.bpk");
    rzc(&["pack", folder.path().to_str().unwrap(), "-o", &whole]).well();
    assert_eq!(fs::read(&whole).unwrap(), fs::read(folder.at("model.bpk")).unwrap());

    // A burnpack file, a packed file, and the arena of a pipeline.
    let Stored(name, _, shape, bytes) = floats("x", &[6]);
    let bytes = burn::tensor::Bytes::from_bytes_vec(bytes);
    let tensor = burn_pack::Tensor::new(name, burn::tensor::DType::F32, shape, Some(7), bytes);
    let plain = folder.write("plain.bpk", &Writer::new(vec![tensor]).into_bytes().unwrap());
    let arena = folder.arena("arena.bpk", 8);
    for (input, tensors) in [(&plain, 1), (&whole, 8), (&arena, 4)] {
        let output = folder.at("again.bpk");
        let done = rzc(&["pack", input, "-o", &output, "--force", "--json"]).well().json();
        assert_eq!(done["tensors"], json!(tensors), "{input}");
        assert_eq!(rzc(&["diff", input, &output]).well().json_or_text(), "equal");
    }
}

trait Says {
    fn json_or_text(&self) -> &str;
}

impl Says for common::Done {
    /// Returns the first word of the text.
    fn json_or_text(&self) -> &str {
        self.out.split(';').next().unwrap()
    }
}

#[test]
fn nothing_is_replaced_that_was_not_to_be() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    let there = folder.write("model.bpk", b"precious");
    let error = rzc(&["pack", &file]);
    assert!(error.error().contains("already exists; --force replaces it"), "{error:?}");
    assert_eq!(fs::read(&there).unwrap(), b"precious");
    // A file as its own output, and a dangling link.
    assert!(rzc(&["pack", &file, "-o", &file]).error().contains("already exists"));
    std::os::unix::fs::symlink("nowhere", folder.path().join("link.bpk")).unwrap();
    assert!(rzc(&["pack", &file, "-o", &folder.at("link.bpk")]).error().contains("already exists"));
    rzc(&["pack", &file, "--force"]).well();
    assert_ne!(fs::read(&there).unwrap(), b"precious");
    // With --force, a file may be its own output: it is replaced when the new file is complete.
    let before = fs::read(&there).unwrap();
    rzc(&["pack", &there, "--force"]).well();
    assert_eq!(fs::read(&there).unwrap(), before);
}

#[test]
fn what_cannot_be_packed_leaves_nothing_behind() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    let mut odd = checkpoint();
    odd.push(Stored("odd".to_owned(), Dtype::F8_E4M3, vec![2], vec![1, 2]));
    let odd = folder.safetensors("odd.safetensors", &odd);
    let bytes = fs::read(&file).unwrap();
    let short = folder.write("short.safetensors", &bytes[..bytes.len() - 1]);
    let names = folder.names();

    let refused = |arguments: &[&str], word: &str| {
        let done = rzc(&[&["pack"], arguments].concat());
        assert!(done.error().contains(word), "{done:?}");
        assert_eq!(folder.names(), names);
    };
    refused(&[&odd], "`odd` of ");
    refused(&[&short], "1 of its bytes are missing");
    refused(&[&folder.at("nowhere.safetensors")], "does not exist; name a");
    refused(&[&file, "-o", &folder.at("no/such/folder.bpk")], "No such file");
    refused(&[&file, "-o", "/proc/x.bpk"], "/proc/x.bpk");
    refused(&[&file, "--force", "-o", folder.path().to_str().unwrap()], folder.path().to_str().unwrap());
    refused(&[&file, "--rename", "(=x"], "is not a regular expression");
    refused(&[&file, "--rename", "weight$=bias"], "would both be named");
    // Wrong options are rejected by clap.
    for wrong in [["--rename", "x"], ["--floats", "f8"]] {
        let done = rzc(&["pack", &file, wrong[0], wrong[1]]);
        assert!(done.code == Some(2) && done.err.contains(wrong[0]), "{done:?}");
    }
}
