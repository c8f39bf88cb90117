//! Checkpoints: weights in files that were written by other programs.
//!
//! Depends on files and names of tensors, but not on pipelines. [`share_from`](crate::share_from)
//! connects the two.
//!
//! | file | what |
//! | --- | --- |
//! | `open`, `options`, `folder` | resolves a path to files: a single file, a folder, or the index of a sharded checkpoint |
//! | `safetensors`, `burnpack`, `pytorch/` | validating parsers of the formats |
//! | `foreign` | detects other formats, and truncated downloads |
//! | `entry` | a tensor: its shape, and the locations of its elements |
//! | `names` | renames tensors to the names of a pipeline |
//! | `edit` | ties, splits, fuses and transposes tensors |
//! | `source`, `gather`, `transpose` | the bytes of a tensor, gathered, transposed or cast if needed |
//! | `pack` | writes all tensors into one file, aligned and with checksums |

pub(crate) mod burnpack;
pub(crate) mod edit;
pub(crate) mod entry;
pub(crate) mod folder;
pub(crate) mod foreign;
pub(crate) mod gather;
pub(crate) mod names;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod pack;
pub(crate) mod pytorch;
pub(crate) mod safetensors;
pub(crate) mod source;
pub(crate) mod transpose;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::DType;

use self::entry::Entry;
pub use self::options::CheckpointOptions;
use self::source::{Change, FromFile, Scratch};
use crate::error::checkpoint::CheckpointError;

use crate::arena::io::Progress;
use crate::arena::placement::Placement;
use crate::arena::region::Stamp;
use crate::error::arena::ArenaError;
use crate::os::sync::Mutex;
use crate::tensor::source::BlobSource;

/// An open file of weights.
#[derive(Debug)]
pub(crate) struct WeightFile {
    pub fd: OwnedFd,
    pub stamp: Stamp,
    pub format: CheckpointFormat,
}

/// Format of a file of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointFormat {
    /// Hugging Face's format. No checksums, and an alignment of 8 bytes.
    Safetensors,
    /// Written by PyTorch's `torch.save`. No checksums, and an alignment of 64 bytes since PyTorch
    /// 1.6.
    PyTorch,
    /// burn's format. No checksums, and an alignment of 256 bytes.
    Burnpack,
    /// A burnpack file with this crate's manifest, which has checksums: a saved arena, or a file
    /// written by [`Checkpoint::pack`].
    Arena,
}

impl fmt::Display for CheckpointFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::PyTorch => "pytorch",
            Self::Burnpack => "burnpack",
            Self::Arena => "arena",
        })
    }
}

/// Weights in files that were written by another program: `.safetensors`, PyTorch's `.pt`, `.pth`
/// and `.bin`, both also sharded, or burn's `.bpk`.
///
/// [`share_from`](crate::share_from) copies them into a pipeline's arena, without ever holding the
/// model in this process's memory.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, DType}};
/// # use ray_zerocopy::{Checkpoint, Pipeline, load, share_from};
/// #[derive(Pipeline)]
/// #[pipeline(init = Model::new)]
/// struct Model { head: Linear }
///
/// impl Model {
///     fn new(device: &Device) -> Self { Self { head: LinearConfig::new(2, 3).init(device) } }
/// }
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.safetensors");
/// # let numbers: Vec<u8> = (0..6).flat_map(|n| (n as f32).to_le_bytes()).collect();
/// # let view = |shape: &[usize], bytes| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap();
/// # safetensors::serialize_to_file([("classifier.weight", view(&[3, 2], &numbers)), ("classifier.bias", view(&[3], &numbers[..12]))], None, &path).unwrap();
/// // Written by PyTorch, with `classifier` in place of the pipeline's `head`.
/// let checkpoint = Checkpoint::open(&path)?.from_pytorch().rename("^classifier", "head")?;
/// let arena = share_from(&Model::new(&Device::flex()), &checkpoint)?;
///
/// let model = load::<Model>(&arena, &Device::flex())?;
/// assert_eq!(model.head.weight.val().to_data().to_vec::<f32>().unwrap(), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
pub struct Checkpoint {
    pub(crate) files: Vec<WeightFile>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) pytorch: bool,
    pub(crate) floats: Option<DType>,
    pub(crate) partial: bool,
    pub(crate) placement: Placement,
    pub(crate) tell: Option<Tell>,
}

