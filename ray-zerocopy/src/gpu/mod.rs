//! Memory of GPUs: one copy of an arena's weights per GPU, which all processes of a user map.
//!
//! | file | what |
//! | --- | --- |
//! | `copy` | finds or makes the copy of an arena on a GPU, and keeps it as long as tensors use it |
//! | `home` | how a process uses a copy: as memory of burn, or as addresses |
//! | `lookup` | how processes find a copy, or the right to make it |
//! | `exchange` | how processes pass a copy on |
//! | `keep` | how holders keep copies, without a GPU |
//! | `layout` | where the tensors of an arena are in its copy |
//! | `upload` | from an arena's pages to a GPU |
//! | `burn` | tensors of burn's CUDA backend that read a copy |
//! | `libtorch` | tensors of burn's LibTorch backend that read a copy |
//! | `usage` | the memory that the driver counts for each process |
//! | `sys` | the CUDA driver |
//!
//! The first process that loads an arena on a GPU uploads it, into memory that the driver passes as
//! a file descriptor. Others map this memory, read-only. It exists as long as one process has it.
//! The feature `gpu` has all but burn's part, which is in `cuda`. Without it, only `exchange` and
//! `keep` are there: a holder needs no GPU.

#[cfg(feature = "cuda")]
mod burn;
#[cfg(feature = "gpu")]
mod copy;
mod exchange;
#[cfg(feature = "gpu")]
mod home;
mod keep;
#[cfg(feature = "gpu")]
mod layout;
#[cfg(feature = "libtorch")]
mod libtorch;
#[cfg(feature = "gpu")]
mod lookup;
#[cfg(feature = "gpu")]
mod sys;
#[cfg(feature = "gpu")]
mod upload;
#[cfg(feature = "gpu")]
mod usage;

#[cfg(any(feature = "cuda", feature = "libtorch"))]
pub(crate) use self::copy::DeviceCopy;
#[cfg(feature = "gpu")]
pub(crate) use self::copy::{Refusal, Use, open};
pub(crate) use self::keep::CopyKeeper;
#[cfg(feature = "gpu")]
pub(crate) use self::layout::{Layout, Part};
#[cfg(feature = "gpu")]
pub(crate) use self::sys::memory::MappedRange;
#[cfg(feature = "gpu")]
pub(crate) use self::usage::memory_by_process;

#[cfg(any(feature = "cuda", feature = "libtorch"))]
use crate::os::recording;

/// Opens a device, if it is a GPU. burn panics if it cannot.
///
/// # Errors
/// If no context can be created, most likely for lack of memory.
#[cfg(any(feature = "cuda", feature = "libtorch"))]
pub(crate) fn prepare(device: &::burn::tensor::Device) -> Result<(), String> {
    let Some((index, wanted)) = on(device) else { return Ok(()) };
    let opened = recording::apart(|| sys::context::Gpu::open(index).map(|_| ()));
    #[cfg(feature = "cuda")]
    if wanted == Use::Burn && opened.is_ok() {
        burn::finish_at_exit(index, true);
    }
    #[cfg(not(feature = "cuda"))]
    let _ = wanted;
    opened.map_err(|error| {
        let free = sys::context::uuid(index).and_then(|uuid| usage::free_memory(&uuid));
        let free = free.map(|free| format!("; it has {} MiB free", free >> 20)).unwrap_or_default();
        format!("no context can be created on `cuda:{index}`: {error}{free}")
    })
}

/// Whether a GPU has failed in this process, so that nothing can be computed on it any more: a kernel has read or written
/// memory that it must not, for example. Waits for the work that the GPU has.
#[cfg(any(feature = "cuda", feature = "libtorch"))]
pub(crate) fn is_lost(device: &::burn::tensor::Device) -> bool {
    let Some((index, _)) = on(device) else { return false };
    // It was opened when something was loaded there.
    recording::apart(|| match sys::context::Gpu::open(index) {
        Ok(gpu) => gpu.synchronize().is_err_and(|error| error.ends_the_context()),
        Err(_) => true,
    })
}

/// The number of the GPU that a device is, and how its backend uses a copy there. `None` if it is
/// another device.
#[cfg(any(feature = "cuda", feature = "libtorch"))]
pub(crate) fn on(device: &::burn::tensor::Device) -> Option<(usize, Use)> {
    #[cfg(feature = "cuda")]
    if let Some(index) = burn::number(device) {
        return Some((index, Use::Burn));
    }
    #[cfg(feature = "libtorch")]
    if let Some(index) = libtorch::number(device) {
        return Some((index, Use::Addresses));
    }
    None
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

/// Prepares the end of a process that is given a GPU for burn.
#[cfg(feature = "cuda")]
pub(crate) fn hand_out(index: usize) {
    burn::finish_at_exit(index, false);
}
