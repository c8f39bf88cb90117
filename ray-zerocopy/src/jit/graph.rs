//! What a trace is, as data: operations in burn's own terms, what goes in and out, and where each constant comes from.
//!
//! It knows neither how it was recorded nor what runs it. Sizes that may differ from call to call are *symbols*; every number
//! in the graph that depends on them is a *form*, and the operations hold the number that it has at the traced sizes.

use burn::tensor::{DType, TensorId};
use burn_ir::OperationIr;
use serde::{Deserialize, Serialize};

use crate::arena::TensorKind;

/// The version of [`Code`] that this build writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// burn's intermediate representation promises nothing from version to version: another one's graph is refused.
pub(crate) const BURN: &str = "0.22.1";

/// A recorded forward pass, without its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Code {
    pub format: u32,
    pub burn: String,
    /// What was traced: the pipeline's type, and the method if it was one.
    pub origin: String,
    pub symbols: Vec<Symbol>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub constants: Vec<Constant>,
    /// In the order in which they run, as they are at the traced sizes. The ids of tensors are dense, from 0. The status of each
    /// operand says whether it is used for the last time ([`TensorStatus::ReadWrite`](burn_ir::TensorStatus)): never of
    /// inputs' and constants' last uses, which stay.
    pub operations: Vec<OperationIr>,
    /// The numbers in the operations that depend on symbols, in the order of the operations and of the numbers in each.
    pub holes: Vec<Hole>,
}

/// A size that may differ from call to call, such as the batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Symbol {
    pub name: String,
    /// The size at which the operations were recorded.
    pub traced: usize,
}

/// An input or an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub name: String,
    pub id: TensorId,
    pub kind: TensorKind,
    pub dtype: DType,
    /// Its shape. An input's extents are numbers or single symbols.
    pub shape: Vec<Form>,
}

/// A polynomial in the symbols, linear in each of them: the sum of the terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Form(pub Vec<Term>);

/// A product of symbols, named by their places in [`Code::symbols`], each once; and of a number. No symbol: the number itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Term {
    pub factor: i64,
    pub symbols: Vec<u8>,
}

/// A number of an operation that depends on symbols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hole {
    /// Which operation.
    pub operation: u32,
    /// Which of the integers in it, in the order in which serde visits them.
    pub number: u32,
    pub form: Form,
}

/// A tensor that is the same in each call, or depends on the symbols alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Constant {
    pub id: TensorId,
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<Form>,
    pub source: ConstantSource,
}

/// Where a constant's elements are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ConstantSource {
    /// A tensor of the arena, by its path. Never copied where the device can borrow.
    Entry(String),
    /// Little-endian bytes, here: a tensor that no parameter holds, such as a table that the forward pass makes.
    Inline(#[serde(with = "serde_bytes_of")] bytes::Bytes),
    /// `start`, `start + step`, …: the positions `0..length`, say.
    Range { start: Form, step: i64 },
    /// The leading part of a larger tensor, in each dimension: a causal mask, say. Good up to the sizes of that.
    Prefix { of: Vec<usize>, #[serde(with = "serde_bytes_of")] bytes: bytes::Bytes },
}

/// Bytes as bytes, and not as a sequence of numbers.
mod serde_bytes_of {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &bytes::Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bytes::Bytes, D::Error> {
        // TODO of the trace: borrow from the message where the format can.
        Vec::<u8>::deserialize(deserializer).map(bytes::Bytes::from)
    }
}
