//! TorchScript: modules that Python's torch has traced or scripted, on shared weights.
//!
//! A module is split once: what nobody writes to goes into an arena, and what is left, its *skeleton*, is a file of a few kilobytes
//! that every worker loads. Wrappers, files and engines are those of graphs.
//!
//! | file | what |
//! | --- | --- |
//! | `code` | what a module says of itself, which needs no LibTorch |
//! | `split` | module → arena |
//! | `run` | arena → module, and its calls |

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

/// The fields of an arena that hold what is known of the module, and its skeleton.
const CODE: &str = "torchscript";
#[cfg_attr(not(feature = "torchscript"), allow(dead_code, reason = "only LibTorch reads it"))]
const SKELETON: &str = "torchscript.skeleton";
/// The method that is meant if none is named.
pub(super) const FORWARD: &str = "forward";

/// A TorchScript module with its weights, which lie in an arena. What LibTorch runs, and what needs the feature `torchscript`.
///
/// Parameters are shared, and buffers too that no method writes to; each worker has the others for itself, as it has the module's
/// attributes. So calls of a module that remembers something belong to one actor.
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
/// Inputs have the names of the arguments: [`methods`](Self::methods) tells them. A number is a tensor of one element, a list or a tuple
/// `state` is `state.0`, `state.1`, a dictionary `state.key`, and what is optional may be left out.
/// The output is `output`; a tuple or a list gives `output.0`, `output.1`, and a dictionary or a named tuple its own names. What has no
/// dimension gets one.
#[derive(Clone)]
pub struct TorchScript {
    code: Arc<ModuleSignature>,
    arena: Arena,
}

impl TorchScript {
    /// Opens a module: what `torch.jit.save` has written, or [`save`](Self::save).
    ///
    /// # Errors
    /// If the file is no module; if a method writes into a parameter, which shared memory does not allow; or if the program was built
    /// without the feature `torchscript`, which a saved arena can do without.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ScriptError> {
        Self::open_with_progress(path, |_| ())
    }

    /// Opens a module as [`open`](Self::open) does, and reports its progress in bytes.
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

    /// Whether a file is one of `torch.jit.save`: a zip archive that has code. A state dict, which `torch.save` writes, is an
    /// archive without: [`Checkpoint::open`](crate::Checkpoint::open) reads it.
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

    /// What a file is that is not a module.
    fn instead(path: &Path) -> String {
        match kind::kind(path) {
            Ok(Some(ArchiveKind::StateDict { .. })) => {
                "it is a state dict, weights without code, which `Checkpoint::open` and `rzc pack` take".to_owned()
            }
            Ok(Some(ArchiveKind::Other(found))) => format!("it is {found}"),
            _ => "it is not a zip file".to_owned(),
        }
    }

    /// The module in an arena.
    ///
    /// # Errors
    /// If the arena holds none.
    pub fn from_arena(arena: &Arena) -> Result<Self, ScriptError> {
        let code = match arena.pipeline() == super::graph::code::PIPELINE {
            true => field(arena, CODE).ok_or_else(|| ScriptError::NoScript { found: "a traced graph".to_owned() })?,
            false => return Err(ScriptError::NoScript { found: arena.pipeline().to_owned() }),
        };
        Ok(Self { code: Arc::new(ModuleSignature::read(&code)?), arena: arena.clone() })
    }

    /// What a saved module can do; nothing if the file holds none. Reads no weights, and needs no LibTorch.
    ///
    /// # Errors
    /// If the file is corrupted.
    pub fn methods_of(file: &ArenaFile) -> Result<Option<Vec<ScriptMethod>>, ScriptError> {
        let code = match file.pipeline() == super::graph::code::PIPELINE {
            true => file.copied_field(CODE)?,
            false => None,
        };
        code.map(|code| Ok(ModuleSignature::read(&code)?.methods)).transpose()
    }

    /// Writes the module and its weights to one file, `model.rzg` say, which opens sooner than TorchScript's own and is checked.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ArenaError> {
        self.arena.save(path)
    }

    /// Loads the module in this process: on `"cpu"`, or on a GPU, `"libtorch:cuda:0"`. Inputs and outputs are in host memory.
    ///
    /// # Errors
    /// If the device is not there or not LibTorch's, or if the program was built without the feature `torchscript`.
    pub fn load(&self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Executable, ReplayError> {
        let spec = DeviceSpec::of(device)?;
        load(Arc::clone(&self.code), &self.arena, &device::device(spec)?, &spec.to_string())
    }

    /// The name of the file that it was opened from.
    pub fn origin(&self) -> &str {
        &self.code.origin
    }

    /// What it can do. [`JitActors::run`](super::wrapper::JitActors::run) calls `forward`, [`JitActors::call`](super::wrapper::JitActors::call) any.
    pub fn methods(&self) -> &[ScriptMethod] {
        &self.code.methods
    }

    /// What each worker has for itself: buffers and attributes that a method writes to, and what cannot be shared.
    pub fn copied(&self) -> Vec<CopiedTensor> {
        self.code.own.iter().map(|(path, bytes)| CopiedTensor { path: path.clone(), bytes: *bytes }).collect()
    }

    /// The shared weights, and the module without them.
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

/// Reads bytes as the table of methods of a module, and checks calls of each method: for the fuzz target `module`.
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
            // A wrong input is an error that can be shown.
            let shown = code.check(&method.name, &inputs).map_err(|error| error.to_string());
            assert!(shown.is_ok() || shown.is_err_and(|text| !text.is_empty()), "an error without words");
        }
    }
    Ok(())
}

/// What is known of the module in an arena of graphs, if it holds one.
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

/// Loads a module, and says what is not borrowed.
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
    // LibTorch takes inputs from host memory, and returns outputs there.
    Ok(Executable::new(run, Device::flex(), copied))
}

/// As above: there is no LibTorch.
///
/// # Errors
/// Always.
#[cfg(not(feature = "torchscript"))]
pub(super) fn load(_: Arc<ModuleSignature>, _: &Arena, _: &Device, _: &str) -> Result<Executable, ReplayError> {
    Err(ScriptError::NotCompiled.into())
}
