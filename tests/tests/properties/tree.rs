//! A pipeline of any shape. Its config is a tree that specifies the tensors and layers of each
//! node.

use std::collections::{BTreeMap, HashMap};

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::module::{Module, ModuleVisitor, Param, Quantizer};
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Embedding, EmbeddingConfig, Linear, LinearConfig, LinearLayout,
};
use burn::tensor::kind::Basic;
use burn::tensor::quantization::{Calibration, QuantScheme, QuantStore, QuantValue};
use burn::tensor::{Bool, BoolStore, DType, Device, Distribution, Int, Tensor, TensorData};
use ray_zerocopy::{Arena, Pipeline};
use serde::{Deserialize, Serialize};

/// The memory layout of a tensor before it is shared.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Layout {
    Plain,
    Transposed,
    Sliced,
    Expanded,
    Flipped,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TensorSpec {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub layout: Layout,
    /// Seed of its elements.
    pub seed: u64,
    /// Whether it is tied to the previous tensor, if the types fit.
    pub tied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerKind {
    Linear { bias: bool, column: bool },
    Quantised,
    Norm,
    Embedding,
    Conv,
    Dropout,
    Nothing,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerSpec {
    pub kind: LayerKind,
    pub sizes: (usize, usize),
    /// Whether it is tied to the previous layer.
    pub tied: bool,
}

/// The contents of a node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spec {
    pub tensors: Vec<TensorSpec>,
    pub named: BTreeMap<String, TensorSpec>,
    pub masks: BTreeMap<String, usize>,
    pub matrix: Option<(usize, usize)>,
    pub layers: Vec<LayerSpec>,
    pub children: Vec<Spec>,
    pub by_name: BTreeMap<String, Spec>,
    pub by_number: BTreeMap<i32, Spec>,
    pub maybe: Option<Box<Spec>>,
    pub note: String,
    pub table: BTreeMap<String, Vec<f64>>,
}

#[derive(Pipeline)]
pub struct Tree {
    #[pipeline(config)]
    pub config: Spec,
    pub root: Node,
}

#[derive(Pipeline)]
pub struct Node {
    tensors: Vec<Bare>,
    named: BTreeMap<String, Bare>,
    masks: HashMap<String, Tensor<1, Bool>>,
    matrix: Option<Tensor<2>>,
    layers: Vec<Layer>,
    children: Vec<Node>,
    by_name: BTreeMap<String, Node>,
    by_number: HashMap<i32, Node>,
    maybe: Option<Box<Node>>,
    pub note: String,
    pub table: BTreeMap<String, Vec<f64>>,
    #[pipeline(skip)]
    pub skipped: usize,
}

#[derive(Pipeline)]
enum Layer {
    Linear(Linear),
    Norm { norm: BatchNorm },
    Embedding(Embedding),
    Conv(Conv1d),
    Dropout(Dropout),
    Nothing,
}

/// Creates what the spec describes, either filled or as `init` does.
#[derive(Clone, Copy)]
pub struct Maker<'a> {
    device: &'a Device,
    filled: bool,
}

macro_rules! bare {
    ($($variant:ident $rank:literal $kind:ty;)*) => {
        /// A tensor of any kind and rank.
        #[derive(Pipeline, Clone)]
        enum Bare {
            $($variant(Tensor<$rank, $kind>),)*
        }

        impl Bare {
            fn make(spec: &TensorSpec, maker: Maker<'_>) -> Self {
                match (name(spec.dtype), spec.shape.len()) {
                    $((stringify!($kind), $rank) => Self::$variant(maker.tensor(spec)),)*
                    other => panic!("no tensor of {other:?}"),
                }
            }

            fn find(&self, path: String, found: &mut Vec<Found>) {
                match self {
                    $(Self::$variant(tensor) => found.push(Found::of(path, tensor)),)*
                }
            }
        }
    };
}

type Float = burn::tensor::Float;

bare! {
    F1 1 Float; F2 2 Float; F3 3 Float; F4 4 Float; F5 5 Float;
    I1 1 Int; I2 2 Int; I3 3 Int; I4 4 Int; I5 5 Int;
    B1 1 Bool; B2 2 Bool; B3 3 Bool; B4 4 Bool; B5 5 Bool;
}

fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool(_) => "Bool",
        dtype if dtype.is_float() => "Float",
        _ => "Int",
    }
}

/// Arbitrary bytes that are valid elements of the type.
pub fn bytes(dtype: DType, count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let bytes = random.take(count * dtype.size());
    match dtype {
        DType::Bool(_) => bytes.map(|byte| byte & 1).collect(),
        _ => bytes.collect(),
    }
}

