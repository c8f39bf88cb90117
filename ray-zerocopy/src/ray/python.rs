//! The embedded Python interpreter: its environment, and the thread that it runs on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::sys::main::{has_run_python, python_runs, register};
use super::sys::signals::Dispositions;
use crate::error::ray::RayError;
use crate::os::procfs::own_file_at;
use crate::os::sync::Mutex;

/// Folder in the user's cache in which `cargo xtask ray-env` creates its environment.
const MADE: &str = "ray-zerocopy/ray-env";

/// The Python environment of the program.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    /// The Python executable that other processes are started with.
    pub(super) python: PathBuf,
    /// Whether this process is a Python interpreter that has imported this crate as a module.
    pub(super) guest: bool,
}

/// Candidate folders of an environment. The first that exists is used.
fn candidates() -> Vec<PathBuf> {
    let named = ["RAY_ZEROCOPY_PYTHON", "VIRTUAL_ENV"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    named.chain(cache.map(|cache| cache.join(MADE))).collect()
}

/// Python version of an environment, judging by its folders: `lib/python3.11`.
fn version(prefix: &Path) -> Option<String> {
    let entries = std::fs::read_dir(prefix.join("lib")).ok()?;
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.find_map(|name| name.strip_prefix("python").filter(|rest| rest.contains('.')).map(str::to_owned))
}

/// Starts Python, once, on a thread that never ends: processes that Ray starts for a local cluster
/// end with the thread that started them.
///
/// # Errors
/// If there is no environment with Ray, or it belongs to another Python version.
pub(super) fn start() -> Result<Environment, RayError> {
    static STARTED: Mutex<Option<Environment>> = Mutex::new(None);
    /// The process that has started Python, or 0.
    static OWNER: AtomicU32 = AtomicU32::new(0);
    let here = std::process::id();
    match OWNER.load(Ordering::Acquire) {
        0 => {}
        owner if owner == here => {}
        // The fork does not have Python's thread, and other threads may have held its locks.
        _ => return Err(RayError::Forked),
    }
    let mut started = STARTED.lock();
    if let Some(environment) = &*started {
        return Ok(environment.clone());
    }
    OWNER.store(here, Ordering::Release);
    let guest = python_runs();
    if !guest {
        register();
    }
    let environment = on_thread(move || {
        keeping_signals(guest, || {
            Python::initialize();
            Python::attach(|py| prepare(py, guest))
        })
    })?;
    Ok(started.insert(environment).clone())
}

/// Whether SIGINT has interrupted Python code that runs in [`keeping_signals`].
static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Notes an error of Python code that runs in [`keeping_signals`], if it is an interrupt.
pub(super) fn note_interrupt(py: Python<'_>, error: &PyErr) {
    if error.is_instance_of::<PyKeyboardInterrupt>(py) {
        IS_INTERRUPTED.store(true, Ordering::Release);
    }
}

/// Runs `work` and then restores the signal handlers that Python and Ray install: signal handling
/// belongs to the program, unless the program is Python itself. A SIGINT that has interrupted `work`
/// was meant for the program, which gets it then.
pub(super) fn keeping_signals<R>(guest: bool, work: impl FnOnce() -> R) -> R {
    if guest {
        return work();
    }
    let before = Dispositions::now();
    let result = work();
    before.restore(|handler| {
        let library = own_file_at(handler);
        let name = library.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        // Python's handlers are in libpython, and those of Ray in an extension module.
        name.starts_with("libpython") || name.starts_with("_raylet")
    });
    if IS_INTERRUPTED.swap(false, Ordering::AcqRel) {
        // This process exists, and may send itself signals.
        let _sent = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
    }
    result
}

/// Makes Ray's packages importable.
fn prepare(py: Python<'_>, guest: bool) -> Result<Environment, RayError> {
    let internal = |error: PyErr| RayError::here(&error, "python");
    let sys = py.import("sys").map_err(internal)?;
    if guest {
        // The process's own interpreter is already configured.
        let python: String = sys.getattr("executable").and_then(|python| python.extract()).map_err(internal)?;
        return Ok(Environment { python: python.into(), guest });
    }
    let linked = py.version_info();
    let linked = format!("{}.{}", linked.major, linked.minor);
    let candidates = candidates();
    let found =
        candidates.iter().find(|prefix| prefix.join("bin/python").exists() || prefix.join("bin/python3").exists());
    let python = match found {
        Some(prefix) => {
            let site = prefix.join("lib").join(format!("python{linked}")).join("site-packages");
            if !site.is_dir() {
                return Err(RayError::OtherPython {
                    environment: prefix.display().to_string(),
                    found: version(prefix).unwrap_or_else(|| "an unknown version".to_owned()),
                    linked,
                });
            }
            // Its packages take precedence over those of the linked Python, as in a normal virtual
            // environment.
            let path = sys.getattr("path").and_then(|path| Ok(path.cast_into::<PyList>()?)).map_err(internal)?;
            path.insert(0, text(&site)).map_err(internal)?;
            let python = prefix.join("bin").join("python");
            // Ray starts its own processes with this executable.
            sys.setattr("executable", text(&python)).map_err(internal)?;
            sys.setattr("prefix", text(prefix)).map_err(internal)?;
            python
        }
        None => {
            let base: String = sys.getattr("base_prefix").and_then(|prefix| prefix.extract()).map_err(internal)?;
            Path::new(&base).join("bin").join(format!("python{linked}"))
        }
    };
    py.import("ray").inspect_err(|error| note_interrupt(py, error)).map_err(|error| RayError::NoRay {
        version: linked,
        looked: candidates.clone(),
        reason: error.to_string(),
    })?;
    Ok(Environment { python, guest })
}

/// Converts a path to text, for Python modules that do not accept the `pathlib.Path` that pyo3
/// creates.
pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Releases Python's global interpreter lock, if the caller holds it, while `work` blocks. `work`
/// may wait for something that needs the lock.
pub(crate) fn without_python<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if has_run_python() { Python::attach(|py| py.detach(work)) } else { work() }
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs `job` on Python's thread, which lives as long as the process.
pub(super) fn on_thread<R: From<ThreadLost> + Send + 'static>(job: impl FnOnce() -> R + Send + 'static) -> R {
    static THREAD: Mutex<Option<Sender<Job>>> = Mutex::new(None);
    let (reply, result) = channel();
    let mut job: Job = Box::new(move || {
        // Fails only if the receiver is gone, which then needs no result.
        let _ = reply.send(job());
    });
    let mut thread = THREAD.lock();
    for _ in 0..2 {
        let jobs = thread.get_or_insert_with(|| {
            let (jobs, work) = channel::<Job>();
            let spawned = std::thread::Builder::new().name("ray-zerocopy python".to_owned());
            // If the thread cannot be started, the receiver is dropped and the send below returns
            // the job.
            let _ = spawned.spawn(move || {
                for job in work {
                    job();
                }
            });
            jobs
        });
        match jobs.send(job) {
            Ok(()) => {
                drop(thread);
                return result.recv().unwrap_or_else(|_| ThreadLost.into());
            }
            Err(rejected) => {
                job = rejected.0;
                *thread = None;
            }
        }
    }
    ThreadLost.into()
}

