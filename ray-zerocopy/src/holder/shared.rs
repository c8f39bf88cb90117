//! `Arena::shared`: finds an arena by what it is made from, or makes it.

use std::path::Path;

use super::client::find;
use super::endpoint::endpoint;
use super::folder::Folder;
use super::key::Key;
use super::making::{Turn, turn};
use super::source::{Kind, SharedSource};
use crate::arena::arena::Arena;
use crate::arena::file::ArenaFile;
use crate::arena::io::Progress;
use crate::arena::manifest::ArenaId;
use crate::checkpoint::Checkpoint;
use crate::error::arena::ArenaError;
use crate::error::holder::HolderError;
use crate::pipeline::rebuild::Root;
use crate::pipeline::share::share;
use crate::pipeline::share_from::share_from;
use crate::pipeline::summary::Summary;

impl Arena {
    /// Finds the arena of a file or a name, or makes it: the first program of this user that asks
    /// makes it, and all others get the same memory, whether they have a common parent or not.
    ///
    /// | source | the first program | all programs get |
    /// | --- | --- | --- |
    /// | a saved arena | copies it into sealed memory | the content of the file |
    /// | a checkpoint, or the path of one | [shares](crate::share_from()) the pipeline with its weights | the weights of the files, if these are unchanged, what is done to their tensors is the same, and the pipelines are equal except for their weights |
    /// | [a name](SharedSource::named) | [shares](crate::share()) the pipeline | what the first program shared under the name |
    ///
    /// Programs that ask while another one makes the arena wait for it. If that one dies, the next
    /// one makes it. Each process that has the arena hands it to others, until its last [`Arena`] is
    /// dropped, which wrappers keep. [`Holder`](crate::holder::Holder) and `rzc hold` keep it longer.
    ///
    /// The processes find each other in a folder of mode 0700, and the kernel tells each of them that
    /// the other one belongs to the same user. What arrives is sealed memory, and its table of contents
    /// is checked. The program that made it has verified the weights; [`verify`](Self::verify) does it
    /// again.
    ///
    /// # Errors
    /// If the file cannot be read or does not fit the pipeline, if the arena that was found is that of
    /// another pipeline, or if the folder cannot be used.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
    /// # use ray_zerocopy::{Arena, Pipeline, load, share};
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.bpk");
    /// # share(&Model::new(&Device::flex()))?.save(&path)?;
    /// let device = Device::flex();
    /// let skeleton = Model::new(&device); // its parameters are not initialised, and need no memory
    /// let arena = Arena::shared(&path, &skeleton)?;
    /// let model = load::<Model>(&arena, &device)?;
    ///
    /// // This program again, or another one: the same memory.
    /// assert_eq!(Arena::shared(&path, &skeleton)?.id(), arena.id());
    /// # drop(model);
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    pub fn shared<'a, P: Root>(source: impl Into<SharedSource<'a>>, pipeline: &P) -> Result<Self, HolderError> {
        let source = source.into();
        let summary = Summary::of(pipeline)?;
        let arena = match source.0 {
            Kind::File(path) => match ArenaFile::open(path) {
                Ok(file) if file.pipeline() != ArenaFile::NO_PIPELINE => of_file(&file, path, &mut |_| ())?,
                // A packed checkpoint, a file of another program, or a folder.
                Ok(_) | Err(ArenaError::NotAnArena(_) | ArenaError::File { .. }) => {
                    of_checkpoint(&Checkpoint::open(path)?, pipeline, &summary, &source)?
                }
                Err(error) => return Err(error.into()),
            },
            Kind::Checkpoint(checkpoint) => of_checkpoint(checkpoint, pipeline, &summary, &source)?,
            Kind::Name(name) => found_or_made(Key::of_name(name), &source.to_string(), || Ok(share(pipeline)?))?,
        };
        match summary.difference(&arena) {
            None => Ok(arena),
            Some(difference) => Err(HolderError::OtherPipeline {
                source_of: source.to_string(),
                difference,
                expected: crate::error::type_name::<P>(),
                found: arena.pipeline().to_owned(),
            }),
        }
    }

    /// Does the same as [`shared`](Self::shared) for a saved arena of any pipeline, such as a graph or a
    /// packed checkpoint. Reports progress in bytes if this process makes the arena.
    ///
    /// ```no_run
    /// # use ray_zerocopy::{Arena, jit};
    /// let arena = Arena::shared_file("minilm.rzg", |progress| eprintln!("{progress:?}"))?;
    /// let graph = jit::TracedGraph::from_arena(&arena)?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the file is not a saved arena or is corrupted, or if the folder cannot be used.
    pub fn shared_file(path: impl AsRef<Path>, mut progress: impl FnMut(Progress)) -> Result<Self, HolderError> {
        let path = path.as_ref();
        of_file(&ArenaFile::open(path)?, path, &mut progress)
    }

    /// Does the same as [`open_variant`](Self::open_variant) if no program has the arena yet: opens a saved
    /// variant, which borrows from `base`. Otherwise returns the arena of that program, as
    /// [`shared`](Self::shared) does.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Arena;
    /// let base = Arena::shared_file("base.bpk", |_| ())?;
    /// let tuned = Arena::shared_variant("tuned.variant.bpk", &base)?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`open_variant`](Self::open_variant), or if the folder in which programs find each other cannot be used.
    pub fn shared_variant(path: impl AsRef<Path>, base: &Self) -> Result<Self, HolderError> {
        of_variant(path.as_ref(), base)
    }
}

