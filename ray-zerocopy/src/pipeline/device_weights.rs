//! The weights of an arena in the memory of a GPU, where all processes of the user share one copy.
//!
//! Other devices have none: they borrow the arena's pages, or upload each weight.

use burn::backend::DispatchTensorKind;
use burn::tensor::kind::Basic;
use burn::tensor::{Device, Tensor};

use crate::arena::arena::Arena;
use crate::arena::manifest::TensorEntry;
use crate::error::load::LoadError;
use crate::tensor::copied::DeviceMemory;

/// Opens a device before anything is created on it.
///
/// # Errors
/// If it is a GPU, and no context can be created there.
pub(crate) fn prepare(device: &Device) -> Result<(), LoadError> {
    #[cfg(all(any(feature = "cuda", feature = "libtorch"), target_os = "linux"))]
    crate::gpu::prepare(device).map_err(|reason| LoadError::Upload { reason })?;
    #[cfg(not(all(any(feature = "cuda", feature = "libtorch"), target_os = "linux")))]
    let _ = device;
    Ok(())
}

/// Whether a device has failed in this process, so that it cannot compute there any more.
pub(crate) fn is_lost(device: &Device) -> bool {
    #[cfg(all(any(feature = "cuda", feature = "libtorch"), target_os = "linux"))]
    return crate::gpu::is_lost(device);
    #[cfg(not(all(any(feature = "cuda", feature = "libtorch"), target_os = "linux")))]
    {
        let _ = device;
        false
    }
}

/// Adds to the error of a call what burn does not say: where it looks for CUDA's mathematical functions.
pub(crate) fn explained(mut reason: String) -> String {
    if reason.contains("libdevice.10.bc was not found") {
        reason.push_str(
            "\nlibdevice.10.bc is looked for in nvvm/libdevice below CUDA_PATH, or else below /usr/local/cuda, /opt/cuda, \
             /usr/lib/cuda and /usr. NVIDIA's wheel `nvidia-nvvm` has it, too.",
        );
    }
    reason
}

/// The copy of an arena on a device.
#[derive(Default)]
pub(crate) struct DeviceWeights {
    #[cfg(all(any(feature = "cuda", feature = "libtorch"), target_os = "linux"))]
    copy: Option<std::sync::Arc<crate::gpu::DeviceCopy>>,
    memory: Option<DeviceMemory>,
}

impl DeviceWeights {
    /// What the load tells about the device's memory. `None` if the device has none that processes
    /// could share.
    pub(crate) fn memory(self) -> Option<DeviceMemory> {
        self.memory
    }
}

#[cfg(not(all(any(feature = "cuda", feature = "libtorch"), target_os = "linux")))]
impl DeviceWeights {
    /// Finds no copy: no device of this program shares its memory.
    pub(crate) fn open(_: &Arena, _: &Device) -> Result<Self, LoadError> {
        Ok(Self::default())
    }

    /// Returns `None`.
    pub(crate) fn tensor(&self, _: &TensorEntry, _: &Device) -> Option<DispatchTensorKind> {
        None
    }

    /// Returns `false`.
    pub(crate) fn has<const D: usize, K: Basic>(&self, _: &Tensor<D, K>) -> bool {
        false
    }
}

#[cfg(all(any(feature = "cuda", feature = "libtorch"), target_os = "linux"))]
mod shared {
    use burn::tensor::{DType, TensorData};

    use super::{
        Arena, Basic, Device, DeviceMemory, DeviceWeights, DispatchTensorKind, LoadError, Tensor, TensorEntry,
    };
    use crate::gpu::{self, Layout, Part, Refusal, Use};
    use crate::tensor::convert::{fit, fitted};

    impl DeviceWeights {
        /// Finds or makes the copy of an arena on a device, with elements as burn has them there.
        ///
        /// # Errors
        /// If the device has no room for the weights. Where processes cannot share its memory,
        /// there is no copy, and [`memory`](DeviceWeights::memory) says why.
        pub(crate) fn open(arena: &Arena, device: &Device) -> Result<Self, LoadError> {
            Self::find(arena, device, &|dtype| fitted(dtype, device))
        }