pub(crate) type Tell = Arc<Mutex<dyn FnMut(Progress) + Send>>;

/// A tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CheckpointTensor<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Current name, which [`rename`](Checkpoint::rename) changes.
    pub renamed: &'a str,
    /// Element type, or the file's name for a type that burn does not have.
    pub dtype: Result<DType, &'a str>,
    /// Shape in the file.
    pub shape: &'a [usize],
    /// Size in bytes.
    pub bytes: u64,
    /// The file that contains it.
    pub file: &'a Path,
    /// Offset in the file.
    pub offset: u64,
    /// Whether its bytes are contiguous in the file from `offset` on. Those of a transposed view,
    /// or of a [fused](Checkpoint::fuse) tensor, are not: [`Checkpoint::stream`] gathers them.
    pub is_contiguous: bool,
}

impl CheckpointTensor<'_> {
    /// Alignment of the tensor if it is borrowed from the file: the largest power of two that
    /// divides its offset, up to the size of a page.
    pub fn alignment(&self) -> u64 {
        1 << self.offset.trailing_zeros().min(12)
    }
}

impl Checkpoint {
    /// Opens a checkpoint: a `.safetensors` or `.bpk` file, a file written by `torch.save`, the
    /// index of a sharded checkpoint, or a folder that contains one of these. Reads the headers of
    /// the files, not the weights.
    ///
    /// The pickle in a `torch.save` file is read as data; no code in it is run. The state dict may
    /// be at the top level, or under a key; if there are several, [`options`](Self::options) select
    /// one. [`from_pytorch`](Self::from_pytorch) is implied for such a file.
    ///
    /// # Errors
    /// If a file is missing, has none of these formats, or is inconsistent. If there are several
    /// candidates, the error lists all of them.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::options().open(path)
    }

    /// Options for [`open`](Self::open): the key of a state dict, and the variant of the weights in
    /// a folder.
    pub fn options() -> CheckpointOptions {
        CheckpointOptions::default()
    }

    fn with(path: &Path, options: &CheckpointOptions) -> Result<Self, CheckpointError> {
        let (files, entries) = open::open(path, options)?;
        Ok(Self {
            pytorch: files.first().is_some_and(|file| file.format == CheckpointFormat::PyTorch),
            files,
            entries,
            floats: None,
            partial: false,
            placement: Placement::sealed(),
            tell: None,
        })
    }

    /// Declares that the checkpoint was written by PyTorch, as most `.safetensors` files are:
    /// weights of `Linear` are transposed, and the `weight` and `bias` of norms map to burn's
    /// `gamma` and `beta`.
    ///
    /// A `Linear` whose config has `LinearLayout::Col` stores its weight as PyTorch does: it needs
    /// no conversion, and can be borrowed from the file.
    #[must_use]
    pub fn from_pytorch(mut self) -> Self {
        self.pytorch = true;
        self
    }

    /// Renames tensors to the paths of the pipeline: each match of the regular expression `from` is
    /// replaced by `to`. `$1` is the first group; write `${1}` if a letter, a digit or `_` follows.
    /// Several renames apply in order.
    ///
    /// # Errors
    /// If `from` is not a regular expression, if `to` refers to a group that it does not have, or
    /// if two tensors get the same name.
    pub fn rename(mut self, from: &str, to: &str) -> Result<Self, CheckpointError> {
        names::rename(&mut self.entries, from, to)?;
        Ok(self)
    }

    /// Casts floating-point tensors to `dtype`. Tensors of another dtype are copied. By default
    /// dtypes are kept: half precision needs half the memory.
    #[must_use]
    pub fn cast_floats(mut self, dtype: DType) -> Self {
        self.floats = Some(dtype);
        self
    }

    /// Allows parameters that are missing in the checkpoint; they keep the value that they have in
    /// the pipeline. By default a missing parameter is an error.
    #[must_use]
    pub fn allow_partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// Sets where the weights are placed. By default, in sealed memory.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Sets a progress callback for sharing and packing this checkpoint.
    #[must_use]
    pub fn progress(mut self, progress: impl FnMut(Progress) + Send + 'static) -> Self {
        self.tell = Some(Arc::new(Mutex::new(progress)));
        self
    }

    /// The tensors in the order of their locations in the files.
    pub fn tensors(&self) -> impl Iterator<Item = CheckpointTensor<'_>> {
        self.entries.iter().map(|entry| CheckpointTensor {
            name: &entry.name,
            renamed: &entry.renamed,
            dtype: entry.dtype.as_ref().map(|dtype| *dtype).map_err(String::as_str),
            shape: &entry.shape,
            bytes: entry.len,
            file: &self.files[entry.file].stamp.path,
            offset: entry.offset,
            is_contiguous: entry.is_contiguous(),
        })
    }

    /// Passes the bytes of a tensor to `sink`, little-endian and in row-major order, in chunks.
    /// `renamed` is its current name. Elements that are not contiguous in the files are gathered.
    ///
    /// # Errors
    /// If there is no such tensor, if it cannot be read or has a type that burn does not have, and
    /// errors of `sink`.
    pub fn stream(
        &self,
        renamed: &str,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), CheckpointError> {
        let Some(entry) = self.entries.iter().find(|entry| entry.renamed == renamed) else {
            let reason = "the checkpoint does not have it".to_owned();
            return Err(CheckpointError::Edit { name: renamed.to_owned(), what: "read".to_owned(), reason });
        };
        let path = || self.files[entry.file].stamp.path.display().to_string();
        let dtype = entry.dtype.clone().map_err(|dtype| CheckpointError::Element {
            path: path(),
            name: entry.name.clone(),
            dtype,
        })?;
        let change = Change { transpose: false, cast: None };
        let source = FromFile::new(entry, &self.fds()?, dtype, change, &Scratch::default());
        source.stream(sink).map_err(|reason| CheckpointError::File { path: path(), reason })
    }

    /// Duplicates of the file descriptors, for sources that outlive the checkpoint.
    pub(crate) fn fds(&self) -> Result<Vec<Arc<OwnedFd>>, ArenaError> {
        let fd = |file: &WeightFile| {
            let fd = file.fd.try_clone().map_err(|error| ArenaError::file(&file.stamp.path, error))?;
            Ok(Arc::new(fd))
        };
        self.files.iter().map(fd).collect()
    }

    /// Format of the files.
    pub fn format(&self) -> CheckpointFormat {
        // There is at least one file, and all shards of a checkpoint have the same format.
        self.files.first().map_or(CheckpointFormat::Safetensors, |file| file.format)
    }

    /// Checks that the files have not changed since the checkpoint was opened.
    pub(crate) fn unchanged(&self) -> Result<(), ArenaError> {
        let changed = |file: &&WeightFile| Stamp::of(&file.stamp.path, &file.fd).is_ok_and(|now| now != file.stamp);
        match self.files.iter().find(changed) {
            Some(file) => Err(ArenaError::FileChanged { path: file.stamp.path.display().to_string() }),
            None => Ok(()),
        }
    }

    /// Paths of the files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.stamp.path.as_path())
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Checkpoint");
        text.field("files", &self.files().collect::<Vec<_>>()).field("tensors", &self.entries.len());
        text.finish_non_exhaustive()
    }
}
