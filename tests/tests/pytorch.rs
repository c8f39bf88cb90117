//! Files of `torch.save`, read without Python: every tensor equals PyTorch's, and errors name what
//! is unsupported.
//!
//! `tests/pytorch/make.py` writes them, and `expected.json` with the bytes that PyTorch reads.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, LinearLayout};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::arena::{Location, Placement};
use ray_zerocopy::checkpoint::CheckpointFormat;
use ray_zerocopy::error::CheckpointError;
use ray_zerocopy::jit::{self, TorchScript};
use ray_zerocopy::{ActorWrapper, Arena, Checkpoint, Pipeline, load, share_from};
use serde::{Deserialize, Serialize};

/// Element type, shape, and bytes in hexadecimal.
type Described = (String, Vec<usize>, String);

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pytorch").join(name)
}

fn expected() -> BTreeMap<String, BTreeMap<String, Described>> {
    serde_json::from_str(&fs::read_to_string(file("expected.json")).unwrap()).unwrap()
}

fn bytes(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let streamed = checkpoint.stream(name, &mut |some| {
        bytes.extend(some);
        Ok(())
    });
    streamed.unwrap_or_else(|error| panic!("{name}: {error}"));
    bytes
}

/// A checkpoint in the format of `expected.json`.
fn described(checkpoint: &Checkpoint) -> BTreeMap<String, Described> {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let dtype = |name: &str| {
        match name {
            "f64" => "float64",
            "f32" => "float32",
            "f16" => "float16",
            "bf16" => "bfloat16",
            "i64" => "int64",
            "i32" => "int32",
            "i16" => "int16",
            "i8" => "int8",
            "u8" => "uint8",
            other => return other.to_owned(),
        }
        .to_owned()
    };
    let of = |tensor: ray_zerocopy::checkpoint::CheckpointTensor<'_>| {
        let found =
            (dtype(tensor.dtype.unwrap().name()), tensor.shape.to_vec(), hex(bytes(checkpoint, tensor.renamed)));
        (tensor.renamed.to_owned(), found)
    };
    checkpoint.tensors().map(of).collect()
}

fn compare(what: &str, found: &BTreeMap<String, Described>, expected: &BTreeMap<String, Described>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, expected) in expected {
        let found = &found[name];
        // burn has several boolean types with different names.
        let same = found.0 == expected.0 || (expected.0 == "bool" && found.0.starts_with("bool"));
        assert!(
            same && (&found.1, &found.2) == (&expected.1, &expected.2),
            "{what}, `{name}`: {found:?}, not {expected:?}"
        );
    }
}

fn in_file() -> Placement {
    #[allow(unsafe_code, reason = "the tests keep the promise of `in_file`")]
    // SAFETY: the files are part of the repository, and no test writes to them.
    unsafe {
        Placement::in_file()
    }
}

#[test]
fn every_tensor_is_what_pytorch_reads() {
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("packed.bpk");
    for (name, expected) in expected() {
        let (path, key) = name.split_once('#').map_or((&name[..], None), |(path, key)| (path, Some(key)));
        let checkpoint = match key {
            // The parts of PyTorch's attention, which stacks query, key and value.
            Some("parts") => {
                let checkpoint = Checkpoint::open(file(path)).unwrap();
                checkpoint.split("in_proj_(weight|bias)", ["query.$1", "key.$1", "value.$1"]).unwrap()
            }
            Some(key) => Checkpoint::options().key(key).open(file(path)).unwrap(),
            None => Checkpoint::open(file(path)).unwrap_or_else(|error| panic!("{error}")),
        };
        assert_eq!(checkpoint.format(), CheckpointFormat::PyTorch);
        let wanted = |name: &String, _: &mut Described| key != Some("parts") || !name.starts_with("out_proj");
        let mut found = described(&checkpoint);
        found.retain(wanted);
        compare(&name, &found, &expected);
        // A packed checkpoint has the same tensors, and checksums.
        checkpoint.pack(&packed).unwrap().verify(|_| ()).unwrap();
        let mut found = described(&Checkpoint::open(&packed).unwrap());
        found.retain(wanted);
        compare(&format!("{name}, packed"), &found, &expected);
    }
}

