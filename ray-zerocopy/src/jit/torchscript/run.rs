//! Runs a TorchScript module with the weights of an arena.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use burn::tensor::{AllocationProperty, Bytes, Device, TensorData};

use super::SKELETON;
use super::signature::ModuleSignature;
use crate::arena::arena::Arena;
use crate::arena::manifest::TensorEntry;
use crate::error::graph::ReplayError;
use crate::error::script::ScriptError;
use crate::jit::executable::Callable;
use crate::tensor::copied::CopiedTensor;
use crate::tensor::libtorch;
use crate::tensor::libtorch::sys::module::Module;
use crate::tensor::libtorch::sys::tensor::Tensor;
use crate::tensor::value::{Value, Values};

/// The size in bytes from which tensors are shared on a GPU. Smaller ones are copied by each process.
#[cfg(target_os = "linux")]
const SHARED_FROM: usize = 1 << 16;

/// The process that last used LibTorch.
static LAST_PROCESS: AtomicU32 = AtomicU32::new(0);

/// Limits LibTorch to the calling thread in a child of `fork`. The threads of its pool do not exist
/// there, so parallel operations would wait forever.
fn after_fork() {
    let pid = std::process::id();
    let last = LAST_PROCESS.swap(pid, Ordering::Relaxed);
    if last != 0 && last != pid {
        tch::set_num_threads(1);
    }
}

/// A module with its weights in place.
struct Script {
    code: Arc<ModuleSignature>,
    module: Module,
    gpu: Option<usize>,
}

/// Loads the skeleton and attaches the weights. Also returns the tensors that are not borrowed.
pub(super) fn load(
    code: Arc<ModuleSignature>,
    arena: &Arena,
    device: &Device,
    name: &str,
) -> Result<(Box<dyn Callable>, Vec<CopiedTensor>), ReplayError> {
    after_fork();
    let gpu = libtorch::gpu(device).ok_or_else(|| ReplayError::NoLibTorch { device: name.to_owned() })?;
    let corrupted = |reason: String| ReplayError::from(ScriptError::Corrupted { reason });
    let skeleton = super::field(arena, SKELETON).ok_or_else(|| corrupted("it has no skeleton".to_owned()))?;
    let mut module = Module::from_bytes(&skeleton).map_err(corrupted)?;
    // Some of LibTorch's operations write to tensors without declaring it. They write to private
    // pages of this process.
    let view = arena.own_view().map_err(ScriptError::from)?;
    let on_gpu = GpuWeights::open(arena, device, gpu)?;
    let mut weights = HashMap::new();
    let mut copied: Vec<_> =
        code.own.iter().map(|(path, bytes)| CopiedTensor { path: path.clone(), bytes: *bytes }).collect();
    for entry in &arena.manifest().tensors {
        let bytes = Bytes::from_shared(view[entry.blob as usize].clone(), AllocationProperty::Other);
        let len = bytes.len();
        let tensor = match on_gpu.tensor(entry, len) {
            Some(shared) => shared,
            None => {
                if gpu.is_some() {
                    copied.push(CopiedTensor { path: entry.path.clone(), bytes: len as u64 });
                }
                Tensor::borrowed(bytes, &entry.shape, entry.dtype)
            }
        };
        weights.insert(entry.path.clone(), tensor.map_err(|reason| corrupted(format!("`{}`: {reason}", entry.path)))?);
    }
    let used = module.replace(&weights).map_err(corrupted)?;
    if let Some(path) = weights.keys().filter(|path| !used.contains(path)).min() {
        return Err(corrupted(format!("the module has no tensor `{path}`")));
    }
    if let Some(gpu) = gpu {
        module.upload(gpu).map_err(corrupted)?;
    }
    Ok((Box::new(Script { code, module, gpu }), copied))
}

/// Weights in the memory that processes share on a GPU.
#[derive(Default)]
struct GpuWeights {
    #[cfg(target_os = "linux")]
    weights: crate::pipeline::device_weights::DeviceWeights,
}

