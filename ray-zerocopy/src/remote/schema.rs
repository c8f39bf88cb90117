//! Remote methods as data, for callers that do not know their types at compile time, such as
//! Python.
//!
//! Does not depend on Python: a [`Schema`] is the format of a value in a message, see
//! [`wire`](super::wire).

use super::hosted::Handler;
use crate::tensor::kind::TensorKind;

/// The format of a type's values in a message.
// Hidden: `ray-zerocopy-python` is the only consumer outside of this crate.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schema {
    /// A tensor: its type and shape among the values, its bytes as a segment.
    Tensor {
        /// The number of dimensions.
        rank: usize,
        /// The kind of the elements.
        kind: TensorKind,
    },
    /// A list of tensors or of containers of tensors: its length, then each item.
    List(Box<Schema>),
    /// An array of that length: each item.
    Array(Box<Schema>, usize),
    /// An option: a flag for `Some`, and then the value.
    Optional(Box<Schema>),
    /// A map: the number of entries, then each key and its value.
    Map {
        /// Always a [`Value`](Self::Value).
        key: Box<Schema>,
        /// The values.
        value: Box<Schema>,
    },
    /// A tuple: each element.
    Tuple(Vec<Schema>),
    /// A result. If `ok` is a [`Value`](Self::Value), the result is one value, as serde writes a
    /// `Result`. Otherwise it is a flag for `Ok`, and then the content.
    Fallible {
        /// The content of `Ok`.
        ok: Box<Schema>,
        /// The content of `Err`: always a [`Value`](Self::Value).
        error: Box<Schema>,
    },
    /// A value through serde: MessagePack with named fields.
    Value {
        /// The type, as the compiler writes it.
        ty: &'static str,
    },
}

impl Schema {
    /// A value through serde.
    pub(super) fn value<T: ?Sized>() -> Self {
        Self::Value { ty: std::any::type_name::<T>() }
    }

    /// A result with an error of type `E`.
    pub(super) fn fallible<E: ?Sized>(ok: Self) -> Self {
        Self::Fallible { ok: Box::new(ok), error: Box::new(Self::value::<E>()) }
    }
}

/// A parameter of a method, other than the receiver.
// Hidden: `ray-zerocopy-python` is the only consumer outside of this crate.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the source.
    pub name: &'static str,
    /// The format of its values.
    pub schema: Schema,
}

/// A method of a pipeline that can be called remotely: an item of
/// [`Remote::methods`](super::Remote::methods).
// Hidden: `ray-zerocopy-python` is the only consumer outside of this crate.
#[doc(hidden)]
pub struct MethodInfo<P> {
    /// Its name in the source.
    pub name: &'static str,
    /// Its documentation, as written.
    pub doc: &'static str,
    /// Whether it takes `&mut self`.
    pub exclusive: bool,
    /// Whether it returns a stream. Then it has no result, but items.
    pub is_stream: bool,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// The format of its result, or of each item of its stream.
    pub result: Schema,
    /// The function that runs it in a worker.
    #[doc(hidden)]
    pub handler: Handler<P>,
}

impl<P> std::fmt::Debug for MethodInfo<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("MethodInfo");
        text.field("name", &self.name).field("exclusive", &self.exclusive);
        text.field("parameters", &self.parameters).field("result", &self.result).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use burn::tensor::{Bool, Int, Tensor};

    use super::Schema;
    use crate::remote::wire::*;
    use crate::tensor::kind::TensorKind;

    macro_rules! schema {
        ($ty:ty) => {{ (WireKind::<$ty>::START.pick().schema)() }};
    }

    fn tensor(rank: usize, kind: TensorKind) -> Schema {
        Schema::Tensor { rank, kind }
    }

    #[test]
    fn tensors_and_their_containers_have_schemas() {
        let float = || Box::new(tensor(2, TensorKind::Float));
        assert_eq!(schema!(Tensor<2>), *float());
        assert_eq!(schema!(Tensor<1, Int>), tensor(1, TensorKind::Int));
        assert_eq!(schema!(Option<Tensor<3, Bool>>), Schema::Optional(Box::new(tensor(3, TensorKind::Bool))));
        assert_eq!(schema!(Vec<Box<Tensor<2>>>), Schema::List(float()));
        assert_eq!(schema!([Tensor<2>; 3]), Schema::Array(float(), 3));
        assert_eq!(schema!((Tensor<2>, Vec<Tensor<2>>)), Schema::Tuple(vec![*float(), Schema::List(float())]));
        let key = Box::new(Schema::Value { ty: "u8" });
        assert_eq!(schema!(BTreeMap<u8, Tensor<2>>), Schema::Map { key: key.clone(), value: float() });
        assert_eq!(schema!(HashMap<u8, Tensor<2>>), Schema::Map { key, value: float() });
    }

    #[test]
    fn other_types_are_values() {
        assert_eq!(schema!(Vec<u32>), Schema::Value { ty: "alloc::vec::Vec<u32>" });
        assert_eq!(schema!(()), Schema::Value { ty: "()" });
        assert_eq!(schema!(Option<u8>), Schema::Value { ty: std::any::type_name::<Option<u8>>() });
    }

    #[test]
    fn results_have_the_schema_fallible() {
        let error = Box::new(Schema::Value { ty: "u8" });
        let ok = Box::new(tensor(1, TensorKind::Float));
        assert_eq!(schema!(Result<Tensor<1>, u8>), Schema::Fallible { ok, error: error.clone() });
        let ok = Box::new(Schema::Value { ty: "bool" });
        assert_eq!(schema!(Result<bool, u8>), Schema::Fallible { ok, error });
        // A `Result` inside of a value is part of the value.
        assert!(matches!(schema!(Vec<Result<bool, u8>>), Schema::Value { .. }));
    }
}
