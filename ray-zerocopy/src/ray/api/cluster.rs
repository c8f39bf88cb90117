//! A Ray cluster, as this process sees it.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::builder::ClusterBuilder;
use crate::error::ray::RayError;
use crate::ray::python;
use crate::ray::sys::buffer::loans;
use crate::ray::sys::exit::{at_exit, exit_at_once};
use crate::ray::wire::fingerprint::Fingerprint;

/// This process's place in a Ray cluster. Cheap to clone: clones are the same place.
///
/// A process is in one cluster at a time. The workers that run for it are this very executable, started by Ray in the place of Python's.
/// The last clone leaves the cluster when it is dropped, and a cluster that [`local`](Self::local) started ends then.
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
    /// Whether the cluster ends with this process's connection.
    local: bool,
    pub(crate) spill: bool,
    pub(crate) binary: Fingerprint,
    /// Tells drivers apart in a worker.
    pub(crate) driver: u64,
    /// The module of `glue.py`.
    pub(crate) glue: Py<PyModule>,
    open: AtomicBool,
    /// The process that has joined. A fork of it has this value too, and none of Ray's threads.
    owner: u32,
    /// What is done for each answer that Ray has promised, if the cluster is left before it arrives.
    owed: Mutex<BTreeMap<u64, Otherwise>>,
}

type Otherwise = Box<dyn FnOnce() + Send>;

/// A machine, or what counts as one, of a cluster.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// Ray's name for it.
    pub id: String,
    /// The address of its host.
    pub address: String,
    /// Whether Ray believes that it is there.
    pub is_alive: bool,
    /// What it has: `CPU`, `GPU`, `memory` and `object_store_memory` in bytes, and what its owner made up.
    pub resources: BTreeMap<String, f64>,
}

/// The cluster that this process is in.
static CURRENT: Mutex<Option<Current>> = Mutex::new(None);
/// The process that was last in a cluster; 0 if none was.
static MEMBER: AtomicU32 = AtomicU32::new(0);

struct Current {
    address: String,
    /// Nobody holds it any more, but something that is read in place.
    abandoned: bool,
}

/// Exclusive right to put this process into a cluster.
pub(super) struct ClusterSlot(MutexGuard<'static, Option<Current>>);

impl ClusterSlot {
    /// Waits for it, and leaves what nobody holds any more.
    ///
    /// # Errors
    /// If this process is in a cluster, or reads something in the store of the one before.
    pub(super) fn free() -> Result<Self, RayError> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*current, loans()) {
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
        at_exit(at_the_end);
    }
}

impl Cluster {
    /// Joins the cluster at an address: `"auto"` for the one of this machine, or `"192.168.0.7:6379"`.
    ///
    /// # Errors
    /// If there is no Ray for this program's Python, no cluster at the address, or this process is in one already.
    pub fn connect(address: &str) -> Result<Self, RayError> {
        Self::at(address).start()
    }

    /// Sets up a connection to the cluster at an address.
    pub fn at(address: &str) -> ClusterBuilder {
        ClusterBuilder::new(address)
    }

    /// Sets up a cluster of one node on this machine, which ends with this process.
    pub fn local() -> ClusterBuilder {
        Self::at("local")
    }

    /// The address of the cluster.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// The nodes that the cluster knows.
    ///
    /// # Errors
    /// If the cluster does not answer.
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

