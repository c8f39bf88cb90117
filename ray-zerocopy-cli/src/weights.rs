//! Reads any file of weights as a list of tensors: a saved arena, a packed checkpoint, or a
//! checkpoint of another program.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use burn::tensor::DType;
use ray_zerocopy::Checkpoint;
use ray_zerocopy::arena::{ArenaFile, ArenaId, Location};
use ray_zerocopy::checkpoint::{CheckpointFormat, CheckpointOptions};
use ray_zerocopy::error::ArenaError;
use ray_zerocopy::jit::{GraphError, GraphInfo, ScriptMethod, TorchScript};

/// The tensors of one or several files.
pub(crate) struct Weights {
    pub format: Format,
    /// The files that contain the weights.
    pub files: Vec<PathBuf>,
    /// The size of the files.
    pub bytes: u64,
    pub tensors: Vec<Tensor>,
    pub copied: Vec<CopiedField>,
    /// The arena, with its further metadata.
    pub arena: Option<ArenaFile>,
    /// The graph, if the arena contains one.
    pub graph: Option<GraphInfo>,
    /// The methods, if it is a TorchScript module.
    pub methods: Option<Vec<ScriptMethod>>,
}

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The arena of a pipeline.
    Arena,
    /// An arena without a pipeline, as written by `rzc pack`.
    Packed,
    Burnpack,
    Safetensors,
    PyTorch,
    TorchScript,
}

impl Format {
    /// Returns the name that is used in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arena => "arena",
            Self::Packed => "packed",
            Self::Burnpack => "burnpack",
            Self::Safetensors => "safetensors",
            Self::PyTorch => "pytorch",
            Self::TorchScript => "torchscript",
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Arena => "an arena",
            Self::Packed => "a packed checkpoint",
            Self::Burnpack => "a burnpack file",
            Self::Safetensors => "a safetensors checkpoint",
            Self::PyTorch => "a PyTorch checkpoint",
            Self::TorchScript => "a TorchScript module",
        }
    }
}

pub(crate) struct Tensor {
    pub path: String,
    /// `None` if burn does not support it.
    pub dtype: Option<DType>,
    /// The name of the type: that in the file if burn does not support it.
    pub dtype_name: String,
    pub shape: Vec<usize>,
    pub bytes: u64,
    pub file: PathBuf,
    pub offset: u64,
    pub checksum: Option<String>,
    /// The checkpoint that reads a tensor whose bytes are not contiguous in the file.
    pub gathered: Option<Arc<Checkpoint>>,
    /// The first tensor with the same storage, if this is not the first.
    pub same_as: Option<usize>,
    /// The arena that it is borrowed from, if it is not stored in the file itself.
    pub base: Option<ArenaId>,
    /// Whether its bytes can be read. Not for the memory of a variant in use, whose base is elsewhere.
    pub is_here: bool,
}

impl Tensor {
    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().map(|&dim| dim as u64).product()
    }

    /// Returns the largest power of two that divides the offset, up to a page.
    pub(crate) fn alignment(&self) -> u64 {
        1 << self.offset.trailing_zeros().min(12)
    }
}

pub(crate) struct CopiedField {
    pub path: String,
    pub bytes: u64,
    pub checksum: Option<String>,
}

impl Weights {
    /// Reads the metadata of a file, not the weights. `bases` are the files of a variant's bases.
    pub(crate) fn open(path: &Path, options: &CheckpointOptions, bases: &[PathBuf]) -> Result<Self> {
        if !readable(path)?.is_dir() {
            if TorchScript::is_module(path)? {
                return Self::module(path);
            }
            match ArenaFile::open(path) {
                Ok(arena) => return Self::arena(arena, vec![path.to_owned()]),
                Err(error @ ArenaError::NeedsBase { .. }) => {
                    return Self::arena(variant(path, bases, error)?, vec![path.to_owned()]);
                }
                Err(error @ (ArenaError::BadEntry { .. } | ArenaError::ManifestChecksum { .. })) => {
                    return Err(error).with_context(|| path.display().to_string());
                }
                // Not an arena: the readers of the other formats report what is wrong with it.
                Err(_) => {}
            }
        }
        Self::checkpoint(&Arc::new(options.open(path)?))
    }

