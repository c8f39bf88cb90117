//! Memory of GPUs: one copy of an arena's weights per GPU, which all processes of a user map.
//!
//! | file | what |
//! | --- | --- |
//! | `copy` | finds or makes the copy of an arena on a GPU, and keeps it as long as tensors use it |
//! | `exchange` | how processes find a copy, and pass it on |
//! | `layout` | where the tensors of an arena are in its copy |
//! | `upload` | from an arena's pages to a GPU |
//! | `burn` | tensors of burn's CUDA backend that read a copy |
//! | `usage` | the memory that the driver counts for each process |
//! | `sys` | the CUDA driver |
//!
//! The first process that loads an arena on a GPU uploads it, into memory that the driver passes as
//! a file descriptor. Others map this memory, read-only. It exists as long as one process has it.

mod burn;
mod copy;
mod exchange;
mod layout;
mod sys;
mod upload;
mod usage;

pub(crate) use self::copy::{DeviceCopy, Refusal, open};
pub(crate) use self::layout::{Layout, Part};
pub(crate) use self::usage::memory_by_process;

/// Opens a device, if it is a GPU. burn panics if it cannot.
///
/// # Errors
/// If no context can be created, most likely for lack of memory.
pub(crate) fn prepare(device: &::burn::tensor::Device) -> Result<(), String> {
    let Some(index) = burn::number(device) else { return Ok(()) };
    let opened = sys::context::Gpu::open(index).map(|_| ());
    opened.map_err(|error| {
        let free =
            usage::free_memory(index).map(|free| format!("; it has {} MiB free", free >> 20)).unwrap_or_default();
        format!("no context can be created on `cuda:{index}`: {error}{free}")
    })
}

/// Whether a device is a GPU whose memory this program can share with others.
pub(crate) fn can_share(device: &::burn::tensor::Device) -> bool {
    burn::number(device).is_some()
}

/// Sets the driver up before burn loads it, and returns the number of GPUs.
///
/// # Errors
/// Says why there are none, as the rest of "found …".
pub(crate) fn count() -> Result<usize, String> {
    let count = sys::context::Gpu::count()?;
    // If it fails, weights are copied, and the load says why.
    let _ = sys::overlay::install();
    Ok(count)
}
