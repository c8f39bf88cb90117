//! `RepositoryBuilder`: where models run, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use ray_zerocopy::{Batching, LocalPool};

use super::folder::Folder;
use super::{Inner, ModelRepository};
use crate::error::ServeError;

/// How models run.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) device: String,
    /// Limits of batches, for graphs whose rows are independent. `None`: each call runs alone.
    pub(super) batching: Option<Batching>,
    /// Time for which a worker may go on with a cancelled call.
    pub(super) cancel_grace: Duration,
    /// Whether other programs of this user get the same memory for the same file.
    pub(super) is_held: bool,
    /// Tokenizers by the name of the model.
    pub(super) tokenizers: BTreeMap<String, PathBuf>,
}

/// Builder of a [`ModelRepository`].
#[derive(Debug)]
pub struct RepositoryBuilder {
    workers: Option<usize>,
    threads: Option<usize>,
    pool: Option<LocalPool>,
    folder: Option<PathBuf>,
    settings: Settings,
}

impl Default for RepositoryBuilder {
    fn default() -> Self {
        let settings = Settings {
            device: "cpu".to_owned(),
            batching: Some(Batching::default()),
            cancel_grace: Duration::from_secs(10),
            is_held: false,
            tokenizers: BTreeMap::new(),
        };
        Self { workers: None, threads: None, pool: None, folder: None, settings }
    }
}

impl RepositoryBuilder {
    /// Sets the number of worker processes. Default: one for each core.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers.max(1));
        self
    }

    /// Sets the number of threads that each worker computes with. Default: the cores divided by the workers.
    #[must_use]
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Uses this pool of workers, and not one of its own.
    #[must_use]
    pub fn pool(mut self, pool: LocalPool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Sets the folder from which clients may load models: `NAME.rzg`, `NAME.pt`, `NAME.jit`, or `model.rzg` and so on
    /// in a folder `NAME`. Default: none, so that clients can only load models again.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets the device of the workers: `cpu`, `cuda:0` and so on. Default: `cpu`.
    #[must_use]
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.settings.device = device.into();
        self
    }

    /// Sets the limits of batches, into which calls of a graph are put together if each row of its outputs belongs to
    /// a row of its inputs. `None` runs each call alone. Default: at most 64 rows, without waiting.
    #[must_use]
    pub fn batching(mut self, batching: Option<Batching>) -> Self {
        self.settings.batching = batching;
        self
    }

    /// Sets the time for which a worker may go on with a call whose client has gone away or whose deadline has
    /// passed. Then it is replaced. Default: 10 seconds.
    #[must_use]
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.settings.cancel_grace = grace;
        self
    }

    /// Lets other programs of this user have the same memory for the same file, as
    /// [`Arena::shared_file`](ray_zerocopy::Arena::shared_file) does. Default: only the workers have it.
    #[must_use]
    pub fn hold(mut self) -> Self {
        self.settings.is_held = true;
        self
    }

    /// Sets the tokenizer of a model, a file `tokenizer.json`: the model then embeds texts, at `/v1/embeddings`.
    /// Default: `NAME.tokenizer.json` beside the model's file, or `tokenizer.json` in the model's own folder.
    #[must_use]
    pub fn tokenizer(mut self, model: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        self.settings.tokenizers.insert(model.into(), file.into());
        self
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// If the folder does not exist, or a worker does not start.
    pub fn start(self) -> Result<ModelRepository, ServeError> {
        let Self { workers, threads, pool, folder, settings } = self;
        let folder = folder.map(Folder::open).transpose()?;
        let pool = match pool {
            Some(pool) => pool,
            None => {
                let mut builder = LocalPool::builder();
                if let Some(workers) = workers {
                    builder = builder.workers(workers);
                }
                if let Some(threads) = threads {
                    builder = builder.threads_per_worker(threads);
                }
                builder.start().map_err(|error| ServeError::from(ray_zerocopy::Error::from(error)))?
            }
        };
        let entries = RwLock::new(BTreeMap::new());
        Ok(ModelRepository(Arc::new(Inner { pool, settings, folder, entries })))
    }
}