    /// Reads a TorchScript module. It is converted to an arena in memory, which reads all of it.
    fn module(path: &Path) -> Result<Self> {
        let script = TorchScript::open(path)?;
        // The arena is opened in memory: the file system may lack the space for a file of its size.
        let memory = script.arena().fd().context("the module's arena has no file descriptor")?;
        let memory = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let opened = Self::arena(ArenaFile::open(memory)?, vec![path.to_owned()])?;
        let bytes = fs::metadata(path).with_context(|| path.display().to_string())?.len();
        Ok(Self { format: Format::TorchScript, bytes, ..opened })
    }

    /// Lists the tensors of a checkpoint under their names after renaming.
    pub(crate) fn checkpoint(checkpoint: &Arc<Checkpoint>) -> Result<Self> {
        let files: Vec<PathBuf> = checkpoint.files().map(Path::to_owned).collect();
        let format = match checkpoint.format() {
            CheckpointFormat::Safetensors => Format::Safetensors,
            CheckpointFormat::PyTorch => Format::PyTorch,
            CheckpointFormat::Burnpack => Format::Burnpack,
            CheckpointFormat::Arena if files.len() == 1 => return Self::arena(ArenaFile::open(&files[0])?, files),
            CheckpointFormat::Arena => Format::Packed,
            _ => bail!("{} has a format that this version of `rzc` does not support", files[0].display()),
        };
        let mut bytes = 0;
        for file in &files {
            bytes += fs::metadata(file).with_context(|| file.display().to_string())?.len();
        }
        let tensors = checkpoint.tensors().map(|tensor| Tensor {
            path: tensor.renamed.to_owned(),
            dtype: tensor.dtype.ok(),
            dtype_name: tensor.dtype.map_or_else(str::to_owned, |dtype| dtype.name().to_owned()),
            shape: tensor.shape.to_vec(),
            bytes: tensor.bytes,
            file: tensor.file.to_owned(),
            offset: tensor.offset,
            checksum: None,
            gathered: (!tensor.is_contiguous).then(|| Arc::clone(checkpoint)),
            same_as: None,
            base: None,
            is_here: true,
        });
        let tensors = mark_shared(tensors.collect());
        Ok(Self { format, files, bytes, tensors, copied: Vec::new(), arena: None, graph: None, methods: None })
    }

