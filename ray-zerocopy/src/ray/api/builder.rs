//! Joining a cluster, or starting one; and how its workers come to be this executable.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::cluster::{Cluster, ClusterSlot, Inner};
use crate::error::ray::RayError;
use crate::os::sys::privileges::privileged;
use crate::ray::job::Job;
use crate::ray::program::Program;
use crate::ray::python;
use crate::ray::python::{Environment, keeping_signals};
use crate::ray::sys::main::ENVIRONMENT;
use crate::ray::wire::fingerprint::Fingerprint;

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
    upload: Option<bool>,
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
            upload: None,
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

    /// Whether this executable is uploaded to the nodes, or is there already under the same path. Default: if any node
    /// is on another host.
    #[must_use]
    pub fn upload_executable(mut self, upload: bool) -> Self {
        self.upload = Some(upload);
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
        if privileged() {
            return Err(RayError::Privileged);
        }
        let binary = Fingerprint::own().map_err(|reason| RayError::Wire { what: "this program".to_owned(), reason })?;
        let (program, job) = (Program::own()?, Job::own()?);
        let environment = python::start()?;
        let mut slot = ClusterSlot::free()?;
        self.knock()?;
        let (spill, local) = (self.spill, self.address == "local");
        let worker = WorkerCommand { environment, program, job };
        let (address, glue) = python::on_thread(move || self.connect(&worker))?;
        slot.take(&address);
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
    fn connect(&self, worker: &WorkerCommand) -> Result<(String, Py<PyModule>), RayError> {
        Python::attach(|py| {
            let failed = |error| self.failed(&error);
            let ray = py.import("ray").map_err(failed)?;
            let upload = self.upload.unwrap_or(false);
            let mut command = self.init(py, worker, upload)?;
            let mut joined = || -> Result<(String, Py<PyModule>), RayError> {
                if self.upload.is_none() && self.address != "local" && several_hosts(&ray).map_err(failed)? {
                    ray.call_method0("shutdown").map_err(failed)?;
                    command = self.init(py, worker, true)?;
                }
                let context = ray.call_method0("get_runtime_context").map_err(failed)?;
                is_used(&context, &command)?;
                let address = context.getattr("gcs_address").and_then(|address| address.extract()).map_err(failed)?;
                Ok((address, py.import("_ray_zerocopy").map_err(failed)?.unbind()))
            };
            joined().inspect_err(|_| {
                // What fails is Ray's own end, and the error before it says more.
                drop(ray.call_method0("shutdown"));
            })
        })
    }

    fn failed(&self, error: &PyErr) -> RayError {
        let cause = match RayError::here(error, "init") {
            RayError::Other { cause, .. } => cause,
            other => other.to_string(),
        };
        RayError::Connect { address: self.address.clone(), cause }
    }

    /// Joins, or starts the cluster. Gives the command that workers are started with.
    fn init(&self, py: Python<'_>, worker: &WorkerCommand, upload: bool) -> Result<String, RayError> {
        let (environment, command) = worker.runtime_env(py, upload)?;
        let init = || -> PyResult<()> {
            let arguments = PyDict::new(py);
            arguments.set_item("address", &self.address)?;
            arguments.set_item("log_to_driver", self.logs)?;
            arguments.set_item("logging_level", "warning")?;
            arguments.set_item("namespace", &self.namespace)?;
            arguments.set_item("runtime_env", environment)?;
            if self.address == "local" {
                arguments.set_item("include_dashboard", false)?;
                self.cpus.map(|cpus| arguments.set_item("num_cpus", cpus)).transpose()?;
                self.gpus.map(|gpus| arguments.set_item("num_gpus", gpus)).transpose()?;
                self.store.map(|bytes| arguments.set_item("object_store_memory", bytes)).transpose()?;
                if !self.resources.is_empty() {
                    arguments.set_item("resources", &self.resources)?;
                }
            }
            let guest = worker.environment.guest;
            let switched = switches(py, guest)?;
            let joined = keeping_signals(guest, || {
                let joined = py.import("ray")?.call_method("init", (), Some(&arguments))?;
                if !guest {
                    // Ray enables it. It gives back the handlers that were there before.
                    py.import("faulthandler")?.call_method0("disable")?;
                }
                Ok::<_, PyErr>(joined)
            });
            for (module, name, value) in switched {
                module.setattr(name, value)?;
            }
            joined.map(drop)
        };
        init().map_err(|error| self.failed(&error))?;
        Ok(command)
    }
}

