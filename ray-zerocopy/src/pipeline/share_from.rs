//! Sharing a pipeline whose weights are in a file: straight into the arena, without a model in this
//! process's heap.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::DType;

use super::collect::{Collector, Depth, Outline, TensorItem, What};
use super::rebuild::Root;
use super::share::{rebuilt, structure};
use crate::arena::arena::Arena;
use crate::arena::builder::ArenaBuilder;
use crate::arena::manifest::{FileBlob, TensorEntry};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::edit::tied_to;
use crate::checkpoint::entry::Entry;
use crate::checkpoint::names::{Name, similar};
use crate::checkpoint::pack::told;
use crate::checkpoint::source::{Change, FromFile, Scratch};
use crate::error::arena::ArenaError;
use crate::error::share::ShareError;
use crate::os::sys::mapping::FileUnchanged;
use crate::tensor::kind::TensorKind;

/// Shares a pipeline whose weights come from a [`Checkpoint`]: from the file straight into the
/// arena.
///
/// Pass the pipeline as its config makes it. Its parameters are not initialised and need no memory.
/// Values that are not parameters (constants, copied fields) come from the pipeline. Tensors of the
/// checkpoint that the pipeline does not have are left out. [`Arena::tensors`] tells where each of
/// the others lies.
///
/// # Errors
/// As [`share`](crate::share()), and if the checkpoint does not have a parameter, or has it in
/// another shape or type.
///
/// There is an example at [`Checkpoint`].
pub fn share_from<P: Root>(pipeline: &P, checkpoint: &Checkpoint) -> Result<Arena, ShareError> {
    share_from_into(pipeline, checkpoint, ArenaBuilder::new(&crate::error::type_name::<P>()))
}

/// Shares the weights of a checkpoint with a builder.
pub(super) fn share_from_into<P: Root>(
    pipeline: &P,
    checkpoint: &Checkpoint,
    builder: ArenaBuilder,
) -> Result<Arena, ShareError> {
    let items = Collector::run(pipeline, Depth::Outline)?;
    rebuilt::<P>(&items)?;

    let mut sharing = Sharing::new(checkpoint, builder)?;
    for item in items {
        match item.what {
            What::Tensor(tensor) => sharing.tensor(item.path, tensor)?,
            other => structure(&mut sharing.builder, item.path, other),
        }
    }
    sharing.finish()
}

struct Sharing<'a> {
    checkpoint: &'a Checkpoint,
    by_name: HashMap<&'a str, &'a Entry>,
    builder: ArenaBuilder,
    fds: Vec<Arc<std::os::fd::OwnedFd>>,
    /// The arena's number of each checkpoint file that a tensor is borrowed from.
    borrowed: HashMap<usize, u32>,
    missing: Vec<String>,
    /// A tensor that the first missing one may be tied to.
    tied: Option<String>,
    scratch: Scratch,
}

impl<'a> Sharing<'a> {
    fn new(checkpoint: &'a Checkpoint, builder: ArenaBuilder) -> Result<Self, ShareError> {
        Ok(Self {
            checkpoint,
            by_name: checkpoint.entries.iter().map(|entry| (entry.renamed.as_str(), entry)).collect(),
            builder,
            fds: checkpoint.fds()?,
            borrowed: HashMap::new(),
            missing: Vec::new(),
            tied: None,
            scratch: Arc::default(),
        })
    }

    fn tensor(&mut self, path: String, tensor: TensorItem) -> Result<(), ShareError> {
        let Some(outline) = tensor.outline else {
            // A constant of the pipeline, which checkpoints do not replace.
            return self.own(path, tensor.kind, tensor.param, tensor.stored);
        };
        let name = Name::of(&path, &outline.module);
        let pytorch = name.pytorch.as_deref().filter(|_| self.checkpoint.pytorch);
        let found = self.by_name.get(name.path.as_str()).or_else(|| self.by_name.get(pytorch?)).copied();
        match found {
            Some(entry) => self.weight(path, tensor.kind, tensor.param, &tensor.shape, &outline, entry),
            None if self.checkpoint.partial => {
                let stored = (outline.initialise)();
                self.own(path, tensor.kind, tensor.param, Some(stored))
            }
            None => {
                if self.missing.is_empty() {
                    let shape = outline.stored_shape(&tensor.shape);
                    self.tied = tied_to(&self.checkpoint.entries, &shape).map(str::to_owned);
                }
                self.missing.push(path);
                Ok(())
            }
        }
    }

    /// Adds a tensor from the pipeline itself.
    fn own(
        &mut self,
        path: String,
        kind: TensorKind,
        param: Option<u64>,
        stored: Option<super::collect::StoredTensor>,
    ) -> Result<(), ShareError> {
        let Some(stored) = stored else { return Ok(()) };
        let entry = TensorEntry { path, blob: 0, kind, dtype: stored.dtype, shape: stored.shape, param, why: None };
        Ok(self.builder.tensor(entry, stored.source)?)
    }

