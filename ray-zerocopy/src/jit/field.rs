//! A graph as a field of a pipeline.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::executable::Executable;
use super::graph::code::{Constant, GraphCode, Inline, Source, extents};
use super::graph::runnable;
use super::traced_graph::TracedGraph;
use crate::arena::arena::Arena;
use crate::codec;
use crate::error::graph::{GraphError, ReplayError};
use crate::error::load::LoadError;
use crate::error::share::ShareError;
use crate::os::sync::Mutex;
use crate::pipeline::Pipeline;
use crate::pipeline::attach::Attacher;
use crate::pipeline::collect::Collector;
use crate::tensor::value::Values;

/// The operations of a graph without its weights: what the config of a pipeline needs to make a [`GraphField`] in a
/// worker. Created by [`TracedGraph::spec`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Inline", into = "Inline")]
pub struct GraphSpec {
    code: Arc<GraphCode>,
    /// The same, encoded.
    bytes: bytes::Bytes,
}

/// A graph as a field of a pipeline: its weights are shared like those of a burn module.
///
/// So a struct with methods of its own, such as a tokenizer before and a search behind the model, runs a
/// [compiled](TracedGraph::compile) graph in tasks and actors:
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ray_zerocopy::jit::{GraphField, GraphSpec};
/// # use burn::nn::{Linear, LinearConfig};
/// # use ray_zerocopy::{Pipeline, jit, jit::Compile};
///
/// #[derive(Pipeline)]
/// struct Scores {
///     #[pipeline(config)]
///     config: ScoresConfig,
///     model: GraphField,
/// }
///
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct ScoresConfig {
///     model: GraphSpec,
/// }
///
/// impl ScoresConfig {
///     /// The model is without weights until it is loaded from the arena.
///     fn init(&self, _: &Device) -> Scores {
///         Scores { config: self.clone(), model: self.model.init() }
///     }
/// }
///
/// #[ray_zerocopy::remote]
/// impl Scores {
///     pub fn best(&self, row: Vec<f32>) -> Result<f32, String> {
///         let row = Tensor::<1>::from_floats(&row[..], &Device::flex()).reshape([1, -1]);
///         let scores = self.model.run([("row", row)]).map_err(|error| error.to_string())?;
///         let scores = scores.float::<2>("output").map_err(|error| error.to_string())?;
///         Ok(scores.max().into_scalar())
///     }
/// }
///
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Head::new)]
/// # struct Head { layer: Linear }
/// # impl Head { fn new(device: &Device) -> Self { Self { layer: LinearConfig::new(4, 3).init(device) } } }
/// # fn main() -> ray_zerocopy::Result<()> {
/// # let device = Device::flex();
/// # let head = Head::new(&device);
/// # let traced = jit::trace(&head)
/// #     .input("row", Tensor::<2>::ones([1, 4], &device))
/// #     .forward(|head, inputs| Ok(head.layer.forward(inputs.float::<2>("row")?)))?;
/// let graph = traced.compile(Compile::f32())?;
/// let scores = Scores { config: ScoresConfig { model: graph.spec()? }, model: GraphField::new(&graph)? };
/// # let arena = ray_zerocopy::share(&scores)?;
/// # let loaded = ray_zerocopy::load::<Scores>(&arena, &device)?;
/// # assert_eq!(loaded.best(vec![1.0; 4]), scores.best(vec![1.0; 4]));
/// # Ok(())
/// # }
/// ```
pub struct GraphField {
    spec: GraphSpec,
    /// `None` until it is loaded.
    loaded: Option<Loaded>,
}

/// A graph that can be run.
struct Loaded {
    /// The operations, with the paths of the arena.
    code: Arc<GraphCode>,
    arena: Arena,
    device: Device,
    /// Those that no call uses at the moment.
    free: Mutex<Vec<Executable>>,
}

impl TryFrom<Inline> for GraphSpec {
    type Error = GraphError;

    fn try_from(Inline(bytes): Inline) -> Result<Self, GraphError> {
        Ok(Self { code: Arc::new(GraphCode::read(&bytes)?), bytes })
    }
}

impl From<GraphSpec> for Inline {
    fn from(spec: GraphSpec) -> Self {
        Self(spec.bytes)
    }
}

impl GraphSpec {
    /// Makes the field without its weights, which are loaded from an arena.
    pub fn init(&self) -> GraphField {
        GraphField { spec: self.clone(), loaded: None }
    }
}

impl fmt::Debug for GraphSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("GraphSpec");
        text.field("origin", &self.code.origin).field("operations", &self.code.operations.len());
        text.finish_non_exhaustive()
    }
}