#[test]
fn layouts_and_ties_are_known_without_the_data() {
    for name in ["zip.pt", "legacy.pt"] {
        let checkpoint = Checkpoint::open(file(name)).unwrap();
        let tensors: BTreeMap<_, _> = checkpoint.tensors().map(|tensor| (tensor.name.to_owned(), tensor)).collect();
        let apart: Vec<_> = tensors.values().filter(|tensor| !tensor.is_contiguous).map(|tensor| tensor.name).collect();
        assert_eq!(apart, ["columns", "permuted", "steps", "transposed"], "{name}");
        assert_eq!(tensors["table"].offset, tensors["tied"].offset);
        assert_eq!(tensors["view"].offset, tensors["table"].offset + 2 * 6 * 4);
        assert_eq!((tensors["scalar"].shape, tensors["scalar"].bytes), (&[][..], 4));
        // `torch.save` aligns storages to 64 bytes in its zip format.
        assert!(name == "legacy.pt" || tensors["plain"].alignment() >= 64, "{}", tensors["plain"].offset);
        let folder = tempfile::tempdir().unwrap();
        let packed = checkpoint.pack(folder.path().join("packed.bpk")).unwrap();
        let place =
            |path: &str| packed.tensors().find(|tensor| tensor.path == path).map(|tensor| tensor.placed).unwrap();
        assert_eq!(place("table"), place("tied"), "{name}");
    }
}

