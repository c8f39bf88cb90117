//! A name with its generations: loading, swapping, and calls of the current one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use ray_zerocopy::arena::ArenaId;
use ray_zerocopy::error::SwapError;
use ray_zerocopy::jit::{JitTaskWrapper, Model, Runnable, Values};
use ray_zerocopy::{Arena, Error, LocalPool};

use super::builder::Settings;
use super::embedder::Embedder;
use super::example;
use super::folder::Folder;
use super::info::ModelInfo;
use super::{IndexEntry, Inference, LoadOutcome, ModelState};
use crate::error::{ErrorKind, ServeError};

/// Number of past generations whose answers can still be told apart.
const REMEMBERED: usize = 16;

/// Where a model comes from.
pub(super) enum Source {
    /// The file of this name in the folder of models.
    Folder,
    /// A file that the operator has named.
    File(PathBuf),
    /// This program.
    Memory(Box<Model>),
}

/// A generation of a model.
pub(crate) struct Generation {
    pub(crate) version: u64,
    pub(crate) info: Arc<ModelInfo>,
    pub(crate) embedder: Option<Arc<Embedder>>,
    arena: ArenaId,
    wrapper: JitTaskWrapper,
    /// The inputs of the first call that succeeded.
    recorded: Arc<OnceLock<Values>>,
}

/// A name and its generations.
pub(crate) struct Entry {
    name: String,
    source: Source,
    /// Held while a generation is loaded.
    change: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Generation>>,
    /// The versions of the last generations by their weights, the newest at the end.
    versions: Vec<(ArenaId, u64)>,
    latest: u64,
    is_loading: bool,
    reason: String,
    stamp: Option<Stamp>,
}

/// What identifies the contents of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    bytes: u64,
    changed: Option<SystemTime>,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { path: path.to_owned(), bytes: metadata.len(), changed: metadata.modified().ok() })
    }
}

