//! Compiled graphs: weights in the form that the processor takes them, and fused operations.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::DType;

use super::graph::code::{COMPILED, Constant, FIELD, GraphCode, PIPELINE, Source};
use super::graph::info::GraphInfo;
use super::graph::passes::draft::{Draft, Made};
use super::graph::passes::fold_batch_norm::fold_batch_norm;
use super::graph::passes::fuse_attention::fuse_attention;
use super::graph::passes::fuse_convolution::fuse_convolution;
use super::graph::passes::fuse_layer_norm::fuse_layer_norm;
use super::graph::passes::fuse_max_pool::fuse_max_pool;
use super::graph::passes::pack_linear::pack_linear;
use super::traced_graph::TracedGraph;
use crate::arena::arena::Arena;
use crate::arena::builder::ArenaBuilder;
use crate::arena::manifest::TensorEntry;
use crate::codec;
use crate::error::arena::ArenaError;
use crate::error::graph::GraphError;

/// How [`TracedGraph::compile`] compiles a graph.
///
/// | | weights | results |
/// | --- | --- | --- |
/// | [`Compile::f32`] | packed, in 32 bits | those of the graph, except for the order of sums: about 10⁻⁶ of the largest number |
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Compile {}

impl Compile {
    /// Packs weights in 32 bits, and fuses operations.
    pub fn f32() -> Self {
        Self {}
    }
}

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
    /// If there is not enough memory, or the graph cannot be read.
    pub fn compile(&self, options: Compile) -> Result<Self, GraphError> {
        let Compile {} = options;
        if self.code().format == COMPILED {
            return Ok(self.clone());
        }
        let corrupted = |reason: String| GraphError::Corrupted { reason };
        let entries: HashMap<_, _> =
            self.arena().manifest().tensors.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let read = |constant: &Constant| {
            let Source::Entry(path) = &constant.source else { return None };
            weight(self.arena(), entries.get(path.as_str())?)
        };
        let elements = |constant: &Constant| match &constant.source {
            Source::Entry(path) => floats(self.arena(), entries.get(path.as_str())?),
            _ => constant.data(&[])?.try_into_vec().ok(),
        };
        let mut draft = Draft::of(self.code()).map_err(corrupted)?;
        fuse_attention(&mut draft).map_err(corrupted)?;
        fuse_layer_norm(&mut draft).map_err(corrupted)?;
        fold_batch_norm(&mut draft, &elements).map_err(corrupted)?;
        fuse_convolution(&mut draft).map_err(corrupted)?;
        fuse_max_pool(&mut draft).map_err(corrupted)?;
        pack_linear(&mut draft, &read).map_err(corrupted)?;
        let (code, made) = draft.finish(self.code(), COMPILED);
        let arena = build(&code, made, self.arena())?;
        Ok(Self::of_parts(GraphInfo(Arc::new(code)), arena))
    }
}

/// The elements of a matrix of 32-bit floats. `None` if the tensor is another one.
fn weight(arena: &Arena, entry: &TensorEntry) -> Option<(Vec<f32>, [usize; 2])> {
    let shape = <[usize; 2]>::try_from(&entry.shape[..]).ok()?;
    Some((floats(arena, entry)?, shape))
}

/// The elements of a tensor of 32-bit floats. `None` if it is another one.
fn floats(arena: &Arena, entry: &TensorEntry) -> Option<Vec<f32>> {
    (entry.dtype == DType::F32).then(|| bytemuck::pod_collect_to_vec(&arena.slice(entry.blob)))
}

/// Elements that become bytes of an arena.
struct Floats(Vec<f32>);

impl AsRef<[u8]> for Floats {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Builds the arena of a compiled graph.
fn build(code: &GraphCode, made: Vec<Made>, from: &Arena) -> Result<Arena, ArenaError> {
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
    for Made { path, shape, elements } in made {
        builder.constant(&path, DType::F32, shape, bytes::Bytes::from_owner(Floats(elements)))?;
    }
    builder.copy(FIELD, codec::encode(code).map_err(|reason| ArenaError::Write { entry: FIELD.into(), reason })?);
    builder.seal(&mut |_| ())
}