        /// As [`open`](Self::open), with elements as the arena has them.
        #[cfg(feature = "torchscript")]
        pub(crate) fn open_unchanged(arena: &Arena, device: &Device) -> Result<Self, LoadError> {
            Self::find(arena, device, &Some)
        }

        fn find(
            arena: &Arena,
            device: &Device,
            fitted: &(dyn Fn(DType) -> Option<DType> + Sync),
        ) -> Result<Self, LoadError> {
            let Some(wanted) = gpu::on(device) else { return Ok(Self::default()) };
            let entries = &arena.manifest().tensors;
            let part = |entry: &TensorEntry| {
                let dtype = fitted(entry.dtype)?;
                let elements = arena.slice(entry.blob).len() / entry.dtype.size().max(1);
                Some(Part { blob: entry.blob, dtype, len: elements * dtype.size() })
            };
            let layout = Layout::of(entries.iter().filter_map(part));
            let parts: Vec<Part> = layout.parts().iter().map(|(_, part)| part.clone()).collect();
            let bytes = |at: usize| {
                let part = &parts[at];
                let entry =
                    entries.iter().find(|entry| entry.blob == part.blob && fitted(entry.dtype) == Some(part.dtype));
                let entry = entry.ok_or_else(|| format!("no tensor has part {at}"))?;
                let bytes = arena.borrow(part.blob);
                if entry.dtype == part.dtype {
                    return Ok(bytes);
                }
                let shape = vec![bytes.len() / entry.dtype.size().max(1)];
                let data = TensorData::try_from_bytes(bytes, shape, entry.dtype).map_err(|error| error.to_string())?;
                Ok(fit(data, device)?.into_bytes())
            };
            match gpu::open(wanted, &arena.id().0, layout, &bytes) {
                Ok(copy) => {
                    let memory = DeviceMemory {
                        bytes: copy.bytes(),
                        is_uploaded: copy.is_uploaded(),
                        why_copied: None,
                        gpu: Some(copy.gpu()),
                    };
                    Ok(Self { copy: Some(copy), memory: Some(memory) })
                }
                Err(Refusal::NoRoom(reason)) => Err(LoadError::Upload { reason }),
                Err(Refusal::NotShared(reason)) => {
                    let memory = DeviceMemory { bytes: 0, is_uploaded: false, why_copied: Some(reason), gpu: None };
                    Ok(Self { copy: None, memory: Some(memory) })
                }
            }
        }

        /// The tensor of an entry. `None` if it is not in the copy.
        pub(crate) fn tensor(&self, entry: &TensorEntry, device: &Device) -> Option<DispatchTensorKind> {
            let copy = self.copy.as_ref()?;
            let dtype = fitted(entry.dtype, device)?;
            match gpu::on(device)? {
                #[cfg(feature = "cuda")]
                (_, Use::Burn) => copy.burn_tensor(entry.blob, &entry.shape, dtype),
                #[cfg(feature = "libtorch")]
                (_, Use::Addresses) => copy.libtorch_tensor(entry.blob, &entry.shape, dtype),
                #[cfg(not(feature = "libtorch"))]
                (_, Use::Addresses) => None,
            }
        }

        /// The memory of an entry's elements, as the arena has them. `None` if they are not in the copy.
        #[cfg(feature = "torchscript")]
        pub(crate) fn range(&self, entry: &TensorEntry) -> Option<gpu::MappedRange> {
            self.copy.as_ref()?.range(entry.blob, entry.dtype)
        }

        /// Whether a tensor reads the copy.
        pub(crate) fn has<const D: usize, K: Basic>(&self, tensor: &Tensor<D, K>) -> bool {
            let Some(copy) = &self.copy else { return false };
            #[cfg(feature = "cuda")]
            if copy.burn_has(tensor) {
                return true;
            }
            #[cfg(feature = "libtorch")]
            if copy.libtorch_has(tensor) {
                return true;
            }
            false
        }
    }
}