impl Maker<'_> {
    /// A tensor with the shape and layout of the spec.
    fn tensor<const D: usize, K: Basic>(self, spec: &TensorSpec) -> Tensor<D, K> {
        let plain = |shape: Vec<usize>| {
            let count = shape.iter().product();
            let bytes =
                if self.filled { bytes(spec.dtype, count, spec.seed) } else { vec![0; count * spec.dtype.size()] };
            Tensor::from_data(TensorData::from_bytes_vec(bytes, shape, spec.dtype), (self.device, spec.dtype))
        };
        let mut shape = spec.shape.clone();
        match spec.layout {
            _ if !self.filled => plain(shape),
            Layout::Plain => plain(shape),
            Layout::Transposed => {
                shape.swap(0, D - 1);
                plain(shape).swap_dims(0, D - 1)
            }
            Layout::Sliced => {
                shape.iter_mut().for_each(|dim| *dim += 1);
                let ranges: [_; D] = std::array::from_fn(|at| 1..shape[at]);
                plain(shape).slice(ranges)
            }
            Layout::Expanded => {
                let wanted: [usize; D] = spec.shape.clone().try_into().unwrap();
                shape[0] = 1;
                plain(shape).expand(wanted)
            }
            Layout::Flipped => plain(shape).flip([0]),
        }
    }

    fn layer(self, LayerSpec { kind, sizes: (inputs, outputs), .. }: &LayerSpec) -> Layer {
        let linear =
            |bias, layout| LinearConfig::new(*inputs, *outputs).with_bias(bias).with_layout(layout).init(self.device);
        match *kind {
            LayerKind::Linear { bias, column } => {
                Layer::Linear(linear(bias, if column { LinearLayout::Col } else { LinearLayout::Row }))
            }
            LayerKind::Quantised => {
                let linear = linear(true, LinearLayout::Row);
                let scheme = QuantScheme::default().with_value(QuantValue::Q8S).with_store(QuantStore::Native);
                let mut quantizer = Quantizer::new(Calibration::MinMax, scheme);
                Layer::Linear(if self.filled { linear.quantize_weights(&mut quantizer) } else { linear })
            }
            LayerKind::Norm => {
                let mut norm = BatchNormConfig::new(*inputs).init(self.device);
                if self.filled {
                    let mean = Tensor::random([*inputs], Distribution::Default, self.device);
                    norm.running_mean = burn::module::RunningState::new(mean);
                }
                Layer::Norm { norm }
            }
            LayerKind::Embedding => Layer::Embedding(EmbeddingConfig::new(*inputs, *outputs).init(self.device)),
            LayerKind::Conv => Layer::Conv(Conv1dConfig::new(*inputs, *outputs, 3).init(self.device)),
            LayerKind::Dropout => Layer::Dropout(DropoutConfig::new(0.5).init()),
            LayerKind::Nothing => Layer::Nothing,
        }
    }

    fn node(self, spec: &Spec) -> Node {
        let mut tensors: Vec<Bare> = Vec::new();
        for (at, tensor) in spec.tensors.iter().enumerate() {
            let same = |before: &TensorSpec| before.dtype == tensor.dtype && before.shape == tensor.shape;
            let tied = tensor.tied && at > 0 && same(&spec.tensors[at - 1]);
            tensors.push(if tied { tensors[at - 1].clone() } else { Bare::make(tensor, self) });
        }
        let mut layers: Vec<Layer> = Vec::new();
        for (at, layer) in spec.layers.iter().enumerate() {
            let same = |before: &LayerSpec| before.kind == layer.kind && before.sizes == layer.sizes;
            layers.push(match layers.last() {
                Some(Layer::Linear(before)) if layer.tied && same(&spec.layers[at - 1]) => {
                    Layer::Linear(before.clone())
                }
                _ => self.layer(layer),
            });
        }
        let mask = |(name, &len): (&String, &usize)| {
            let bits = (0..len).map(|at| self.filled && (at * 7 + name.len()) % 3 == 0);
            (name.clone(), Tensor::from_data(TensorData::new(bits.collect(), [len]), self.device))
        };
        let matrix = |(rows, columns): (usize, usize)| {
            if self.filled {
                Tensor::random([rows, columns], Distribution::Default, self.device)
            } else {
                Tensor::zeros([rows, columns], self.device)
            }
        };
        Node {
            tensors,
            named: spec.named.iter().map(|(name, tensor)| (name.clone(), Bare::make(tensor, self))).collect(),
            masks: spec.masks.iter().map(mask).collect(),
            matrix: spec.matrix.map(matrix),
            layers,
            children: spec.children.iter().map(|child| self.node(child)).collect(),
            by_name: spec.by_name.iter().map(|(name, child)| (name.clone(), self.node(child))).collect(),
            by_number: spec.by_number.iter().map(|(&number, child)| (number, self.node(child))).collect(),
            maybe: spec.maybe.as_deref().map(|child| Box::new(self.node(child))),
            note: if self.filled { spec.note.clone() } else { String::new() },
            table: if self.filled { spec.table.clone() } else { BTreeMap::new() },
            skipped: usize::from(self.filled),
        }
    }
}