    /// What the cluster has: `CPU`, `GPU`, `memory` and `object_store_memory` in bytes, and others.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub fn resources(&self) -> Result<BTreeMap<String, f64>, RayError> {
        self.ask("resources", |py| py.import("ray")?.call_method0("cluster_resources")?.extract())
    }

    /// What of that is free now.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub fn available(&self) -> Result<BTreeMap<String, f64>, RayError> {
        self.ask("available resources", |py| py.import("ray")?.call_method0("available_resources")?.extract())
    }

    /// How much of the object store of this process's node is free, and how much there is, in bytes. Ray tells it some
    /// tenths of a second late.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub fn store(&self) -> Result<(u64, u64), RayError> {
        self.ask("object store", store)
    }

    /// Leaves the cluster. One that [`local`](Self::local) started ends. Results that have not been fetched are lost.
    ///
    /// Weights and results of a local cluster's store can be read after it. The store of another cluster goes on, and has
    /// others' objects in their place soon.
    ///
    /// # Errors
    /// If Ray fails at it; or if it is no local cluster, and weights or results are still read in its store.
    pub fn shut_down(&self) -> Result<(), RayError> {
        match loans() {
            loans if loans > 0 && !self.0.local && self.0.open.load(Ordering::Acquire) => {
                Err(RayError::StoreInUse { address: self.0.address.clone(), objects: loans })
            }
            _ => self.0.leave(),
        }
    }

    /// Asks Ray something.
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
        let (open, owner, owed) = (AtomicBool::new(true), std::process::id(), Mutex::default());
        Self { address, local, spill, binary, driver, glue, open, owner, owed }
    }

    /// Whether this is a fork of the process that has joined. Nothing of Ray's works in it, nor does Python.
    pub(crate) fn is_forked(&self) -> bool {
        self.owner != std::process::id()
    }

    /// Whether Ray may be asked.
    ///
    /// # Errors
    /// If the cluster has been left, or this is a fork.
    pub(crate) fn usable(&self) -> Result<(), RayError> {
        if self.is_forked() {
            return Err(RayError::Forked);
        }
        if !self.open.load(Ordering::Acquire) {
            return Err(RayError::ShutDown);
        }
        Ok(())
    }

    /// Notes that Ray will call back; `otherwise` is called if the cluster is left before. Gives the number to
    /// [`settle`](Self::settle) it by.
    pub(crate) fn owe(&self, otherwise: impl FnOnce() + Send + 'static) -> u64 {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Box::new(otherwise));
        number
    }

    /// Ray has called back, or has refused to.
    pub(crate) fn settle(&self, number: u64) {
        let settled = self.owed.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        drop(settled);
    }

    pub(crate) fn ask<R>(&self, what: &str, ask: impl FnOnce(Python<'_>) -> PyResult<R>) -> Result<R, RayError> {
        self.usable()?;
        let answer = Python::attach(ask).map_err(|error| RayError::here(&error, what));
        at_exit(at_the_end);
        answer
    }

    fn leave(&self) -> Result<(), RayError> {
        if self.is_forked() {
            return Err(RayError::Forked);
        }
        if !self.open.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let left = leave();
        // Ray calls nobody back any more.
        let owed = std::mem::take(&mut *self.owed.lock().unwrap_or_else(PoisonError::into_inner));
        owed.into_values().for_each(|otherwise| otherwise());
        left
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.is_forked() {
            return;
        }
        if !self.local && loans() > 0 && self.open.swap(false, Ordering::AcqRel) {
            // A result lies in the store still: it is left when the process ends, or joins a cluster again.
            if let Some(current) = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                current.abandoned = true;
            }
            return;
        }
        // What fails is Ray's own end, which its processes notice by themselves.
        drop(self.leave());
    }
}

/// How much of the store of this process's node is free, and how much there is, in bytes.
pub(crate) fn store(py: Python<'_>) -> PyResult<(u64, u64)> {
    const STORE: &str = "object_store_memory";
    let ray = py.import("ray")?;
    let id: String = ray.call_method0("get_runtime_context")?.call_method0("get_node_id")?.extract()?;
    let nodes = py.import("ray._private.state")?.call_method0("available_resources_per_node")?;
    let free: f64 = nodes.get_item(&id).and_then(|node| node.get_item(STORE)?.extract()).unwrap_or(0.0);
    let all = ray.call_method0("nodes")?.extract::<Vec<Bound<'_, PyAny>>>()?;
    let own = |node: &&Bound<'_, PyAny>| {
        node.get_item("NodeID").and_then(|found| found.extract::<String>()).is_ok_and(|found| found == id)
    };
    let capacity = all.iter().find(own).map(|node| node.get_item("Resources")?.get_item(STORE)?.extract());
    Ok((free as u64, capacity.unwrap_or(Ok(0.0))? as u64))
}

/// Leaves whatever cluster this process is in.
fn leave() -> Result<(), RayError> {
    leave_from(&mut CURRENT.lock().unwrap_or_else(PoisonError::into_inner))
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

/// Leaves the cluster before the process ends, if nobody has.
extern "C" fn at_the_end(status: c_int, _: *mut c_void) {
    // A fork is in no cluster, and has no thread that could leave one. What Ray's libraries would do at its end needs their
    // threads, and aborts without them.
    if MEMBER.load(Ordering::Acquire) != std::process::id() {
        exit_at_once(status);
    }
    // Values of this thread are gone by now, so nothing here may have any.
    drop(std::panic::catch_unwind(leave));
}
