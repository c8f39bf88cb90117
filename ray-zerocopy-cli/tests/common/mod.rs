//! Shared code of the tests of `rzc`: running it, creating files, and a pipeline.

#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::arena::Placement;
use ray_zerocopy::{Arena, Pipeline, load, share};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tempfile::TempDir;

/// The output and status of `rzc`.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts a failure with one line on standard error, and returns it.
    pub fn error(&self) -> &str {
        assert_eq!(self.code, Some(2), "{self:?}");
        let line = self.err.strip_suffix('\n').unwrap_or_default();
        assert!(line.starts_with("error: ") && !line.contains('\n'), "{self:?}");
        line
    }

    /// Asserts success with empty standard error.
    pub fn well(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        self
    }
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rzc"));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub fn finish(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

pub fn rzc(arguments: &[&str]) -> Done {
    finish(&mut command(arguments))
}

/// A temporary folder.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn at(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path().join(name), bytes).unwrap();
        self.at(name)
    }

    /// Writes a safetensors file with these tensors.
    pub fn safetensors(&self, name: &str, tensors: &[Stored]) -> String {
        let views = tensors.iter().map(|t| (&t.0, TensorView::new(t.1, t.2.clone(), &t.3).unwrap()));
        safetensors::serialize_to_file(views, None, &self.path().join(name)).unwrap();
        self.at(name)
    }

    /// Saves the arena of a model of the given width.
    pub fn arena(&self, name: &str, width: usize) -> String {
        share(&Model::of(width, &Device::flex())).unwrap().save(self.path().join(name)).unwrap();
        self.at(name)
    }

    /// Saves a variant of an arena: only the labels differ.
    pub fn variant(&self, name: &str, base: &Arena, label: &str) -> String {
        let mut model = load::<Model>(base, &Device::flex()).unwrap().into_inner();
        model.labels = vec![label.to_owned()];
        base.variant(&model).unwrap().save_variant(self.path().join(name)).unwrap();
        self.at(name)
    }
}

/// A folder with files, and one in which the processes of a test find each other.
pub struct Stage {
    pub files: Folder,
    pub runtime: Folder,
}

impl Stage {
    pub fn new() -> Self {
        Self { files: Folder::new(), runtime: Folder::new() }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("XDG_RUNTIME_DIR", self.runtime.path());
        command
    }

    pub fn rzc(&self, arguments: &[&str]) -> Done {
        finish(&mut self.command(arguments))
    }
}

/// A tensor: name, type, shape, bytes.
#[derive(Clone)]
pub struct Stored(pub String, pub Dtype, pub Vec<usize>, pub Vec<u8>);

pub fn floats(name: &str, shape: &[usize]) -> Stored {
    let seed = name.bytes().map(f32::from).sum::<f32>();
    let count: usize = shape.iter().product();
    let bytes = (0..count).flat_map(|at| ((at as f32 * 0.37 + seed).sin()).to_le_bytes()).collect();
    Stored(name.to_owned(), Dtype::F32, shape.to_vec(), bytes)
}

/// The weights of a [`Column`] as PyTorch writes them, unaligned, with an unused tensor and its
/// duplicate.
pub fn checkpoint() -> Vec<Stored> {
    let mut twin = floats("a.table", &[3, 5]);
    twin.0 = "a.twin".to_owned();
    vec![
        floats("a.table", &[3, 5]),
        twin,
        floats("net.norm.bias", &[64]),
        floats("net.norm.weight", &[64]),
        floats("net.one.bias", &[64]),
        floats("net.one.weight", &[64, 32]),
        floats("net.two.bias", &[7]),
        floats("net.two.weight", &[7, 64]),
    ]
}

/// Overwrites the start of a tensor.
pub fn damage(path: &str, tensor: &Value) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xa5; 4], tensor["offset"].as_u64().unwrap()).unwrap();
}

/// Returns the names of all fields of an object, including objects in lists.
pub fn fields(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(value, &path, found);
                    found.insert(path);
                }
            }
            Value::Array(list) => {
                for value in list {
                    walk(value, path, found);
                }
            }
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(value, "", &mut found);
    found
}

/// Returns the placement in a file. The tests never change files while they are mapped.
pub fn in_file() -> Placement {
    #[allow(unsafe_code, reason = "the promise is what is tested")]
    // SAFETY: every file is in a folder of its own test, which does not change it while it is
    // mapped.
    unsafe {
        Placement::in_file()
    }
}

/// A pipeline that borrows from a file of PyTorch, so its linear weights are in column-major order.
#[derive(Pipeline)]
#[pipeline(init = Column::new)]
pub struct Column {
    pub net: Net,
}

#[derive(Module, Debug)]
pub struct Net {
    one: Linear,
    norm: LayerNorm,
    two: Linear,
}

impl Net {
    /// Takes the second layer of another one.
    pub fn replace_second(&mut self, other: &Self) {
        self.two = other.two.clone();
    }
}

impl Column {
    pub fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).with_layout(LinearLayout::Col).init(device);
        let norm = LayerNormConfig::new(64).init(device);
        Self { net: Net { one: linear(32, 64), norm, two: linear(64, 7) } }
    }

    pub fn run(&self, x: Tensor<2>) -> Tensor<2> {
        self.net.two.forward(self.net.norm.forward(self.net.one.forward(x)))
    }
}

/// A pipeline with a config, tied weights and copied fields.
#[derive(Pipeline)]
pub struct Model {
    #[pipeline(config)]
    width: usize,
    first: Linear,
    tied: Linear,
    labels: Vec<String>,
}

trait Init {
    fn init(&self, device: &Device) -> Model;
}

impl Init for usize {
    fn init(&self, device: &Device) -> Model {
        Model::of(*self, device)
    }
}

#[ray_zerocopy::remote]
impl Model {
    pub fn of(width: usize, device: &Device) -> Self {
        let first: Linear = LinearConfig::new(width, width).init(device);
        Self { width, tied: first.clone(), first, labels: vec!["a".to_owned()] }
    }

    pub fn total(&self) -> f32 {
        (self.first.weight.val().abs().sum() + self.tied.weight.val().abs().sum()).into_scalar()
    }

    pub fn doze(&self, millis: u64) {
        std::thread::sleep(std::time::Duration::from_millis(millis));
    }
}

/// Waits until a condition holds, and panics after a minute.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("it did not happen within a minute: {what}");
}

/// Writes a checkpoint that is sharded over two files. Returns its index.
pub fn sharded(folder: &Folder, tensors: &[Stored]) -> PathBuf {
    let (one, two) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, part) in [("model-1.safetensors", one), ("model-2.safetensors", two)] {
        folder.safetensors(name, part);
        for tensor in part {
            map.insert(tensor.0.clone(), name.into());
        }
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    folder.write("model.safetensors.index.json", index.as_bytes()).into()
}
