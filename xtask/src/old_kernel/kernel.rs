//! The kernel, from the packages of the Debian release that had it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{cache, exists, run};

/// The oldest kernel that everything but memory policies works on, and its Debian release.
pub(crate) const VERSION: &str = "5.10";
const RELEASE: &str = "bullseye";
/// Where releases are that Debian keeps up no more.
const ARCHIVE: &str = "http://archive.debian.org/debian";
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The kernel, which is fetched once.
pub(crate) fn image() -> Result<PathBuf> {
    let folder = cache()?.join(format!("linux-{VERSION}"));
    let image = folder.join("vmlinuz");
    if image.exists() {
        return Ok(image);
    }
    eprintln!("fetching Debian's kernel {VERSION} into {}, once", folder.display());
    ensure!(
        exists("apt-get") && Path::new(KEYS).exists(),
        "the kernel comes from a package of Debian, with apt and the keys of `debian-archive-keyring`; elsewhere, put a kernel {VERSION} \
         for virtual machines at {}",
        image.display()
    );
    let staging = folder.with_file_name(format!(".linux-{}", std::process::id()));
    let found = fetch(&staging, &mirror()).or_else(|error| {
        eprintln!("{error:#}; trying {ARCHIVE}");
        fetch(&staging, ARCHIVE)
    });
    let moved = found.and_then(|found| {
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        fs::rename(&found, &image).with_context(|| format!("{} cannot be written", image.display()))
    });
    let cleared = fs::remove_dir_all(&staging);
    moved.with_context(|| format!("Debian's kernel {VERSION} cannot be fetched"))?;
    cleared.with_context(|| format!("{} cannot be removed", staging.display()))?;
    Ok(image)
}

/// The mirror of Debian that this machine uses.
fn mirror() -> String {
    let files = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let own = texts.flat_map(|text| {
        let uris = text.lines().filter_map(|line| line.strip_prefix("URIs:")).map(|uri| uri.trim().to_owned());
        uris.collect::<Vec<_>>()
    });
    own.map(|uri| uri.trim_end_matches('/').to_owned())
        .find(|uri| uri.ends_with("/debian"))
        .unwrap_or(MIRROR.to_owned())
}

/// Fetches and unpacks the package; returns the kernel in it.
fn fetch(staging: &Path, mirror: &str) -> Result<PathBuf> {
    for folder in ["lists/partial", "parts", "cache/archives/partial", "kernel"] {
        fs::create_dir_all(staging.join(folder)).with_context(|| format!("{} cannot be made", staging.display()))?;
    }
    let source = format!("Types: deb\nURIs: {mirror}\nSuites: {RELEASE}\nComponents: main\nSigned-By: {KEYS}\n");
    fs::write(staging.join("parts/old.sources"), source)?;
    // A list of sources of its own: the machine's packages stay as they are.
    let apt = |program: &str, arguments: &[&str]| {
        let mut apt = Command::new(program);
        let own = |name: &str, folder: &str| format!("-o{name}={}", staging.join(folder).display());
        apt.args([
            own("Dir::State::Lists", "lists"),
            own("Dir::Etc::sourceparts", "parts"),
            own("Dir::Cache", "cache"),
        ]);
        // The release is not kept up any more: its lists are past their date.
        apt.args(["-oDir::Etc::sourcelist=/dev/null", "-oAcquire::Check-Valid-Until=false", "-qq"]).args(arguments);
        apt.current_dir(staging);
        apt
    };
    run(apt("apt-get", &["update"]))?;
    let found = apt("apt-cache", &["search", &format!("^linux-image-{VERSION}.*-cloud-amd64$")]).output()?;
    let names = String::from_utf8_lossy(&found.stdout).into_owned();
    let names = names.lines().filter_map(|line| line.split_whitespace().next());
    let name = names.max_by_key(|name| revision(name)).context("Debian has no such kernel any more")?;
    run(apt("apt-get", &["download", name]))?;
    let package = one(staging, ".deb")?;
    let mut unpack = Command::new("dpkg");
    unpack.arg("-x").arg(&package).arg(staging.join("kernel"));
    run(unpack)?;
    let boot = files(&staging.join("kernel/boot"), "");
    boot.into_iter().find(|path| is_kernel(path)).with_context(|| format!("{name} has no kernel"))
}

/// The number behind the last dash but two: `linux-image-5.10.0-32-cloud-amd64`.
fn revision(name: &str) -> u64 {
    name.split('-').filter_map(|part| part.parse().ok()).next_back().unwrap_or_default()
}

fn is_kernel(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
}

fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().ends_with(suffix) && path.is_file()).collect()
}

fn one(folder: &Path, suffix: &str) -> Result<PathBuf> {
    match &files(folder, suffix)[..] {
        [file] => Ok(file.clone()),
        found => bail!("{} has {} files that end with `{suffix}`, and one was expected", folder.display(), found.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::revision;

    #[test]
    fn the_last_revision_is_taken() {
        let names = ["linux-image-5.10.0-9-cloud-amd64", "linux-image-5.10.0-32-cloud-amd64"];
        assert_eq!(names.into_iter().max_by_key(|name| revision(name)), Some(names[1]));
    }
}
