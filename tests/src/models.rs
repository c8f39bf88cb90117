//! Pipelines for tests: small, but with everything that can be in one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use burn::module::Module;
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig,
};
use burn::tensor::{Bool, Device, Int, Tensor};
use indexmap::IndexMap;
use ray_zerocopy::{ActorWrapper, Pipeline};
use serde::{Deserialize, Serialize};

/// A matrix and some ways to misbehave.
#[derive(Pipeline)]
pub struct Mill {
    /// Rebuilds it.
    #[pipeline(config)]
    pub config: MillConfig,
    /// The weights.
    pub stone: Linear,
    /// Calls so far: an actor's state.
    #[pipeline(skip)]
    pub calls: usize,
}

/// How large a [`Mill`] is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MillConfig {
    /// Rows and columns.
    pub size: usize,
    /// A file that, while it exists, makes `init` kill its own process: a death during load.
    pub deadly: Option<String>,
}

impl MillConfig {
    /// A mill of `size` x `size` weights.
    pub fn new(size: usize) -> Self {
        Self { size, deadly: None }
    }

    /// The mill.
    pub fn init(&self, device: &Device) -> Mill {
        if let Some(path) = &self.deadly
            && std::fs::remove_file(path).is_ok()
        {
            kill_myself();
        }
        let stone = LinearConfig::new(self.size, self.size).init(device);
        Mill { config: self.clone(), stone, calls: 0 }
    }
}

/// Ends this process as `kill -9` does.
pub fn kill_myself() {
    let pid = rustix::process::getpid();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a process may kill itself");
    std::thread::sleep(Duration::from_secs(60));
}

/// A result that serde refuses to write.
#[derive(Debug, Deserialize)]
pub struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("nobody may write this down"))
    }
}

/// Why a mill does not grind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MillError {
    /// Nothing was given.
    Empty,
    /// Too much was given.
    Full { given: usize, room: usize },
}

#[ray_zerocopy::remote]
impl Mill {
    /// The forward pass.
    pub fn grind(&self, corn: Tensor<2>) -> Tensor<2> {
        self.stone.forward(corn)
    }

    /// The process that runs it.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// How many threads the process computes with.
    pub fn threads(&self) -> Option<String> {
        std::env::var("RAYON_NUM_THREADS").ok()
    }

    /// Any serde value, there and back.
    pub fn echo(
        &self,
        value: serde_json::Value,
        text: String,
        numbers: Vec<f64>,
    ) -> (serde_json::Value, String, Vec<f64>) {
        (value, text, numbers)
    }

    /// Tensors in containers, there and back.
    pub fn sort(&self, tensors: Vec<Tensor<2>>, mask: Option<Tensor<1, Bool>>) -> HashMap<String, Tensor<2>> {
        let mut named: HashMap<_, _> =
            tensors.into_iter().enumerate().map(|(index, tensor)| (format!("tensor {index}"), tensor)).collect();
        if let Some(mask) = mask {
            named.insert("mask".to_owned(), mask.float().unsqueeze());
        }
        named
    }

    /// A result with an error of its own.
    pub fn weigh(&self, corn: usize) -> Result<Tensor<1, Int>, MillError> {
        match corn {
            0 => Err(MillError::Empty),
            corn if corn > 9 => Err(MillError::Full { given: corn, room: 9 }),
            corn => Ok(Tensor::arange(0..corn as i64, &Device::flex())),
        }
    }

    /// Panics.
    pub fn jam(&self, why: String) -> u32 {
        panic!("the mill is jammed by {why}")
    }

    /// Aborts.
    pub fn explode(&self) {
        std::process::abort()
    }

    /// Dies as of `kill -9` unless the file exists, which it makes first.
    pub fn die_once(&self, file: String) -> u32 {
        if std::fs::File::create_new(file).is_ok() {
            kill_myself();
        }
        std::process::id()
    }

    /// Dies every time.
    pub fn die_always(&self) {
        kill_myself();
    }

    /// Takes a while.
    pub fn sleep(&self, millis: u64) -> u32 {
        std::thread::sleep(Duration::from_millis(millis));
        std::process::id()
    }

    /// Makes the file, then takes a while.
    pub fn announce_and_sleep(&self, file: String, millis: u64) -> u32 {
        std::fs::write(file, std::process::id().to_string()).expect("the test's folder is there");
        std::thread::sleep(Duration::from_millis(millis));
        std::process::id()
    }

    /// An option in an option.
    pub fn maybe(&self, value: Option<Option<u8>>) -> Option<Option<u8>> {
        value
    }

    /// A result that cannot travel.
    pub fn secret(&self) -> Unwritable {
        Unwritable
    }

    /// Changes state.
    pub fn count(&mut self, by: usize) -> usize {
        self.calls += by;
        self.calls
    }

    /// Changes state, then panics.
    pub fn count_and_jam(&mut self) {
        self.calls += 1000;
        panic!("jammed while counting")
    }

    /// Changes a weight in this process: allowed, and private.
    pub fn wear(&mut self) -> f32 {
        let weight = self.stone.weight.val() * 0.0;
        self.stone.weight = burn::module::Param::from_tensor(weight);
        self.stone.weight.val().abs().sum().into_scalar()
    }

    /// Loads a handle that another process has serialised, and says in which process, with which total.
    pub fn load_handle(&self, handle: ActorWrapper<Mill>) -> Result<(u32, f32, usize), String> {
        let mill = handle.load().map_err(|error| error.to_string())?;
        Ok((std::process::id(), mill.total(), mill.copied().len()))
    }

