//! Collecting: what a pipeline holds, path by path.

use std::sync::Arc;

use burn::module::{Flag, Module, ModuleVisitor, Param, Parameter};
use burn::tensor::{Bool, DType, Device, Int, Tensor};

use super::Pipeline;
use super::copy_field::CopyOps;
use super::path::Path;
use crate::error::share::ShareError;
use crate::tensor::host;
use crate::tensor::host::Stored;
use crate::tensor::kind::Kind;
use crate::tensor::kind::TensorKind;
use crate::tensor::source::BlobSource;

/// One thing that a pipeline holds.
pub(crate) struct Item {
    pub(super) path: String,
    pub(super) what: What,
}

pub(crate) enum What {
    /// A parameter or a bare tensor.
    Tensor(TensorItem),
    /// A field that is copied, serialised. `None` for a skeleton, whose value does not count.
    Copy(Option<Vec<u8>>),
    /// A module's control value.
    Flag(bool),
    /// A module without tensors.
    Module,
    /// An enum, and the variant it has.
    Variant(&'static str),
}

pub(crate) struct TensorItem {
    pub(super) kind: TensorKind,
    pub(super) param: Option<u64>,
    /// The shape that the pipeline sees.
    pub(super) shape: Vec<usize>,
    /// The stored tensor: none where parameters are not to be initialised.
    pub(super) stored: Option<StoredTensor>,
    /// The parameter itself, where its bytes are to come from elsewhere.
    pub(super) outline: Option<Outline>,
}

/// What is known of a parameter without initialising it.
pub(super) struct Outline {
    /// The type of the module that has it, as burn names it: `Struct:Linear`.
    pub(super) module: String,
    /// Whether burn stores it transposed.
    pub(super) transposed: bool,
    pub(super) initialised: bool,
    /// Initialises it, if it has to be.
    pub(super) initialise: Box<dyn FnOnce() -> StoredTensor>,
}

impl Outline {
    /// The shape of the stored bytes of a parameter that says it has `shape`.
    pub(super) fn stored_shape(&self, shape: &[usize]) -> Vec<usize> {
        match self.transposed && self.initialised {
            true => shape.iter().rev().copied().collect(),
            // An uninitialised parameter that burn stores transposed tells its stored shape.
            false => shape.to_vec(),
        }
    }
}

/// How much of a pipeline is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Everything.
    Values,
    /// Everything but the parameters, which are not initialised.
    Outline,
    /// Paths and shapes alone: no parameter is initialised, and nothing is serialised.
    Skeleton,
}

pub(super) struct StoredTensor {
    pub(super) dtype: DType,
    /// The shape of the bytes: transposed, for a parameter that burn saves so.
    pub(super) shape: Vec<usize>,
    pub(super) source: Arc<dyn BlobSource>,
}

/// Walks a pipeline and notes what it holds. Called by the code that `#[derive(Pipeline)]` writes.
pub struct Collector {
    path: Path,
    items: Vec<Item>,
    depth: Depth,
    /// burn's names of the modules that the walk is in.
    modules: Vec<String>,
}

impl Collector {
    pub(super) fn run<P: Pipeline>(pipeline: &P, depth: Depth) -> Result<Vec<Item>, ShareError> {
        let mut collector = Self { path: Path::default(), items: Vec::new(), depth, modules: Vec::new() };
        pipeline.collect(&mut collector)?;
        Ok(collector.items)
    }

    /// Enters a field.
    pub fn enter_field(&mut self, name: &str) {
        self.path.push(name);
    }

    /// Enters an element of a list or tuple.
    pub fn enter_index(&mut self, index: usize) {
        self.path.push(&index.to_string());
    }

    /// Enters an entry of a map.
    pub fn enter_key(&mut self, key: &str) {
        self.path.push_key(key);
    }

    /// Leaves what was entered last.
    pub fn exit(&mut self) {
        self.path.pop();
    }

    /// Notes which variant an enum has.
    pub fn variant(&mut self, name: &'static str) {
        self.push(What::Variant(name));
    }

    /// Marks the start of a container.
    pub fn begin_container(&mut self) -> usize {
        self.items.len()
    }

