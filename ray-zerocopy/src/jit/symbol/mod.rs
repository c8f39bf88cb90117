//! Sizes that may differ from call to call: which numbers of a graph depend on them, and how.
//!
//! | file | what |
//! | --- | --- |
//! | `form` | a polynomial in the symbols |
//! | `fit` | from the same number at several sizes to its form |
//! | `numbers` | the numbers in an operation, to be read and replaced |

mod fit;
mod form;
mod numbers;

pub(super) use fit::{Corners, fit};
pub(super) use form::{Form, Term};
pub(super) use numbers::{Number, numbers, skeleton, with_numbers};
