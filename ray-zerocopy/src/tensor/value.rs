//! Named tensors of any rank and kind: the inputs and outputs of a graph.

use std::fmt;

use burn::backend::{DispatchTensor, DispatchTensorKind};
use burn::tensor::{Bool, DType, Device, Float, Int, Tensor, TensorData};
use indexmap::IndexMap;

use super::host;
use super::kind::{Kind, TensorKind};
use crate::error::value::ValueError;

/// A tensor of any rank and kind, on the device on which it was created. Cheap to clone.
#[derive(Clone)]
pub struct Value(DispatchTensor);

impl Value {
    pub(crate) fn from_dispatch(tensor: DispatchTensor) -> Self {
        Self(tensor)
    }

    pub(crate) fn from_kind(kind: DispatchTensorKind) -> Self {
        Self(DispatchTensor { kind, autodiff: Default::default() })
    }

    pub(crate) fn kind_of(&self) -> &DispatchTensorKind {
        &self.0.kind
    }

    pub(crate) fn dispatch(&self) -> DispatchTensor {
        self.0.clone()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        burn_backend::TensorMetadata::dtype(&self.0)
    }

    /// The shape.
    pub fn shape(&self) -> Vec<usize> {
        burn_backend::TensorMetadata::shape(&self.0).to_vec()
    }

    /// The kind of the elements.
    pub fn kind(&self) -> TensorKind {
        TensorKind::of(self.dtype())
    }

    /// Converts to a tensor of this rank and kind. Returns `None` if the rank or the kind differs.
    pub fn tensor<const D: usize, K: ElementKind>(&self) -> Option<Tensor<D, K>> {
        let is = self.shape().len() == D && self.kind() == K::STORED && !matches!(self.dtype(), DType::QFloat(_));
        is.then(|| Tensor::from_dispatch(self.0.clone()))
    }

    /// Returns the elements in row-major order. Borrowed if they are in host memory in that order.
    ///
    /// # Errors
    /// If the backend cannot read the tensor, with the reason.
    pub fn data(&self) -> Result<TensorData, String> {
        fn read<const D: usize, K: Kind>(tensor: &Tensor<D, K>) -> Result<TensorData, String> {
            Ok(TensorData::from_bytes(host::bytes(tensor)?, tensor.dims().to_vec(), host::dtype(tensor)))
        }

        macro_rules! of_rank {
            ($($rank:literal)*) => {
                match (self.shape().len(), self.kind()) {
                    $(
                        ($rank, TensorKind::Float) => read(&Tensor::<$rank, Float>::from_dispatch(self.0.clone())),
                        ($rank, TensorKind::Int) => read(&Tensor::<$rank, Int>::from_dispatch(self.0.clone())),
                        ($rank, TensorKind::Bool) => read(&Tensor::<$rank, Bool>::from_dispatch(self.0.clone())),
                    )*
                    (rank, _) => Err(format!("it has {rank} dimensions, and tensors of at most 8 are supported")),
                }
            };
        }
        of_rank!(1 2 3 4 5 6 7 8)
    }

    /// Creates a tensor from elements on a device. On the CPU they are borrowed if they are
    /// aligned.
    ///
    /// # Errors
    /// If the number of elements does not match the shape, or the rank is greater than 8.
    pub fn from_data(data: TensorData, device: &Device) -> Result<Self, String> {
        let (shape, dtype) = (data.shape().to_vec(), data.dtype());
        let bytes = data.into_bytes();
        macro_rules! of_rank {
            ($($rank:literal)*) => {
                match (shape.len(), TensorKind::of(dtype)) {
                    $(
                        ($rank, TensorKind::Float) => host::tensor::<$rank, Float>(bytes, &shape, dtype, device).map(Tensor::into_dispatch),
                        ($rank, TensorKind::Int) => host::tensor::<$rank, Int>(bytes, &shape, dtype, device).map(Tensor::into_dispatch),
                        ($rank, TensorKind::Bool) => host::tensor::<$rank, Bool>(bytes, &shape, dtype, device).map(Tensor::into_dispatch),
                    )*
                    (rank, _) => Err(format!("it has {rank} dimensions, and tensors of 1 to 8 are supported")),
                }
            };
        }
        of_rank!(1 2 3 4 5 6 7 8).map(Self)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of shape {:?}", dtype_name(self.dtype()), self.shape())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({self})")
    }
}

impl<const D: usize, K: ElementKind> From<Tensor<D, K>> for Value {
    fn from(tensor: Tensor<D, K>) -> Self {
        Self(tensor.into_dispatch())
    }
}

/// burn's kinds of tensor: [`Float`], [`Int`] and [`Bool`].
pub trait ElementKind: Kind {}

impl<K: Kind> ElementKind for K {}

