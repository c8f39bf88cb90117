//! Conversion between Python values and messages, driven by a method's
//! [`Schema`](ray_zerocopy::__private::dynamic::Schema).
//!
//! | file | what |
//! | --- | --- |
//! | `location` | location of a value in the arguments, for errors |
//! | `from_python` | encodes Python values of any schema into a message |
//! | `tensor` | converts arrays to tensors, in place where possible |
//! | `columns.py` | converts pandas and pyarrow columns to arrays |
//! | `value` | encodes plain values as MessagePack |
//! | `to_python` | converts a method's result to Python values |

mod from_python;
mod location;
mod tensor;
mod to_python;
mod value;

pub(crate) use from_python::{Writer, describe};
pub(crate) use location::Location;
pub(crate) use tensor::{Borrowing, Expected, Tensor, columns, tensor};
pub(crate) use to_python::{MethodResult, array, read};
