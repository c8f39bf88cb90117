//! Collecting: the content of a pipeline, path by path.

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
use crate::tensor::source::{BlobSource, Shared};

/// An item of a pipeline's content.
pub(crate) struct Item {
    pub(super) path: String,
    pub(super) what: What,
}

pub(crate) enum What {
    /// A parameter or a bare tensor.
    Tensor(TensorItem),
    /// A field that is copied, serialised. `None` for a skeleton, whose value is not used.
    Copy(Option<Vec<u8>>),
    /// A module's control value.
    Flag(bool),
    /// A module without tensors.
    Module,
    /// The variant of an enum.
    Variant(&'static str),
}

pub(crate) struct TensorItem {
    pub(super) kind: TensorKind,
    pub(super) param: Option<u64>,
    /// The shape in the pipeline.
    pub(super) shape: Vec<usize>,
    /// The stored tensor. `None` if parameters are not initialised.
    pub(super) stored: Option<StoredTensor>,
    /// The parameter itself, if its bytes come from another source.
    pub(super) outline: Option<Outline>,
}

/// The properties of a parameter that is not initialised.
pub(super) struct Outline {
    /// The type of the module that has it, as burn names it: `Struct:Linear`.
    pub(super) module: String,
    /// Whether burn stores it transposed.
    pub(super) transposed: bool,
    pub(super) initialised: bool,
    /// Initialises it on demand.
    pub(super) initialise: Box<dyn FnOnce() -> StoredTensor>,
}

impl Outline {
    /// The shape of the stored bytes of a parameter that reports `shape`.
    pub(super) fn stored_shape(&self, shape: &[usize]) -> Vec<usize> {
        if self.transposed && self.initialised {
            shape.iter().rev().copied().collect()
        } else {
            // An uninitialised parameter that burn stores transposed reports its stored shape.
            shape.to_vec()
        }
    }
}

/// How much of a pipeline is collected.
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

/// Walks a pipeline and records its content. Called by the code of `#[derive(Pipeline)]`.
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

    /// Enters a field, or an element of a list or tuple.
    pub(super) fn enter(&mut self, name: &str) {
        self.path.push(name);
    }

    /// Enters an entry of a map.
    pub(super) fn enter_key(&mut self, key: &str) {
        self.path.push_key(key);
    }

    /// Leaves the value that was entered last.
    pub(super) fn exit(&mut self) {
        self.path.pop();
    }

    /// Records the variant of an enum.
    pub fn variant(&mut self, name: &'static str) {
        self.push(What::Variant(name));
    }

    /// The position of the next item, for [`forget_since`](Self::forget_since).
    pub(super) fn mark(&self) -> usize {
        self.items.len()
    }

    /// Whether a tensor, a flag or a variant was recorded since `mark`: what serde does not see.
    pub(super) fn has_structure_since(&self, mark: usize) -> bool {
        let is_structure = |item: &Item| matches!(item.what, What::Tensor(_) | What::Flag(_) | What::Variant(_));
        self.items[mark..].iter().any(is_structure)
    }

    /// Removes the items that were recorded since `mark`.
    pub(super) fn forget_since(&mut self, mark: usize) {
        self.items.truncate(mark);
    }

    /// The path of the value that the walk is in.
    pub(crate) fn path(&self) -> String {
        self.path.as_str().to_owned()
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

    /// Records the tensors of a module. Returns whether there are any.
    pub(super) fn module<M: Module>(&mut self, module: &M) -> bool {
        let mark = self.items.len();
        module.visit(&mut Visitor(self));
        let found = self.items.len() > mark;
        if !found {
            self.push(What::Module);
        }
        found
    }

    /// Removes the item of a module without tensors, which is copied instead.
    pub(super) fn forget_module(&mut self) {
        if matches!(self.items.last(), Some(Item { what: What::Module, .. })) {
            self.items.pop();
        }
    }

    /// Records a tensor with its bytes, or without them, if the field is not loaded.
    pub(crate) fn tensor(&mut self, name: &str, dtype: DType, shape: Vec<usize>, bytes: Option<bytes::Bytes>) {
        let bytes = bytes.filter(|_| self.depth != Depth::Skeleton);
        let stored = bytes.map(|bytes| StoredTensor { dtype, shape: shape.clone(), source: Arc::new(Shared(bytes)) });
        self.enter(name);
        self.push(What::Tensor(TensorItem { kind: TensorKind::of(dtype), param: None, shape, stored, outline: None }));
        self.exit();
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

/// Whether a parameter's stored tensor is the transpose of the one that the module computes with.
/// burn does not report it, but transposes every tensor that is loaded into the parameter.
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
