//! Becoming a Ray worker: this executable in the place of Python's.

use std::ffi::{CString, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::ray::module::_ray_zerocopy;

/// Set in the environment of a program that Ray starts as a worker. Its value is the `python` to pass for, if there is one
/// of that name on the node.
pub(crate) const ENVIRONMENT: &str = "RAY_ZEROCOPY_RAY_WORKER";

/// Makes the module that workers import known to Python. Before Python starts.
pub(crate) fn register() {
    pyo3::append_to_inittab!(_ray_zerocopy);
}

/// Whether Python runs in this process already, because it is the process's own program.
pub(crate) fn python_runs() -> bool {
    // SAFETY: may be called at any time, before Python is there too.
    unsafe { pyo3::ffi::Py_IsInitialized() != 0 }
}

/// Runs Ray's worker script if this process was started for that.
///
/// To be called when the process has one thread.
pub(crate) fn become_a_worker() {
    let Some(named) = std::env::var_os(ENVIRONMENT) else { return };
    // Whatever a worker starts is no worker.
    // SAFETY: no other thread runs yet that could read the environment.
    unsafe { std::env::remove_var(ENVIRONMENT) };
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let python = python(Path::new(&named), arguments.get(1).map(Path::new));
    arguments.splice(..1, [python.into_os_string()]);
    // An argument of the kernel's has no NUL in it.
    let arguments: Vec<CString> =
        arguments.into_iter().filter_map(|argument| CString::new(argument.into_vec()).ok()).collect();
    let mut pointers: Vec<*mut c_char> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    register();
    crate::engine::local::keep_heap();
    // SAFETY: `pointers` are `arguments.len()` strings that end with a NUL, and a null pointer behind them, as `main` gets
    // them; they live until the call returns, and Python does not write to them. Python was not started before.
    let code = unsafe { pyo3::ffi::Py_BytesMain(arguments.len() as c_int, pointers.as_mut_ptr()) };
    std::process::exit(code)
}

/// The `python` whose packages this process has to find: the one that was named, or on another node the one whose Ray
/// has started this: `<prefix>/lib/python3.11/site-packages/ray/_private/workers/default_worker.py`.
fn python(named: &Path, script: Option<&Path>) -> PathBuf {
    if named.is_absolute() && named.exists() {
        return named.to_owned();
    }
    let prefixes = script.into_iter().flat_map(Path::ancestors);
    let mut found = prefixes.map(|prefix| prefix.join("bin").join("python3")).filter(|python| python.exists());
    found.next().unwrap_or_else(|| PathBuf::from("python3"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::python;

    #[test]
    fn a_worker_finds_the_python_of_its_node() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path();
        std::fs::create_dir_all(prefix.join("bin")).unwrap();
        std::fs::write(prefix.join("bin/python3"), "").unwrap();
        let script = prefix.join("lib/python3.11/site-packages/ray/_private/workers/default_worker.py");
        assert_eq!(python(Path::new("/not/here/python"), Some(&script)), prefix.join("bin/python3"));
        let named = prefix.join("bin/python3");
        assert_eq!(python(&named, Some(Path::new("/elsewhere/default_worker.py"))), named);
    }
}