/// Something of a module's that has been replaced: the module, the name, and what was there.
type Switched<'py> = (Bound<'py, PyModule>, &'static str, Bound<'py, PyAny>);

/// Turns off what `ray.init` would do that is not Ray's to do in this program.
fn switches(py: Python<'_>, guest: bool) -> PyResult<Vec<Switched<'_>>> {
    const CRASHES: &str = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER";
    let constants = py.import("ray._private.ray_constants")?;
    // Under `uv run` Ray would have uv start its workers, which knows nothing of this program.
    let mut switches = vec![(constants.clone(), "RAY_ENABLE_UV_RUN_RUNTIME_ENV", false.into_bound_py_any(py)?)];
    // Signals are the program's own, unless it is a Python that knows Ray.
    if !guest {
        let nothing = py.eval(c"lambda handler: None", None, None)?;
        switches.push((py.import("ray._private.utils")?, "set_sigterm_handler", nothing));
        // This one would also catch SIGTERM, and abort. The variable lets users have it.
        if std::env::var_os(CRASHES).is_none() {
            switches.push((constants, CRASHES, true.into_bound_py_any(py)?));
        }
    }
    for (module, name, value) in &mut switches {
        let before = module.getattr(*name)?;
        module.setattr(*name, std::mem::replace(value, before))?;
    }
    Ok(switches)
}

/// Sees that workers are started by `command`, whatever the hooks of Ray and of the user have done to it.
fn is_used(context: &Bound<'_, PyAny>, command: &str) -> Result<(), RayError> {
    let text = || context.call_method0("get_runtime_env_string")?.extract::<String>();
    let text = text().map_err(|error| RayError::here(&error, "runtime_env"))?;
    let environment: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let found = environment.get("py_executable").and_then(serde_json::Value::as_str);
    if found == Some(command) {
        return Ok(());
    }
    let reason = format!(
        "a hook has set it to `{}`, and workers have to be started by `{command}`; is there one in RAY_RUNTIME_ENV_HOOK?",
        found.unwrap_or("nothing")
    );
    Err(RayError::RuntimeEnv { key: "py_executable".to_owned(), reason })
}

/// Whether any node has another address than this process's own.
fn several_hosts(ray: &Bound<'_, PyModule>) -> PyResult<bool> {
    let nodes = ray.call_method0("nodes")?.extract::<Vec<Bound<'_, PyAny>>>()?;
    let own: String = ray.getattr("util")?.call_method0("get_node_ip_address")?.extract()?;
    let addresses = nodes.iter().map(|node| node.get_item("NodeManagerAddress")?.extract::<String>());
    Ok(addresses.collect::<PyResult<Vec<_>>>()?.iter().any(|address| *address != own))
}

/// How workers are started.
struct WorkerCommand {
    environment: Environment,
    program: Program,
    job: Job,
}

impl WorkerCommand {
    /// Tells Ray to start this program where it would start Python: the runtime environment, and the command in it.
    fn runtime_env<'py>(&self, py: Python<'py>, upload: bool) -> Result<(Bound<'py, PyDict>, String), RayError> {
        let shell = py.import("shlex")?;
        let quoted =
            |path: &Path| -> PyResult<String> { shell.call_method1("quote", (python::text(path),))?.extract() };
        let environment = PyDict::new(py);
        let mut command = format!("env {ENVIRONMENT}={}", quoted(&self.environment.python)?);
        if !upload {
            for word in self.program.command() {
                command = format!("{command} {}", quoted(word)?);
            }
        } else if self.job.has_folder {
            command = format!("{command} {}", quoted(&self.job.path_of(self.program.file())?)?);
        } else {
            let folder = self.program.folder().map_err(|error| RayError::Program {
                path: self.program.file().to_owned(),
                reason: format!("it cannot be copied to where Ray sends it from: {error}"),
            })?;
            environment.set_item("working_dir", python::text(&folder))?;
            command.push_str(" ./program");
        }
        environment.set_item("py_executable", &command)?;
        Ok((environment, command))
    }
}
