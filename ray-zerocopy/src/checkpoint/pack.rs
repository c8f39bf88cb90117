//! Packing: writes a checkpoint of any format into one file whose tensors can all be borrowed in
//! place.
//!
//! The file is an arena without a pipeline. So its tensors are aligned to 256 bytes and have
//! checksums, equal tensors are stored once, and every reader of arenas can read it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::entry::Entry;
use super::source::{Change, FromFile, Scratch};
use super::{Checkpoint, Tell};
use crate::arena::builder::ArenaBuilder;
use crate::arena::file::ArenaFile;
use crate::arena::io::Progress;
use crate::arena::manifest::TensorEntry;
use crate::arena::save::replace;
use crate::error::checkpoint::CheckpointError;
use crate::tensor::kind::TensorKind;

impl Checkpoint {
    /// Writes all tensors into one burnpack file, each aligned to 256 bytes and with a BLAKE3
    /// checksum. Renames, splits, fusions, ties and transposes are applied, and tensors are cast as
    /// set by [`cast_floats`](Self::cast_floats). The file appears when it is complete, and
    /// replaces an existing file. At most one tensor is in memory at a time.
    ///
    /// The result is a checkpoint: [`open`](Self::open) it and share it with
    /// [`share_from`](crate::share_from), where
    /// [`Placement::in_file`](crate::arena::Placement::in_file) borrows the tensors that have the
    /// pipeline's layout. Declare [`from_pytorch`](Self::from_pytorch) there and not here: only a
    /// pipeline determines which weights must be transposed.
    ///
    /// ```
    /// # use ray_zerocopy::Checkpoint;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let [from, to] = ["model.safetensors", "model.bpk"].map(|name| folder.path().join(name));
    /// # let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![3], &[1, 2, 3]).unwrap();
    /// # safetensors::serialize_to_file([("table", &view), ("the same table", &view)], None, &from).unwrap();
    /// let packed = Checkpoint::open(&from)?.pack(&to)?;
    /// packed.verify(|_| ())?;
    ///
    /// let checkpoint = Checkpoint::open(&to)?;
    /// assert!(checkpoint.tensors().all(|tensor| tensor.alignment() >= 256));
    /// # assert_eq!(checkpoint.tensors().count(), 2);
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a tensor has a type that burn does not have, if it cannot be read, or if the file cannot
    /// be written.
    pub fn pack(&self, path: impl AsRef<Path>) -> Result<ArenaFile, CheckpointError> {
        let path = path.as_ref();
        let mut builder = ArenaBuilder::new(ArenaFile::NO_PIPELINE);
        let (fds, scratch) = (self.fds()?, Scratch::default());
        for found in &self.entries {
            let (entry, source) = self.packed(found, &fds, &scratch)?;
            builder.tensor(entry, Arc::new(source))?;
        }
        let tell = self.tell.clone();
        replace(path, |file| {
            builder.write_file(file, &mut |progress| told(tell.as_ref(), progress))?;
            self.unchanged()
        })?;
        Ok(ArenaFile::open(path)?)
    }

    /// Creates a tensor's entry in the packed file, and the source of its bytes.
    fn packed(
        &self,
        found: &Entry,
        fds: &[Arc<OwnedFd>],
        scratch: &Scratch,
    ) -> Result<(TensorEntry, FromFile), CheckpointError> {
        let dtype = found.dtype.clone().map_err(|dtype| CheckpointError::Element {
            path: self.files[found.file].stamp.path.display().to_string(),
            name: found.name.clone(),
            dtype,
        })?;
        let cast = self.floats.filter(|&wanted| dtype.is_float() && dtype != wanted);
        let entry = TensorEntry {
            path: found.renamed.clone(),
            blob: 0,
            kind: TensorKind::of(dtype),
            dtype: cast.unwrap_or(dtype),
            shape: found.shape.clone(),
            param: found.param,
            why: None,
        };
        let source = FromFile::new(found, fds, dtype, Change { transpose: false, cast }, scratch);
        Ok((entry, source))
    }
}

/// Calls the progress callback, if there is one.
pub(crate) fn told(tell: Option<&Tell>, progress: Progress) {
    if let Some(tell) = tell {
        tell.lock()(progress);
    }
}
