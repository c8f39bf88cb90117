//! The cancelled calls of a bundle, in Ray's key-value store: the driver writes, and the worker reads.
//!
//! Ray's own cancellation concerns a whole task. It makes the result of an actor's call an error, also if
//! the call runs to its end, so the answers of the other calls of a bundle would be lost. And if the call still waits
//! for the actor, Ray 2.60 does not tell the actor that its number in the order is gone: the actor waits for it, and
//! after 30 seconds drops all calls that follow. So a call of an actor that is sent alone is a bundle of one.
//!
//! Each cancelled call is a key of its own, so two that are cancelled at once need no lock. The keys of a driver
//! that is killed are left until the cluster ends.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::protocol::ProgramId;

/// A bundle of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BundleId {
    pub driver: u64,
    pub id: u64,
}

impl BundleId {
    pub(crate) fn new(program: &ProgramId, id: u64) -> Self {
        Self { driver: program.driver, id }
    }

    /// Start of the keys of its cancelled calls.
    fn prefix(self) -> String {
        format!("cancelled:{:x}:{:x}:", self.driver, self.id)
    }

    fn key(self, call: usize) -> String {
        format!("{}{call}", self.prefix())
    }

    /// The number of the call of a key.
    fn call(self, key: &[u8]) -> Option<usize> {
        std::str::from_utf8(key.strip_prefix(self.prefix().as_bytes())?).ok()?.parse().ok()
    }

    /// Records that a call is cancelled.
    pub(crate) fn cancel(self, py: Python<'_>, call: usize) -> PyResult<()> {
        store(py)?.call_method("_internal_kv_put", (self.key(call), "1"), Some(&options(py)?)).map(drop)
    }

    /// Returns the calls that are cancelled.
    pub(crate) fn cancelled(self, py: Python<'_>) -> PyResult<Vec<usize>> {
        let keys = store(py)?.call_method("_internal_kv_list", (self.prefix(),), Some(&options(py)?))?;
        let keys: Vec<Vec<u8>> = keys.extract()?;
        Ok(keys.iter().filter_map(|key| self.call(key)).collect())
    }

    /// Deletes the keys of all its calls.
    pub(crate) fn forget(self, py: Python<'_>) -> PyResult<()> {
        let options = options(py)?;
        options.set_item("del_by_prefix", true)?;
        store(py)?.call_method("_internal_kv_del", (self.prefix(),), Some(&options)).map(drop)
    }
}

fn store(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("ray.experimental.internal_kv")
}

fn options(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let options = PyDict::new(py);
    options.set_item("namespace", "ray_zerocopy")?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::BundleId;

    #[test]
    fn key_leads_to_its_call() {
        let bundle = BundleId { driver: 0xabc, id: 1 };
        assert_eq!(bundle.call(bundle.key(17).as_bytes()), Some(17));
        let other = BundleId { driver: 0xabc, id: 0x11 };
        assert_eq!(bundle.call(other.key(17).as_bytes()), None);
        assert!(!other.key(1).starts_with(&bundle.prefix()), "the keys of another bundle are kept");
    }
}