/// Finds or makes a saved variant, whose base is in memory.
/// Hands an arena to every process of this user that asks for its id with [`of_id`], as long as this process has
/// it. Returns it, or the one with this id that this process hands out already.
///
/// # Errors
/// If the folder cannot be used, or a part of the arena is in an object store.
#[cfg(feature = "ray")]
pub fn offer(arena: &Arena) -> Result<Arena, HolderError> {
    let arena = arena.clone().handed_over()?;
    endpoint().offer(Key::of_arena(arena.id()), arena.pipeline(), &arena)
}

/// Returns the arena with this id, which this process or another one of this user has [offered](offer), and offers
/// it too. Returns `None` if there is none.
///
/// # Errors
/// As [`offer`].
#[cfg(feature = "ray")]
pub fn of_id(id: ArenaId) -> Result<Option<Arena>, HolderError> {
    let key = Key::of_arena(id);
    if let Some(arena) = endpoint().own(&key) {
        return Ok(Some(arena));
    }
    let Some(arena) = find(&Folder::open()?, &key) else { return Ok(None) };
    check_id(&arena, id, &format!("arena {id}"))?;
    offer(&arena).map(Some)
}

pub(super) fn of_variant(path: &Path, base: &Arena) -> Result<Arena, HolderError> {
    let (id, source) = (ArenaFile::read_id(path)?, path_of(path));
    let arena = found_or_made(Key::of_arena(id), &source, || Ok(Arena::open_variant(path, base)?))?;
    check_id(&arena, id, &source)?;
    Ok(arena)
}

/// Finds or makes the arena of a saved one.
pub(super) fn of_file(file: &ArenaFile, path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Arena, HolderError> {
    let source = path_of(path);
    let arena = found_or_made(Key::of_arena(file.id()), &source, || Ok(file.seal(progress)?))?;
    check_id(&arena, file.id(), &source)?;
    Ok(arena)
}

/// The absolute path of a file, as other programs see it.
pub(super) fn path_of(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn of_checkpoint<P: Root>(
    checkpoint: &Checkpoint,
    pipeline: &P,
    summary: &Summary,
    source: &SharedSource<'_>,
) -> Result<Arena, HolderError> {
    let key = Key::of_checkpoint(checkpoint, summary.digest()?.as_bytes())
        .map_err(|error| ArenaError::File { path: source.to_string(), reason: error.to_string() })?;
    found_or_made(key, &source.to_string(), || Ok(share_from(pipeline, checkpoint)?))
}

fn check_id(arena: &Arena, expected: ArenaId, source: &str) -> Result<(), HolderError> {
    if arena.id() == expected {
        return Ok(());
    }
    let (expected, found) = (expected.to_string(), arena.id().to_string());
    Err(HolderError::OtherArena { source_of: source.to_owned(), expected, found })
}

/// Returns the arena of a key: that of this process, that of another one, or a new one.
fn found_or_made(
    key: Key,
    source: &str,
    make: impl FnOnce() -> Result<Arena, HolderError>,
) -> Result<Arena, HolderError> {
    let endpoint = endpoint();
    loop {
        if let Some(arena) = endpoint.own(&key) {
            return Ok(arena);
        }
        let folder = Folder::open()?;
        if let Some(arena) = find(&folder, &key) {
            // Holds it too from now on, so that it outlives the process that made it.
            return endpoint.offer(key, source, &arena);
        }
        let lock = folder.lock(&key);
        let Turn::Make(making) = turn(&lock).map_err(|error| HolderError::folder(&lock, &error))? else { continue };
        // It may have been made before this process got the lock.
        if let Some(arena) = endpoint.own(&key).or_else(|| find(&folder, &key)) {
            return endpoint.offer(key, source, &arena);
        }
        let arena = endpoint.offer(key, source, &make()?)?;
        making.end();
        return Ok(arena);
    }
}
