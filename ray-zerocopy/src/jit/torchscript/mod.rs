//! TorchScript: modules that were traced or scripted by Python's torch, on shared weights.
//!
//! A module is split once: weights that no method writes to go into an arena. The rest, its
//! *skeleton*, is a file of a few kilobytes that every worker loads. Wrappers, files and engines
//! are those of graphs.
//!
//! | file | what |
//! | --- | --- |
//! | `signature` | the methods of a module, readable without LibTorch |
//! | `split` | splits a module into an arena and a skeleton |
//! | `run` | loads a module from an arena, and calls its methods |

#[cfg(feature = "torchscript")]
pub(crate) mod run;
pub(crate) mod signature;
#[cfg(feature = "torchscript")]
pub(crate) mod split;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use self::signature::ModuleSignature;
use self::signature::ScriptMethod;
use crate::error::script::ScriptError;

use super::executable::Executable;
use crate::arena::arena::Arena;
use crate::arena::file::ArenaFile;
use crate::arena::io::Progress;
use crate::checkpoint::pytorch::kind;
use crate::checkpoint::pytorch::kind::ArchiveKind;
use crate::device::{self, DeviceSpec};
use crate::error::arena::ArenaError;
use crate::error::device::DeviceError;
use crate::error::graph::ReplayError;
use crate::tensor::copied::CopiedTensor;
use crate::tensor::value::Values;

/// Fields of an arena that hold a module's signature and its skeleton.
const CODE: &str = "torchscript";
#[cfg_attr(not(feature = "torchscript"), allow(dead_code, reason = "only LibTorch reads it"))]
const SKELETON: &str = "torchscript.skeleton";
/// The default method.
pub(super) const FORWARD: &str = "forward";

/// A TorchScript module with its weights in an arena. LibTorch runs it, which requires the feature
/// `torchscript`.
///
/// Parameters are shared, and so are buffers that no method writes to. Each worker has its own copy
/// of the other buffers and of the module's attributes. So calls of a stateful module belong to a
/// single actor.
///
/// ```no_run
/// use burn::tensor::{Device, Tensor};
/// use ray_zerocopy::jit::{JitActorWrapper, TorchScript};
///
/// # fn main() -> ray_zerocopy::Result<()> {
/// ray_zerocopy::init();
/// let script = TorchScript::open("model.pt")?;
/// let actors = JitActorWrapper::new(&script).spawn(2)?;
/// let outputs = actors.run([("x", Tensor::<2>::ones([3, 8], &Device::flex()))]).wait()?;
/// println!("{}", outputs.float::<2>("output")?);
/// # Ok(())
/// # }
/// ```
///
/// # Names
/// Inputs have the names of the arguments, which are listed by [`methods`](Self::methods). A number
/// is a tensor of one element. The elements of a list or tuple `state` are `state.0`, `state.1`,
/// and those of a dictionary `state.key`. Optional arguments may be omitted. The output is
/// `output`. A tuple or a list returns `output.0`, `output.1`, and a dictionary or a named tuple
/// its own names. A tensor without dimensions gets one.
#[derive(Clone)]
pub struct TorchScript {
    code: Arc<ModuleSignature>,
    arena: Arena,
}

