//! Tensors of burn's CUDA backend that read a copy.

use std::collections::BTreeMap;
use std::sync::Once;
use std::time::Duration;

use ::burn::backend::{BackendTensor, DispatchTensorKind};
use ::burn::tensor::kind::Basic;
use ::burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::__private::Runtime;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::cuda::CudaRuntime;
use burn_cubecl::cubecl::server::Handle;
use burn_cubecl::tensor::CubeTensor;

use super::copy::DeviceCopy;
use super::home::Home;
use super::sys::memory::Mapping;
use super::sys::overlay;
use crate::os::per_process::PerProcess;
use crate::os::sync::Mutex;
use crate::os::sys::atexit;
use crate::tensor::kind::TensorKind;

type Server = <CudaRuntime as Runtime>::Server;

/// Sizes of allocations are multiples of this.
const UNIT: usize = 512;

/// How long the end of this process waits for burn.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first pause while burn still has memory that no tensor uses, and the longest one.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A copy as one allocation of burn, which it frees with the last tensor.
pub(super) struct Buffer {
    client: Client,
    device: CubeDevice,
    /// Also keeps burn from writing in place: it does that only if there is no other handle.
    handle: Handle,
    /// The size that burn knows.
    len: usize,
}

impl Buffer {
    /// Makes a mapping an allocation of burn.
    ///
    /// # Errors
    /// If burn does not take it, or fails.
    pub(super) fn adopt(index: usize, mapping: Mapping) -> Result<Self, String> {
        overlay::install()?;
        let device = CubeDevice::Cuda(burn_cubecl::cubecl::cuda::CudaDevice { index });
        let client = crate::panics::caught(|| device.client())?;
        let (address, len) = (mapping.address(), unique_size(mapping.len()));
        let make = || {
            let handle = client.memory_dedicated_allocation((), |()| client.empty(len));
            let resource = client.get_resource::<Server>(handle.clone()).map_err(|error| error.to_string())?;
            Ok::<_, String>((handle, resource.resource().ptr))
        };
        // On burn's thread for the GPU, so that no other allocation comes between.
        let (made, is_taken) = overlay::offering(len, mapping, || crate::panics::caught(|| client.exclusive(make)));
        let (handle, found) = made?.map_err(|error| error.to_string())??;
        if !is_taken || found != address {
            return Err("burn has made an allocation of its own".to_owned());
        }
        Ok(Self { client, device, handle, len })
    }

    /// Whether no tensor uses the memory any more.
    pub(super) fn is_unused(&self) -> bool {
        self.handle.can_mut()
    }

    /// Lets burn free the memory, which no tensor uses any more, and waits for it: work that has been
    /// queued may still refer to it.
    pub(super) fn free(self) {
        let Self { client, handle, .. } = self;
        let memory = handle.memory.clone().binding().downgrade();
        drop(handle);
        let mut pause = PAUSE;
        while memory.is_alive() {
            // A failure of burn is that of its device thread, and lasts.
            if !matches!(crate::panics::caught(|| client.memory_cleanup()), Ok(Ok(()))) {
                return;
            }
            if memory.is_alive() {
                std::thread::sleep(pause);
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }

    /// A tensor of `bytes` bytes at an offset.
    pub(super) fn tensor(&self, offset: usize, bytes: usize, shape: &[usize], dtype: DType) -> DispatchTensorKind {
        let behind = (self.len - offset - bytes) as u64;
        let handle = self.handle.clone().offset_start(offset as u64).offset_end(behind);
        let shape = Shape::from(shape.to_vec());
        let tensor = CubeTensor::new_contiguous(self.client.clone(), self.device.clone(), shape, handle, dtype);
        let tensor = match TensorKind::of(dtype) {
            TensorKind::Float => BackendTensor::Float(tensor),
            TensorKind::Int => BackendTensor::Int(tensor),
            TensorKind::Bool => BackendTensor::Bool(tensor),
        };
        DispatchTensorKind::Cube(tensor)
    }

    /// Whether a tensor reads this memory.
    pub(super) fn has<const D: usize, K: Basic>(&self, tensor: &Tensor<D, K>) -> bool {
        let DispatchTensorKind::Cube(tensor) = tensor.clone().into_dispatch().kind else { return false };
        let (BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor)) = tensor else {
            return false;
        };
        tensor.handle.memory.binding().id() == self.handle.memory.clone().binding().id()
    }
}

impl DeviceCopy {
    fn buffer(&self) -> Option<&Buffer> {
        match &self.home {
            Home::Burn(buffer) => Some(buffer),
            Home::Addresses(_) => None,
        }
    }

    /// A tensor of burn's CUDA backend that reads the copy. `None` if the blob is not in it with
    /// elements of this type, or has another size.
    pub(crate) fn burn_tensor(&self, blob: u32, shape: &[usize], dtype: DType) -> Option<DispatchTensorKind> {
        let (offset, len) = self.place(blob, shape, dtype)?;
        Some(self.buffer()?.tensor(offset, len, shape, dtype))
    }

    /// Whether a tensor of burn's CUDA backend reads the copy.
    pub(crate) fn burn_has<const D: usize, K: Basic>(&self, tensor: &Tensor<D, K>) -> bool {
        self.buffer().is_some_and(|buffer| buffer.has(tensor))
    }
}

/// The GPUs on which this process may compute with burn, and whether it has loaded something there.
static IN_USE: PerProcess<Mutex<BTreeMap<usize, bool>>> = PerProcess::new();

/// Waits at the end of this process until burn's thread for a GPU has nothing more to do. The driver refuses everything once it
/// has ended, and the thread would panic.
///
/// `is_loaded` says that something was loaded on the GPU. Otherwise, nothing may ever be computed there.
pub(super) fn finish_at_exit(index: usize, is_loaded: bool) {
    static IS_REGISTERED: Once = Once::new();
    *IN_USE.get().lock().entry(index).or_default() |= is_loaded;
    IS_REGISTERED.call_once(|| {
        // If it cannot be registered, the thread may print a panic.
        let _is_registered = atexit::at_exit(finish);
    });
}

extern "C" fn finish() {
    // A fork has none of the threads, and a set of its own.
    let mut used = std::mem::take(&mut *IN_USE.get().lock());
    // burn would create a context for a GPU that it has not used.
    used.retain(|_, is_loaded| *is_loaded || overlay::has_allocated());
    if used.is_empty() {
        return;
    }
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let work = move || {
        for index in used.into_keys() {
            let device = CubeDevice::Cuda(burn_cubecl::cubecl::cuda::CudaDevice { index });
            // What has failed before is no news.
            drop(crate::panics::caught(|| device.client().flush()));
        }
        drop(done);
    };
    // A kernel that does not end must not keep the process.
    if std::thread::Builder::new().spawn(work).is_ok() {
        let _is_late = wait.recv_timeout(PATIENCE);
    }
}

/// A size that no other allocation of this process has, so that burn takes the mapping that is
/// offered for it. It is a little more than the mapping, and nothing is behind it.
fn unique_size(len: usize) -> usize {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    len + UNIT * (1 + count % 32_768)
}

/// The number of the GPU that a burn device is, or `None` if it is another device.
pub(super) fn number(device: &Device) -> Option<usize> {
    match device.as_dispatch() {
        ::burn::backend::DispatchDevice::Cube(CubeDevice::Cuda(device)) => Some(device.index),
        _ => None,
    }
}
