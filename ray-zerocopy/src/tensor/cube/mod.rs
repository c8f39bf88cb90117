//! burn's CUDA and wgpu backends: recordings of kernels.
//!
//! Depends on tensors, but not on pipelines, arenas or graphs.
//!
//! | file | what |
//! | --- | --- |
//! | `record` | records the kernels that a computation starts |
//! | `sys` | starts them again. The unsafe code of this folder |

mod record;
mod sys;

pub(crate) use self::record::record;
pub(crate) use self::sys::Recording;
