//! The status of other programs of this user: each answers on the socket of its process.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::collect::{VERSION, begin};
use super::status::Status;
use crate::error::holder::HolderError;
use crate::holder::{answer_status, ask_for_status};
use crate::os::per_process::PerProcess;
use crate::os::sync::Mutex;
use crate::os::sys::process_id::process_id;

/// Greatest size of a status as JSON.
const MAX_BYTES: usize = 4 << 20;

static NAMES: PerProcess<Mutex<Vec<(u64, String)>>> = PerProcess::new();

/// This process publishes its status under a name. Dropping it ends that.
#[must_use = "dropping it ends the publication"]
pub struct Published {
    number: u64,
    name: String,
    /// A fork has a copy of this, and publishes nothing.
    process: u32,
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if self.process == process_id() {
            NAMES.get().lock().retain(|(number, _)| *number != self.number);
        }
    }
}

/// Begins to measure, and lets other programs of this user read the [`status`](super::status()) of this
/// process with [`services`], until the returned value is dropped. They find it by a socket
/// in the user's private folder, as the programs that hold arenas find each other.
///
/// # Errors
/// If that folder cannot be used.
pub fn publish(name: &str) -> Result<Published, HolderError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    begin();
    super::ensure_enabled();
    answer_status(json)?;
    let (number, name) = (NUMBER.fetch_add(1, Ordering::Relaxed), name.to_owned());
    NAMES.get().lock().push((number, name.clone()));
    Ok(Published { number, name, process: process_id() })
}

/// The names under which this process has published its status.
pub(super) fn names() -> Vec<String> {
    NAMES.get().lock().iter().map(|(_, name)| name.clone()).collect()
}

/// The status as JSON. `None` if the process does not publish it.
///
/// # Errors
/// Why there is none at the moment.
fn json() -> Option<Result<String, String>> {
    let names = names();
    if names.is_empty() {
        return None;
    }
    let status = super::collect::status(names).map_err(|error| error.to_string());
    Some(status.and_then(|status| {
        let json = serde_json::to_string(&status).map_err(|error| error.to_string())?;
        if json.len() <= MAX_BYTES {
            Ok(json)
        } else {
            Err(format!("its status has {} bytes, and at most {MAX_BYTES} are sent", json.len()))
        }
    }))
}

/// A program of this user that publishes its status.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Service {
    /// The process.
    pub pid: u32,
    /// Its status, or why it cannot be read: the process does not answer in time, or it is that of
    /// another version of this library.
    pub status: Result<Status, String>,
}

impl Service {
    /// A program with this status.
    pub fn new(pid: u32, status: Result<Status, String>) -> Self {
        Self { pid, status }
    }
}

/// Asks all programs of this user that [`publish()`] their status, each for at most two seconds.
///
/// # Errors
/// If the user's private folder cannot be used.
pub fn services() -> Result<Vec<Service>, HolderError> {
    let answers = ask_for_status()?.into_iter();
    let read =
        |(pid, answer): (u32, Result<String, String>)| Service { pid, status: answer.and_then(|json| read(&json)) };
    let mut services: Vec<_> = answers.map(read).collect();
    services.sort_by_key(|service| service.pid);
    Ok(services)
}

fn read(json: &str) -> Result<Status, String> {
    if json.len() > MAX_BYTES {
        return Err(format!("its status has {} bytes, and at most {MAX_BYTES} are read", json.len()));
    }
    let value: serde_json::Value =
        serde_json::from_str(json).map_err(|error| format!("its status is not JSON: {error}"))?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(VERSION)) {
        let found = version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
        return Err(format!("its status has {found}, and this program reads version {VERSION}"));
    }
    serde_json::from_value(value).map_err(|error| format!("its status cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, read};

    #[test]
    fn foreign_status_is_refused_with_a_reason() {
        let start = |json: &str, expected: &str| {
            let error = read(json).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        };
        start("{", "its status is not JSON");
        start("{}", "its status has no version, and this program reads version 1");
        start(r#"{"version":2}"#, "its status has version 2, and this program reads version 1");
        start(r#"{"version":1}"#, "its status cannot be read: missing field");
        start(&" ".repeat(MAX_BYTES + 1), "its status has 4194305 bytes");
        start(&"[".repeat(10_000), "its status is not JSON: recursion limit");
    }

    #[test]
    fn own_status_is_read_back() {
        let status = super::super::status().unwrap();
        assert_eq!(read(&serde_json::to_string(&status).unwrap()).unwrap(), status);
    }
}