/// Error: Python's thread could not be started, or has panicked.
pub(super) struct ThreadLost;

impl<T> From<ThreadLost> for Result<T, RayError> {
    fn from(_: ThreadLost) -> Self {
        let cause = "its thread could not be started, or ended; see `ulimit -u`".to_owned();
        Err(RayError::Other { what: "python".to_owned(), cause })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use pyo3::Python;

    use super::version;
    use super::without_python;

    #[test]
    fn wait_releases_the_lock_of_python() {
        Python::initialize();
        assert_eq!(std::thread::spawn(|| without_python(|| 7)).join().unwrap(), 7, "a thread that never ran Python");
        Python::attach(|py| {
            let (done, ended) = channel();
            std::thread::spawn(move || Python::attach(|_| done.send(()).unwrap()));
            let ended = without_python(move || ended.recv_timeout(Duration::from_secs(60)));
            assert!(ended.is_ok(), "the other thread did not get the lock");
            assert!(py.eval(c"1 + 1", None, None).is_ok(), "this thread has it again");
        });
    }

    #[test]
    fn version_of_an_environment_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(version(folder.path()), None);
        std::fs::create_dir_all(folder.path().join("lib/python3.12/site-packages")).unwrap();
        assert_eq!(version(folder.path()).as_deref(), Some("3.12"));
    }
}
