//! Compiled graphs: weights in the form that the processor takes them, and fused operations.
//!
//! | file | what |
//! | --- | --- |
//! | `calibrate` | which layers take weights of fewer bits, by the error on a user's inputs |

mod calibrate;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use burn::tensor::{DType, TensorData};
use ray_zerocopy_kernels::Isa;

pub use self::calibrate::{CalibratedLayer, Calibration};
use super::graph::code::{COMPILED, Constant, FIELD, GraphCode, PIPELINE, Source};
use super::graph::info::GraphInfo;
use super::graph::passes::dequantise::{dequantise, original};
use super::graph::passes::draft::{Draft, Made};
use super::graph::passes::fold_batch_norm::fold_batch_norm;
use super::graph::passes::fuse_attention::fuse_attention;
use super::graph::passes::fuse_convolution::fuse_convolution;
use super::graph::passes::fuse_embedding::fuse_embedding;
use super::graph::passes::fuse_layer_norm::fuse_layer_norm;
use super::graph::passes::fuse_max_pool::fuse_max_pool;
use super::graph::passes::fuse_softmax::fuse_softmax;
use super::graph::passes::merge_reshapes::merge_reshapes;
use super::graph::passes::pack_linear::pack_linear;
use super::graph::passes::weight::Weight;
use super::graph::weight_format::WeightFormat;
use super::traced_graph::TracedGraph;
use crate::arena::arena::Arena;
use crate::arena::builder::ArenaBuilder;
use crate::arena::manifest::TensorEntry;
use crate::codec;
use crate::error::arena::ArenaError;
use crate::error::graph::GraphError;
use crate::tensor::kind::TensorKind;
use crate::tensor::quantised::dequantised;
use crate::tensor::source::Computed;

/// How [`TracedGraph::compile`] compiles a graph.
///
/// | | weights of linear layers | results |
/// | --- | --- | --- |
/// | [`Compile::f32`] | packed, in 32 bits | those of the graph, except for the order of sums: about 10⁻⁶ of the largest number |
/// | [`Compile::int8`] | packed, in 8 bits with a scale for each column | approximate: [`TracedGraph::calibrate`] measures the error, and keeps it within a bound |
/// | [`Compile::bf16`] | packed, in 16 bits | weights have 8 bits of precision, sums 24 |
/// | [`Compile::int4`] | packed, in 4 bits with a scale for each column of 32 rows | approximate, see [`TracedGraph::calibrate`] |
/// | [`Compile::exact`] | as they are | those of the graph to the last bit |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compile {
    format: WeightFormat,
    is_exact: bool,
    /// Paths of the weights that stay in 32 bits.
    kept: BTreeSet<String>,
}

impl Compile {
    fn new(format: WeightFormat) -> Self {
        Self { format, is_exact: false, kept: BTreeSet::new() }
    }

    /// Packs weights in 32 bits, and fuses operations. Weights that are bf16 stay so: their layers are computed in 32
    /// bits, without a copy of the weight.
    pub fn f32() -> Self {
        Self::new(WeightFormat::F32)
    }

    /// Packs the weights of linear layers in 8 bits: a quarter of the bytes. In a call, each row of a layer's input is
    /// quantised to 8 bits as well. Operations are fused as by [`f32`](Self::f32).
    ///
    /// How much the results change depends on the model and on its inputs: see [`TracedGraph::calibrate`].
    pub fn int8() -> Self {
        Self::new(WeightFormat::Int8 { block: WeightFormat::WHOLE })
    }

    /// Packs the weights of linear layers as bf16: half of the bytes. Sums are in 32 bits, and the inputs of layers are
    /// not rounded. Operations are fused as by [`f32`](Self::f32).
    pub fn bf16() -> Self {
        Self::new(WeightFormat::Bf16)
    }

    /// Packs the weights of linear layers in 4 bits, with a scale for each column of each block of 32 rows: a seventh
    /// of the bytes. For large models that are called with few rows, where reading the weights takes the time.
    /// Operations are fused as by [`f32`](Self::f32).
    pub fn int4() -> Self {
        Self::new(WeightFormat::Int4)
    }

    /// Removes operations, and changes no bit of the results: repeated changes of shape become one. Weights stay as
    /// they are, so such a graph runs on every device.
    pub fn exact() -> Self {
        Self { is_exact: true, ..Self::f32() }
    }

