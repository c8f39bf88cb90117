//! Keeping arenas for other programs, up to a limit of memory.

use std::path::Path;
use std::time::Instant;

use super::endpoint::{Endpoint, endpoint};
use super::key::Key;
use super::service;
use super::shared::{of_file, of_variant, path_of};
use crate::arena::arena::Arena;
use crate::arena::file::ArenaFile;
use crate::arena::io::Progress;
use crate::arena::manifest::ArenaId;
use crate::error::arena::ArenaError;
use crate::error::holder::HolderError;

/// Keeps arenas for other programs, as long as this process runs.
///
/// Without a holder, an arena exists as long as any process uses it. A process that keeps it spares the
/// next program the making. `rzc hold` is such a process; a service that starts first can be one, too.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::{Arena, Pipeline, share};
/// use ray_zerocopy::holder::{Holder, held};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.bpk");
/// # share(&Model::new(&Device::flex()))?.save(&path)?;
///
/// let holder = Holder::builder().limit(8 << 30).build();
/// holder.keep(&path, |progress| eprintln!("{progress:?}"))?;
/// assert!(held()?.iter().any(|arena| arena.is_kept && arena.source == path.to_str().unwrap()));
/// assert!(holder.release(&path)?);
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
#[derive(Debug)]
pub struct Holder {
    limit: u64,
    evict: bool,
}

/// Builds a [`Holder`].
#[derive(Debug, Clone)]
#[must_use = "it keeps nothing before `build`"]
pub struct HolderBuilder {
    limit: u64,
    evict: bool,
}

impl HolderBuilder {
    /// Sets the most that may be kept, in bytes. Default: no limit.
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Lets the arenas go that were handed out least recently, if a new one does not fit the limit. By
    /// default that is an error.
    pub fn evict(mut self, evict: bool) -> Self {
        self.evict = evict;
        self
    }

    /// Builds it.
    pub fn build(self) -> Holder {
        Holder { limit: self.limit, evict: self.evict }
    }
}

impl Holder {
    /// A holder without a limit, to be changed.
    pub fn builder() -> HolderBuilder {
        HolderBuilder { limit: u64::MAX, evict: false }
    }

    /// Finds or makes the arena of a saved one, and keeps it. Programs get it with
    /// [`Arena::shared`] and the same content, from a file of any path. Reports progress in bytes if
    /// this process makes the arena.
    ///
    /// # Errors
    /// If the file is not a saved arena or is corrupted, or the arena does not fit the limit.
    pub fn keep(&self, path: impl AsRef<Path>, mut progress: impl FnMut(Progress)) -> Result<Arena, HolderError> {
        let path = path.as_ref();
        let file = ArenaFile::open(path)?;
        self.keep_made(path, file.id(), file.size_bytes(), &[], || of_file(&file, path, &mut progress))
    }

    /// Finds or makes a saved [variant](Arena::variant), and keeps it. Programs get it with
    /// [`Arena::shared_variant`]. The limit counts what the variant stores itself.
    ///
    /// Its base is kept first, and let go last: by [`keep`](Self::keep), or by this if it is a variant too.
    ///
    /// # Errors
    /// As [`keep`](Self::keep), or if `base` is another one than that of the variant, or is not kept.
    pub fn keep_variant(&self, path: impl AsRef<Path>, base: &Arena) -> Result<Arena, HolderError> {
        let path = path.as_ref();
        let bytes = std::fs::metadata(path).map_err(|error| ArenaError::file(path, error))?.len();
        let bases: Vec<_> = base.bases().map(|(id, _)| id).chain([base.id()]).map(Key::of_arena).collect();
        self.keep_made(path, ArenaFile::read_id(path)?, bytes, &bases, || {
            let arena = of_variant(path, base)?;
            // Another program may have it, with its base.
            let missing = arena.bases().find(|(id, _)| !endpoint().keeps(*id));
            missing.map_or(Ok(arena.clone()), |(id, _)| {
                Err(HolderError::BaseNotKept { variant: path_of(path), base: id.to_string() })
            })
        })
    }

    fn keep_made(
        &self,
        path: &Path,
        id: ArenaId,
        bytes: u64,
        bases: &[Key],
        make: impl FnOnce() -> Result<Arena, HolderError>,
    ) -> Result<Arena, HolderError> {
        let (key, source, endpoint) = (Key::of_arena(id), path_of(path), endpoint());
        if !endpoint.kept().iter().any(|(known, ..)| *known == key) {
            self.make_room(endpoint, bytes, &source, bases)?;
        }
        let arena = endpoint.offer(key, &source, &make()?)?;
        endpoint.keep(&key, &arena);
        service::store(&arena)?;
        Ok(arena)
    }

    /// Takes over what systemd passes to this process: the arenas that it has kept since the holder
    /// stopped, and the socket with which it starts a holder. Returns the arenas, which are kept. Empty
    /// if the process was not started by systemd.
    ///
    /// A service calls it before [`keep`](Self::keep), and [`ready`](Self::ready) when it keeps
    /// everything. From then on systemd keeps the memory of each arena, too, if the unit has a
    /// `FileDescriptorStoreMax`, until the arena is released.
    ///
    /// # Errors
    /// If systemd has passed something else.
    pub fn resume(&self) -> Result<Vec<Arena>, HolderError> {
        service::resume(endpoint())
    }

    /// Tells systemd that this process is ready. Does nothing if it was not started by systemd.
    ///
    /// # Errors
    /// If systemd cannot be told.
    pub fn ready(&self) -> Result<(), HolderError> {
        service::ready()
    }

    /// Stops keeping the arena of a saved one. Its memory returns when no process uses it any more.
    /// Returns `false` if it was not kept.
    ///
    /// # Errors
    /// If the file is not a saved arena, or if a variant of it is kept.
    pub fn release(&self, path: impl AsRef<Path>) -> Result<bool, HolderError> {
        let id = ArenaFile::read_id(path)?;
        let failed = |reason| HolderError::Release { pid: std::process::id(), id: id.to_string(), reason };
        endpoint().release(&Key::of_arena(id)).map_err(failed)
    }

    /// Lets arenas go until another one fits the limit. Its bases stay.
    fn make_room(&self, endpoint: &Endpoint, bytes: u64, source: &str, bases: &[Key]) -> Result<(), HolderError> {
        let sum = |kept: &[(Key, u64, Instant)]| kept.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        let (needed, mut kept): (Vec<_>, Vec<_>) =
            endpoint.kept().into_iter().partition(|(key, ..)| bases.contains(key));
        kept.sort_by_key(|(.., used)| *used);
        let mut total = sum(&needed) + sum(&kept);
        let too_much = |total: u64| total.saturating_add(bytes) > self.limit;
        let limit = |kept| HolderError::Limit { source_of: source.to_owned(), bytes, kept, limit: self.limit };
        if bytes.saturating_add(sum(&needed)) > self.limit || (too_much(total) && !self.evict) {
            return Err(limit(total));
        }
        while too_much(total) {
            // A base goes after its variants.
            let gone = kept.iter().position(|(key, ..)| endpoint.release(key) == Ok(true));
            let Some(gone) = gone else { return Err(limit(total)) };
            total -= kept.remove(gone).1;
        }
        Ok(())
    }
}
