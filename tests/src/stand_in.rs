//! A CUDA driver for tests without a GPU: `tests/cuda/libcuda.c`, compiled for each process that
//! uses it.
//!
//! The dynamic loader reads its search path when a process starts, so a test that uses the driver
//! runs again, in a process of its own, whose workers inherit the environment.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Environment variable that is set in processes with the driver.
const LOADED: &str = "RAY_ZEROCOPY_TEST_DRIVER";

/// Environment variable of the driver: the name of its device. Processes with one name share it.
pub const NAME: &str = "STAND_IN_NAME";

/// The compiled driver.
pub struct Driver(TempDir);

impl Driver {
    /// Compiles the driver with these additional flags.
    ///
    /// # Panics
    /// If there is no C compiler, or it refuses the driver.
    pub fn compile(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/libcuda.c");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-Wl,-soname,libcuda.so.1"])
            .args(flags)
            .arg("-o");
        let compiled = compiler.arg(folder.path().join("libcuda.so.1")).arg(source).output();
        let compiled = compiled.expect("`cc` is installed");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        std::os::unix::fs::symlink("libcuda.so.1", folder.path().join("libcuda.so")).unwrap();
        Self(folder)
    }

    /// Returns a command that runs one test of this program with the driver. Its device is that of
    /// no other command.
    pub fn command(&self, test: &str) -> Command {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let inherited = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        let path = format!("{}:{inherited}", self.0.path().display());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env(LOADED, "1").env("LD_LIBRARY_PATH", path);
        command.env(NAME, format!("{}-{count}", std::process::id()));
        command
    }
}

/// Returns whether this process was started with the driver.
pub fn is_loaded() -> bool {
    std::env::var_os(LOADED).is_some()
}

/// An allocation on the device of this process, as one process has it.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The process.
    pub pid: u32,
    /// Identifies the allocation.
    pub inode: u64,
    /// Its size.
    pub bytes: u64,
}

/// What all processes have on the device of this process.
pub fn held() -> Vec<Held> {
    let name = format!("/memfd:stand-in-{} (deleted)", std::env::var(NAME).unwrap());
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end meanwhile.
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten().map(|file| file.path()) {
            if std::fs::read_link(&file).is_ok_and(|target| target.as_os_str() == name.as_str())
                && let Ok(data) = std::fs::metadata(&file)
            {
                found.push(Held { pid, inode: data.ino(), bytes: data.size() });
            }
        }
    }
    found
}

/// The allocations on the device of this process: the inode of each, and its size in bytes.
pub fn allocations() -> BTreeMap<u64, u64> {
    held().into_iter().map(|held| (held.inode, held.bytes)).collect()
}

/// Runs a test again, in a process with the driver. Returns `true` in that process.
///
/// # Panics
/// If the test fails there.
pub fn reruns(test: &str, variables: &[(&str, &str)]) -> bool {
    output_of(test, variables).is_none()
}

/// Runs a test again, in a process with the driver. Returns what that process has printed, and `None` in that process.
///
/// # Panics
/// If the test fails there.
pub fn output_of(test: &str, variables: &[(&str, &str)]) -> Option<String> {
    if is_loaded() {
        return None;
    }
    let flags: Vec<&str> =
        variables.iter().filter(|(name, _)| *name == "STAND_IN_COMPILED").map(|(_, flags)| *flags).collect();
    let driver = Driver::compile(&flags);
    let output = driver.command(test).envs(variables.iter().copied()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
    Some(said)
}