    /// Ends a container: one without tensors is copied whole, if it can be.
    ///
    /// # Errors
    /// If the container cannot be serialised.
    pub fn end_container<T>(&mut self, mark: usize, whole: Option<CopyOps<T>>, value: &T) -> Result<(), ShareError> {
        let travels = |item: &Item| matches!(item.what, What::Tensor(_) | What::Flag(_) | What::Variant(_));
        match whole {
            Some(ops) if !self.items[mark..].iter().any(travels) => {
                self.items.truncate(mark);
                self.copy(value, ops)
            }
            _ => Ok(()),
        }
    }

    fn push(&mut self, what: What) {
        self.items.push(Item { path: self.path.as_str().to_owned(), what });
    }

    pub(super) fn copy<T>(&mut self, value: &T, ops: CopyOps<T>) -> Result<(), ShareError> {
        let encoded = match self.depth {
            Depth::Skeleton => None,
            Depth::Values | Depth::Outline => Some(
                (ops.encode)(value)
                    .map_err(|reason| ShareError::LossyCopy { field: self.path.as_str().to_owned(), reason })?,
            ),
        };
        self.push(What::Copy(encoded));
        Ok(())
    }

    /// Notes the tensors of a module. Returns whether there are any.
    pub(super) fn module<M: Module>(&mut self, module: &M) -> bool {
        let mark = self.items.len();
        module.visit(&mut Visitor(self));
        let found = self.items.len() > mark;
        if !found {
            self.push(What::Module);
        }
        found
    }

    /// Takes back the note of a module without tensors, which is copied instead.
    pub(super) fn forget_module(&mut self) {
        if matches!(self.items.last(), Some(Item { what: What::Module, .. })) {
            self.items.pop();
        }
    }

    pub(super) fn bare<const D: usize, K: Kind>(&mut self, kind: TensorKind, tensor: &Tensor<D, K>) {
        let shape = tensor.dims().to_vec();
        let stored = (self.depth != Depth::Skeleton).then(|| stored(tensor.clone()));
        self.push(What::Tensor(TensorItem { kind, param: None, shape, stored, outline: None }));
    }
}

fn stored<const D: usize, K: Kind>(tensor: Tensor<D, K>) -> StoredTensor {
    StoredTensor { dtype: host::dtype(&tensor), shape: tensor.dims().to_vec(), source: Arc::new(Stored(tensor)) }
}

/// Whether a parameter's stored tensor is the transpose of the one that the module computes with. burn does not tell, but
/// it does so with any tensor that is loaded.
fn transposed<const D: usize, K: Kind>(param: &Param<Tensor<D, K>>) -> bool
where
    Tensor<D, K>: Parameter,
{
    if D != 2 {
        return false;
    }
    let dims: [usize; D] = std::array::from_fn(|axis| axis + 1);
    let probe = Tensor::<D, K>::zeros(dims, &Device::flex());
    param.clone().transform_for_load(probe, param.id).lazy_shape().to_vec() == [2, 1]
}

/// burn's walk over the parameters of a module.
struct Visitor<'a>(&'a mut Collector);

macro_rules! visit {
    ($name:ident, $tensor:ty, $kind:ident) => {
        fn $name<const D: usize>(&mut self, param: &Param<$tensor>) {
            let stored = (self.0.depth == Depth::Values).then(|| stored(param.transform_for_save().val()));
            let outline = (self.0.depth == Depth::Outline).then(|| {
                let initialised = param.clone();
                Outline {
                    module: self.0.modules.iter().rev().find(|name| name.contains(':')).cloned().unwrap_or_default(),
                    transposed: transposed(param),
                    initialised: param.is_initialized(),
                    initialise: Box::new(move || self::stored(initialised.transform_for_save().val())),
                }
            });
            self.0.push(What::Tensor(TensorItem {
                kind: TensorKind::$kind,
                param: Some(param.id.val()),
                shape: param.lazy_shape().to_vec(),
                stored,
                outline,
            }));
        }
    };
}

impl ModuleVisitor for Visitor<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.path.push(name);
        self.0.modules.push(container.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.path.pop();
        self.0.modules.pop();
    }

    visit!(visit_float, Tensor<D>, Float);
    visit!(visit_int, Tensor<D, Int>, Int);
    visit!(visit_bool, Tensor<D, Bool>, Bool);

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.0.push(What::Flag(flag.is_enabled()));
    }
}
