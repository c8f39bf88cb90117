//! A TorchScript module becomes weights, which all share, and a skeleton, which is the module without them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::signature::{ModuleSignature, ScriptArgument, ScriptMethod};
use super::{CODE, SKELETON};
use crate::arena::arena::Arena;
use crate::arena::builder::ArenaBuilder;
use crate::arena::io::Progress;
use crate::arena::manifest::TensorEntry;
use crate::codec;
use crate::error::script::ScriptError;
use crate::tensor::kind::TensorKind;
use crate::tensor::libtorch::sys::module::{Held, Module, Role};
use crate::tensor::libtorch::sys::tensor::Tensor;
use crate::tensor::source::{BlobSource, sample};
use elements::Description;

/// Constants of the code are numbers more often than weights: so many bytes of them are not worth a word.
const SMALL: u64 = 1 << 10;
/// Tensors of more dimensions stay with the module.
const MOST_DIMENSIONS: usize = 8;

/// Opens a module and puts what can be shared into an arena, with the skeleton.
pub(super) fn split(path: &Path, tell: &mut dyn FnMut(Progress)) -> Result<Arena, ScriptError> {
    let file = path.display().to_string();
    let module = Module::open(path).map_err(|reason| ScriptError::Open { file, reason: first_line(&reason) })?;
    let failed = |reason: String| ScriptError::Split { reason };
    let mut tensors = Vec::new();
    for held in module.tensors().map_err(failed)? {
        let description = held.tensor.description().map_err(failed)?;
        tensors.push((held, description));
    }
    let written = written(&module, &tensors)?;
    let (shared, own): (Vec<_>, Vec<_>) = tensors.into_iter().partition(|(_, is)| {
        let known = is.dtype.is_some() && (1..=MOST_DIMENSIONS).contains(&is.shape.len());
        known && is.len > 0 && !written.contains(&is.storage)
    });
    let methods = module.methods().map_err(failed)?.into_iter().map(|method| ScriptMethod {
        name: method.name,
        arguments: method
            .arguments
            .into_iter()
            .map(|argument| ScriptArgument { name: argument.name, ty: argument.kind, has_default: argument.default })
            .collect(),
        returns: method.returns,
    });
    let methods = methods.collect();
    module.empty(&shared.iter().map(|(held, _)| held).collect::<Vec<_>>()).map_err(failed)?;
    let skeleton = module.to_bytes().map_err(failed)?;
    // What the code itself holds, after `torch.jit.freeze` for one, is in no attribute.
    let constants = module.constants().map_err(failed)?;
    drop(module);

    let mut own: Vec<_> = own.into_iter().map(|(held, is)| (held.path, is.len as u64)).collect();
    if constants > SMALL {
        own.push(("the constants of the code".to_owned(), constants));
    }
    let origin = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let code = codec::encode(&ModuleSignature::new(origin, methods, own)).map_err(failed)?;
    let mut builder = ArenaBuilder::new(crate::jit::graph::code::PIPELINE).apart();
    for (held, is) in shared {
        let Some(dtype) = is.dtype else { continue };
        let entry = TensorEntry {
            path: held.path,
            blob: 0,
            kind: TensorKind::of(dtype),
            dtype,
            shape: is.shape,
            param: None,
            why: None,
        };
        builder.tensor(entry, std::sync::Arc::new(Weight { tensor: Mutex::new(held.tensor), len: is.len }))?;
    }
    builder.copy(CODE, code);
    builder.copy(SKELETON, skeleton);
    Ok(builder.seal(tell)?)
}

/// The memory that the module's methods write to. None of it is a parameter's.
fn written(module: &Module, tensors: &[(Held, Description)]) -> Result<HashSet<usize>, ScriptError> {
    let writes = module.writes().map_err(|reason| ScriptError::Split { reason })?;
    let mut written = HashSet::new();
    for write in writes {
        let Some(path) = write.path else { return Err(ScriptError::Unknown { what: write.what }) };
        let below = format!("{path}.");
        let of = tensors.iter().filter(|(held, _)| held.path == path || held.path.starts_with(&below));
        let places: HashSet<usize> = of.map(|(_, is)| is.storage).filter(|storage| *storage != 0).collect();
        // A parameter may be the same tensor under another name.
        let parameter = tensors.iter().find(|(held, is)| held.role == Role::Parameter && places.contains(&is.storage));
        if let Some((held, _)) = parameter {
            return Err(ScriptError::Writes { parameter: held.path.clone(), what: write.what });
        }
        written.extend(places);
    }
    Ok(written)
}

/// LibTorch tells where in its source it was, over many lines.
fn first_line(reason: &str) -> String {
    reason.lines().next().unwrap_or_default().to_owned()
}

/// A tensor of the module, on its way into an arena.
struct Weight {
    tensor: Mutex<Tensor>,
    len: usize,
}

impl Weight {
    fn show<T>(&self, show: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
        self.tensor.lock().unwrap_or_else(PoisonError::into_inner).elements(show)
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
        self.tensor.lock().unwrap_or_else(PoisonError::into_inner).place()
    }

    fn sample(&self) -> Result<Vec<u8>, String> {
        self.show(sample)
    }
}
