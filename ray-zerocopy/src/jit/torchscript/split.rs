//! Splits a TorchScript module into shared weights and a skeleton, which is the module without
//! them.

use std::collections::HashSet;
use std::path::Path;

use super::signature::{ModuleSignature, ScriptArgument, ScriptMethod};
use super::{CODE, SKELETON};
use crate::arena::arena::Arena;
use crate::arena::builder::ArenaBuilder;
use crate::arena::io::Progress;
use crate::arena::manifest::TensorEntry;
use crate::codec;
use crate::error::script::ScriptError;
use crate::os::sync::Mutex;
use crate::tensor::kind::TensorKind;
use crate::tensor::libtorch::sys::module::{Held, Module, Role};
use crate::tensor::libtorch::sys::tensor::Description;
use crate::tensor::libtorch::sys::tensor::Tensor;
use crate::tensor::source::{BlobSource, sample};

/// Maximum size in bytes of constants in the code that are not reported: they are numbers more
/// often than weights.
const SMALL: u64 = 1 << 10;
/// Maximum number of dimensions of a shared tensor. Others stay in the module.
const MOST_DIMENSIONS: usize = 8;

/// Opens a module, and writes its shareable tensors and the skeleton into an arena.
pub(super) fn split(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Arena, ScriptError> {
    let file = path.display().to_string();
    let module = Module::open(path).map_err(|reason| ScriptError::Open { file, reason: first_line(&reason) })?;
    let split_error = |reason: String| ScriptError::Split { reason };
    let mut tensors = Vec::new();
    for held in module.tensors().map_err(split_error)? {
        let description = held.tensor.description().map_err(split_error)?;
        tensors.push((held, description));
    }
    let written_storages = written(&module, &tensors)?;
    let (shared, own): (Vec<_>, Vec<_>) = tensors.into_iter().partition(|(_, description)| {
        let known = description.dtype.is_some() && (1..=MOST_DIMENSIONS).contains(&description.shape.len());
        known && description.len > 0 && !written_storages.contains(&description.storage)
    });
    let methods = module.methods().map_err(split_error)?.into_iter().map(|method| ScriptMethod {
        name: method.name,
        arguments: method
            .arguments
            .into_iter()
            .map(|argument| ScriptArgument { name: argument.name, ty: argument.kind, has_default: argument.default })
            .collect(),
        returns: method.returns,
    });
    let methods = methods.collect();
    module.empty(&shared.iter().map(|(held, _)| held).collect::<Vec<_>>()).map_err(split_error)?;
    let skeleton = module.to_bytes().map_err(split_error)?;
    // Constants of the code, such as after `torch.jit.freeze`, are not attributes of the module.
    let constants = module.constants().map_err(split_error)?;
    drop(module);

    let mut own: Vec<_> = own.into_iter().map(|(held, description)| (held.path, description.len as u64)).collect();
    if constants > SMALL {
        own.push(("the constants of the code".to_owned(), constants));
    }
    let origin = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let code = codec::encode(&ModuleSignature::new(origin, methods, own)).map_err(split_error)?;
    let mut builder = ArenaBuilder::new(crate::jit::graph::code::PIPELINE).apart_below(usize::MAX);
    for (held, description) in shared {
        let Some(dtype) = description.dtype else { continue };
        let entry = TensorEntry {
            path: held.path,
            blob: 0,
            kind: TensorKind::of(dtype),
            dtype,
            shape: description.shape,
            param: None,
            why: None,
        };
        builder.tensor(entry, std::sync::Arc::new(Weight { tensor: Mutex::new(held.tensor), len: description.len }))?;
    }
    builder.copy(CODE, code);
    builder.copy(SKELETON, skeleton);
    Ok(builder.seal(progress)?)
}

/// Addresses of the storages that the module's methods write to. None of them belongs to a
/// parameter.
fn written(module: &Module, tensors: &[(Held, Description)]) -> Result<HashSet<usize>, ScriptError> {
    let writes = module.writes().map_err(|reason| ScriptError::Split { reason })?;
    let mut written = HashSet::new();
    for write in writes {
        let Some(path) = write.path else { return Err(ScriptError::Unknown { what: write.what }) };
        let below = format!("{path}.");
        let affected = tensors.iter().filter(|(held, _)| held.path == path || held.path.starts_with(&below));
        let storages: HashSet<usize> =
            affected.map(|(_, description)| description.storage).filter(|storage| *storage != 0).collect();
        // A parameter may be the same tensor under another name.
        let parameter = tensors
            .iter()
            .find(|(held, description)| held.role == Role::Parameter && storages.contains(&description.storage));
        if let Some((held, _)) = parameter {
            return Err(ScriptError::Writes { parameter: held.path.clone(), what: write.what });
        }
        written.extend(storages);
    }
    Ok(written)
}

/// First line of a LibTorch error, which continues with a stack trace over many lines.
fn first_line(reason: &str) -> String {
    reason.lines().next().unwrap_or_default().to_owned()
}

/// A tensor of the module as a source for the arena builder.
struct Weight {
    tensor: Mutex<Tensor>,
    len: usize,
}

impl Weight {
    fn show<T>(&self, show: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
        self.tensor.lock().elements(show)
    }
}

impl BlobSource for Weight {
    fn len(&self) -> usize {
        self.len
    }

    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        self.show(sink)?
    }

    fn identity(&self) -> Option<(usize, usize)> {
        self.tensor.lock().place()
    }

    fn sample(&self) -> Result<Vec<u8>, String> {
        self.show(sample)
    }
}