impl TracedGraph {
    /// The operations of the graph without its weights, for the config of a pipeline that has the graph as a
    /// [field](GraphField).
    ///
    /// # Errors
    /// If the operations cannot be encoded.
    pub fn spec(&self) -> Result<GraphSpec, GraphError> {
        let bytes = codec::encode(self.code()).map_err(|reason| GraphError::Corrupted { reason })?;
        Ok(GraphSpec { code: Arc::clone(self.code()), bytes: bytes.into() })
    }
}

impl GraphField {
    /// Makes the field from a graph, in the process that shares the pipeline.
    ///
    /// # Errors
    /// If the graph cannot be loaded.
    pub fn new(graph: &TracedGraph) -> Result<Self, ReplayError> {
        let loaded = Loaded::new(Arc::clone(graph.code()), graph.arena().clone(), Device::flex())?;
        Ok(Self { spec: graph.spec()?, loaded: Some(loaded) })
    }

    /// Runs the graph. Calls on several threads run at the same time.
    ///
    /// # Errors
    /// As [`Executable::run`], or if the field has no weights yet.
    pub fn run(&self, inputs: impl Into<Values>) -> Result<Values, ReplayError> {
        let unready = || GraphError::Corrupted {
            reason:
                "it has no weights: `GraphSpec::init` makes the field for the config of a pipeline, which `load` gives \
                     weights to"
                    .to_owned(),
        };
        let loaded = self.loaded.as_ref().ok_or_else(unready)?;
        let free = loaded.free.lock().pop();
        let mut executable = match free {
            Some(executable) => executable,
            None => loaded.executable()?,
        };
        let outputs = executable.run(inputs);
        loaded.free.lock().push(executable);
        outputs
    }
}

impl fmt::Debug for GraphField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphField").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Loaded {
    fn new(code: Arc<GraphCode>, arena: Arena, device: Device) -> Result<Self, ReplayError> {
        let loaded = Self { code, arena, device, free: Mutex::default() };
        let first = loaded.executable()?;
        loaded.free.lock().push(first);
        Ok(loaded)
    }

    fn executable(&self) -> Result<Executable, ReplayError> {
        runnable::load(Arc::clone(&self.code), &self.arena, &self.device, &format!("{:?}", self.device))
    }
}

/// The weights of a graph: the index of each constant, its path, and its shape. One of those that name the same weight.
fn weights(code: &GraphCode) -> impl Iterator<Item = (usize, &str, &Constant, Vec<usize>)> {
    let mut seen = HashSet::new();
    code.constants.iter().enumerate().filter_map(move |(at, constant)| {
        let Source::Entry(path) = &constant.source else { return None };
        let shape = extents(&constant.shape, &[])?;
        seen.insert(path.as_str()).then_some((at, path.as_str(), constant, shape))
    })
}

// Keeps these impls out of trait-error suggestions for user types.
#[diagnostic::do_not_recommend]
impl Pipeline for GraphField {
    fn collect(&self, collector: &mut Collector) -> Result<(), ShareError> {
        let entries = self.loaded.as_ref().map(|loaded| (&loaded.code, &loaded.arena));
        for (at, path, constant, shape) in weights(&self.spec.code) {
            // In a loaded pipeline, the paths are those of its arena.
            let bytes = entries.and_then(|(code, arena)| {
                let Source::Entry(path) = &code.constants.get(at)?.source else { return None };
                let entry = arena.manifest().tensors.iter().find(|entry| entry.path == *path)?;
                Some(arena.slice(entry.blob))
            });
            collector.tensor(path, constant.dtype, shape, bytes);
        }
        Ok(())
    }

    fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError> {
        let mut paths = HashMap::new();
        for (_, path, constant, shape) in weights(&self.spec.code) {
            paths.insert(path, attacher.take(path, constant.dtype, &shape)?);
        }
        let mut code = GraphCode::clone(&self.spec.code);
        for constant in &mut code.constants {
            if let Source::Entry(path) = &mut constant.source
                && let Some(own) = paths.get(path.as_str())
            {
                path.clone_from(own);
            }
        }
        let (arena, _, device) = attacher.target();
        let failed = |error: ReplayError| LoadError::Tensor { path: attacher.path(), reason: error.to_string() };
        let loaded = Loaded::new(Arc::new(code), arena, device).map_err(failed)?;
        let copied = loaded.free.lock().iter().flat_map(|executable| executable.copied().to_vec()).collect();
        attacher.note_copied(copied);
        self.loaded = Some(loaded);
        Ok(())
    }
}
