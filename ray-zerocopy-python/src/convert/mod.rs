//! Python's values as messages, and back, as a method's [`Schema`](ray_zerocopy::__private::dynamic::Schema) says.
//!
//! | file | what |
//! | --- | --- |
//! | `place` | where in the arguments a value is, for errors |
//! | `arguments` | values of any schema into a message |
//! | `tensor` | arrays into tensors, in place where that is possible |
//! | `columns.py` | columns of pandas and pyarrow as arrays |
//! | `value` | plain values as MessagePack |
//! | `results` | what a method gave, as Python's values |

mod arguments;
mod place;
mod results;
mod tensor;
mod value;

pub(crate) use arguments::{Writer, describe};
pub(crate) use place::ValuePath;
pub(crate) use results::{Given, array, read};
pub(crate) use tensor::{Borrowing, Expected, Tensor, columns, tensor};