#[derive(Pipeline)]
struct Model {
    #[pipeline(config)]
    config: Config,
    net: Net,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Config {
    column: bool,
}

#[derive(Module, Debug)]
struct Net {
    one: Linear,
    norm: BatchNorm,
}

impl Config {
    fn init(&self, device: &Device) -> Model {
        let layout = if self.column { LinearLayout::Col } else { LinearLayout::Row };
        let one = LinearConfig::new(3, 4).with_layout(layout).init(device);
        Model { config: self.clone(), net: Net { one, norm: BatchNormConfig::new(4).init(device) } }
    }
}

#[ray_zerocopy::remote]
impl Model {
    pub fn run(&self, x: Tensor<2>) -> Tensor<2> {
        self.net.one.forward(x)
    }
}

fn shared(checkpoint: Checkpoint, column: bool) -> Arena {
    let checkpoint = checkpoint.rename("^", "net.").unwrap();
    share_from(&Config { column }.init(&Device::flex()), &checkpoint).unwrap()
}

#[test]
fn pipelines_load_pytorch_files() {
    let expected = expected();
    let hex = |name: &str, path: &str| expected[name][path].2.clone();
    let numbers = |hex: String| -> Vec<f32> {
        let bytes = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(bytes).collect();
        bytes.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()
    };
    for name in ["training.ckpt", "training-legacy.ckpt", "model.pth", "sharded"] {
        // Each file has `num_batches_tracked`, which burn does not have.
        assert!(expected[name].contains_key("norm.num_batches_tracked"));
        for column in [false, true] {
            let arena = shared(Checkpoint::open(file(name)).unwrap().placement(in_file()), column);
            let model = load::<Model>(&arena, &Device::flex()).unwrap().strict().unwrap();
            let weight = model.net.one.weight.val();
            assert_eq!(weight.dims(), [3, 4]);
            assert_eq!(weight.transpose().into_data().try_to_vec::<f32>().unwrap(), numbers(hex(name, "one.weight")));
            let mean = model.net.norm.running_mean.value().into_data().try_to_vec::<f32>().unwrap();
            assert_eq!(mean, numbers(hex(name, "norm.running_mean")));
            let borrowed = arena.tensors().any(|tensor| {
                tensor.path == "net.one.weight"
                    && matches!(tensor.placed, Location::File { offset, .. } if offset % 64 == 0)
            });
            // The column layout is PyTorch's and the zip format is aligned, so the weight is
            // borrowed.
            assert_eq!(borrowed, column && name != "training-legacy.ckpt", "{name} {column}");
        }
    }
    let arena = shared(Checkpoint::open(file("model.pth")).unwrap(), false);
    let x = Tensor::<2>::ones([2, 3], &Device::flex());
    let here = load::<Model>(&arena, &Device::flex()).unwrap().run(x.clone()).into_data();
    let actors = ActorWrapper::<Model>::from_arena(arena).strict().spawn(2).unwrap();
    assert_eq!(actors.run(x).wait().unwrap().into_data(), here);
}

#[test]
fn unsupported_files_are_named() {
    let error = |name: &str| Checkpoint::open(file(name)).map(drop).unwrap_err().to_string();
    for (name, words) in [
        ("several.pt", "tensors in several places: `generator`, `discriminator`; choose one by its key"),
        ("module.pt", "has no state dict: it holds an object of `__main__.Net`, a whole module"),
        ("module-legacy.pt", "it holds an object of `__main__.Net`, a whole module"),
        ("numbers.pt", "has no state dict: it has no tensor"),
        ("sparse.pt", "tensor `b`: it is sparse; save `tensor.to_dense()`"),
        ("quantised.pt", "tensor `a`: it is quantised; save `tensor.dequantize()`"),
        ("expanded.pt", "tensor `a`: it is expanded"),
        ("big-endian.pt", "its numbers are in the byte order `big`"),
        ("compressed.pt", "is compressed, which `torch.save` never does"),
        ("../torchscript/mlp.pt", "is not a checkpoint, but a TorchScript module"),
    ] {
        assert!(error(name).contains(words), "{name}: {}", error(name));
    }
    let keyed = |key: &str| Checkpoint::options().key(key).open(file("several.pt")).map(drop).unwrap_err().to_string();
    assert!(keyed("gen").contains("there is no `gen` for the key `gen`, but `generator`, `discriminator`, `ema`"));
    let error = Checkpoint::options().key("epoch").open(file("training.ckpt")).unwrap_err();
    assert!(error.to_string().contains("under the key `epoch` is a number, without a tensor"), "{error}");
    let nested = Checkpoint::options().key("ema.a").open(file("several.pt")).unwrap();
    assert_eq!(nested.tensors().map(|tensor| tensor.name).collect::<Vec<_>>(), ["weight", "bias"]);

    // Element types that burn lacks are listed, and refused when they are used.
    for (name, dtype) in [("complex.pt", "complex64"), ("float8.pt", "float8_e4m3fn")] {
        let checkpoint = Checkpoint::open(file(name)).unwrap();
        let found = checkpoint.tensors().find(|tensor| tensor.name == "b").unwrap();
        assert_eq!(found.dtype, Err(dtype));
        let folder = tempfile::tempdir().unwrap();
        let error = checkpoint.pack(folder.path().join("x.bpk")).map(drop).unwrap_err();
        assert!(matches!(&error, CheckpointError::Element { name, .. } if name == "b"), "{error}");
    }
}

#[test]
fn state_dicts_are_told_from_modules() {
    let script = file("../torchscript/mlp.pt");
    assert!(TorchScript::is_module(&script).unwrap());
    for name in ["zip.pt", "legacy.pt", "module.pt", "expected.json"] {
        assert!(!TorchScript::is_module(file(name)).unwrap(), "{name}");
    }
    let error = TorchScript::open(file("zip.pt")).map(drop).unwrap_err().to_string();
    assert!(error.contains("it is a state dict, weights without code"), "{error}");
    let error = jit::open(file("zip.pt"), |_| ()).map(drop).unwrap_err().to_string();
    assert!(error.contains("it is a state dict, weights without code"), "{error}");
}

/// A file that is truncated at any length is an error, and never gives a wrong tensor.
#[test]
fn truncated_file_is_refused_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["zip.pt", "legacy.pt"] {
        let whole = fs::read(file(name)).unwrap();
        let path = folder.path().join(name);
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let error = Checkpoint::open(&path).map(drop).unwrap_err();
            let cut = matches!(error, CheckpointError::Cut { .. });
            assert!(cut || len < 32, "{name} cut to {len} of {} bytes: {error}", whole.len());
        }
    }
}

/// A changed byte gives an error, or tensors within the file, and never a crash.
#[test]
fn a_file_with_a_changed_byte_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.pt");
    for name in ["parameters.pt", "training-legacy.ckpt"] {
        let whole = fs::read(file(name)).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= [0x01, 0x80, 0xff][at % 3];
            fs::write(&path, &changed).unwrap();
            let Ok(checkpoint) = Checkpoint::open(&path) else { continue };
            for tensor in checkpoint.tensors().filter(|tensor| tensor.dtype.is_ok()) {
                assert_eq!(bytes(&checkpoint, tensor.renamed).len() as u64, tensor.bytes, "byte {at} of {name}");
            }
        }
    }
}