    fn arena(arena: ArenaFile, mut files: Vec<PathBuf>) -> Result<Self> {
        let tensors = arena.tensors().zip(arena.checksums()).map(|(tensor, checksum)| {
            // In an open memfd, the sealed part is the file that was opened.
            let (file, offset, is_here) = match tensor.placed {
                Location::File { path, offset } => (path.to_owned(), offset, true),
                _ => (PathBuf::from("the memory of another arena"), 0, false),
            };
            Tensor {
                path: tensor.path.to_owned(),
                dtype: Some(tensor.dtype),
                dtype_name: tensor.dtype.name().to_owned(),
                shape: tensor.shape.to_vec(),
                bytes: tensor.bytes,
                file,
                offset,
                checksum: checksum.map(str::to_owned),
                gathered: None,
                same_as: None,
                base: tensor.base,
                is_here,
            }
        });
        let tensors = mark_shared(tensors.collect());
        let copied = arena.copied_fields().zip(arena.copied_checksums()).map(|((path, bytes), checksum)| CopiedField {
            path: path.to_owned(),
            bytes,
            checksum: checksum.map(str::to_owned),
        });
        let copied = copied.collect();
        files.extend(arena.files().map(Path::to_owned));
        let format = if arena.pipeline().is_empty() { Format::Packed } else { Format::Arena };
        let methods = TorchScript::methods_of(&arena)?;
        let graph = match GraphInfo::of_file(&arena) {
            Ok(graph) => Some(graph),
            Err(GraphError::NoGraph { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { format, files, bytes: arena.size_bytes(), tensors, copied, arena: Some(arena), graph, methods })
    }

    /// Returns the Rust type of the pipeline.
    pub(crate) fn pipeline(&self) -> Option<&str> {
        self.arena.as_ref().map(ArenaFile::pipeline).filter(|pipeline| !pipeline.is_empty())
    }

    /// Returns the total size of all tensors.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Returns the total size of all tensors, with shared storage counted once.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.tensors.iter().filter(|tensor| tensor.same_as.is_none()).map(|tensor| tensor.bytes).sum()
    }

    /// Returns the smallest alignment of the tensors.
    pub(crate) fn alignment(&self) -> Option<u64> {
        self.tensors.iter().filter(|tensor| tensor.bytes > 0).map(Tensor::alignment).min()
    }

    /// Returns totals for each element type: name, number of tensors, elements and bytes, the
    /// largest first.
    pub(crate) fn by_dtype(&self) -> Vec<(String, usize, u64, u64)> {
        let mut totals: Vec<(String, usize, u64, u64)> = Vec::new();
        for tensor in &self.tensors {
            let known = totals.iter().position(|(name, ..)| *name == tensor.dtype_name);
            let at = known.unwrap_or(totals.len());
            if known.is_none() {
                totals.push((tensor.dtype_name.clone(), 0, 0, 0));
            }
            totals[at].1 += 1;
            totals[at].2 += tensor.elements();
            totals[at].3 += tensor.bytes;
        }
        totals.sort_by_key(|(.., bytes)| std::cmp::Reverse(*bytes));
        totals
    }
}

/// Opens a variant with its bases. `error` says what it needs.
fn variant(path: &Path, bases: &[PathBuf], error: ArenaError) -> Result<ArenaFile> {
    let needs = || match &error {
        ArenaError::NeedsBase { variant, base } => format!("{variant} is a variant, and its base is arena {base}"),
        other => other.to_string(),
    };
    let Some(base) = open_bases(bases).with_context(needs)? else { return Err(error.into()) };
    Ok(ArenaFile::open_variant(path, &base)?)
}

/// Opens bases, each of which may be a variant of the preceding one. Returns `None` if there is none.
pub(crate) fn open_bases(bases: &[PathBuf]) -> Result<Option<ArenaFile>> {
    let mut opened = None;
    for base in bases {
        opened = Some(open_arena(base, opened.as_ref())?);
    }
    Ok(opened)
}

/// Opens a saved arena, or a variant of a base.
pub(crate) fn open_arena(path: &Path, base: Option<&ArenaFile>) -> Result<ArenaFile> {
    readable(path)?;
    let opened = match base {
        Some(base) => ArenaFile::open_variant(path, base),
        None => ArenaFile::open(path),
    };
    opened.map_err(|error| match error {
        ArenaError::NotAnArena(_) => {
            anyhow!("{} has no checksums to be compared by; `rzc pack` writes a file that has: {error}", path.display())
        }
        other => other.into(),
    })
}

/// Marks tensors that share their storage with an earlier one.
fn mark_shared(mut tensors: Vec<Tensor>) -> Vec<Tensor> {
    let mut first: HashMap<(PathBuf, u64, u64), usize> = HashMap::new();
    // Empty tensors have no storage, and gathered ones lie in several places.
    let placed = |tensor: &Tensor| tensor.bytes > 0 && tensor.gathered.is_none();
    for (at, tensor) in tensors.iter_mut().enumerate().filter(|(_, tensor)| placed(tensor)) {
        let known = *first.entry((tensor.file.clone(), tensor.offset, tensor.bytes)).or_insert(at);
        tensor.same_as = (known != at).then_some(known);
    }
    tensors
}

/// Checks that a file or folder can be read. Errors of common mistakes include advice.
pub(crate) fn readable(path: &Path) -> Result<fs::Metadata> {
    let shown = path.display();
    let explain = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => {
            anyhow!(
                "`{shown}` does not exist; name a .safetensors, a .pt, a .bpk, an .index.json, or a folder with one of them"
            )
        }
        ErrorKind::PermissionDenied => {
            anyhow!("`{shown}` may not be read by this user; ask its owner for read permission, or run as root")
        }
        _ => anyhow!("`{shown}`: {error}"),
    };
    let metadata = fs::metadata(path).map_err(explain)?;
    if metadata.is_file() {
        File::open(path).map_err(explain)?;
    } else if !metadata.is_dir() {
        bail!("`{shown}` is neither a file nor a folder");
    }
    Ok(metadata)
}
