//! Symbolic sizes: which numbers of a graph depend on sizes that may differ from call to call, and
//! how.
//!
//! | file | what |
//! | --- | --- |
//! | `expr` | polynomials in the symbols |
//! | `interpolate` | finds the polynomial of a number from its values at several sizes |
//! | `scalars` | reads and replaces the numbers in an operation |
//! | `shapes` | the shapes of the results of an operation |

pub(crate) mod expr;
pub(crate) mod interpolate;
pub(crate) mod scalars;
pub(crate) mod shapes;