    /// Gives each block of this many rows of an 8-bit weight scales of its own, which makes the results more exact and
    /// the layer slower. A multiple of 4.
    ///
    /// # Errors
    /// If the size is not one that the kernels have, or the weights do not have 8 bits.
    pub fn blocks_of(mut self, rows: usize) -> Result<Self, GraphError> {
        let wrong = |expected: &str| GraphError::Option {
            option: format!("blocks of {rows} rows"),
            expected: expected.to_owned(),
        };
        let WeightFormat::Int8 { block } = &mut self.format else {
            return Err(wrong("`Compile::int8`, whose weights have blocks"));
        };
        *block = rows;
        if !self.format.is_sound() {
            return Err(wrong("a multiple of 4, from 4 to 65536"));
        }
        Ok(self)
    }

    /// Leaves the weight at this path in 32 bits. Paths are those of [`TracedGraph::arena`].
    pub fn keep(mut self, path: impl Into<String>) -> Self {
        self.kept.insert(path.into());
        self
    }

    /// The form of weights that are not kept in 32 bits.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Paths of the weights that stay in 32 bits.
    pub fn kept(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(String::as_str)
    }

    /// The form of the weight at a path.
    fn format_of(&self, path: &str) -> WeightFormat {
        if self.kept.contains(path) { WeightFormat::F32 } else { self.format }
    }
}

/// The instructions that compiled graphs use in this process, such as `AVX-512 VNNI`: the best that the processor has.
/// `RAY_ZEROCOPY_ISA` may name lesser ones.
pub fn instruction_set() -> String {
    Isa::best().to_string()
}

/// The forms of the weights of linear layers, by their paths.
type Layers = BTreeMap<String, WeightFormat>;

impl TracedGraph {
    /// Compiles the graph for the CPU: packs the weights of linear layers into the form that the kernels read, makes
    /// batch norms a part of the convolutions before them, and fuses operations. The result is a graph like any other,
    /// with the same inputs and outputs, for the same wrappers, files and engines.
    ///
    /// The new weights are in the arena of the new graph, once for all workers. It borrows nothing from the arena
    /// of this one, which may be dropped. A graph that is compiled already is returned as it is.
    ///
    /// Which instructions are used is decided where the graph runs: AVX-512, AVX2 with FMA, or those that every
    /// processor has. Results differ from those of the graph by the order of sums, and between instruction sets.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor, activation::relu}};
    /// # use ray_zerocopy::{Pipeline, jit};
    /// use ray_zerocopy::jit::Compile;
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(64, 40).init(device) } } }
    /// # fn main() -> ray_zerocopy::Result<()> {
    /// # let device = Device::flex();
    /// # let model = Model::new(&device);
    /// # let rows = Tensor::<2>::ones([3, 64], &device);
    /// let graph = jit::trace(&model)
    ///     .input("rows", rows.clone())
    ///     .forward(|model, inputs| Ok(relu(model.head.forward(inputs.float::<2>("rows")?))))?;
    ///
    /// let compiled = graph.compile(Compile::f32())?;
    /// let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    /// assert_eq!(names, ["Linear + relu"]);
    /// let (fast, plain) = (compiled.load("cpu")?.run([("rows", rows.clone())])?, graph.load("cpu")?.run([("rows", rows)])?);
    /// # let data = |values: &ray_zerocopy::jit::Values| values.float::<2>("output").unwrap().into_data();
    /// # data(&fast).assert_approx_eq::<f32>(&data(&plain), burn::tensor::Tolerance::absolute(1e-5));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If there is not enough memory, the graph cannot be read, or the options name a weight that the graph does not
    /// have. This graph stays as it is.
    pub fn compile(&self, options: Compile) -> Result<Self, GraphError> {
        if self.code().format == COMPILED {
            return Ok(self.clone());
        }
        self.compile_with(&options, &[]).map(|(graph, _)| graph)
    }

    /// Compiles the graph. Packed weights that one of the arenas `packed` has are borrowed from there. Returns the
    /// paths of the weights of linear layers as well, with their forms.
    fn compile_with(&self, options: &Compile, packed: &[&Arena]) -> Result<(Self, Layers), GraphError> {
        let corrupted = |reason: String| GraphError::Corrupted { reason };
        let entries: HashMap<_, _> =
            self.arena().manifest().tensors.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        if let Some(path) = options.kept.iter().find(|path| !entries.contains_key(path.as_str())) {
            let expected = "the path of a weight of the graph, as `rzc inspect` lists them".to_owned();
            return Err(GraphError::Option { option: format!("`{path}`"), expected });
        }
        let mut draft = Draft::of(self.code()).map_err(corrupted)?;
        merge_reshapes(&mut draft).map_err(corrupted)?;
        let (mut layers, mut format) = (Layers::new(), self.code().format);
        if !options.is_exact {
            dequantise(&mut draft, &|path| quantised(self.arena(), entries.get(path)?));
            let elements = |constant: &Constant| match &constant.source {
                Source::Entry(path) => floats(self.arena(), entries.get(original(path))?),
                _ => constant.data(&[])?.try_into_vec().ok(),
            };
            fuse_attention(&mut draft).map_err(corrupted)?;
            // What was replaced would count as a reader.
            draft.sweep();
            fold_batch_norm(&mut draft, &elements).map_err(corrupted)?;
            fuse_convolution(&mut draft).map_err(corrupted)?;
            draft.sweep();
            fuse_embedding(&mut draft).map_err(corrupted)?;
            fuse_max_pool(&mut draft).map_err(corrupted)?;
            fuse_softmax(&mut draft).map_err(corrupted)?;
            fuse_layer_norm(&mut draft).map_err(corrupted)?;
            let read = |constant: &Constant| {
                let Source::Entry(path) = &constant.source else { return None };
                Weight::of(self.arena(), entries.get(original(path))?)
            };
            layers = pack_linear(&mut draft, &read, &|path| options.format_of(path)).map_err(corrupted)?;
            format = COMPILED;
        }
        let (code, made) = draft.finish(self.code(), format);
        let arena = build(&code, made, self.arena(), packed)?;
        Ok((Self::of_parts(GraphInfo(Arc::new(code)), arena), layers))
    }
}

