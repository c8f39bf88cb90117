//! Connection to a Ray cluster.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::builder::ClusterBuilder;
use super::stored::StoredContainers;
use crate::error::ray::RayError;
use crate::os::sync::Mutex;
use crate::os::sys::atexit::{at_exit_at_each_use, flush_and_exit};
use crate::ray::python::{self, without_python};
use crate::ray::sys::buffer::borrow_count;
use crate::ray::wire::fingerprint::Fingerprint;

/// Connection of this process to a Ray cluster. Cheap to clone; clones share the connection.
///
/// A process is connected to at most one cluster at a time. The workers that run for it are this
/// very executable, started by Ray in place of Python. Dropping the last clone disconnects, which
/// ends a cluster that was started by [`local`](Self::local).
///
/// ```no_run
/// use ray_zerocopy::ray::{Cluster, RayError};
///
/// fn square(x: u64) -> u64 { x * x }
///
/// fn main() -> Result<(), RayError> {
///     ray_zerocopy::init();
///     let cluster = Cluster::local().cpus(2).start()?;
///     let nine = cluster.task(square as fn(u64) -> u64).remote(3)?;
///     assert_eq!(nine.get()?, 9);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Cluster(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    address: String,
    /// Whether the cluster ends with this connection.
    local: bool,
    pub(crate) spill: bool,
    pub(crate) binary: Fingerprint,
    /// Random id of this driver, by which workers distinguish drivers.
    pub(crate) driver: u64,
    /// The module of `glue.py`.
    pub(crate) glue: Py<PyModule>,
    open: AtomicBool,
    /// The process that has connected. A fork has a copy of this value, but none of Ray's threads.
    owner: u32,
    /// Fallbacks of pending callbacks, run if the connection is closed before Ray calls back.
    pending: Mutex<BTreeMap<u64, Fallback>>,
    /// The arenas that are in the store.
    pub(crate) stored: StoredContainers,
}

type Fallback = Box<dyn FnOnce() + Send>;

/// A node of a cluster: usually a machine.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// Ray's id of the node.
    pub id: String,
    /// Address of its host.
    pub address: String,
    /// Whether Ray considers the node alive.
    pub is_alive: bool,
    /// Its resources: `CPU`, `GPU`, `memory` and `object_store_memory` in bytes, and custom ones.
    pub resources: BTreeMap<String, f64>,
}

/// The cluster that this process is connected to.
static CURRENT: Mutex<Option<Current>> = Mutex::new(None);
/// The process that was last connected to a cluster, or 0.
static MEMBER: AtomicU32 = AtomicU32::new(0);

struct Current {
    address: String,
    /// The connection has been dropped, but data in the store is still borrowed.
    abandoned: bool,
}

/// How long a connection may still exist after the last handle was dropped: a thread that has just
/// delivered a result to its caller holds a reference for a moment longer.
const LAST_REFERENCE: Duration = Duration::from_millis(500);