    fn weight(
        &mut self,
        path: String,
        kind: TensorKind,
        param: Option<u64>,
        shape: &[usize],
        outline: &Outline,
        found: &Entry,
    ) -> Result<(), ShareError> {
        let file = &self.checkpoint.files[found.file];
        let unfit = |reason: String| ShareError::ShapeMismatch {
            path: path.clone(),
            name: found.name.clone(),
            file: file.stamp.path.display().to_string(),
            reason,
        };
        let dtype = found.dtype.clone().map_err(|name| unfit(format!("burn has no element type {name}")))?;
        let holds = TensorKind::of(dtype);
        if holds != kind {
            return Err(unfit(format!("a tensor of kind {kind} is expected, and it holds {dtype:?}")));
        }
        let stored = outline.stored_shape(shape);
        let linear =
            outline.module == "Struct:Linear" && stored.len() == 2 && path.rsplit('.').next() == Some("weight");
        // PyTorch stores `[out, in]`, and so does burn in a column layout.
        let transpose = self.checkpoint.pytorch && linear && !outline.transposed;
        // A tensor of rank 0 has one element, and so fits a parameter of shape `[1]`.
        let scalar = found.shape.is_empty() && stored == [1];
        let fits = scalar || if transpose { found.shape.iter().rev().eq(&stored) } else { found.shape == stored };
        if !fits {
            let mut expected = stored;
            if transpose {
                expected.reverse();
            }
            return Err(unfit(format!(
                "shape {expected:?} is expected, and it has {:?}{}",
                found.shape,
                self.hint(linear, &found.shape, &expected)
            )));
        }
        let cast = self.checkpoint.floats.filter(|&wanted| dtype.is_float() && dtype != wanted);
        // If the file's tensor is a transposed view, its transpose is the stored tensor as it is.
        let turned = found.transposed().filter(|turned| transpose && turned.is_contiguous());
        let (found, transpose) = turned.map_or((Cow::Borrowed(found), transpose), |turned| (Cow::Owned(turned), false));
        let change = Change { transpose, cast };
        let mut entry = TensorEntry {
            path: path.clone(),
            blob: 0,
            kind,
            dtype: cast.unwrap_or(dtype),
            shape: stored,
            param: found.param.or(param),
            why: None,
        };
        let source = Arc::new(FromFile::new(&found, &self.fds, dtype, change.clone(), &self.scratch));
        if let Some(promise) = self.checkpoint.placement.in_file {
            if self.builder.tensor_of_base(&entry, &*source)? {
                return Ok(());
            }
            match self.why_not(&found, dtype, &change, &file.stamp.path) {
                None => {
                    let file = self.file(found.file, promise)?;
                    self.builder.in_file(entry, FileBlob { file, offset: found.offset, len: found.len });
                    return Ok(());
                }
                Some(why) => entry.why = Some(why),
            }
        }
        Ok(self.builder.tensor(entry, source)?)
    }

    /// Suggests an option if the shape is the transpose of the expected one.
    fn hint(&self, linear: bool, found: &[usize], expected: &[usize]) -> &'static str {
        if !(linear && found.iter().rev().eq(expected)) {
            ""
        } else if self.checkpoint.pytorch {
            "; was it written by burn, not by PyTorch? then leave out `.from_pytorch()`"
        } else {
            "; was it written by PyTorch? then add `.from_pytorch()`"
        }
    }

    /// Returns why a tensor cannot be borrowed from its file, or `None` if it can.
    fn why_not(&self, found: &Entry, dtype: DType, change: &Change, path: &Path) -> Option<String> {
        let alignment = (self.checkpoint.placement.alignment as u64).max(dtype.size() as u64);
        if change.transpose {
            Some("PyTorch stores it transposed; with `LinearLayout::Col` in the config it could be borrowed".to_owned())
        } else if let Some(cast) = change.cast {
            Some(format!("it is cast from {dtype:?} to {cast:?}"))
        } else if !found.is_contiguous() {
            let parts = found.parts.len();
            Some(match parts {
                1 => "its elements are not contiguous in the file: it is a view of another tensor".to_owned(),
                _ => format!("it is assembled from {parts} parts of its files"),
            })
        } else if found.len > 0 && !found.offset.is_multiple_of(alignment) {
            let aligned = 1_u64 << found.offset.trailing_zeros();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            Some(format!(
                "it starts at byte {} of {file}, aligned to {aligned} bytes, and {alignment} are required",
                found.offset
            ))
        } else {
            None
        }
    }

    /// Adds a file of the checkpoint to the arena, if it is new, and returns the arena's number of
    /// it.
    fn file(&mut self, number: usize, promise: FileUnchanged) -> Result<u32, ArenaError> {
        if let Some(&known) = self.borrowed.get(&number) {
            return Ok(known);
        }
        let file = &self.checkpoint.files[number];
        let fd = file.fd.try_clone().map_err(|error| ArenaError::file(&file.stamp.path, error))?;
        let added = self.builder.file(fd, file.stamp.clone(), promise)?;
        self.borrowed.insert(number, added);
        Ok(added)
    }

    fn finish(self) -> Result<Arena, ShareError> {
        if let Some(first) = self.missing.first() {
            let similar = similar(first, self.checkpoint.entries.iter().map(|entry| entry.renamed.as_str()));
            return Err(ShareError::NotInCheckpoint {
                checkpoint: self
                    .checkpoint
                    .files()
                    .map(|path| path.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
                similar: similar.map(str::to_owned),
                tied: self.tied,
                missing: self.missing,
            });
        }
        let tell = self.checkpoint.tell.clone();
        let arena = self.builder.seal(&mut |progress| told(tell.as_ref(), progress))?;
        // If a file was written to during the copy, the arena may mix old and new weights.
        self.checkpoint.unchanged()?;
        Ok(arena)
    }
}
