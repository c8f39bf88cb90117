//! Python module for the tests of this crate: a pipeline whose methods accept and return every kind
//! of value, and fail on demand.

use std::collections::HashMap;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Bool, DType, Device, Int, Tensor};
use ray_zerocopy::Pipeline;
use serde::{Deserialize, Serialize};

/// A small model.
#[derive(Pipeline)]
pub struct Probe {
    #[pipeline(config)]
    config: Config,
    head: Linear,
    #[pipeline(skip)]
    calls: u32,
    #[pipeline(skip)]
    kept: Option<Tensor<1>>,
}

/// The size of the model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    width: usize,
}

impl Config {
    fn init(&self, device: &Device) -> Probe {
        let head = LinearConfig::new(self.width, 2).init(device);
        Probe { config: self.clone(), head, calls: 0, kept: None }
    }
}

/// A struct with named fields and an enum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    text: String,
    limit: Option<u32>,
    order: Order,
}

/// An enum with and without data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Any order.
    Any,
    /// Sorted by a key.
    By(String),
}

#[ray_zerocopy::remote]
impl Probe {
    /// Computes the scores of each row.
    ///
    /// ```python
    /// >>> import numpy, probe
    /// >>> probe.Probe(width=3).call(numpy.ones((4, 3), "float32")).shape
    /// (4, 2)
    /// ```
    ///
    /// ```ignore
    /// rust();
    /// ```
    pub fn call(&self, rows: Tensor<2>) -> Tensor<2> {
        self.head.forward(rows)
    }

    /// Returns its argument.
    pub fn same1(&self, x: Tensor<1>) -> Tensor<1> {
        x
    }

    /// Returns its argument.
    pub fn same2(&self, x: Tensor<2>) -> Tensor<2> {
        x
    }

    /// Returns its argument.
    pub fn int2(&self, x: Tensor<2, Int>) -> Tensor<2, Int> {
        x
    }

    /// Returns its argument.
    pub fn bool1(&self, x: Tensor<1, Bool>) -> Tensor<1, Bool> {
        x
    }

    /// Casts the argument to bfloat16.
    pub fn bf16(&self, x: Tensor<1>) -> Tensor<1> {
        x.cast(DType::BF16)
    }

    /// Returns its argument.
    pub fn containers(
        &self,
        list: Vec<Tensor<1>>,
        map: HashMap<String, Tensor<1, Int>>,
        pair: (Tensor<1>, Tensor<2>),
        maybe: Option<Tensor<1>>,
    ) -> (Vec<Tensor<1>>, HashMap<String, Tensor<1, Int>>, Option<Tensor<1>>) {
        drop(pair);
        (list, map, maybe)
    }

    /// Returns its argument.
    pub fn query(&self, query: Query) -> Query {
        query
    }

    /// Returns its argument.
    pub fn texts(&self, texts: Vec<String>) -> Vec<String> {
        texts
    }

    /// Returns its argument.
    pub fn values(&self, x: f32, n: u64, flag: bool, name: Option<String>) -> (f32, u64, bool, Option<String>) {
        (x, n, flag, name)
    }

    /// Returns its argument.
    pub fn bytes(&self, data: Vec<u8>) -> Vec<u8> {
        data
    }

    /// Parameters with a reserved word of Python and a name that the wrapper uses.
    pub fn words(&self, lambda: u8, name: u8) -> u8 {
        lambda + name
    }

    /// Returns half of an even number.
    pub fn half(&self, n: u32) -> Result<u32, String> {
        if n.is_multiple_of(2) { Ok(n / 2) } else { Err(format!("{n} is odd")) }
    }

    /// Returns ones, or an error that is not text.
    pub fn ones(&self, n: usize) -> Result<Tensor<1>, Order> {
        if n < 10 { Ok(Tensor::ones([n], &Device::flex())) } else { Err(Order::By("size".to_owned())) }
    }

    /// Returns the weights, which are the pipeline's own memory.
    pub fn weights(&self) -> Tensor<2> {
        self.head.weight.val()
    }

    /// Counts its calls.
    pub fn count(&mut self) -> u32 {
        self.calls += 1;
        self.calls
    }

    /// Keeps an array.
    pub fn keep(&mut self, x: Tensor<1>) {
        self.kept = Some(x);
    }

    /// Returns the kept array.
    pub fn kept(&self) -> Option<Tensor<1>> {
        self.kept.clone()
    }

    /// Panics.
    pub fn clash(&self, reason: String) {
        panic!("no more {reason}");
    }

    /// Modifies the pipeline, then panics.
    pub fn spoil(&mut self) {
        self.calls = 1000;
        panic!("half way");
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Ends the process.
    pub fn die(&self) {
        std::process::abort();
    }
}

impl Probe {
    fn new(width: usize) -> Self {
        Config { width }.init(&Device::flex())
    }

    fn checked(width: usize, limit: Option<usize>) -> Result<Self, String> {
        match limit {
            Some(limit) if width > limit => Err(format!("{width} is more than {limit}")),
            _ => Ok(Self::new(width)),
        }
    }
}

ray_zerocopy_python::export!(
    /// A small model.
    ///
    /// It is for tests.
    probe, Probe,
    new(width) = Probe::new,
    checked(width, limit) = Probe::checked,
);
