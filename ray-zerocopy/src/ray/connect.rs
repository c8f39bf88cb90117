//! Joining a cluster, or starting one; and how its workers come to be this executable.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::RayError;
use super::cluster::{Cluster, Inner, Place};
use super::fingerprint::Fingerprint;
use super::python::{self, Environment};
use super::sys::main::ENVIRONMENT;

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

impl ClusterBuilder {
    pub(super) fn new(address: &str) -> Self {
        Self {
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
        let mut place = Place::free()?;
        self.knock()?;
        let (spill, local) = (self.spill, self.address == "local");
        let (address, glue) = python::on_thread(move || self.connect(&environment))?;
        place.take(&address);
        Ok(Cluster(Arc::new(Inner::new(address, local, spill, binary, glue))))
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
