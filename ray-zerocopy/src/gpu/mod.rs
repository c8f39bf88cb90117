//! Memory of GPUs: one copy of an arena's weights per GPU, which all processes of a user map.
//!
//! | file | what |
//! | --- | --- |
//! | `copy` | finds or makes the copy of an arena on a GPU, and keeps it as long as tensors use it |
//! | `lookup` | how processes find a copy, or the right to make it |
//! | `exchange` | how processes pass a copy on |
//! | `keep` | how holders keep copies, without a GPU |
//! | `layout` | where the tensors of an arena are in its copy |
//! | `upload` | from an arena's pages to a GPU |
//! | `burn` | tensors of burn's CUDA backend that read a copy |
//! | `usage` | the memory that the driver counts for each process |
//! | `sys` | the CUDA driver |
//!
//! The first process that loads an arena on a GPU uploads it, into memory that the driver passes as
//! a file descriptor. Others map this memory, read-only. It exists as long as one process has it.
//! Without the feature `cuda`, only `exchange` and `keep` are there: a holder needs no GPU.

#[cfg(feature = "cuda")]
mod burn;
#[cfg(feature = "cuda")]
mod copy;
mod exchange;
mod keep;
#[cfg(feature = "cuda")]
mod layout;
#[cfg(feature = "cuda")]
mod lookup;
#[cfg(feature = "cuda")]
mod sys;
#[cfg(feature = "cuda")]
mod upload;
#[cfg(feature = "cuda")]
mod usage;

#[cfg(feature = "cuda")]
pub(crate) use self::copy::{DeviceCopy, Refusal, open};
pub(crate) use self::keep::CopyKeeper;
#[cfg(feature = "cuda")]
pub(crate) use self::layout::{Layout, Part};
#[cfg(feature = "cuda")]
pub(crate) use self::usage::memory_by_process;

/// Opens a device, if it is a GPU. burn panics if it cannot.
///
/// # Errors
/// If no context can be created, most likely for lack of memory.
#[cfg(feature = "cuda")]
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
#[cfg(feature = "cuda")]
pub(crate) fn can_share(device: &::burn::tensor::Device) -> bool {
    burn::number(device).is_some()
}

/// Sets the driver up before burn loads it, and returns the number of GPUs.
///
/// # Errors
/// Says why there are none, as the rest of "found …".
#[cfg(feature = "cuda")]
pub(crate) fn count() -> Result<usize, String> {
    let count = sys::context::Gpu::count()?;
    // If it fails, weights are copied, and the load says why.
    let _ = sys::overlay::install();
    Ok(count)
}
