//! Folders in the layouts of `diffusers` and `transformers`, and errors for files that are not
//! checkpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};

use ray_zerocopy::Checkpoint;
use ray_zerocopy::error::CheckpointError;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases").join(name)
}

/// A safetensors file of one small tensor.
fn write(path: &Path) {
    let view = TensorView::new(Dtype::F32, vec![2], &[0; 8]).unwrap();
    safetensors::serialize_to_file([("w", view)], None, path).unwrap();
}

#[test]
fn folders_are_opened_by_common_file_names() {
    assert_eq!(Checkpoint::open(case("diffusers")).unwrap().tensors().count(), 1);
    let fill = |names: &[&str]| {
        let folder = TempDir::new().unwrap();
        for name in names {
            let path = folder.path().join(name);
            if name.contains(".index.") {
                fs::write(path, r#"{"weight_map": {"w": "part.safetensors"}}"#).unwrap();
            } else {
                write(&path);
            }
        }
        folder
    };
    let opened = |names: &[&str], variant: Option<&str>| {
        let folder = fill(names);
        let options = Checkpoint::options();
        let options = variant.into_iter().fold(options, |options, variant| options.variant(variant));
        let checkpoint = options.open(folder.path()).map_err(|error| error.to_string())?;
        let file = checkpoint.files().next().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        Ok::<_, String>(file)
    };
    let is =
        |names: &[&str], variant: Option<&str>, file: &str| assert_eq!(opened(names, variant).as_deref(), Ok(file));
    is(&["model.fp16.safetensors"], None, "model.fp16.safetensors");
    is(&["model.fp16.safetensors", "model.safetensors"], None, "model.safetensors");
    is(&["model.fp16.safetensors", "model.safetensors"], Some("fp16"), "model.fp16.safetensors");
    is(&["part.safetensors", "model.safetensors.index.fp16.json"], None, "part.safetensors");
    is(&["part.safetensors", "diffusion_pytorch_model.safetensors.index.json"], None, "part.safetensors");
    is(&["adapter_model.safetensors", "adapter_config.json"], None, "adapter_model.safetensors");
    let several = opened(&["model.fp16.safetensors", "model.bf16.safetensors"], None).unwrap_err();
    let words = "has several variants of the weights: `model.bf16.safetensors`, `model.fp16.safetensors`; choose one";
    assert!(several.contains(words), "{several}");
    let other = opened(&["model.fp16.safetensors"], Some("fp8")).unwrap_err();
    assert!(other.contains("has no variant `fp8`: `model.fp16.safetensors`"), "{other}");
    let none = opened(&["weights.safetensors", "model_index.json"], None).unwrap_err();
    assert!(none.contains("it has `model_index.json`, `weights.safetensors`"), "{none}");
    assert!(none.contains("name the folder of one"), "{none}");
}

/// Files that are commonly found in the place of a checkpoint, and the words by which the error
/// names them.
#[test]
fn common_other_formats_are_named() {
    let lfs = Checkpoint::open(case("lfs-pointer.safetensors")).map(drop).unwrap_err().to_string();
    assert!(
        lfs.contains("is not a checkpoint, but a Git LFS pointer to it (of 123456789 bytes): run `git lfs pull`"),
        "{lfs}"
    );
    let folder = TempDir::new().unwrap();
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let onnx = b"\x08\x07\x12\x07pytorch\x1a\x03".to_vec();
    let files: [(&str, Vec<u8>, &str); 20] = [
        ("a.safetensors", b"<!DOCTYPE html>\n<html>".to_vec(), "a web page"),
        ("b.bin", b"\n <html lang=en>".to_vec(), "a web page"),
        ("c.bin", b"<?xml version='1.0'?><Error>".to_vec(), "an XML document"),
        ("d.safetensors", b"{\"error\": \"Repository not found\"}".to_vec(), "a JSON text: `{\"error\""),
        ("e.pt", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "a Git LFS pointer"),
        ("f.onnx", onnx.clone(), "an ONNX model"),
        ("g.bin", onnx, "an ONNX model"),
        ("h.gguf", b"GGUF\x03\0\0\0\0\0\0\0".to_vec(), "llama.cpp"),
        ("i.h5", b"\x89HDF\r\n\x1a\n\0\0".to_vec(), "an HDF5 file"),
        ("j.npy", b"\x93NUMPY\x01\0v\0{'descr'".to_vec(), "a numpy array"),
        ("k.pt", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], "compressed with gzip"),
        ("l.tar", tar, "a tar archive"),
        ("m.ckpt.data-00000-of-00001", vec![0; 64], "a part of a TensorFlow checkpoint"),
        ("n.msgpack", vec![0x81, 0xa6], "weights of Flax"),
        ("o.pkl", b"\x80\x04\x95\x0a\0\0\0\0\0\0\0}.".to_vec(), "a pickle that `torch.save` has not written"),
        ("p.safetensors", vec![0x40, 0, 0, 0, 0, 0, 0, 0, b'{', b'"'], "62 of its bytes are missing"),
        ("q.safetensors", Vec::new(), "as a download that was cut: it is empty"),
        ("r.pt", b"PK\x03\x04 and no end".to_vec(), "its table of contents is missing"),
        ("s.npz", b"PK\x05\x06".iter().copied().chain([0; 18]).collect(), "starts with the bytes"),
        ("t.safetensors", vec![0xff; 64], "it starts with the bytes [ff"),
    ];
    for (name, bytes, words) in files {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("claims"), "{error}");
    }
    // An incomplete download at every length: the header is complete, and weights are missing.
    let whole = fs::read(case("tied.safetensors")).unwrap();
    let path = folder.path().join("cut.safetensors");
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let error = Checkpoint::open(&path).map(drop).unwrap_err();
        assert!(matches!(error, CheckpointError::Cut { .. }), "{len}: {error}");
        let missing = format!("{} of its bytes are missing", whole.len() - len);
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        assert!(len < header || error.to_string().contains(&missing), "{len}: {error}");
    }
}