/// The elements of a tensor of 32-bit floats, or of a quantised one. `None` if it is another one.
fn floats(arena: &Arena, entry: &TensorEntry) -> Option<Vec<f32>> {
    match quantised(arena, entry) {
        Some(data) => dequantised(data).ok().map(|floats| bytemuck::pod_collect_to_vec(floats.as_bytes())),
        None => (entry.dtype == DType::F32).then(|| bytemuck::pod_collect_to_vec(&arena.slice(entry.blob))),
    }
}

/// A quantised tensor. `None` if it is another one.
fn quantised(arena: &Arena, entry: &TensorEntry) -> Option<TensorData> {
    let data = || TensorData::from_bytes(arena.borrow(entry.blob), entry.shape.clone(), entry.dtype);
    matches!(entry.dtype, DType::QFloat(_)).then(data)
}

/// Builds the arena of a compiled graph. What one of the arenas `packed` has already is borrowed from there.
fn build(code: &GraphCode, made: Vec<Made>, from: &Arena, packed: &[&Arena]) -> Result<Arena, ArenaError> {
    let mut builder = ArenaBuilder::new(PIPELINE);
    let mut wanted: Vec<&str> = Vec::new();
    for constant in &code.constants {
        if let Source::Entry(path) = &constant.source {
            wanted.push(path);
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    for entry in from.manifest().tensors.iter().filter(|entry| wanted.binary_search(&entry.path.as_str()).is_ok()) {
        builder.bytes(entry.clone(), from.slice(entry.blob))?;
    }
    for Made { path, dtype, shape, compute } in made {
        let known = packed.iter().find_map(|arena| {
            let entry = arena.manifest().tensors.iter().find(|entry| entry.path == path)?;
            Some((entry, arena))
        });
        if let Some((entry, arena)) = known {
            builder.borrow(entry.clone(), arena)?;
            continue;
        }
        let len = shape.iter().product::<usize>() * dtype.size();
        let kind = TensorKind::of(dtype);
        let entry = TensorEntry { path: path.clone(), blob: 0, kind, dtype, shape, param: None, why: None };
        builder.tensor(entry, Arc::new(Computed { name: path, len, compute }))?;
    }
    builder.copy(FIELD, codec::encode(code).map_err(|reason| ArenaError::Write { entry: FIELD.into(), reason })?);
    builder.seal(&mut |_| ())
}