    /// Whether the weight is in the process's heap or in shared memory is not seen here, but its sum is.
    pub fn total(&self) -> f32 {
        self.stone.weight.val().sum().into_scalar()
    }
}

impl Mill {
    /// Where the weight lies in this process, on the flex backend.
    pub fn weight_address(&self) -> usize {
        use burn::backend::{BackendTensor, DispatchTensorKind};

        match self.stone.weight.val().into_dispatch().kind {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.bytes().as_ptr() as usize,
            other => panic!("not a float tensor on flex: {other:?}"),
        }
    }
}

/// Keys of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Language {
    /// English.
    En,
    /// French.
    Fr,
}

/// A block with everything that burn visits.
#[derive(Module, Debug)]
pub struct Block {
    norm: BatchNorm,
    layers: Vec<Linear>,
    scale: Option<LayerNorm>,
}

impl Block {
    fn new(width: usize, device: &Device) -> Self {
        Self {
            norm: BatchNormConfig::new(width).init(device),
            layers: (0..2).map(|_| LinearConfig::new(width, width).init(device)).collect(),
            scale: Some(LayerNormConfig::new(width).init(device)),
        }
    }
}

/// A pipeline in a pipeline.
#[derive(Pipeline)]
pub struct Inner {
    /// Shared.
    pub words: Embedding,
    /// Copied.
    pub note: String,
}

/// One of two.
#[derive(Pipeline)]
pub enum Head {
    /// A matrix.
    Plain(Linear),
    /// A matrix and a number.
    Scaled {
        /// Shared.
        layer: Linear,
        /// Copied.
        by: f32,
    },
}

/// Every kind of field, in every kind of container.
#[derive(Pipeline)]
#[pipeline(init = Zoo::new)]
pub struct Zoo {
    pub module: Linear,
    pub block: Block,
    pub bare: Tensor<2>,
    pub ints: Tensor<1, Int>,
    pub bools: Vec<Tensor<1, Bool>>,
    pub by_name: HashMap<String, Vec<Linear>>,
    pub by_number: BTreeMap<u32, Linear>,
    pub by_language: IndexMap<Language, Linear>,
    pub queue: VecDeque<Linear>,
    pub some: Option<Linear>,
    pub none: Option<Linear>,
    pub boxed: Box<Linear>,
    pub counted: Arc<Linear>,
    pub array: [Linear; 2],
    pub pair: (Linear, String),
    pub inner: Inner,
    pub inners: HashMap<String, Inner>,
    pub head: Head,
    pub heads: Vec<Head>,
    pub text: String,
    pub numbers: Vec<f32>,
    pub table: HashMap<String, u64>,
    pub nested: Option<HashMap<String, Vec<Option<u8>>>>,
    pub empty: BTreeMap<String, f32>,
    #[pipeline(skip)]
    pub skipped: usize,
    #[pipeline(rename = "renamed")]
    pub name: i64,
}

impl Zoo {
    /// The skeleton: right shapes, empty data.
    pub fn new(device: &Device) -> Self {
        let linear = || LinearConfig::new(3, 3).init(device);
        let inner = || Inner { words: EmbeddingConfig::new(5, 3).init(device), note: String::new() };
        Self {
            module: LinearConfig::new(3, 4).init(device),
            block: Block::new(3, device),
            bare: Tensor::zeros([2, 2], device),
            ints: Tensor::zeros([3], device),
            bools: vec![Tensor::zeros([2], device), Tensor::zeros([1], device)],
            by_name: [("fr", 3), ("de", 1)]
                .map(|(name, n)| (name.to_owned(), (0..n).map(|_| linear()).collect()))
                .into(),
            by_number: [(7, linear()), (11, linear())].into(),
            by_language: [(Language::Fr, linear()), (Language::En, linear())].into(),
            queue: [linear(), linear()].into(),
            some: Some(linear()),
            none: None,
            boxed: Box::new(linear()),
            counted: Arc::new(linear()),
            array: [linear(), linear()],
            pair: (linear(), String::new()),
            inner: inner(),
            inners: [("a b".to_owned(), inner())].into(),
            head: Head::Scaled { layer: linear(), by: 0.0 },
            heads: vec![Head::Plain(linear()), Head::Scaled { layer: linear(), by: 0.0 }],
            text: String::new(),
            numbers: Vec::new(),
            table: HashMap::new(),
            nested: None,
            empty: BTreeMap::new(),
            skipped: 42,
            name: 0,
        }
    }

    /// The skeleton with data in it.
    pub fn filled(device: &Device) -> Self {
        let mut zoo = Self::new(device);
        zoo.bare = Tensor::from_floats([[1.0, 2.0], [3.0, f32::NAN]], device);
        zoo.ints = Tensor::from_ints([-1, 0, i32::MAX], device);
        zoo.bools = vec![Tensor::from_bool([true, false], device), Tensor::from_bool([true], device)];
        zoo.pair.1 = "pair".to_owned();
        zoo.inner.note = "inner".to_owned();
        zoo.inners.values_mut().for_each(|inner| inner.note = "of many".to_owned());
        if let Head::Scaled { by, .. } = &mut zoo.head {
            *by = 2.5;
        }
        zoo.text = "text".to_owned();
        zoo.numbers = vec![1.5, f32::INFINITY, -0.0];
        zoo.table = [("x".to_owned(), u64::MAX)].into();
        zoo.nested = Some([("k".to_owned(), vec![Some(1), None])].into());
        zoo.skipped = 7;
        zoo.name = -9;
        zoo
    }
}
