//! Runs a TorchScript module with the weights of an arena.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use burn::tensor::{AllocationProperty, Bytes, Device, TensorData};

use super::SKELETON;
use super::signature::ModuleSignature;
use crate::arena::arena::Arena;
use crate::error::graph::ReplayError;
use crate::error::script::ScriptError;
use crate::jit::executable::Callable;
use crate::tensor::copied::CopiedTensor;
use crate::tensor::libtorch;
use crate::tensor::libtorch::sys::module::Module;
use crate::tensor::libtorch::sys::tensor::Tensor;
use crate::tensor::value::{Value, Values};

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
    let mut weights = HashMap::new();
    for entry in &arena.manifest().tensors {
        let bytes = Bytes::from_shared(view[entry.blob as usize].clone(), AllocationProperty::Other);
        let borrowed = Tensor::borrowed(bytes, &entry.shape, entry.dtype);
        weights
            .insert(entry.path.clone(), borrowed.map_err(|reason| corrupted(format!("`{}`: {reason}", entry.path)))?);
    }
    let used = module.replace(&weights).map_err(corrupted)?;
    if let Some(path) = weights.keys().filter(|path| !used.contains(path)).min() {
        return Err(corrupted(format!("the module has no tensor `{path}`")));
    }
    let mut copied: Vec<_> =
        code.own.iter().map(|(path, bytes)| CopiedTensor { path: path.clone(), bytes: *bytes }).collect();
    if let Some(gpu) = gpu {
        module.upload(gpu).map_err(corrupted)?;
        let weights = arena.manifest().tensors.iter();
        copied.extend(
            weights.map(|entry| CopiedTensor { path: entry.path.clone(), bytes: arena.slice(entry.blob).len() as u64 }),
        );
    }
    Ok((Box::new(Script { code, module, gpu }), copied))
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