impl TorchScript {
    /// Opens a module that was written by `torch.jit.save` or [`save`](Self::save).
    ///
    /// # Errors
    /// If the file is not a module, if a method writes to a parameter, which shared memory does not
    /// allow, or if the program was built without the feature `torchscript`, which is not needed
    /// for a saved arena.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ScriptError> {
        Self::open_with_progress(path, |_| ())
    }

    /// Opens a module as [`open`](Self::open) does, with a progress callback.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_progress(path: impl AsRef<Path>, mut progress: impl FnMut(Progress)) -> Result<Self, ScriptError> {
        let path = path.as_ref();
        match ArenaFile::open(path) {
            Ok(file) => Self::from_arena(&file.seal(&mut progress)?),
            Err(_) if Self::is_module(path)? => Self::from_arena(&split(path, &mut progress)?),
            Err(ArenaError::NotAnArena(_)) => {
                Err(ScriptError::Open { file: path.display().to_string(), reason: Self::instead(path) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns `true` if the file was written by `torch.jit.save`: a zip archive that contains
    /// code. A state dict written by `torch.save` is an archive without code, which
    /// [`Checkpoint::open`](crate::Checkpoint::open) reads.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn is_module(path: impl AsRef<Path>) -> Result<bool, ScriptError> {
        let path = path.as_ref();
        match kind::kind(path) {
            Ok(kind) => Ok(kind == Some(ArchiveKind::TorchScript)),
            Err(error) => Err(ScriptError::Open { file: path.display().to_string(), reason: error.to_string() }),
        }
    }

    /// Describes a file that is not a module.
    fn instead(path: &Path) -> String {
        match kind::kind(path) {
            Ok(Some(ArchiveKind::StateDict { .. })) => {
                "it is a state dict, weights without code, which `Checkpoint::open` and `rzc pack` take".to_owned()
            }
            Ok(Some(ArchiveKind::Other(found))) => format!("it is {found}"),
            _ => "it is not a zip file".to_owned(),
        }
    }

    /// Opens the module in an arena.
    ///
    /// # Errors
    /// If the arena does not contain a module.
    pub fn from_arena(arena: &Arena) -> Result<Self, ScriptError> {
        if arena.pipeline() != super::graph::code::PIPELINE {
            return Err(ScriptError::NoScript { found: arena.pipeline().to_owned() });
        }
        let code = field(arena, CODE).ok_or_else(|| ScriptError::NoScript { found: "a traced graph".to_owned() })?;
        Ok(Self { code: Arc::new(ModuleSignature::read(&code)?), arena: arena.clone() })
    }

    /// Returns the methods of a saved module, or `None` if the file does not contain a module.
    /// Reads no weights and does not need LibTorch.
    ///
    /// # Errors
    /// If the file is corrupted.
    pub fn methods_of(file: &ArenaFile) -> Result<Option<Vec<ScriptMethod>>, ScriptError> {
        if file.pipeline() != super::graph::code::PIPELINE {
            return Ok(None);
        }
        let code = file.copied_field(CODE)?;
        code.map(|code| Ok(ModuleSignature::read(&code)?.methods)).transpose()
    }

    /// Writes the module and its weights to one file, such as `model.rzg`. It opens faster than
    /// TorchScript's own format and has checksums.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ArenaError> {
        self.arena.save(path)
    }

    /// Loads the module in this process, on `"cpu"` or on a GPU such as `"libtorch:cuda:0"`. Inputs
    /// and outputs are in host memory.
    ///
    /// # Errors
    /// If the device does not exist or is not supported by LibTorch, or if the program was built
    /// without the feature `torchscript`.
    pub fn load(&self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Executable, ReplayError> {
        let spec = DeviceSpec::of(device)?;
        load(Arc::clone(&self.code), &self.arena, &device::device(spec)?, &spec.to_string())
    }

    /// Name of the file that it was opened from.
    pub fn origin(&self) -> &str {
        &self.code.origin
    }

    /// Methods of the module. [`run`](super::GraphCaller::run) calls `forward`,
    /// [`call`](super::GraphCaller::call) any method.
    pub fn methods(&self) -> &[ScriptMethod] {
        &self.code.methods
    }

    /// Tensors that each worker has its own copy of: buffers and attributes that a method writes
    /// to, and tensors that cannot be shared.
    pub fn copied(&self) -> Vec<CopiedTensor> {
        self.code.own.iter().map(|(path, bytes)| CopiedTensor { path: path.clone(), bytes: *bytes }).collect()
    }

    /// The arena with the shared weights and the skeleton.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    pub(super) fn code(&self) -> &Arc<ModuleSignature> {
        &self.code
    }
}

impl fmt::Debug for TorchScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("TorchScript");
        text.field("origin", &self.origin()).field("arena", &self.arena).finish_non_exhaustive()
    }
}

/// Parses bytes as the signature of a module, and checks calls of each method. For the fuzz target
/// `module`.
pub(crate) fn checked_calls(bytes: &[u8]) -> Result<(), String> {
    let code = ModuleSignature::read(bytes).map_err(|error| error.to_string())?;
    let one = || Tensor::<1>::from_floats([1.0], &Device::flex());
    for method in &code.methods {
        let all = method.arguments.iter().fold(Values::new(), |values, argument| values.with(&argument.name, one()));
        let parts = method
            .arguments
            .iter()
            .fold(Values::new(), |values, argument| values.with(&format!("{}.0", argument.name), one()));
        for inputs in [Values::new(), all, parts] {
            // A wrong input is an error with a message.
            let shown = code.check(&method.name, &inputs).map_err(|error| error.to_string());
            assert!(shown.is_ok() || shown.is_err_and(|text| !text.is_empty()), "an empty error message");
        }
    }
    Ok(())
}

/// Reads the signature of the module in an arena. Returns `None` if the arena does not contain a
/// module.
pub(super) fn code_of(arena: &Arena) -> Option<Result<ModuleSignature, ScriptError>> {
    field(arena, CODE).map(|code| ModuleSignature::read(&code))
}

fn field(arena: &Arena, name: &str) -> Option<bytes::Bytes> {
    let entry = arena.manifest().copies.iter().find(|entry| entry.path == name)?;
    Some(arena.slice(entry.blob))
}

#[cfg(feature = "torchscript")]
use self::split::split;

#[cfg(not(feature = "torchscript"))]
fn split(_: &Path, _: &mut dyn FnMut(Progress)) -> Result<Arena, ScriptError> {
    Err(ScriptError::NotCompiled)
}

/// Loads a module.
///
/// # Errors
/// As [`TorchScript::load`].
#[cfg(feature = "torchscript")]
pub(super) fn load(
    code: Arc<ModuleSignature>,
    arena: &Arena,
    device: &Device,
    name: &str,
) -> Result<Executable, ReplayError> {
    let (run, copied) = run::load(code, arena, device, name)?;
    // LibTorch reads inputs from host memory, and returns outputs there.
    Ok(Executable::new(run, Device::flex(), copied))
}

/// As above, in a build without LibTorch.
///
/// # Errors
/// Always.
#[cfg(not(feature = "torchscript"))]
pub(super) fn load(_: Arc<ModuleSignature>, _: &Arena, _: &Device, _: &str) -> Result<Executable, ReplayError> {
    Err(ScriptError::NotCompiled.into())
}
