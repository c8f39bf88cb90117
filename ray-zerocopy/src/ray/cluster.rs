//! A Ray cluster, as this process sees it.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::RayError;
use super::fingerprint::Fingerprint;
use super::python::{self, Environment};
use super::sys::buffer::loans;
use super::sys::exit::at_exit;
use super::sys::main::ENVIRONMENT;

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
}

/// A machine, or what counts as one, of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Ray's name for it.
    pub id: String,
    /// The address of its host.
    pub address: String,
    /// Whether Ray believes that it is there.
    pub alive: bool,
    /// What it has: `CPU`, `GPU`, `memory` and `object_store_memory` in bytes, and what its owner made up.
    pub resources: BTreeMap<String, f64>,
}

/// For how long a cluster may take to open its door.
const KNOCK: Duration = Duration::from_secs(10);

/// How a cluster is connected to, or started.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    address: String,
    cpus: Option<usize>,
    gpus: Option<usize>,
    resources: BTreeMap<String, f64>,
    store: Option<u64>,
    namespace: Option<String>,
    spill: bool,
    ship: Option<bool>,
    logs: bool,
}

/// The cluster that this process is in.
static CURRENT: Mutex<Option<Current>> = Mutex::new(None);

struct Current {
    address: String,
    /// Nobody holds it any more, but something that is read in place.
    abandoned: bool,
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
        ClusterBuilder {
            address: address.to_owned(),
            cpus: None,
            gpus: None,
            resources: BTreeMap::new(),
            store: None,
            namespace: None,
            spill: false,
            ship: None,
            logs: true,
        }
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
                    alive: node.as_any().get_item("Alive")?.extract()?,
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
                Err(RayError::Borrowed { address: self.0.address.clone(), loans })
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
    pub(crate) fn ask<R>(&self, what: &str, ask: impl FnOnce(Python<'_>) -> PyResult<R>) -> Result<R, RayError> {
        if !self.open.load(Ordering::Acquire) {
            return Err(RayError::ShutDown);
        }
        let answer = Python::attach(ask).map_err(|error| RayError::here(&error, what));
        at_exit(at_the_end);
        answer
    }

    fn leave(&self) -> Result<(), RayError> {
        match self.open.swap(false, Ordering::AcqRel) {
            true => leave(),
            false => Ok(()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
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
pub(super) fn store(py: Python<'_>) -> PyResult<(u64, u64)> {
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
extern "C" fn at_the_end() {
    // Values of this thread are gone by now, so nothing here may have any.
    drop(std::panic::catch_unwind(leave));
}

impl ClusterBuilder {
    /// How many processors a local cluster has. Default: as many as the machine.
    #[must_use]
    pub fn cpus(mut self, cpus: usize) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// How many GPUs a local cluster has. Default: those that Ray finds.
    #[must_use]
    pub fn gpus(mut self, gpus: usize) -> Self {
        self.gpus = Some(gpus);
        self
    }

    /// A resource of a local cluster, of any name.
    #[must_use]
    pub fn resource(mut self, name: &str, amount: f64) -> Self {
        self.resources.insert(name.to_owned(), amount);
        self
    }

    /// How large the object store of a local cluster is, in bytes. Default: Ray's, 30 % of the memory.
    #[must_use]
    pub fn object_store(mut self, bytes: u64) -> Self {
        self.store = Some(bytes);
        self
    }

    /// The namespace of named actors. Default: one of its own.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Lets weights go to a full store: Ray moves objects to a disk for them, or puts them there. Without this it is an error.
    #[must_use]
    pub fn spill(mut self) -> Self {
        self.spill = true;
        self
    }

    /// Whether this executable is sent to the nodes, or is there already under the same path. Default: it is sent if any node
    /// is on another host.
    #[must_use]
    pub fn ship(mut self, ship: bool) -> Self {
        self.ship = Some(ship);
        self
    }

    /// Keeps what workers print to themselves. By default Ray brings it here.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.logs = false;
        self
    }

    /// Connects, or starts the cluster.
    ///
    /// # Errors
    /// If there is no Ray for this program's Python, no cluster at the address, or this process is in one already.
    pub fn start(self) -> Result<Cluster, RayError> {
        let binary = Fingerprint::own().map_err(|reason| RayError::Wire { what: "this program".to_owned(), reason })?;
        let environment = python::start()?;
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*current, loans()) {
            (None, _) => {}
            (Some(Current { abandoned: true, .. }), 0) => leave_from(&mut current)?,
            (Some(Current { abandoned: true, address }), loans) => {
                return Err(RayError::Borrowed { address: address.clone(), loans });
            }
            (Some(Current { address, .. }), _) => {
                return Err(RayError::AlreadyConnected { address: address.clone() });
            }
        }
        self.knock()?;
        let (spill, local) = (self.spill, self.address == "local");
        let (address, glue) = python::on_thread(move || self.connect(&environment))?;
        *current = Some(Current { address: address.clone(), abandoned: false });
        at_exit(at_the_end);
        let driver = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        Ok(Cluster(Arc::new(Inner { address, local, spill, binary, driver, glue, open: AtomicBool::new(true) })))
    }

    /// Whether somebody listens at the address. Ray itself asks for minutes before it gives up.
    fn knock(&self) -> Result<(), RayError> {
        let Ok(addresses) = self.address.to_socket_addrs() else { return Ok(()) };
        let mut refused = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, KNOCK) {
                Ok(_) => return Ok(()),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            None => Ok(()),
            Some(error) => {
                let cause = format!("{error}; is it the one that `ray start` has printed?");
                Err(RayError::Connect { address: self.address.clone(), cause })
            }
        }
    }

    /// On Python's own thread.
    fn connect(&self, environment: &Environment) -> Result<(String, Py<PyModule>), RayError> {
        Python::attach(|py| {
            let ray = py.import("ray")?;
            let ship = self.ship.unwrap_or(false);
            self.init(py, environment, ship)?;
            if self.ship.is_none() && self.address != "local" && several_hosts(&ray)? {
                ray.call_method0("shutdown")?;
                self.init(py, environment, true)?;
            }
            let address = ray.call_method0("get_runtime_context")?.getattr("gcs_address")?.extract()?;
            Ok((address, py.import("_ray_zerocopy")?.unbind()))
        })
        .map_err(|error| {
            let cause = match RayError::here(&error, "init") {
                RayError::Other { cause, .. } => cause,
                other => other.to_string(),
            };
            RayError::Connect { address: self.address.clone(), cause }
        })
    }

    fn init(&self, py: Python<'_>, environment: &Environment, ship: bool) -> PyResult<()> {
        let arguments = PyDict::new(py);
        arguments.set_item("address", &self.address)?;
        arguments.set_item("log_to_driver", self.logs)?;
        arguments.set_item("logging_level", "warning")?;
        arguments.set_item("namespace", &self.namespace)?;
        arguments.set_item("runtime_env", runtime_env(py, environment, ship)?)?;
        if self.address == "local" {
            arguments.set_item("include_dashboard", false)?;
            self.cpus.map(|cpus| arguments.set_item("num_cpus", cpus)).transpose()?;
            self.gpus.map(|gpus| arguments.set_item("num_gpus", gpus)).transpose()?;
            self.store.map(|bytes| arguments.set_item("object_store_memory", bytes)).transpose()?;
            if !self.resources.is_empty() {
                arguments.set_item("resources", &self.resources)?;
            }
        }
        py.import("ray")?.call_method("init", (), Some(&arguments)).map(drop)
    }
}

/// Whether any node has another address than this process's own.
fn several_hosts(ray: &Bound<'_, PyModule>) -> PyResult<bool> {
    let nodes = ray.call_method0("nodes")?.extract::<Vec<Bound<'_, PyAny>>>()?;
    let own: String = ray.getattr("util")?.call_method0("get_node_ip_address")?.extract()?;
    let addresses = nodes.iter().map(|node| node.get_item("NodeManagerAddress")?.extract::<String>());
    Ok(addresses.collect::<PyResult<Vec<_>>>()?.iter().any(|address| *address != own))
}

/// Tells Ray to start this executable where it would start Python.
fn runtime_env<'py>(py: Python<'py>, environment: &Environment, ship: bool) -> PyResult<Bound<'py, PyDict>> {
    let executable = std::env::current_exe()?;
    let env = PyDict::new(py);
    let program = match ship {
        true => {
            env.set_item("working_dir", python::text(&folder_of(&executable)?))?;
            PathBuf::from("./program")
        }
        false => executable,
    };
    let shell = py.import("shlex")?;
    let quoted = |path: &Path| -> PyResult<String> { shell.call_method1("quote", (python::text(path),))?.extract() };
    let command = format!("env {ENVIRONMENT}={} {}", quoted(&environment.python)?, quoted(&program)?);
    env.set_item("py_executable", command)?;
    Ok(env)
}

/// A folder with nothing but this executable in it, which Ray packs and sends. It is there as long as the process.
fn folder_of(executable: &Path) -> PyResult<PathBuf> {
    static FOLDER: Mutex<Option<tempfile::TempDir>> = Mutex::new(None);
    let mut folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    if folder.is_none() {
        let made = tempfile::Builder::new().prefix("ray-zerocopy-ship-").tempdir()?;
        let target = made.path().join("program");
        // The same file where that is possible: it may be large.
        std::fs::hard_link(executable, &target).or_else(|_| std::fs::copy(executable, &target).map(drop))?;
        *folder = Some(made);
    }
    Ok(folder.as_ref().map(|folder| folder.path().to_owned()).unwrap_or_default())
}
