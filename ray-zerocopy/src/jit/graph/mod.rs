//! Graphs: a traced forward pass as data, and its execution.
//!
//! | file | what |
//! | --- | --- |
//! | `code` | the graph as data: operations, inputs, outputs, constants and symbols |
//! | `decode` | decodes and validates untrusted graphs |
//! | `info` | inputs, outputs and operations, for display |
//! | `symbolic/` | sizes that may differ from call to call |
//! | `passes/` | transformations of recorded operations |
//! | `runnable` | checks inputs and runs a graph |
//! | `fused` | the operations of compiled graphs |
//! | `weight_format` | the forms of packed weights |
//! | `profile` | time and bytes of each operation |
//! | `rows` | which inputs and outputs have rows, so that calls can be put together |
//! | `exec/` | execution on a backend |

pub(crate) mod code;
pub(crate) mod decode;
pub(crate) mod exec;
pub(crate) mod fused;
pub(crate) mod info;
pub(crate) mod passes;
pub(crate) mod profile;
pub(crate) mod rows;
pub(crate) mod runnable;
pub(crate) mod symbolic;
pub(crate) mod weight_format;