impl GpuWeights {
    /// Finds or makes the copy of an arena on a GPU. Has none on the processor.
    #[cfg(target_os = "linux")]
    fn open(arena: &Arena, device: &Device, gpu: Option<usize>) -> Result<Self, ReplayError> {
        use crate::pipeline::device_weights::{DeviceWeights, prepare};

        if gpu.is_none() {
            return Ok(Self::default());
        }
        prepare(device).map_err(ReplayError::of_upload)?;
        Ok(Self { weights: DeviceWeights::open_unchanged(arena, device).map_err(ReplayError::of_upload)? })
    }

    #[cfg(not(target_os = "linux"))]
    fn open(_: &Arena, _: &Device, _: Option<usize>) -> Result<Self, ReplayError> {
        Ok(Self::default())
    }

    /// The tensor of an entry with this many bytes. `None` if the module needs a copy of its own: operations
    /// that write to small tensors, such as statistics, cannot do that in memory that is read-only.
    #[cfg(target_os = "linux")]
    fn tensor(&self, entry: &TensorEntry, len: usize) -> Option<Result<Tensor, String>> {
        let range = (len >= SHARED_FROM).then(|| self.weights.range(entry)).flatten()?;
        Some(Tensor::on_gpu(range, &entry.shape, entry.dtype))
    }

    #[cfg(not(target_os = "linux"))]
    fn tensor(&self, _: &TensorEntry, _: usize) -> Option<Result<Tensor, String>> {
        None
    }
}

impl Callable for Script {
    fn main(&self) -> &str {
        super::FORWARD
    }

    fn origin(&self) -> &str {
        &self.code.origin
    }

    fn run(&mut self, method: &str, inputs: Values) -> Result<Values, ReplayError> {
        after_fork();
        self.code.check(method, &inputs)?;
        let given = inputs.iter().map(|(name, value)| Ok((name, tensor(name, value)?)));
        let given = given.collect::<Result<Vec<_>, ReplayError>>()?;
        let call_error = |reason: String| ReplayError::Failed { method: method.to_owned(), reason };
        let outputs = self.module.call(method, &given, self.gpu).map_err(call_error)?;
        let mut values = Values::new();
        for (name, tensor) in outputs {
            values.insert(&name, value(&tensor).map_err(|reason| call_error(format!("`{name}`: {reason}")))?);
        }
        Ok(values)
    }
}

/// Converts an input for the duration of a call.
fn tensor(name: &str, value: &Value) -> Result<Tensor, ReplayError> {
    let input_error =
        |expected: String| ReplayError::Input { name: name.to_owned(), expected, found: value.to_string() };
    let (bytes, shape, dtype) = value.data().map_err(&input_error)?.into_parts();
    // Bytes of another program may start at any address; an allocation is aligned for any number.
    let aligned = (bytes.as_ptr() as usize).is_multiple_of(dtype.size().max(1));
    let bytes = if aligned { bytes } else { Bytes::from_bytes_vec(bytes.to_vec()) };
    Tensor::borrowed(bytes, &shape.to_vec(), dtype).map_err(input_error)
}

/// Converts an output.
fn value(tensor: &Tensor) -> Result<Value, String> {
    let description = tensor.description()?;
    let dtype = description.dtype.ok_or("burn does not support its element type")?;
    // burn has no tensors without dimensions, so the shape of a scalar is `[1]`.
    let shape = if description.shape.is_empty() { vec![1] } else { description.shape };
    // Copied: the module may retain the tensor, and change it in the next call.
    let bytes = tensor.elements(<[u8]>::to_vec)?;
    let data =
        TensorData::try_from_bytes(Bytes::from_bytes_vec(bytes), shape, dtype).map_err(|error| error.to_string())?;
    Value::from_data(data, &Device::flex())
}
