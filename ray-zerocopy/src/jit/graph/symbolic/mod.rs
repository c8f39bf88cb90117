//! Sizes that may differ from call to call: which numbers of a graph depend on them, and how.
//!
//! | file | what |
//! | --- | --- |
//! | `form` | a polynomial in the symbols |
//! | `fit` | from the same number at several sizes to its form |
//! | `numbers` | the numbers in an operation, to be read and replaced |

pub(crate) mod expr;
pub(crate) mod interpolate;
pub(crate) mod scalars;
