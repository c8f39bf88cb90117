//! Becoming a Ray worker: this executable in the place of Python's.

use std::ffi::{CStr, CString, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::os::sys::privileges::privileged;

/// Set in the environment of a program that Ray starts as a worker. Its value is the absolute path of the `python` to pass
/// for, if there is one on the node.
pub(crate) const ENVIRONMENT: &str = "RAY_ZEROCOPY_RAY_WORKER";

/// The function that makes a Python module which is built into this program.
pub(crate) type ModuleInit = unsafe extern "C" fn() -> *mut pyo3::ffi::PyObject;

static MODULE: OnceLock<(&CStr, ModuleInit)> = OnceLock::new();

/// Installs the module that workers import: its name, and the function of `#[pymodule]`.
pub(crate) fn install(name: &'static CStr, init: ModuleInit) {
    MODULE.get_or_init(|| (name, init));
}

/// Makes the installed module known to Python, which must not have been started.
pub(crate) fn register() {
    let Some((name, init)) = MODULE.get() else { return };
    assert!(!python_runs(), "a built-in module can only be added before Python starts");
    // SAFETY: Python has not been started (asserted above). The name is a static string that ends with a NUL, and `init` is what
    // `#[pymodule]` made for Python to call.
    unsafe { pyo3::ffi::PyImport_AppendInittab(name.as_ptr(), Some(*init)) };
}

/// Whether Python runs in this process already, because it is the process's own program.
pub(crate) fn python_runs() -> bool {
    // SAFETY: may be called at any time, before Python is there too.
    unsafe { pyo3::ffi::Py_IsInitialized() != 0 }
}

/// Whether this thread has ever run Python, and so may hold its lock.
pub(crate) fn has_run_python() -> bool {
    // SAFETY: may be called at any time, before Python is there too, and by any thread: it looks at a value of the thread's.
    let state = unsafe { pyo3::ffi::PyGILState_GetThisThreadState() };
    !state.is_null()
}

/// An address in the code of the program that this process runs: where the dynamic loader has gone on to, also if the
/// loader itself was started, with the program as its argument. None if the kernel does not say.
pub(crate) fn entry_point() -> Option<usize> {
    // SAFETY: a request for a number, which the kernel has put into this process's memory; 0 if it is not there.
    let address = unsafe { libc::getauxval(libc::AT_ENTRY) };
    usize::try_from(address).ok().filter(|address| *address != 0)
}

/// Whether a program's arguments are those with which Ray starts a worker.
fn of_a_worker(named: &Path, script: Option<&Path>) -> bool {
    named.is_absolute() && script.is_some_and(|script| script.ends_with("ray/_private/workers/default_worker.py"))
}

/// Ends a process that was started as a worker and cannot be one, before `main`. Ray shows the message in the worker's log.
fn refuse(reason: &str) -> ! {
    eprintln!("ray-zerocopy: this process was started as a worker of Ray's, and cannot be one: {reason}");
    // SAFETY: ends the process, whatever state it is in. What `exit` would do beyond that is not wanted: handlers of a program
    // that has not begun.
    unsafe { libc::_exit(1) }
}

/// Whether the environment says that this process is a worker of Ray's.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(ENVIRONMENT).is_some()
}

/// Runs Ray's worker script if this process was started for that, and then never returns.
///
/// The variable alone proves nothing: it may be left in a shell, or be set by a caller who wants this program's privileges.
///
/// To be called when the process has one thread. What has to be done before Python starts is done by `prepare`.
pub(crate) fn become_a_worker(prepare: impl FnOnce()) {
    let Some(named) = std::env::var_os(ENVIRONMENT) else { return };
    let script = std::env::args_os().nth(1);
    if !of_a_worker(Path::new(&named), script.as_deref().map(Path::new)) || python_runs() {
        return;
    }
    if privileged() {
        refuse("the program has privileges that its caller lacks (setuid, setgid or file capabilities)");
    }
    // Whatever a worker starts is no worker.
    // SAFETY: no other thread runs yet that could read the environment.
    unsafe { std::env::remove_var(ENVIRONMENT) };
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let Some(python) = python(Path::new(&named), arguments.get(1).map(Path::new)) else {
        refuse(&format!(
            "there is neither {} nor a python3 beside {:?}",
            Path::new(&named).display(),
            arguments.get(1)
        ));
    };
    arguments.splice(..1, [python.into_os_string()]);
    // An argument of the kernel's has no NUL in it.
    let arguments: Vec<CString> =
        arguments.into_iter().filter_map(|argument| CString::new(argument.into_vec()).ok()).collect();
    let mut pointers: Vec<*mut c_char> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    prepare();
    register();
    crate::os::sys::malloc::keep();
    // SAFETY: `pointers` are `arguments.len()` strings that end with a NUL, and a null pointer behind them, as `main` gets
    // them; they live until the call returns, and Python does not write to them. Python was not started before.
    let code = unsafe { pyo3::ffi::Py_BytesMain(arguments.len() as c_int, pointers.as_mut_ptr()) };
    std::process::exit(code)
}

/// The `python` whose packages this process has to find: the one that was named, or on another node the one whose Ray
/// has started this: `<prefix>/lib/python3.11/site-packages/ray/_private/workers/default_worker.py`.
fn python(named: &Path, script: Option<&Path>) -> Option<PathBuf> {
    if named.exists() {
        return Some(named.to_owned());
    }
    let prefixes = script.into_iter().flat_map(Path::ancestors);
    let prefixes = prefixes.filter(|prefix| prefix.parent().is_some());
    prefixes.map(|prefix| prefix.join("bin").join("python3")).find(|python| python.exists())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::of_a_worker;
    use super::python;

    #[test]
    fn a_worker_finds_the_python_of_its_node() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path();
        std::fs::create_dir_all(prefix.join("bin")).unwrap();
        std::fs::write(prefix.join("bin/python3"), "").unwrap();
        let script = prefix.join("lib/python3.11/site-packages/ray/_private/workers/default_worker.py");
        assert_eq!(python(Path::new("/not/here/python"), Some(&script)), Some(prefix.join("bin/python3")));
        let named = prefix.join("bin/python3");
        assert_eq!(python(&named, Some(Path::new("/elsewhere/default_worker.py"))), Some(named));
        assert_eq!(python(Path::new("/not/here/python"), Some(Path::new("/elsewhere/default_worker.py"))), None);
    }

    #[test]
    fn only_what_ray_starts_is_a_worker() {
        let script = Path::new("/venv/lib/python3.11/site-packages/ray/_private/workers/default_worker.py");
        assert!(of_a_worker(Path::new("/venv/bin/python"), Some(script)));
        assert!(!of_a_worker(Path::new(""), Some(script)), "the variable is empty");
        assert!(!of_a_worker(Path::new("python3"), Some(script)), "it is no path");
        assert!(!of_a_worker(Path::new("/venv/bin/python"), None));
        assert!(!of_a_worker(Path::new("/venv/bin/python"), Some(Path::new("-c"))));
        assert!(!of_a_worker(Path::new("/venv/bin/python"), Some(Path::new("/my_default_worker.py"))));
    }
}