impl Spec {
    /// Creates the pipeline without weights, as a worker does.
    pub fn init(&self, device: &Device) -> Tree {
        Tree { config: self.clone(), root: Maker { device, filled: false }.node(self) }
    }

    /// Whether this node or one below it has such a layer.
    pub fn has(&self, kind: LayerKind) -> bool {
        let below = self.children.iter().chain(self.by_name.values()).chain(self.by_number.values());
        self.layers.iter().any(|layer| layer.kind == kind)
            || below.chain(self.maybe.as_deref()).any(|child| child.has(kind))
    }

    /// Creates the pipeline with weights.
    pub fn filled(&self) -> Tree {
        Tree { config: self.clone(), root: Maker { device: &Device::flex(), filled: true }.node(self) }
    }
}

/// A tensor of a tree, found by a walk that is independent of the library.
pub struct Found {
    pub path: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
    address: *const u8,
}

impl Found {
    fn of<const D: usize, K: Basic>(path: String, tensor: &Tensor<D, K>) -> Self {
        let address = match tensor.clone().into_dispatch().kind {
            DispatchTensorKind::Flex(
                BackendTensor::Float(flex) | BackendTensor::Int(flex) | BackendTensor::Bool(flex),
            ) => flex.bytes().as_ptr(),
            DispatchTensorKind::Flex(BackendTensor::Quantized(flex)) => flex.tensor().bytes().as_ptr(),
            #[allow(unreachable_patterns, reason = "each feature of burn adds a variant")]
            _ => panic!("{path} is not on flex"),
        };
        let data = tensor.to_data();
        Self { path, dtype: tensor.dtype(), shape: tensor.dims().to_vec(), bytes: data.as_bytes().to_vec(), address }
    }

    pub fn lies_in(&self, arena: &Arena) -> bool {
        self.bytes.is_empty() || arena.contains(self.address)
    }

    pub fn same_as(&self, other: &Self) -> bool {
        (&self.path, self.dtype, &self.shape, &self.bytes) == (&other.path, other.dtype, &other.shape, &other.bytes)
    }
}

impl Tree {
    /// Every tensor, in an order that depends only on the tree.
    pub fn find(&self) -> Vec<Found> {
        let mut found = Vec::new();
        self.root.find("", &mut found);
        found
    }
}

impl Node {
    fn find(&self, at: &str, found: &mut Vec<Found>) {
        self.tensors.iter().enumerate().for_each(|(index, bare)| bare.find(format!("{at}/{index}"), found));
        self.named.iter().for_each(|(name, bare)| bare.find(format!("{at}/{name:?}"), found));
        let masks: BTreeMap<_, _> = self.masks.iter().collect();
        masks.into_iter().for_each(|(name, mask)| found.push(Found::of(format!("{at}/mask {name:?}"), mask)));
        self.matrix.iter().for_each(|matrix| found.push(Found::of(format!("{at}/matrix"), matrix)));
        for (index, layer) in self.layers.iter().enumerate() {
            let mut walk = Walk { at: format!("{at}/layer {index}"), found };
            match layer {
                Layer::Linear(layer) => layer.visit(&mut walk),
                Layer::Norm { norm } => norm.visit(&mut walk),
                Layer::Embedding(layer) => layer.visit(&mut walk),
                Layer::Conv(layer) => layer.visit(&mut walk),
                Layer::Dropout(layer) => layer.visit(&mut walk),
                Layer::Nothing => {}
            }
        }
        self.children.iter().enumerate().for_each(|(index, child)| child.find(&format!("{at}/child {index}"), found));
        self.by_name.iter().for_each(|(name, child)| child.find(&format!("{at}/{name:?}"), found));
        let by_number: BTreeMap<_, _> = self.by_number.iter().collect();
        by_number.into_iter().for_each(|(number, child)| child.find(&format!("{at}/#{number}"), found));
        self.maybe.iter().for_each(|child| child.find(&format!("{at}/maybe"), found));
    }

    /// The copied fields of all nodes as text, which is equal if and only if the fields are, except
    /// for the payload of a NaN.
    pub fn copied(&self) -> String {
        let by_number: BTreeMap<_, _> = self.by_number.iter().collect();
        let below = self.children.iter().chain(self.by_name.values()).chain(by_number.into_values());
        let below: Vec<_> = below.chain(self.maybe.as_deref()).map(Node::copied).collect();
        format!("{:?} {:?} {below:?}", self.note, self.table)
    }
}

struct Walk<'a> {
    at: String,
    found: &'a mut Vec<Found>,
}

impl ModuleVisitor for Walk<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(Found::of(self.at.clone(), &param.val()));
    }
}

/// The element types that flex borrows.
pub const DTYPES: [DType; 13] = [
    DType::F64,
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U64,
    DType::U32,
    DType::U16,
    DType::U8,
    DType::Bool(BoolStore::Native),
];
