//! A graph with its weights.

use super::graph::code::FIELD;
use super::graph::code::PIPELINE;
use super::graph::runnable;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::executable::Executable;
use super::graph::code::{GraphCode, Source};
use super::graph::info::GraphInfo;
use super::torchscript;
use crate::arena::arena::Arena;
use crate::arena::builder::ArenaBuilder;
use crate::arena::file::ArenaFile;
use crate::codec;
use crate::device::{self, DeviceSpec};
use crate::error::arena::ArenaError;
use crate::error::device::DeviceError;
use crate::error::graph::{GraphError, ReplayError};

/// Constants of more bytes than this are tensors of the arena, which all processes share.
const OWN: usize = 1 << 10;

/// A recorded forward pass with its weights, which lie in an arena: see [`trace`](super::trace()).
///
/// It knows nothing of the pipeline's Rust type: any program of this version of burn runs it.
#[derive(Clone)]
pub struct TracedGraph {
    info: GraphInfo,
    arena: Arena,
}

impl TracedGraph {
    /// Puts operations and constants beside the weights that they use, which stay where they are.
    pub(super) fn new(mut code: GraphCode, weights: &Arena) -> Result<Self, ArenaError> {
        let mut builder = ArenaBuilder::new(PIPELINE);
        // An object store hands nothing out to others: what lies there is copied.
        let beside = match weights.fd() {
            Some(_) => Some(builder.beside(weights)?),
            None => None,
        };
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
            match beside {
                Some(first) => builder.borrow(entry.clone(), weights, first),
                None => builder.bytes(entry.clone(), weights.slice(entry.blob))?,
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

    /// The graph in an arena.
    ///
    /// # Errors
    /// If the arena holds none, or one of another version; or if it contradicts itself.
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

    /// Opens a graph file: the weights go into sealed memory, and every byte is checked on the way.
    ///
    /// # Errors
    /// If the file cannot be read, is no graph of this version, or is corrupted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GraphError> {
        Self::from_arena(&ArenaFile::open(path)?.seal(|_| ())?)
    }

    /// Writes operations and weights to one file, `model.rzg` say. It is an arena file too, for `rzc` and for tools that read
    /// burnpack.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ArenaError> {
        self.arena.save(path)
    }

    /// Loads the graph in this process, on a device: `"cpu"`, `"cuda:1"`, `"wgpu:0"`; see [`device()`](crate::device()).
    ///
    /// On `cpu`, weights are borrowed.
    ///
    /// # Errors
    /// If it is not a device, is not there, or cannot run graphs.
    pub fn load(&self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Executable, ReplayError> {
        let spec = DeviceSpec::of(device)?;
        runnable::load(Arc::clone(self.code()), &self.arena, &device::device(spec)?, &spec.to_string())
    }

    /// The weights that the graph uses, and the graph itself. What it has in common with the arena that it was traced on is there
    /// once.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Inputs, outputs and operations of the graph.
    pub fn info(&self) -> &GraphInfo {
        &self.info
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
