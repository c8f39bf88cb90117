//! Opens either a traced graph or a TorchScript module.

use std::path::Path;

use super::executable::Executable;
use super::program::{ProgramKind, Runnable, Sealed};
use super::torchscript::TorchScript;
use super::traced_graph::TracedGraph;
use crate::arena::arena::Arena;
use crate::arena::file::ArenaFile;
use crate::arena::io::Progress;
use crate::checkpoint::pytorch::kind;
use crate::device::DeviceSpec;
use crate::error::arena::ArenaError;
use crate::error::device::DeviceError;
use crate::error::graph::{GraphError, ReplayError};
use crate::error::script::ScriptError;

/// A traced graph or a TorchScript module, for programs that take either: see [`open`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Model {
    /// A graph created by [`trace`](super::trace()).
    Graph(TracedGraph),
    /// A module written by `torch.jit.save` or [`TorchScript::save`].
    Script(TorchScript),
}

/// Opens a saved graph, a saved module, or a module written by Python's torch. The callback gets
/// the progress in bytes.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
/// # use ray_zerocopy::{Pipeline, jit};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
/// # let device = Device::flex();
/// # let model = Model::new(&device);
/// # let graph = jit::trace(&model)
/// #     .input("rows", Tensor::<2>::ones([3, 4], &device))
/// #     .forward(|model, inputs| Ok(model.head.forward(inputs.float::<2>("rows")?)))?;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.rzg");
/// # graph.save(&path)?;
/// let opened = jit::open(&path, |progress| eprintln!("{progress:?}"))?;
/// let outputs = opened.load("cpu")?.run([("rows", Tensor::<2>::ones([3, 4], &device))])?;
/// assert_eq!(outputs.float::<2>("output")?.dims(), [3, 2]);
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
///
/// # Errors
/// If the file contains neither, or fails validation.
pub fn open(path: impl AsRef<Path>, mut progress: impl FnMut(Progress)) -> crate::error::Result<Model> {
    let path = path.as_ref();
    match ArenaFile::open(path) {
        Ok(file) => Model::from_arena(&file.seal(&mut progress)?),
        // Also for a state dict, which is an archive too: the error of `TorchScript` says so.
        Err(ArenaError::NotAnArena(_)) if kind::kind(path).is_ok_and(|kind| kind.is_some()) => {
            Ok(Model::Script(TorchScript::open_with_progress(path, progress)?))
        }
        Err(error) => Err(GraphError::from(error).into()),
    }
}

impl Model {
    /// Opens the graph or the module in an arena.
    ///
    /// # Errors
    /// If it contains neither.
    pub fn from_arena(arena: &Arena) -> crate::error::Result<Self> {
        match TorchScript::from_arena(arena) {
            Ok(script) => Ok(Self::Script(script)),
            Err(ScriptError::NoScript { .. }) => Ok(Self::Graph(TracedGraph::from_arena(arena)?)),
            Err(error) => Err(error.into()),
        }
    }

    /// Loads the graph or the module in this process: see [`TracedGraph::load`] and
    /// [`TorchScript::load`].
    ///
    /// # Errors
    /// If the device does not exist, or does not support it.
    pub fn load(&self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Executable, ReplayError> {
        match self {
            Self::Graph(graph) => graph.load(device),
            Self::Script(script) => script.load(device),
        }
    }

    /// Writes the graph or the module to one file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ArenaError> {
        self.arena().save(path)
    }
}

impl Sealed for Model {
    fn kind(&self) -> ProgramKind {
        match self {
            Self::Graph(graph) => graph.kind(),
            Self::Script(script) => script.kind(),
        }
    }
}

impl Runnable for Model {
    fn arena(&self) -> &Arena {
        match self {
            Self::Graph(graph) => graph.arena(),
            Self::Script(script) => script.arena(),
        }
    }
}
