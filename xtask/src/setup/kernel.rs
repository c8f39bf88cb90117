//! Linux 5.10 for the virtual machine, from a package of Debian 11.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::progress;
use crate::shell::{cache, exists, run};

/// The oldest kernel on which everything except memory policies works, and its Debian release.
pub(crate) const VERSION: &str = "5.10";
const RELEASE: &str = "bullseye";
/// The archive of releases that Debian no longer maintains.
const ARCHIVE: &str = "http://archive.debian.org/debian";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The keys that sign the packages.
pub(super) const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The path of the kernel image, in the cache.
pub(crate) fn image() -> Result<PathBuf> {
    Ok(cache()?.join(format!("linux-{VERSION}")).join("vmlinuz"))
}

/// Returns whether the kernel image is in the cache.
pub(super) fn is_present() -> bool {
    image().is_ok_and(|image| image.exists())
}

/// Fetches the kernel image from the machine's Debian mirror, or else from the archive.
pub(super) fn fetch() -> Result<()> {
    let image = image()?;
    ensure!(
        exists("apt-get"),
        "the package is fetched with apt; elsewhere, put a kernel {VERSION} for virtual machines at {}",
        image.display()
    );
    let folder = image.parent().context("the kernel image has no folder")?;
    let staging = folder.with_file_name(format!(".linux-{}", std::process::id()));
    let found = unpacked(&staging, &mirror()).or_else(|error| {
        eprintln!("{error:#}; trying {ARCHIVE}");
        unpacked(&staging, ARCHIVE)
    });
    let moved = found.and_then(|found| {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
        fs::rename(&found, &image).with_context(|| format!("{} cannot be written", image.display()))
    });
    let removed = fs::remove_dir_all(&staging);
    moved?;
    removed.with_context(|| format!("{} cannot be removed", staging.display()))
}

/// The Debian mirror in this machine's lists of sources.
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

/// Fetches the package from a mirror and unpacks it. Returns the path of the kernel image.
fn unpacked(staging: &Path, mirror: &str) -> Result<PathBuf> {
    for folder in ["lists/partial", "parts", "cache/archives/partial", "kernel"] {
        fs::create_dir_all(staging.join(folder)).with_context(|| format!("{} cannot be created", staging.display()))?;
    }
    let source = format!("Types: deb\nURIs: {mirror}\nSuites: {RELEASE}\nComponents: main\nSigned-By: {KEYS}\n");
    fs::write(staging.join("parts/old.sources"), source)?;
    // apt gets its own list of sources, so that the machine's stays unchanged.
    let apt = |program: &str, arguments: &[&str]| {
        let mut apt = Command::new(program);
        let own = |name: &str, folder: &str| format!("-o{name}={}", staging.join(folder).display());
        apt.args([
            own("Dir::State::Lists", "lists"),
            own("Dir::Etc::sourceparts", "parts"),
            own("Dir::Cache", "cache"),
        ]);
        // The release is no longer maintained, and its lists have expired.
        apt.args(["-oDir::Etc::sourcelist=/dev/null", "-oAcquire::Check-Valid-Until=false", "-qq"]).args(arguments);
        apt.current_dir(staging);
        apt
    };
    progress::run("old-kernel-update", apt("apt-get", &["update"]))?;
    let found = apt("apt-cache", &["search", &format!("^linux-image-{VERSION}.*-cloud-amd64$")]).output()?;
    let names = String::from_utf8_lossy(&found.stdout).into_owned();
    let names = names.lines().filter_map(|line| line.split_whitespace().next());
    let name = names.max_by_key(|name| revision(name)).with_context(|| format!("{mirror} has no kernel {VERSION}"))?;
    progress::run("old-kernel-download", apt("apt-get", &["download", name]))?;
    let package = one(staging, ".deb")?;
    let mut unpack = Command::new("dpkg");
    unpack.arg("-x").arg(&package).arg(staging.join("kernel"));
    run(unpack)?;
    let boot = files(&staging.join("kernel/boot"), "");
    boot.into_iter().find(|path| is_kernel(path)).with_context(|| format!("{name} has no kernel image"))
}

/// The revision of a package: 32 of `linux-image-5.10.0-32-cloud-amd64`.
fn revision(name: &str) -> u64 {
    name.split('-').filter_map(|part| part.parse().ok()).next_back().unwrap_or_default()
}

/// Returns whether a file is a kernel image, by its name.
fn is_kernel(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
}

/// The files of a folder whose names have a suffix.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().ends_with(suffix) && path.is_file()).collect()
}

/// The only file of a folder whose name has a suffix.
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
    fn latest_revision_is_chosen() {
        let names = ["linux-image-5.10.0-9-cloud-amd64", "linux-image-5.10.0-32-cloud-amd64"];
        assert_eq!(names.into_iter().max_by_key(|name| revision(name)), Some(names[1]));
    }
}