impl Entry {
    pub(super) fn new(name: String, source: Source) -> Self {
        let state = RwLock::new(State { is_loading: true, ..State::default() });
        Self { name, source, change: Mutex::new(()), state }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn current(&self) -> Option<Arc<Generation>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).current.clone()
    }

    fn change_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the current generation if it is `version`. Empty text is any version.
    pub(crate) fn current_version(&self, version: &str) -> Result<Arc<Generation>, ServeError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let name = &self.name;
        let Some(current) = &state.current else {
            let reason = match (state.is_loading, state.reason.as_str()) {
                (true, _) => "it is being loaded",
                (false, reason) => reason,
            };
            return Err(ServeError::new(ErrorKind::Unavailable, format!("the model `{name}` is not ready: {reason}")));
        };
        if !version.is_empty() && version.parse() != Ok(current.version) {
            let (version, current) = (version.escape_debug(), current.version);
            let message =
                format!("version {version} of the model `{name}` is not served; the current one is {current}");
            return Err(ServeError::new(ErrorKind::NotFound, message));
        }
        Ok(Arc::clone(current))
    }

    /// Runs the current generation.
    pub(super) async fn infer(
        &self,
        version: &str,
        inputs: Values,
        timeout: Option<Duration>,
    ) -> Result<Inference, ServeError> {
        let current = self.current_version(version)?;
        let example = current.recorded.get().is_none().then(|| inputs.clone());
        let pending = current.wrapper.run(inputs).cancel_on_drop();
        let arena = pending.arena_id();
        let outputs = match timeout {
            Some(after) => tokio::time::timeout(after, pending).await.map_err(|_| ServeError::deadline(after))?,
            None => pending.await,
        }?;
        if let Some(example) = example.filter(example::is_small) {
            // Another call may have recorded its inputs meanwhile.
            let _ = current.recorded.set(example);
        }
        let version = arena.and_then(|arena| self.version_of(arena)).unwrap_or(current.version);
        Ok(Inference { outputs, version })
    }

    fn version_of(&self, arena: ArenaId) -> Option<u64> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.versions.iter().rev().find(|(known, _)| *known == arena).map(|(_, version)| *version)
    }

    /// Loads the model, or moves to its next generation.
    pub(super) fn load(
        &self,
        pool: &LocalPool,
        settings: &Settings,
        folder: Option<&Folder>,
    ) -> Result<LoadOutcome, ServeError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.change_state(|state| state.is_loading = state.current.is_none());
        let result = self.next_generation(pool, settings, folder);
        self.change_state(|state| {
            state.is_loading = false;
            state.reason = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        });
        result
    }

    fn next_generation(
        &self,
        pool: &LocalPool,
        settings: &Settings,
        folder: Option<&Folder>,
    ) -> Result<LoadOutcome, ServeError> {
        let path = self.path(folder)?;
        let stamp = path.as_deref().and_then(Stamp::of);
        // Noted before the file is read: a file that cannot be loaded is not tried again until it changes.
        self.change_state(|state| state.stamp.clone_from(&stamp));
        let model = self.open(path.as_deref(), settings)?;
        let arena = model.arena().id();
        let current = self.current();
        if current.as_ref().is_some_and(|current| current.arena == arena) {
            return Ok(LoadOutcome::Unchanged);
        }
        let info = Arc::new(ModelInfo::of(&model));
        let tokenizer = self.tokenizer(path.as_deref(), settings);
        let embedder = tokenizer.map(|file| Embedder::open(&file, &info)).transpose()?.map(Arc::new);
        // Before workers have it, so that the version of each answer is known.
        let version = self.change_state(|state| state.reserve(arena));
        let made = self.wrapper(pool, settings, &model, &info, current.as_deref());
        let (wrapper, recorded) = match made {
            Ok(made) => made,
            Err(error) => {
                self.change_state(|state| state.give_back(version));
                return Err(error);
            }
        };
        let generation = Arc::new(Generation { version, info, embedder, arena, wrapper, recorded });
        self.change_state(|state| state.current = Some(generation));
        Ok(if current.is_some() { LoadOutcome::Swapped { version } } else { LoadOutcome::Loaded })
    }

    /// Returns a wrapper that runs `model` on all workers, and has answered an example.
    fn wrapper(
        &self,
        pool: &LocalPool,
        settings: &Settings,
        model: &Model,
        info: &ModelInfo,
        current: Option<&Generation>,
    ) -> Result<(JitTaskWrapper, Arc<OnceLock<Values>>), ServeError> {
        let Some(current) = current else {
            return Ok((example::started(pool, settings, model, info)?, Arc::default()));
        };
        let example = current.recorded.get().cloned().or_else(|| example::zeros(info));
        let check = |next: &JitTaskWrapper| example::answers(next, Some(&current.wrapper), example.clone());
        match current.wrapper.swap_if(model, check) {
            Ok(_) => Ok((current.wrapper.clone(), Arc::clone(&current.recorded))),
            // Other inputs, outputs or weights: a wrapper of its own takes over.
            Err(Error::Swap(SwapError::OtherPipeline { .. })) => {
                let next = example::started(pool, settings, model, info)?;
                let is_same = *current.info == *info;
                if is_same {
                    check(&next).map_err(|reason| refused(&self.name, &*reason))?;
                }
                Ok((next, if is_same { Arc::clone(&current.recorded) } else { Arc::default() }))
            }
            Err(error) => Err(refused(&self.name, &error)),
        }
    }

    fn path(&self, folder: Option<&Folder>) -> Result<Option<PathBuf>, ServeError> {
        match (&self.source, folder) {
            (Source::Folder, Some(folder)) => folder.find(&self.name).map(Some),
            (Source::File(path), _) => Ok(Some(path.clone())),
            (Source::Folder, None) | (Source::Memory(_), _) => Ok(None),
        }
    }

    fn open(&self, path: Option<&Path>, settings: &Settings) -> Result<Model, ServeError> {
        let failed = |error: &dyn std::fmt::Display| {
            // The path is not for clients, who know the name.
            ServeError::new(ErrorKind::Unavailable, format!("the model `{}` cannot be loaded: {error}", self.name))
        };
        match (&self.source, path) {
            (Source::Memory(model), _) => Ok((**model).clone()),
            (_, None) => Err(failed(&"it has no file")),
            (_, Some(path)) if settings.is_held && path.extension().is_some_and(|extension| extension == "rzg") => {
                let arena = Arena::shared_file(path, |_| ()).map_err(|error| failed(&error))?;
                Model::from_arena(&arena).map_err(|error| failed(&error))
            }
            (_, Some(path)) => ray_zerocopy::jit::open(path, |_| ()).map_err(|error| failed(&error)),
        }
    }

    /// The tokenizer of the model, if it has one.
    fn tokenizer(&self, path: Option<&Path>, settings: &Settings) -> Option<PathBuf> {
        if let Some(named) = settings.tokenizers.get(&self.name) {
            return Some(named.clone());
        }
        let path = path?;
        let beside = path.with_file_name(format!("{}.tokenizer.json", path.file_stem()?.to_str()?));
        let within = path.with_file_name("tokenizer.json");
        let is_own_folder = path.file_stem().is_some_and(|stem| stem == "model");
        [Some(beside), is_own_folder.then_some(within)].into_iter().flatten().find(|file| file.exists())
    }

    pub(super) fn unload(&self) {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.change_state(|state| {
            "it was unloaded".clone_into(&mut state.reason);
            state.is_loading = false;
            state.current.take()
        });
        drop(old);
    }

    pub(super) fn has_changed(&self, folder: Option<&Folder>) -> bool {
        let loaded = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.current.as_ref().and(state.stamp.clone())
        };
        let Ok(Some(path)) = self.path(folder) else { return false };
        // A file that is missing for a moment is being replaced.
        loaded.is_some_and(|loaded| Stamp::of(&path).is_some_and(|found| found != loaded))
    }

    pub(super) fn index(&self) -> IndexEntry {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let kind = match (&state.current, state.is_loading) {
            (Some(_), _) => ModelState::Ready,
            (None, true) => ModelState::Loading,
            (None, false) => ModelState::Unavailable,
        };
        let version = state.current.as_ref().map(|current| current.version);
        IndexEntry { name: self.name.clone(), version, state: kind, reason: state.reason.clone() }
    }
}

impl State {
    /// Gives these weights the next version.
    fn reserve(&mut self, arena: ArenaId) -> u64 {
        self.latest += 1;
        self.versions.push((arena, self.latest));
        if self.versions.len() > REMEMBERED {
            self.versions.remove(0);
        }
        self.latest
    }

    /// Takes back the version of weights that did not become current.
    fn give_back(&mut self, version: u64) {
        self.versions.retain(|(_, reserved)| *reserved != version);
        self.latest = version - 1;
    }
}

fn refused(name: &str, error: &dyn std::fmt::Display) -> ServeError {
    let message = format!("the model `{name}` keeps its current version: {error}");
    ServeError::new(ErrorKind::Failed, message)
}
