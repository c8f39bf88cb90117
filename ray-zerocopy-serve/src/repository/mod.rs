//! Models by name: loading, swapping and unloading them, and calls of them.
//!
//! | file | what |
//! | --- | --- |
//! | `builder` | where models run, and how |
//! | `folder` | finds the file of a name, within one folder |
//! | `info` | inputs, outputs and platform of a model |
//! | `entry` | a name with its generations |
//! | `example` | inputs that a new generation has to answer before it becomes current |
//! | `embedder` | texts to vectors, by a model and its tokenizer |

mod builder;
pub(crate) mod embedder;
mod entry;
mod example;
mod folder;
mod info;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ray_zerocopy::LocalPool;
use ray_zerocopy::jit::{Model, Values};

pub use self::builder::RepositoryBuilder;
use self::builder::Settings;
use self::entry::{Entry, Source};
use self::folder::Folder;
pub use self::info::{ModelInfo, TensorPort};
use crate::error::{ErrorKind, ServeError};

/// Models by name, which run on one pool of workers. Cheap to clone.
///
/// The version of a model is the number of its generation: 1 when it is first loaded, and one more after each
/// [`load`](Self::load) of a file that has changed.
///
/// ```no_run
/// use ray_zerocopy_serve::ModelRepository;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// ray_zerocopy::init();
/// let models = ModelRepository::builder().workers(4).folder("/srv/models").start()?;
/// models.load("minilm")?; // /srv/models/minilm.rzg
/// for model in models.index() {
///     println!("{} {:?}", model.name, model.version);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ModelRepository(Arc<Inner>);

struct Inner {
    pool: LocalPool,
    settings: Settings,
    folder: Option<Folder>,
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
}

/// The state of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelState {
    /// It answers.
    Ready,
    /// It is being loaded for the first time.
    Loading,
    /// It is not loaded.
    Unavailable,
}

impl ModelState {
    /// The name in the protocol: `READY`, `LOADING`, `UNAVAILABLE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// A model of the [`index`](ModelRepository::index).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexEntry {
    /// The name.
    pub name: String,
    /// The current generation. `None` if the model has not been loaded.
    pub version: Option<u64>,
    /// The state.
    pub state: ModelState,
    /// Why it is not ready, or why its last load was refused.
    pub reason: String,
}

/// What a [`load`](ModelRepository::load) has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadOutcome {
    /// The model was loaded, and is the first generation.
    Loaded,
    /// Another generation was current before.
    Swapped {
        /// The version that is current now.
        version: u64,
    },
    /// The file has the contents of the current generation.
    Unchanged,
}

/// The result of a call.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inference {
    /// The outputs.
    pub outputs: Values,
    /// The version that computed them.
    pub version: u64,
}

impl ModelRepository {
    /// Creates a builder.
    pub fn builder() -> RepositoryBuilder {
        RepositoryBuilder::default()
    }

    /// Adds a model under a name, from a file anywhere, and loads it. A client cannot do that: it can only load the
    /// same file again. The file may be a traced graph, a compiled one, or a TorchScript module.
    ///
    /// # Errors
    /// If the name is not valid or taken, or the model cannot be loaded.
    pub fn add_file(&self, name: &str, file: impl AsRef<Path>) -> Result<(), ServeError> {
        let entry = self.insert(name, Source::File(file.as_ref().to_owned()))?;
        self.load_entry(&entry).map(drop)
    }

    /// Adds a model of this program under a name.
    ///
    /// # Errors
    /// If the name is not valid or taken, or workers cannot load the model.
    pub fn add(&self, name: &str, model: Model) -> Result<(), ServeError> {
        let entry = self.insert(name, Source::Memory(Box::new(model)))?;
        self.load_entry(&entry).map(drop)
    }

    fn insert(&self, name: &str, source: Source) -> Result<Arc<Entry>, ServeError> {
        folder::check_name(name)?;
        let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.contains_key(name) {
            return Err(ServeError::invalid(format!(
                "there are two models with the name `{name}`; give one another name"
            )));
        }
        let entry = Arc::new(Entry::new(name.to_owned(), source));
        entries.insert(name.to_owned(), Arc::clone(&entry));
        Ok(entry)
    }

