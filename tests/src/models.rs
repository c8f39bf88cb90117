//! Small pipelines for tests, with methods that fail on demand and with every kind of field.

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

/// A pipeline of one linear layer, with methods that panic, abort, sleep and change state.
#[derive(Pipeline)]
pub struct TestModel {
    /// Rebuilds the pipeline.
    #[pipeline(config)]
    pub config: TestModelConfig,
    /// The weights.
    pub layer: Linear,
    /// Sum of the arguments of `count`: the state of an actor.
    #[pipeline(skip)]
    pub calls: usize,
}

/// Config of a [`TestModel`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestModelConfig {
    /// Rows and columns.
    pub size: usize,
    /// A file that makes `init` remove it and kill its own process: the worker dies while it loads.
    pub deadly: Option<String>,
}

impl TestModelConfig {
    /// Config of a model with `size` x `size` weights.
    pub fn new(size: usize) -> Self {
        Self { size, deadly: None }
    }

    /// Creates the model.
    pub fn init(&self, device: &Device) -> TestModel {
        if let Some(path) = &self.deadly
            && std::fs::remove_file(path).is_ok()
        {
            kill_myself();
        }
        let layer = LinearConfig::new(self.size, self.size).init(device);
        TestModel { config: self.clone(), layer, calls: 0 }
    }
}

/// Sends SIGKILL to this process.
pub fn kill_myself() {
    let pid = rustix::process::getpid();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a process may kill itself");
    std::thread::sleep(Duration::from_secs(60));
}

/// A type whose serialization fails.
#[derive(Debug, Deserialize)]
pub struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this type cannot be serialized"))
    }
}

/// The error type of [`TestModel::arange`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TestModelError {
    /// The count is 0.
    Empty,
    /// The count is larger than `room`.
    Full { given: usize, room: usize },
}

#[ray_zerocopy::remote]
impl TestModel {
    /// The forward pass.
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        self.layer.forward(input)
    }

    /// Id of the process that runs the method.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// `RAYON_NUM_THREADS` of the process.
    pub fn threads(&self) -> Option<String> {
        std::env::var("RAYON_NUM_THREADS").ok()
    }

    /// Returns its arguments, which are serde values.
    pub fn echo(
        &self,
        value: serde_json::Value,
        text: String,
        numbers: Vec<f64>,
    ) -> (serde_json::Value, String, Vec<f64>) {
        (value, text, numbers)
    }

    /// Takes tensors in containers, and returns them in a map.
    pub fn sort(&self, tensors: Vec<Tensor<2>>, mask: Option<Tensor<1, Bool>>) -> HashMap<String, Tensor<2>> {
        let mut named: HashMap<_, _> =
            tensors.into_iter().enumerate().map(|(index, tensor)| (format!("tensor {index}"), tensor)).collect();
        if let Some(mask) = mask {
            named.insert("mask".to_owned(), mask.float().unsqueeze());
        }
        named
    }

    /// Returns a `Result` with an error type of the user's.
    pub fn arange(&self, count: usize) -> Result<Tensor<1, Int>, TestModelError> {
        match count {
            0 => Err(TestModelError::Empty),
            count if count > 9 => Err(TestModelError::Full { given: count, room: 9 }),
            count => Ok(Tensor::arange(0..count as i64, &Device::flex())),
        }
    }

    /// Panics with a message that ends with `why`.
    pub fn panic_with(&self, why: String) -> u32 {
        panic!("asked to panic: {why}")
    }

    /// Aborts the process.
    pub fn abort_process(&self) {
        std::process::abort()
    }

    /// Creates the file and kills the process. If the file exists, returns the process id.
    pub fn die_once(&self, file: String) -> u32 {
        if std::fs::File::create_new(file).is_ok() {
            kill_myself();
        }
        std::process::id()
    }

    /// Kills the process.
    pub fn die_always(&self) {
        kill_myself();
    }

    /// Sleeps, and returns the process id.
    pub fn sleep(&self, millis: u64) -> u32 {
        std::thread::sleep(Duration::from_millis(millis));
        std::process::id()
    }

    /// Writes the process id into the file, then sleeps.
    pub fn announce_and_sleep(&self, file: String, millis: u64) -> u32 {
        std::fs::write(file, std::process::id().to_string()).expect("the test's folder exists");
        std::thread::sleep(Duration::from_millis(millis));
        std::process::id()
    }

    /// Returns its argument, a nested option.
    pub fn maybe(&self, value: Option<Option<u8>>) -> Option<Option<u8>> {
        value
    }

    /// Returns a value that cannot be serialized.
    pub fn secret(&self) -> Unwritable {
        Unwritable
    }

    /// Adds to the state, and returns it.
    pub fn count(&mut self, by: usize) -> usize {
        self.calls += by;
        self.calls
    }

    /// Changes the state, then panics.
    pub fn count_and_panic(&mut self) {
        self.calls += 1000;
        panic!("panicked while counting")
    }

    /// Sets the weights of this process to zero. Other processes do not see that.
    pub fn zero_weights(&mut self) -> f32 {
        let weight = self.layer.weight.val() * 0.0;
        self.layer.weight = burn::module::Param::from_tensor(weight);
        self.layer.weight.val().abs().sum().into_scalar()
    }

    /// Loads a handle that another process serialised. Returns the process id, the sum of the
    /// weights, and the number of copied tensors.
    pub fn load_handle(&self, handle: ActorWrapper<TestModel>) -> Result<(u32, f32, usize), String> {
        let model = handle.load().map_err(|error| error.to_string())?;
        Ok((std::process::id(), model.total(), model.copied().len()))
    }

    /// Sum of the weights.
    pub fn total(&self) -> f32 {
        self.layer.weight.val().sum().into_scalar()
    }
}

impl TestModel {
    /// Address of the weight in this process, on the flex backend.
    pub fn weight_address(&self) -> usize {
        use burn::backend::{BackendTensor, DispatchTensorKind};

        match self.layer.weight.val().into_dispatch().kind {
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

/// A module with running statistics, a list and an option.
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

/// A nested pipeline.
#[derive(Pipeline)]
pub struct Inner {
    /// Shared.
    pub words: Embedding,
    /// Copied.
    pub note: String,
}

/// An enum pipeline.
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

/// A pipeline with every kind of field in every kind of container.
#[derive(Pipeline)]
#[pipeline(init = AllFields::new)]
pub struct AllFields {
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

impl AllFields {
    /// The skeleton: the right shapes, without data.
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
        let mut all = Self::new(device);
        all.bare = Tensor::from_floats([[1.0, 2.0], [3.0, f32::NAN]], device);
        all.ints = Tensor::from_ints([-1, 0, i32::MAX], device);
        all.bools = vec![Tensor::from_bool([true, false], device), Tensor::from_bool([true], device)];
        all.pair.1 = "pair".to_owned();
        all.inner.note = "inner".to_owned();
        all.inners.values_mut().for_each(|inner| inner.note = "of many".to_owned());
        if let Head::Scaled { by, .. } = &mut all.head {
            *by = 2.5;
        }
        all.text = "text".to_owned();
        all.numbers = vec![1.5, f32::INFINITY, -0.0];
        all.table = [("x".to_owned(), u64::MAX)].into();
        all.nested = Some([("k".to_owned(), vec![Some(1), None])].into());
        all.skipped = 7;
        all.name = -9;
        all
    }
}