/// Exclusive right to connect this process to a cluster.
pub(super) struct Membership(MutexGuard<'static, Option<Current>>);

impl Membership {
    /// Waits for the right, and closes an abandoned connection.
    ///
    /// # Errors
    /// If this process is connected to a cluster, or still borrows data in the store of the
    /// previous one.
    pub(super) fn acquire() -> Result<Self, RayError> {
        let until = Instant::now() + LAST_REFERENCE;
        loop {
            match Self::try_acquire() {
                Err(RayError::AlreadyConnected { .. }) if Instant::now() < until => {
                    without_python(|| std::thread::sleep(Duration::from_millis(5)));
                }
                result => return result,
            }
        }
    }

    fn try_acquire() -> Result<Self, RayError> {
        let mut current = CURRENT.lock();
        match (&*current, borrow_count()) {
            (None, _) => {}
            (Some(Current { abandoned: true, .. }), 0) => leave_from(&mut current)?,
            (Some(Current { abandoned: true, address }), loans) => {
                return Err(RayError::StoreInUse { address: address.clone(), objects: loans });
            }
            (Some(Current { address, .. }), _) => {
                return Err(RayError::AlreadyConnected { address: address.clone() });
            }
        }
        Ok(Self(current))
    }

    pub(super) fn take(&mut self, address: &str) {
        *self.0 = Some(Current { address: address.to_owned(), abandoned: false });
        MEMBER.store(std::process::id(), Ordering::Release);
        at_exit_at_each_use(on_exit);
    }
}

impl Cluster {
    /// Connects to the cluster at an address: `"auto"` for the one of this machine, or
    /// `"192.168.0.7:6379"`.
    ///
    /// # Errors
    /// If there is no Ray for this program's Python, no cluster at the address, or this process is
    /// already connected to one.
    pub fn connect(address: &str) -> Result<Self, RayError> {
        Self::at(address).start()
    }

    /// Creates a builder for a connection to the cluster at an address.
    pub fn at(address: &str) -> ClusterBuilder {
        ClusterBuilder::new(address)
    }

    /// Creates a builder for a cluster of one node on this machine, which ends with this process.
    pub fn local() -> ClusterBuilder {
        Self::at("local")
    }

    /// Address of the cluster.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Returns the nodes of the cluster.
    ///
    /// # Errors
    /// If the cluster does not respond.
    pub fn nodes(&self) -> Result<Vec<Node>, RayError> {
        self.ask("nodes", |py| {
            let nodes = py.import("ray")?.call_method0("nodes")?.extract::<Vec<Bound<'_, PyDict>>>()?;
            let node = |node: &Bound<'_, PyDict>| {
                let text = |key: &str| node.as_any().get_item(key)?.extract::<String>();
                Ok(Node {
                    id: text("NodeID")?,
                    address: text("NodeManagerAddress")?,
                    is_alive: node.as_any().get_item("Alive")?.extract()?,
                    resources: node.as_any().get_item("Resources")?.extract()?,
                })
            };
            nodes.iter().map(node).collect()
        })
    }

    /// Returns all resources of the cluster: `CPU`, `GPU`, `memory` and `object_store_memory` in
    /// bytes, and custom ones.
    ///
    /// # Errors
    /// If the cluster does not respond.
    pub fn resources(&self) -> Result<BTreeMap<String, f64>, RayError> {
        self.ask("resources", |py| py.import("ray")?.call_method0("cluster_resources")?.extract())
    }

    /// Returns the resources that are currently available.
    ///
    /// # Errors
    /// If the cluster does not respond.
    pub fn available(&self) -> Result<BTreeMap<String, f64>, RayError> {
        self.ask("available resources", |py| py.import("ray")?.call_method0("available_resources")?.extract())
    }

    /// Returns the free bytes and the capacity of the object store of this process's node. Ray
    /// reports them with a delay of some tenths of a second.
    ///
    /// # Errors
    /// If the cluster does not respond.
    pub fn store(&self) -> Result<(u64, u64), RayError> {
        self.ask("object store", store)
    }

    /// Disconnects from the cluster, which ends one that was started by [`local`](Self::local).
    /// Results that have not been fetched are lost.
    ///
    /// Weights and results in the store of a local cluster can still be read afterwards. The store
    /// of another cluster continues to run, and soon reuses their memory for other objects.
    ///
    /// # Errors
    /// If Ray fails to shut down, or if weights or results in the store of a cluster that is not
    /// local are still borrowed.
    pub fn shut_down(&self) -> Result<(), RayError> {
        let loans = borrow_count();
        if loans > 0 && !self.0.local && self.0.open.load(Ordering::Acquire) {
            return Err(RayError::StoreInUse { address: self.0.address.clone(), objects: loans });
        }
        self.0.leave()
    }

    /// Runs a closure that calls Ray.
    pub(crate) fn ask<R>(&self, what: &str, ask: impl FnOnce(Python<'_>) -> PyResult<R>) -> Result<R, RayError> {
        self.0.ask(what, ask)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn new(address: String, local: bool, spill: bool, binary: Fingerprint, glue: Py<PyModule>) -> Self {
        let driver = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let (open, owner, pending) = (AtomicBool::new(true), std::process::id(), Mutex::default());
        Self { address, local, spill, binary, driver, glue, open, owner, pending, stored: StoredContainers::default() }
    }

    /// Returns `true` in a fork of the process that has connected. Neither Ray nor Python works in
    /// a fork.
    pub(crate) fn is_forked(&self) -> bool {
        self.owner != std::process::id()
    }

    /// Checks that Ray can be used.
    ///
    /// # Errors
    /// If the connection has been closed, or this is a fork.
    pub(crate) fn usable(&self) -> Result<(), RayError> {
        if self.is_forked() {
            return Err(RayError::Forked);
        }
        if !self.open.load(Ordering::Acquire) {
            return Err(RayError::ShutDown);
        }
        Ok(())
    }

    /// Registers a pending callback of Ray. `fallback` is called if the connection is closed first.
    /// Returns the id for [`settle`](Self::settle).
    pub(crate) fn owe(&self, fallback: impl FnOnce() + Send + 'static) -> u64 {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let id = NUMBERS.fetch_add(1, Ordering::Relaxed);
        self.pending.lock().insert(id, Box::new(fallback));
        id
    }

    /// Removes a pending callback: Ray has called it, or failed to register it.
    pub(crate) fn settle(&self, id: u64) {
        let settled = self.pending.lock().remove(&id);
        drop(settled);
    }

    pub(crate) fn ask<R>(&self, what: &str, ask: impl FnOnce(Python<'_>) -> PyResult<R>) -> Result<R, RayError> {
        self.usable()?;
        let result = Python::attach(ask).map_err(|error| RayError::here(&error, what));
        at_exit_at_each_use(on_exit);
        result
    }

    fn leave(&self) -> Result<(), RayError> {
        if self.is_forked() {
            return Err(RayError::Forked);
        }
        if !self.open.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let result = leave();
        // Ray makes no callbacks after the shutdown.
        let pending = std::mem::take(&mut *self.pending.lock());
        for fallback in pending.into_values() {
            fallback();
        }
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.is_forked() {
            return;
        }
        if !self.local && borrow_count() > 0 && self.open.swap(false, Ordering::AcqRel) {
            // Data in the store is still borrowed: the connection is closed when the process ends,
            // or connects again.
            if let Some(current) = CURRENT.lock().as_mut() {
                current.abandoned = true;
            }
            return;
        }
        // An error of the shutdown is ignored: Ray's processes detect the closed connection
        // themselves.
        let _ = self.leave();
    }
}

/// Returns the free bytes and the capacity of the object store of this process's node.
pub(crate) fn store(py: Python<'_>) -> PyResult<(u64, u64)> {
    const STORE: &str = "object_store_memory";
    let ray = py.import("ray")?;
    let id: String = ray.call_method0("get_runtime_context")?.call_method0("get_node_id")?.extract()?;
    let nodes = py.import("ray._private.state")?.call_method0("available_resources_per_node")?;
    let acquire: f64 = nodes.get_item(&id).and_then(|node| node.get_item(STORE)?.extract()).unwrap_or(0.0);
    let all = ray.call_method0("nodes")?.extract::<Vec<Bound<'_, PyAny>>>()?;
    let own = |node: &&Bound<'_, PyAny>| {
        node.get_item("NodeID").and_then(|found| found.extract::<String>()).is_ok_and(|found| found == id)
    };
    let capacity = all.iter().find(own).map(|node| node.get_item("Resources")?.get_item(STORE)?.extract());
    Ok((acquire as u64, capacity.unwrap_or(Ok(0.0))? as u64))
}

/// Closes the current connection, if there is one.
fn leave() -> Result<(), RayError> {
    leave_from(&mut CURRENT.lock())
}

fn leave_from(current: &mut Option<Current>) -> Result<(), RayError> {
    if current.take().is_none() {
        return Ok(());
    }
    python::on_thread(|| {
        Python::attach(|py| py.import("ray")?.call_method0("shutdown").map(drop))
            .map_err(|error| RayError::here(&error, "shutdown"))
    })
}

/// Exit handler: closes the connection if it is still open.
extern "C" fn on_exit(status: c_int, _: *mut c_void) {
    // A fork is not connected, and has no thread that could disconnect. The exit handlers of Ray's
    // libraries need their threads, and abort without them.
    if MEMBER.load(Ordering::Acquire) != std::process::id() {
        flush_and_exit(status);
    }
    // Thread-local values of this thread have been destroyed, so nothing here may use any.
    let _ = std::panic::catch_unwind(leave);
}