    /// Loads a model, or loads it again if its file has changed: from the file that it was
    /// [added](Self::add_file) from, or the file in the folder. Blocks until the workers have it.
    ///
    /// Calls go on meanwhile. If the new file cannot be loaded, or does not answer an example, the
    /// current generation stays.
    ///
    /// # Errors
    /// If there is no such file in the folder, or the model cannot be loaded.
    pub fn load(&self, name: &str) -> Result<LoadOutcome, ServeError> {
        folder::check_name(name)?;
        let entry = match (self.entry(name), &self.0.folder) {
            (Some(entry), _) => entry,
            (None, Some(folder)) => {
                folder.find(name)?;
                let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
                let new = || Arc::new(Entry::new(name.to_owned(), Source::Folder));
                Arc::clone(entries.entry(name.to_owned()).or_insert_with(new))
            }
            (None, None) => return Err(self.unknown(name)),
        };
        self.load_entry(&entry)
    }

    fn load_entry(&self, entry: &Entry) -> Result<LoadOutcome, ServeError> {
        entry.load(&self.0.pool, &self.0.settings, self.0.folder.as_ref())
    }

    /// Unloads a model. Calls that were made before get their results.
    ///
    /// # Errors
    /// If there is no model of this name.
    pub fn unload(&self, name: &str) -> Result<(), ServeError> {
        self.entry(name).ok_or_else(|| self.unknown(name))?.unload();
        Ok(())
    }

    /// Loads each loaded model again whose file has changed, and returns what happened to each.
    pub fn reload(&self) -> Vec<(String, Result<LoadOutcome, ServeError>)> {
        let entries: Vec<_> = self.entries().into_iter().filter(|entry| entry.current().is_some()).collect();
        entries.into_iter().map(|entry| (entry.name().to_owned(), self.load(entry.name()))).collect()
    }

    /// The names of the loaded models whose files have another date or size than when they were loaded.
    pub fn changed(&self) -> Vec<String> {
        let entries = self.entries();
        entries
            .iter()
            .filter(|entry| entry.has_changed(self.0.folder.as_ref()))
            .map(|entry| entry.name().to_owned())
            .collect()
    }

    /// All models: those that were loaded, and those of the folder.
    pub fn index(&self) -> Vec<IndexEntry> {
        let mut index: BTreeMap<String, IndexEntry> = BTreeMap::new();
        for name in self.0.folder.iter().flat_map(Folder::names) {
            let reason = "not loaded".to_owned();
            let entry = IndexEntry { name: name.clone(), version: None, state: ModelState::Unavailable, reason };
            index.insert(name, entry);
        }
        for entry in self.entries() {
            index.insert(entry.name().to_owned(), entry.index());
        }
        index.into_values().collect()
    }

    /// Inputs, outputs and platform of a loaded model.
    ///
    /// # Errors
    /// If the model or the version is not loaded.
    pub fn info(&self, name: &str, version: &str) -> Result<(Arc<ModelInfo>, u64), ServeError> {
        let entry = self.ready(name)?;
        let current = entry.current_version(version)?;
        Ok((Arc::clone(&current.info), current.version))
    }

    /// Returns `true` if the model answers in this version. An empty version is the current one.
    pub fn is_ready(&self, name: &str, version: &str) -> bool {
        self.info(name, version).is_ok()
    }

    /// Returns `true` if no model is being loaded for the first time.
    pub fn is_settled(&self) -> bool {
        self.entries().iter().all(|entry| entry.index().state != ModelState::Loading)
    }

    /// Runs a model. Dropping the future cancels the call.
    ///
    /// # Errors
    /// If the model or the version is not loaded, the inputs do not fit, `timeout` passes, or the model fails.
    pub async fn infer(
        &self,
        name: &str,
        version: &str,
        inputs: Values,
        timeout: Option<Duration>,
    ) -> Result<Inference, ServeError> {
        self.ready(name)?.infer(version, inputs, timeout).await
    }

    /// The pool of workers.
    pub fn pool(&self) -> &LocalPool {
        &self.0.pool
    }

    pub(crate) fn ready(&self, name: &str) -> Result<Arc<Entry>, ServeError> {
        self.entry(name).ok_or_else(|| self.unknown(name))
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn unknown(&self, name: &str) -> ServeError {
        let known: Vec<_> = self.entries().iter().map(|entry| format!("`{}`", entry.name())).collect();
        let known =
            if known.is_empty() { "none is loaded".to_owned() } else { format!("there is {}", known.join(", ")) };
        ServeError::new(ErrorKind::NotFound, format!("there is no model `{}`; {known}", name.escape_debug()))
    }
}

impl fmt::Debug for ModelRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelRepository").field("models", &self.index()).finish_non_exhaustive()
    }
}
