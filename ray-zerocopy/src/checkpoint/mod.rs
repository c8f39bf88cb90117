//! Checkpoints: weights in files that other programs wrote.
//!
//! Knows files and names; knows nothing of pipelines. [`share_from`](crate::share_from) is where the two meet.
//!
//! | file | what |
//! | --- | --- |
//! | `open`, `options`, `folder` | which files a path stands for: one file, a folder, the index of a sharded checkpoint |
//! | `safetensors`, `burnpack`, `pytorch/` | what a file of that format says it holds, checked |
//! | `foreign` | files of other formats, and downloads that were cut, by name |
//! | `entry` | a tensor: its shape, and the places of its elements |
//! | `names` | renaming tensors as a pipeline names them |
//! | `edit` | tensors that are tied, split, fused and transposed |
//! | `source`, `gather`, `transpose` | the bytes of a tensor, gathered, transposed or cast if they have to be |
//! | `pack` | all tensors in one file, aligned and with checksums |

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
use std::sync::{Arc, Mutex};

use burn::tensor::DType;

use self::entry::Entry;
pub use self::options::CheckpointOptions;
use self::source::{Change, FromFile, Scratch};
use crate::error::checkpoint::CheckpointError;

use crate::arena::io::Progress;
use crate::arena::placement::Placement;
use crate::arena::region::Stamp;
use crate::error::arena::ArenaError;
use crate::tensor::source::BlobSource;

/// A file of weights, or several.
#[derive(Debug)]
pub(crate) struct WeightFile {
    pub fd: OwnedFd,
    pub stamp: Stamp,
    pub format: CheckpointFormat,
}

/// The format of a file of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointFormat {
    /// Hugging Face's: no checksums, and an alignment of 8 bytes.
    Safetensors,
    /// What PyTorch's `torch.save` has written: no checksums, and an alignment of 64 bytes since PyTorch 1.6.
    PyTorch,
    /// burn's: no checksums, aligned to 256 bytes.
    Burnpack,
    /// A burnpack file with this crate's manifest, which has checksums: a saved arena, or what [`Checkpoint::pack`]
    /// writes.
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

/// Weights in files that another program wrote: `.safetensors`, PyTorch's `.pt`, `.pth` and `.bin`, both also sharded,
/// or burn's `.bpk`.
///
/// [`share_from`](crate::share_from) puts them into a pipeline's arena, without ever holding the model in this
/// process's memory.
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
/// // Written by PyTorch, which has `classifier` where the pipeline has `head`.
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
    /// Its name in the file.
    pub name: &'a str,
    /// The name that it goes by, which [`rename`](Checkpoint::rename) changes.
    pub renamed: &'a str,
    /// The type of its elements, if burn has it; else the file's name of it.
    pub dtype: Result<DType, &'a str>,
    /// Its shape in the file.
    pub shape: &'a [usize],
    /// Its size in bytes.
    pub bytes: u64,
    /// The file that it is in.
    pub file: &'a Path,
    /// Where it starts in the file.
    pub offset: u64,
    /// Whether its bytes follow each other in the file, from `offset` on. Those of a transposed view, and of what was
    /// [fused](Checkpoint::fuse), do not: [`Checkpoint::stream`] gathers them.
    pub is_contiguous: bool,
}

impl CheckpointTensor<'_> {
    /// The largest power of two that divides its place in the file, up to a page: what it is aligned to if it is
    /// borrowed there.
    pub fn alignment(&self) -> u64 {
        1 << self.offset.trailing_zeros().min(12)
    }
}

impl Checkpoint {
    /// Opens a checkpoint: a `.safetensors` or `.bpk` file, one that `torch.save` has written, the index of a sharded
    /// one, or a folder that has one of them. Reads what the files say of themselves, not the weights.
    ///
    /// The pickle in a file of `torch.save` is read as data, and nothing of it is run. Its state dict may be at the
    /// top, or under a key; if there are several, [`options`](Self::options) choose one. Such a file was written by
    /// [`from_pytorch`](Self::from_pytorch), which need not be said.
    ///
    /// # Errors
    /// If a file is missing, is of none of these formats, or contradicts itself; if there is more than one answer,
    /// names all.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::options().open(path)
    }

    /// Options for [`open`](Self::open): the key of a state dict, and the variant of the weights in a folder.
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

    /// The checkpoint was written by PyTorch, as most `.safetensors` are: weights of `Linear` are transposed, and
    /// norms have `weight` and `bias` where burn has `gamma` and `beta`.
    ///
    /// A `Linear` whose config has `LinearLayout::Col` stores its weight as PyTorch does: it needs no change, and can
    /// be borrowed from the file.
    #[must_use]
    pub fn from_pytorch(mut self) -> Self {
        self.pytorch = true;
        self
    }

    /// Renames tensors to the paths that the pipeline has for them: wherever the regular expression `from` matches,
    /// `to` takes its place. `$1` is the first group, and `${1}` if a letter, a digit or `_` follows. Several renames
    /// apply one after the other.
    ///
    /// # Errors
    /// If `from` is not a regular expression, `to` names a group that it does not have, or two tensors get the same
    /// name.
    pub fn rename(mut self, from: &str, to: &str) -> Result<Self, CheckpointError> {
        names::rename(&mut self.entries, from, to)?;
        Ok(self)
    }

    /// Casts every floating point tensor to another type, which makes a copy of those that have it not. What the file
    /// has is kept, if nothing is said: half precision is half the memory.
    #[must_use]
    pub fn cast_floats(mut self, dtype: DType) -> Self {
        self.floats = Some(dtype);
        self
    }

    /// Lets parameters that the checkpoint does not have keep the value that the pipeline has for them. Otherwise they
    /// are an error.
    #[must_use]
    pub fn allow_partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// Where the weights go: into sealed memory, if nothing is said.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Calls `progress` while this checkpoint is shared or packed.
    #[must_use]
    pub fn progress(mut self, progress: impl FnMut(Progress) + Send + 'static) -> Self {
        self.tell = Some(Arc::new(Mutex::new(progress)));
        self
    }

    /// The tensors in the files, in the order of their places.
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

    /// Hands out the bytes of a tensor, little-endian and in row-major order, some at a time. `renamed` is the name
    /// that it goes by. What lies apart in the files is gathered.
    ///
    /// # Errors
    /// If there is no such tensor, it cannot be read, or has a type that burn does not have; and those of `sink`.
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

    /// The files, open once more, for sources that outlive this.
    pub(crate) fn fds(&self) -> Result<Vec<Arc<OwnedFd>>, ArenaError> {
        let fd = |file: &WeightFile| {
            let fd = file.fd.try_clone().map_err(|error| ArenaError::file(&file.stamp.path, error))?;
            Ok(Arc::new(fd))
        };
        self.files.iter().map(fd).collect()
    }

    /// The format of the files.
    pub fn format(&self) -> CheckpointFormat {
        // There is at least one, and the shards of one checkpoint are alike.
        self.files.first().map_or(CheckpointFormat::Safetensors, |file| file.format)
    }

    /// Makes sure that the files are as they were when the checkpoint was opened.
    pub(crate) fn unchanged(&self) -> Result<(), ArenaError> {
        let changed = |file: &&WeightFile| Stamp::of(&file.stamp.path, &file.fd).is_ok_and(|now| now != file.stamp);
        match self.files.iter().find(changed) {
            Some(file) => Err(ArenaError::FileChanged { path: file.stamp.path.display().to_string() }),
            None => Ok(()),
        }
    }

    /// The files.
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
