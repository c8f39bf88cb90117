//! Sharing of checkpoints that other programs wrote: names, layouts, types, placements and errors.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::store::{BurnpackStore, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ray_zerocopy::arena::{Location, Placement};
use ray_zerocopy::error::{CheckpointError, ShareError};
use ray_zerocopy::{ActorWrapper, Arena, Checkpoint, Pipeline, load, share, share_from};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[derive(Pipeline)]
struct Model {
    #[pipeline(config)]
    config: Config,
    body: Body,
    /// A constant, such as a position table, which is not in the checkpoint.
    scale: Tensor<1>,
    labels: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Config {
    column: bool,
}

#[derive(Module, Debug)]
struct Body {
    dense: Linear,
    norm: LayerNorm,
    heads: Vec<Linear>,
}

impl Config {
    fn init(&self, device: &Device) -> Model {
        let layout = if self.column { LinearLayout::Col } else { LinearLayout::Row };
        let linear = |outputs| LinearConfig::new(32, outputs).with_layout(layout).init(device);
        Model {
            config: self.clone(),
            body: Body {
                dense: linear(64),
                norm: LayerNormConfig::new(64).init(device),
                heads: vec![linear(16), linear(32)],
            },
            scale: Tensor::ones([4], device),
            labels: Vec::new(),
        }
    }
}

#[ray_zerocopy::remote]
impl Model {
    pub fn run(&self, x: Tensor<2>) -> Tensor<2> {
        self.body.norm.forward(self.body.dense.forward(x))
    }
}

const ROW: Config = Config { column: false };
const COLUMN: Config = Config { column: true };

struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn floats(name: &str, shape: &[usize]) -> Stored {
    let count: usize = shape.iter().product();
    let seed = name.len() as f32;
    let bytes = (0..count).flat_map(|at| ((at as f32 * 0.37 + seed).sin()).to_le_bytes()).collect();
    Stored { name: name.to_owned(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

/// The tensors as PyTorch stores them: `[out, in]`, and norms with `weight` and `bias`.
fn pytorch() -> Vec<Stored> {
    vec![
        floats("body.dense.weight", &[64, 32]),
        floats("body.dense.bias", &[64]),
        floats("body.norm.weight", &[64]),
        floats("body.norm.bias", &[64]),
        floats("body.heads.0.weight", &[16, 32]),
        floats("body.heads.0.bias", &[16]),
        floats("body.heads.1.weight", &[32, 32]),
        floats("body.heads.1.bias", &[32]),
    ]
}

/// Writes a file whose data starts `shift` bytes past a multiple of 64.
fn write(path: &Path, tensors: &[Stored], shift: usize) {
    let views = tensors.iter().map(|t| (&t.name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
    let write = |padding: usize| {
        let metadata = HashMap::from([("padding".to_owned(), " ".repeat(padding))]);
        safetensors::serialize(views.clone(), Some(metadata)).unwrap()
    };
    let header = |bytes: &[u8]| 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let file = (0..128).map(write).find(|bytes| header(bytes) % 64 == shift).unwrap();
    fs::write(path, file).unwrap();
}

fn in_file() -> Placement {
    #[allow(unsafe_code, reason = "the tests keep the promise of `in_file`")]
    // SAFETY: every file is in the folder of one test, which does not change it after writing it.
    unsafe {
        Placement::in_file()
    }
}

/// The pipeline as burn's own store loads it from the file.
fn reference(config: &Config, path: &Path, from_pytorch: bool) -> Model {
    let mut model = config.init(&Device::flex());
    let mut store = SafetensorsStore::from_file(path).with_key_remapping("^body\\.", "");
    if from_pytorch {
        store = store.with_from_adapter(PyTorchToBurnAdapter);
    }
    model.body.load_from(&mut store).unwrap();
    model
}

fn x() -> Tensor<2> {
    Tensor::<1, Int>::arange(0..96, &Device::flex()).float().reshape([3, 32]).sin()
}

fn run(arena: &Arena) -> TensorData {
    load::<Model>(arena, &Device::flex()).unwrap().strict().unwrap().run(x()).into_data()
}

/// Compares outputs with a tolerance: weights of both layouts are equal, but sums are computed in
/// another order.
fn same_but_for_the_layout(arena: &Arena, path: &Path) {
    let (loaded, expected) = (load::<Model>(arena, &Device::flex()).unwrap(), reference(&ROW, path, true));
    assert_eq!(loaded.body.dense.weight.val().to_data(), expected.body.dense.weight.val().to_data());
    assert_eq!(loaded.body.heads[0].weight.val().to_data(), expected.body.heads[0].weight.val().to_data());
    assert_eq!(loaded.body.norm.gamma.val().to_data(), expected.body.norm.gamma.val().to_data());
    close(&run(arena), &expected.run(x()).into_data(), 1e-5);
}

fn close(left: &TensorData, right: &TensorData, tolerance: f32) {
    let worst = left.iter::<f32>().zip(right.iter::<f32>()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(left.shape() == right.shape() && worst < tolerance, "{worst}");
}

fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.safetensors");
    (folder, path)
}

fn stays(arena: &Arena) -> Vec<(&str, bool)> {
    let stays = |placed| matches!(placed, Location::File { .. });
    arena.tensors().map(|tensor| (tensor.path, stays(tensor.placed))).collect()
}

#[test]
fn pytorch_checkpoint_loads_as_burn_store_does() {
    let (_folder, path) = folder();
    write(&path, &pytorch(), 0);
    let expected = reference(&ROW, &path, true);
    let mut model = ROW.init(&Device::flex());
    model.labels = vec!["cat".to_owned()];
    let told = std::sync::Arc::new(AtomicU64::new(0));
    let teller = std::sync::Arc::clone(&told);
    let checkpoint = Checkpoint::open(&path).unwrap().from_pytorch();
    let checkpoint = checkpoint.progress(move |progress| teller.store(progress.done, Ordering::Relaxed));
    let arena = share_from(&model, &checkpoint).unwrap();
    assert!(told.load(Ordering::Relaxed) >= arena.stored_bytes());
    assert_eq!(run(&arena), expected.run(x()).into_data());
    arena.verify().unwrap();

    // Constants come from the pipeline, whose parameters were never initialised.
    assert!(!model.body.dense.weight.is_initialized());
    let loaded = load::<Model>(&arena, &Device::flex()).unwrap();
    assert_eq!(loaded.labels, ["cat"]);
    assert_eq!(loaded.scale.to_data(), model.scale.to_data());
    // Sharing a pipeline from the heap gives the same arena, except for burn's parameter ids.
    let mut heap = expected;
    heap.labels = model.labels;
    let shared = share(&heap).unwrap();
    assert_eq!((shared.fingerprint(), shared.stored_bytes()), (arena.fingerprint(), arena.stored_bytes()));
}

#[test]
fn an_aligned_file_lends_what_needs_no_change() {
    let (_folder, path) = folder();
    write(&path, &pytorch(), 0);
    let checkpoint = Checkpoint::open(&path).unwrap().from_pytorch().placement(in_file());
    let arena = share_from(&ROW.init(&Device::flex()), &checkpoint).unwrap();
    assert_eq!(run(&arena), reference(&ROW, &path, true).run(x()).into_data());
    for (name, stays) in stays(&arena) {
        assert_eq!(stays, !(name.ends_with("weight") || name == "scale"), "{name}");
    }
    let why = arena.tensors().find_map(|tensor| match tensor.placed {
        Location::Sealed { reason } if tensor.path == "body.dense.weight" => reason,
        _ => None,
    });
    assert!(why.unwrap().contains("LinearLayout::Col"), "{why:?}");

    // The column layout is PyTorch's, so everything except the constant is borrowed from the file.
    let arena = share_from(&COLUMN.init(&Device::flex()), &checkpoint).unwrap();
    same_but_for_the_layout(&arena, &path);
    assert_eq!(
        stays(&arena).into_iter().filter(|(_, stays)| !stays).map(|(name, _)| name).collect::<Vec<_>>(),
        ["scale"]
    );
    assert_eq!(arena.borrowed_bytes(), pytorch().iter().map(|tensor| tensor.bytes.len() as u64).sum::<u64>());

    // Workers map the file too. A saved arena contains everything and does not need the file.
    let expected = run(&arena);
    let saved = path.with_file_name("saved.bpk");
    arena.save(&saved).unwrap();
    let lent = arena.clone();
    let actors = ActorWrapper::<Model>::from_arena(arena).strict().spawn(2).unwrap();
    assert_eq!(actors.run(x()).wait().unwrap().into_data(), expected);
    actors.shut_down();
    // So does a process that receives the wrapper as text.
    let text = serde_json::to_string(&ActorWrapper::<Model>::from_arena(lent.clone())).unwrap();
    let elsewhere: ActorWrapper<Model> = serde_json::from_str(&text).unwrap();
    let loaded = elsewhere.load().unwrap();
    assert_eq!((loaded.copied(), loaded.run(x()).into_data()), (&[][..], expected.clone()));
    assert_eq!(elsewhere.arena().borrowed_bytes(), lent.borrowed_bytes());
    fs::remove_file(&path).unwrap();
    let saved = Arena::open(&saved).unwrap();
    assert_eq!((run(&saved), saved.borrowed_bytes()), (expected, 0));
}

#[test]
fn file_written_after_opening_is_not_shared() {
    let (_folder, path) = folder();
    write(&path, &pytorch(), 0);
    let checkpoint = Checkpoint::open(&path).unwrap().from_pytorch();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let error = share_from(&ROW.init(&Device::flex()), &checkpoint).unwrap_err();
    assert!(error.to_string().contains("was changed or replaced"), "{error}");
}

#[test]
fn misaligned_file_is_borrowed_if_allowed() {
    let (_folder, path) = folder();
    write(&path, &pytorch(), 8);
    let share = |placement| {
        let checkpoint = Checkpoint::open(&path).unwrap().from_pytorch().placement(placement);
        share_from(&COLUMN.init(&Device::flex()), &checkpoint).unwrap()
    };
    let strict = share(in_file());
    assert_eq!(strict.borrowed_bytes(), 0);
    let why = strict.tensors().find_map(|tensor| match tensor.placed {
        Location::Sealed { reason } => reason,
        _ => None,
    });
    assert!(why.unwrap().contains("aligned to 8 bytes, and 64 are required"), "{why:?}");
    let loose = share(in_file().aligned(8));
    assert!(loose.borrowed_bytes() > 0);
    // The alignment of the element type is always required, because flex would panic.
    let (_other, path) = folder();
    let mut bytes = vec![floats("a", &[4])];
    bytes.insert(0, Stored { name: "b".to_owned(), dtype: Dtype::U8, shape: vec![1], bytes: vec![0] });
    write(&path, &bytes, 0);
    assert_eq!(run(&strict), run(&loose));
}

#[test]
fn floats_are_cast_on_request() {
    let (_folder, path) = folder();
    write(&path, &pytorch(), 0);
    let checkpoint = Checkpoint::open(&path).unwrap().from_pytorch().cast_floats(DType::F16).placement(in_file());
    let arena = share_from(&ROW.init(&Device::flex()), &checkpoint).unwrap();
    for tensor in arena.tensors().filter(|tensor| tensor.path != "scale") {
        assert_eq!(tensor.dtype, DType::F16, "{tensor:?}");
        assert!(matches!(tensor.placed, Location::Sealed { reason: Some(_) }), "{tensor:?}");
    }
    let (loaded, exact) = (load::<Model>(&arena, &Device::flex()).unwrap(), reference(&ROW, &path, true));
    let data = |model: &Model| model.body.dense.weight.val().into_data();
    close(&data(&loaded).convert::<f32>(), &data(&exact), 1e-3);
}

#[test]
fn names_are_changed_with_patterns() {
    let (_folder, path) = folder();
    let mut tensors = pytorch();
    tensors
        .iter_mut()
        .for_each(|tensor| tensor.name = tensor.name.replace("body.heads.", "bert.out_").replace("body.", "bert."));
    tensors.push(floats("bert.pooler.weight", &[3]));
    write(&path, &tensors, 0);
    let open = || Checkpoint::open(&path).unwrap().from_pytorch();
    let model = ROW.init(&Device::flex());
    let error = share_from(&model, &open()).unwrap_err();
    let ShareError::NotInCheckpoint { missing, similar, .. } = &error else { panic!("{error}") };
    assert_eq!((missing.len(), similar.as_deref()), (8, Some("bert.dense.weight")));
    assert!(error.to_string().contains("`body.dense.weight` and 7 more (it has `bert.dense.weight`)"), "{error}");

    let renamed = open().rename(r"^bert\.out_(\d+)", "bert.heads.$1").unwrap().rename(r"^bert\.", "body.").unwrap();
    assert!(renamed.tensors().any(|tensor| tensor.name == "bert.out_1.bias" && tensor.renamed == "body.heads.1.bias"));
    share_from(&model, &renamed).unwrap();

    let error = open().rename("(", "").unwrap_err();
    assert!(matches!(&error, CheckpointError::Pattern { pattern, .. } if pattern == "("), "{error}");
    let error = open().rename(r"\d", "0").unwrap_err();
    assert!(matches!(&error, CheckpointError::Duplicate { name, .. } if name.starts_with("bert.out_0")), "{error}");
}

#[test]
fn missing_parameters_may_keep_their_values() {
    let (_folder, path) = folder();
    write(&path, &pytorch()[..6], 0);
    let model = ROW.init(&Device::flex());
    let checkpoint = Checkpoint::open(&path).unwrap().from_pytorch();
    assert!(
        matches!(share_from(&model, &checkpoint), Err(ShareError::NotInCheckpoint { missing, .. }) if missing.len() == 2)
    );
    let arena = share_from(&model, &checkpoint.allow_partial()).unwrap();
    let loaded = load::<Model>(&arena, &Device::flex()).unwrap();
    assert_eq!(loaded.body.heads[1].weight.val().to_data(), model.body.heads[1].weight.val().to_data());
}

#[test]
fn mismatched_tensor_is_named_with_expectation() {
    let (_folder, path) = folder();
    let model = ROW.init(&Device::flex());
    let refused = |change: &dyn Fn(&mut Vec<Stored>), from_pytorch: bool| {
        let mut tensors = pytorch();
        change(&mut tensors);
        write(&path, &tensors, 0);
        let checkpoint = Checkpoint::open(&path).unwrap();
        let checkpoint = if from_pytorch {
            checkpoint.from_pytorch()
        } else {
            checkpoint.rename("norm.weight", "norm.gamma").unwrap().rename("norm.bias", "norm.beta").unwrap()
        };
        share_from(&model, &checkpoint).unwrap_err().to_string()
    };
    let text = refused(&|tensors| tensors[1] = floats("body.dense.bias", &[63]), true);
    assert!(text.contains("does not fit `body.dense.bias`: shape [64] is expected, and it has [63]"), "{text}");
    let text = refused(&|_| (), false);
    assert!(text.contains("shape [32, 64] is expected, and it has [64, 32]; was it written by PyTorch?"), "{text}");
    let text = refused(&|tensors| tensors[0] = floats("body.dense.weight", &[32, 64]), true);
    assert!(text.contains("was it written by burn"), "{text}");
    let integer = |dtype, size: usize| Stored {
        name: "body.dense.bias".to_owned(),
        dtype,
        shape: vec![64],
        bytes: vec![0; 64 * size],
    };
    let text = refused(&|tensors| tensors[1] = integer(Dtype::I64, 8), true);
    assert!(text.contains("a tensor of kind float is expected, and it holds I64"), "{text}");
    let text = refused(&|tensors| tensors[1] = integer(Dtype::F8_E4M3, 1), true);
    assert!(text.contains("burn has no element type F8_E4M3"), "{text}");
}

#[test]
fn shards_are_found_through_their_index() {
    let folder = TempDir::new().unwrap();
    let tensors = pytorch();
    let (first, second) = tensors.split_at(3);
    let shard = |name: &str| folder.path().join(name);
    write(&shard("a.safetensors"), first, 0);
    write(&shard("b.safetensors"), second, 0);
    let of = |name: &'static str| move |tensor: &Stored| (tensor.name.clone(), name);
    let map: HashMap<_, _> =
        first.iter().map(of("a.safetensors")).chain(second.iter().map(of("b.safetensors"))).collect();
    let index = shard("model.safetensors.index.json");
    let write_index = |map: &HashMap<String, &str>| {
        fs::write(&index, serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    };
    write_index(&map);
    let (_other, whole) = self::folder();
    write(&whole, &tensors, 0);
    for path in [index.as_path(), folder.path()] {
        let checkpoint = Checkpoint::open(path).unwrap().from_pytorch().placement(in_file());
        let arena = share_from(&COLUMN.init(&Device::flex()), &checkpoint).unwrap();
        assert_eq!((checkpoint.files().count(), arena.files().count()), (2, 2));
        same_but_for_the_layout(&arena, &whole);
        let actors = ActorWrapper::<Model>::from_arena(arena.clone()).strict().spawn(1).unwrap();
        assert_eq!(actors.run(x()).wait().unwrap().into_data(), run(&arena));
        actors.shut_down();
    }

    let refused = |name: &str, file: &'static str| {
        let mut map = map.clone();
        map.insert(name.to_owned(), file);
        write_index(&map);
        Checkpoint::open(&index).unwrap_err()
    };
    let error = refused("ghost", "a.safetensors");
    assert!(error.to_string().contains("`ghost` is said to be in `a.safetensors`, which does not have it"), "{error}");
    assert!(
        matches!(refused("x", "c.safetensors"), CheckpointError::File { path, .. } if path.ends_with("c.safetensors"))
    );
    for elsewhere in ["../a.safetensors", "/etc/passwd", "", ".."] {
        let error = refused("x", elsewhere);
        assert!(error.to_string().contains("which is not a file beside the index"), "{elsewhere}: {error}");
    }
    fs::write(&index, "{").unwrap();
    assert!(matches!(Checkpoint::open(&index), Err(CheckpointError::Index { .. })));
}

#[test]
fn burns_own_files_are_checkpoints_too() {
    let folder = TempDir::new().unwrap();
    let model = ROW.init(&Device::flex());
    let path = folder.path().join("body.bpk");
    model.body.save_into(&mut BurnpackStore::from_file(&path)).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap().rename("^", "body.").unwrap().placement(in_file());
    let arena = share_from(&ROW.init(&Device::flex()), &checkpoint).unwrap();
    assert_eq!(run(&arena), model.run(x()).into_data());
    assert_eq!(stays(&arena).into_iter().filter(|(_, stays)| !stays).count(), 1);

    // An arena is a checkpoint too, of this pipeline or of another.
    let path = folder.path().join("arena.bpk");
    arena.save(&path).unwrap();
    let again = share_from(&ROW.init(&Device::flex()), &Checkpoint::open(&path).unwrap()).unwrap();
    assert_eq!(run(&again), model.run(x()).into_data());
}

#[test]
fn other_and_truncated_files_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.bin");
    fs::write(&path, b"PK\x03\x04 a pickle in a zip").unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(error.to_string().contains("its table of contents is missing"), "{error}");
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("the folder has none of model.safetensors, "), "{error}");
    assert!(matches!(Checkpoint::open(folder.path().join("x")), Err(CheckpointError::File { .. })));
    let cut = folder.path().join("cut.safetensors");
    write(&cut, &pytorch(), 0);
    let whole = fs::read(&cut).unwrap();
    for len in [0, 7, 8, 100, whole.len() - 1] {
        fs::write(&cut, &whole[..len]).unwrap();
        assert!(Checkpoint::open(&cut).is_err(), "{len}");
    }
}
