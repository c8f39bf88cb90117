//! A traced graph with its weights, and its file.

use super::graph::code::FIELD;
use super::graph::code::PIPELINE;
use super::graph::runnable;
use std::fmt;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use super::executable::Executable;
use super::graph::code::{GraphCode, Source};
use super::graph::info::GraphInfo;
use super::graph::profile::Profile;
use super::torchscript;
use crate::arena::arena::Arena;
use crate::arena::builder::ArenaBuilder;
use crate::arena::file::ArenaFile;
use crate::codec;
use crate::device::{self, DeviceSpec};
use crate::error::arena::ArenaError;
use crate::error::device::DeviceError;
use crate::error::graph::{GraphError, ReplayError};
use crate::tensor::value::Values;

/// Maximum size in bytes of an inline constant. Larger ones are tensors of the arena, which all
/// processes share.
const OWN: usize = 1 << 10;

/// A recorded forward pass with its weights in an arena. Created by [`trace`](super::trace()).
///
/// It does not need the pipeline's Rust type: any program with the same version of burn can run it.
#[derive(Clone)]
pub struct TracedGraph {
    info: GraphInfo,
    arena: Arena,
}

impl TracedGraph {
    /// Creates an arena of the operations and constants. It refers to the used weights in place.
    pub(super) fn new(mut code: GraphCode, weights: &Arena) -> Result<Self, ArenaError> {
        let mut builder = ArenaBuilder::new(PIPELINE);
        // Weights in an object store have no file descriptor to share, so they are copied.
        let is_lent = weights.fd().is_some();
        let mut used: Vec<&str> = Vec::new();
        for constant in &code.constants {
            if let Source::Entry(path) = &constant.source {
                used.push(path);
            }
        }
        used.sort_unstable();
        used.dedup();
        for entry in &weights.manifest().tensors {
            if used.binary_search(&entry.path.as_str()).is_err() {
                continue;
            }
            if is_lent {
                builder.borrow(entry.clone(), weights)?;
            } else {
                builder.bytes(entry.clone(), weights.slice(entry.blob))?;
            }
        }
        for (at, constant) in code.constants.iter_mut().enumerate() {
            let shape: Option<Vec<usize>> = super::graph::code::extents(&constant.shape, &[]);
            if let (Source::Inline(inline), Some(shape)) = (&constant.source, shape)
                && inline.0.len() > OWN
            {
                let path = format!("{FIELD}.constants.{at}");
                builder.constant(&path, constant.dtype, shape, inline.0.clone())?;
                constant.source = Source::Entry(path);
            }
        }
        builder.copy(FIELD, codec::encode(&code).map_err(|reason| ArenaError::Write { entry: FIELD.into(), reason })?);
        let arena = builder.seal(&mut |_| ())?;
        Ok(Self { info: GraphInfo(Arc::new(code)), arena })
    }

    /// Opens the graph in an arena.
    ///
    /// # Errors
    /// If the arena does not contain a graph, or the graph has another version or is inconsistent.
    pub fn from_arena(arena: &Arena) -> Result<Self, GraphError> {
        if arena.pipeline() != PIPELINE {
            return Err(GraphError::NoGraph { found: arena.pipeline().to_owned() });
        }
        let entry = arena.manifest().copies.iter().find(|entry| entry.path == FIELD);
        let found = || match torchscript::code_of(arena) {
            Some(_) => "a TorchScript module, which `jit::TorchScript` opens",
            None => "an arena without operations",
        };
        let entry = entry.ok_or_else(|| GraphError::NoGraph { found: found().to_owned() })?;
        let code = GraphCode::read(&arena.slice(entry.blob))?;
        code.check_entries(arena)?;
        Ok(Self { info: GraphInfo(Arc::new(code)), arena: arena.clone() })
    }

    /// Opens a graph file. Reads the weights into sealed memory, and verifies every byte.
    ///
    /// # Errors
    /// If the file cannot be read, is not a graph of this version, or is corrupted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GraphError> {
        Self::from_arena(&ArenaFile::open(path)?.seal(|_| ())?)
    }

    /// Writes operations and weights to one file, such as `model.rzg`. The file is also an arena
    /// file, which `rzc` and tools for burnpack can read.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ArenaError> {
        self.arena.save(path)
    }

    /// Loads the graph in this process, on a device such as `"cpu"`, `"cuda:1"` or `"wgpu:0"`. See
    /// [`device()`](crate::device()).
    ///
    /// On `cpu`, weights are borrowed.
    ///
    /// # Errors
    /// If the device is unknown, does not exist, or cannot run graphs.
    pub fn load(&self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Executable, ReplayError> {
        let spec = DeviceSpec::of(device)?;
        runnable::load(Arc::clone(self.code()), &self.arena, &device::device(spec)?, &spec.to_string())
    }

    /// Measures the time of each operation on a device: medians of `runs` runs, after one that is not measured.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor, activation::relu}};
    /// # use ray_zerocopy::{Pipeline, jit};
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
    /// # let device = Device::flex();
    /// # let model = Model::new(&device);
    /// # let rows = Tensor::<2>::ones([3, 4], &device);
    /// # let graph = jit::trace(&model)
    /// #     .input("rows", rows.clone())
    /// #     .forward(|model, inputs| Ok(relu(model.head.forward(inputs.float::<2>("rows")?))))?;
    /// # use std::num::NonZero;
    /// let profile = graph.profile("cpu", [("rows", rows)], NonZero::new(10).unwrap())?;
    /// let names: Vec<_> = graph.info().steps().map(|step| step.name).collect();
    /// for step in &profile.steps {
    ///     println!("{:?} {}: {} bytes read", step.time, names[step.number], step.read);
    /// }
    /// # assert_eq!(profile.steps.last().unwrap().written, 3 * 2 * 4);
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`Executable::run`].
    pub fn profile(
        &self,
        device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>,
        inputs: impl Into<Values>,
        runs: NonZero<usize>,
    ) -> Result<Profile, ReplayError> {
        let spec = DeviceSpec::of(device)?;
        let device = (&device::device(spec)?, &*spec.to_string());
        runnable::profile(self.code(), &self.arena, device, &inputs.into(), runs.get())
    }

    /// The arena with the graph and the weights that it uses. Weights that it has in common with
    /// the arena that it was traced on exist once.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Inputs, outputs and operations of the graph.
    pub fn info(&self) -> &GraphInfo {
        &self.info
    }

    pub(super) fn of_parts(info: GraphInfo, arena: Arena) -> Self {
        Self { info, arena }
    }

    pub(super) fn code(&self) -> &Arc<GraphCode> {
        &self.info.0
    }
}

impl fmt::Debug for TracedGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("TracedGraph");
        text.field("origin", &self.info.origin())
            .field("operations", &self.info.operations())
            .field("arena", &self.arena);
        text.finish_non_exhaustive()
    }
}