/// Named tensors in insertion order.
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use ray_zerocopy::jit::Values;
///
/// let device = Device::flex();
/// let values = Values::new()
///     .with("ids", Tensor::<2, Int>::zeros([2, 3], &device))
///     .with("scores", Tensor::<1>::ones([4], &device));
/// assert_eq!(values.int::<2>("ids")?.dims(), [2, 3]);
/// let error = values.float::<2>("scores").unwrap_err();
/// assert_eq!(error.to_string(), "`scores` is F32 of shape [4], and a float tensor of rank 2 was asked for");
/// # Ok::<(), ray_zerocopy::jit::ValueError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Values(IndexMap<String, Value>);

impl Values {
    /// Creates an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor. Replaces a tensor of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.insert(name, value);
        self
    }

    /// Inserts a tensor. Replaces a tensor of the same name.
    pub fn insert(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Returns the tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns a float tensor of rank `D`.
    ///
    /// # Errors
    /// If there is no tensor of the name, or its kind or rank differs.
    pub fn float<const D: usize>(&self, name: &str) -> Result<Tensor<D>, ValueError> {
        self.typed(name)
    }

    /// Returns an int tensor of rank `D`.
    ///
    /// # Errors
    /// If there is no tensor of the name, or its kind or rank differs.
    pub fn int<const D: usize>(&self, name: &str) -> Result<Tensor<D, Int>, ValueError> {
        self.typed(name)
    }

    /// Returns a bool tensor of rank `D`.
    ///
    /// # Errors
    /// If there is no tensor of the name, or its kind or rank differs.
    pub fn bool<const D: usize>(&self, name: &str) -> Result<Tensor<D, Bool>, ValueError> {
        self.typed(name)
    }

    fn typed<const D: usize, K: ElementKind>(&self, name: &str) -> Result<Tensor<D, K>, ValueError> {
        let value = self.found(name)?;
        value.tensor().ok_or_else(|| ValueError::Differs {
            name: name.to_owned(),
            expected: format!("a {} tensor of rank {D}", K::STORED),
            found: value.to_string(),
        })
    }

    /// Returns the elements of a tensor in row-major order.
    ///
    /// # Errors
    /// If there is no tensor of the name, or its backend cannot read it.
    pub fn data(&self, name: &str) -> Result<TensorData, ValueError> {
        let unreadable = |reason| ValueError::Unreadable { name: name.to_owned(), reason };
        self.found(name)?.data().map_err(unreadable)
    }

    fn found(&self, name: &str) -> Result<&Value, ValueError> {
        self.get(name).ok_or_else(|| ValueError::Missing { name: name.to_owned(), found: listed(self.names()) })
    }

    /// Iterates over the names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Iterates over the names and the tensors in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Name of an element type for messages. The encoding of booleans depends on the device and is
/// omitted.
pub(crate) fn dtype_name(dtype: DType) -> String {
    match dtype {
        DType::Bool(_) => "Bool".to_owned(),
        dtype => super::dtype::name(dtype),
    }
}

/// Joins names for a message.
pub(crate) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Values {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(values: I) -> Self {
        let mut all = Self::new();
        for (name, value) in values {
            all.insert(&name.into(), value);
        }
        all
    }
}

impl<N: Into<String>, V: Into<Value>, const COUNT: usize> From<[(N, V); COUNT]> for Values {
    fn from(values: [(N, V); COUNT]) -> Self {
        values.into_iter().collect()
    }
}

mod sealed {
    pub trait Outputs {
        fn into_values(self) -> super::Values;
    }
}

/// Outputs of a forward pass: [`Values`], an array of names and tensors, or one tensor, which is
/// named `output`. Sealed.
///
/// Inputs are `Into<Values>`, which does not include a single tensor, since it does not say which
/// input it is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the output of a forward pass",
    label = "neither a tensor, named tensors, nor `Values`",
    note = "return one tensor, or name several: `[(\"scores\", scores), (\"labels\", labels)]`"
)]
pub trait IntoOutputs: sealed::Outputs {}

impl<T: sealed::Outputs> IntoOutputs for T {}

/// Names the outputs of a forward pass.
pub(crate) fn outputs(outputs: impl IntoOutputs) -> Values {
    outputs.into_values()
}

impl sealed::Outputs for Values {
    fn into_values(self) -> Values {
        self
    }
}

impl<N: Into<String>, V: Into<Value>, const COUNT: usize> sealed::Outputs for [(N, V); COUNT] {
    fn into_values(self) -> Values {
        self.into()
    }
}

impl<const D: usize, K: ElementKind> sealed::Outputs for Tensor<D, K> {
    fn into_values(self) -> Values {
        Values::new().with("output", self)
    }
}
