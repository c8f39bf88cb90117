//! Connecting to a cluster or starting one, and the setup that makes Ray start this executable as
//! its workers.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::cluster::{Cluster, Inner, Membership};
use crate::error::ray::RayError;
use crate::os::sys::privileges::privileged;
use crate::ray::job::Job;
use crate::ray::program::Program;
use crate::ray::python;
use crate::ray::python::{Environment, keeping_signals, note_interrupt};
use crate::ray::sys::main::ENVIRONMENT;
use crate::ray::wire::fingerprint::Fingerprint;

/// TCP connect timeout for the cluster address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Builder of a connection, or of a local cluster.
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

    /// Sets the number of CPUs of a local cluster. Default: those of the machine.
    #[must_use]
    pub fn cpus(mut self, cpus: usize) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// Sets the number of GPUs of a local cluster. Default: those detected by Ray.
    #[must_use]
    pub fn gpus(mut self, gpus: usize) -> Self {
        self.gpus = Some(gpus);
        self
    }

    /// Adds a custom resource to a local cluster.
    #[must_use]
    pub fn resource(mut self, name: &str, amount: f64) -> Self {
        self.resources.insert(name.to_owned(), amount);
        self
    }

    /// Sets the size of a local cluster's object store in bytes. Default: Ray's, 30 % of the
    /// memory.
    #[must_use]
    pub fn object_store(mut self, bytes: u64) -> Self {
        self.store = Some(bytes);
        self
    }

    /// Sets the namespace of named actors. Default: an anonymous one.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Allows weights to be put into a full object store: Ray spills other objects, or the weights,
    /// to disk. Otherwise a full store is an error. Ray does not spill to a disk that is more than 95 %
    /// full; `RAY_local_fs_capacity_threshold` in the environment that Ray is started in changes that.
    #[must_use]
    pub fn spill(mut self) -> Self {
        self.spill = true;
        self
    }

    /// Sets whether this executable is uploaded to the nodes, or exists there under the same path.
    /// Default: it is uploaded if any node is on another host.
    #[must_use]
    pub fn upload_executable(mut self, upload: bool) -> Self {
        self.upload = Some(upload);
        self
    }

    /// Disables forwarding of the workers' output. By default Ray prints it in this process.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.logs = false;
        self
    }

    /// Connects to the cluster, or starts it.
    ///
    /// # Errors
    /// If there is no Ray for this program's Python, no cluster at the address, or this process is
    /// already connected to one.
    pub fn start(self) -> Result<Cluster, RayError> {
        if privileged() {
            return Err(RayError::Privileged);
        }
        let binary = Fingerprint::own().map_err(|reason| RayError::Wire { what: "this program".to_owned(), reason })?;
        let (program, job) = (Program::own()?, Job::own()?);
        let environment = python::start()?;
        let mut membership = Membership::acquire()?;
        self.check_reachable()?;
        let (spill, local) = (self.spill, self.address == "local");
        let worker = WorkerCommand { environment, program, job };
        let (address, glue) = python::on_thread(move || self.connect(&worker))?;
        membership.take(&address);
        Ok(Cluster(Arc::new(Inner::new(address, local, spill, binary, glue))))
    }

    /// Checks that the address accepts TCP connections. Ray itself retries for minutes before it
    /// fails.
    fn check_reachable(&self) -> Result<(), RayError> {
        let Ok(addresses) = self.address.to_socket_addrs() else { return Ok(()) };
        let mut last_error = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(_) => return Ok(()),
                Err(error) => last_error = Some(error),
            }
        }
        match last_error {
            None => Ok(()),
            Some(error) => {
                let cause = format!("{error}; use the address that `ray start` has printed");
                Err(RayError::Connect { address: self.address.clone(), cause })
            }
        }
    }

    /// Connects, and imports the glue module. Runs on Python's own thread.
    fn connect(&self, worker: &WorkerCommand) -> Result<(String, Py<PyModule>), RayError> {
        Python::attach(|py| {
            let connect_error = |error| self.connect_error(&error);
            let ray = py.import("ray").map_err(connect_error)?;
            let upload = self.upload.unwrap_or(false);
            let mut command = self.init(py, worker, upload)?;
            let mut join = || -> Result<(String, Py<PyModule>), RayError> {
                if self.upload.is_none() && self.address != "local" && several_hosts(&ray).map_err(connect_error)? {
                    ray.call_method0("shutdown").map_err(connect_error)?;
                    command = self.init(py, worker, true)?;
                }
                let context = ray.call_method0("get_runtime_context").map_err(connect_error)?;
                check_command(&context, &command)?;
                let address =
                    context.getattr("gcs_address").and_then(|address| address.extract()).map_err(connect_error)?;
                Ok((address, py.import("_ray_zerocopy").map_err(connect_error)?.unbind()))
            };
            join().inspect_err(|_| {
                // The connection failed before; its error says more than one of the shutdown.
                let _ = ray.call_method0("shutdown");
            })
        })
    }

    fn connect_error(&self, error: &PyErr) -> RayError {
        let cause = match RayError::here(error, "init") {
            RayError::Other { cause, .. } => cause,
            other => other.to_string(),
        };
        RayError::Connect { address: self.address.clone(), cause }
    }

    /// Runs `ray.init`, which joins or starts the cluster. Returns the command that workers are
    /// started with.
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
                if let Some(cpus) = self.cpus {
                    arguments.set_item("num_cpus", cpus)?;
                }
                if let Some(gpus) = self.gpus {
                    arguments.set_item("num_gpus", gpus)?;
                }
                if let Some(bytes) = self.store {
                    arguments.set_item("object_store_memory", bytes)?;
                }
                if !self.resources.is_empty() {
                    arguments.set_item("resources", &self.resources)?;
                }
            }
            let guest = worker.environment.guest;
            let overridden = override_attributes(py, guest)?;
            let joined = keeping_signals(guest, || {
                let joined = py.import("ray").and_then(|ray| ray.call_method("init", (), Some(&arguments)));
                let joined = joined.inspect_err(|error| note_interrupt(py, error))?;
                if !guest {
                    // Ray enables the fault handler. Disabling it restores the previous handlers.
                    py.import("faulthandler")?.call_method0("disable")?;
                }
                Ok::<_, PyErr>(joined)
            });
            for (module, name, value) in overridden {
                module.setattr(name, value)?;
            }
            joined.map(drop)
        };
        init().map_err(|error| self.connect_error(&error))?;
        Ok(command)
    }
}

/// An overridden attribute: the module, its name, and the previous value.
type Overridden<'py> = (Bound<'py, PyModule>, &'static str, Bound<'py, PyAny>);

/// Disables parts of `ray.init` that would take over settings of this program.
fn override_attributes(py: Python<'_>, guest: bool) -> PyResult<Vec<Overridden<'_>>> {
    const CRASHES: &str = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER";
    let constants = py.import("ray._private.ray_constants")?;
    // Under `uv run` Ray would start its workers through uv, which cannot start this program.
    let mut overrides = vec![(constants.clone(), "RAY_ENABLE_UV_RUN_RUNTIME_ENV", false.into_bound_py_any(py)?)];
    // Signal handling belongs to the program, unless it is a Python process that uses Ray itself.
    if !guest {
        let nothing = py.eval(c"lambda handler: None", None, None)?;
        overrides.push((py.import("ray._private.utils")?, "set_sigterm_handler", nothing));
        // This handler would also catch SIGTERM, and abort. Users can enable it with the variable.
        if std::env::var_os(CRASHES).is_none() {
            overrides.push((constants, CRASHES, true.into_bound_py_any(py)?));
        }
    }
    for (module, name, value) in &mut overrides {
        let before = module.getattr(*name)?;
        module.setattr(*name, std::mem::replace(value, before))?;
    }
    Ok(overrides)
}

/// Checks that workers are started with `command`: hooks of Ray or of the user may have changed it.
fn check_command(context: &Bound<'_, PyAny>, command: &str) -> Result<(), RayError> {
    let text = || context.call_method0("get_runtime_env_string")?.extract::<String>();
    let text = text().map_err(|error| RayError::here(&error, "runtime_env"))?;
    let environment: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let found = environment.get("py_executable").and_then(serde_json::Value::as_str);
    if found == Some(command) {
        return Ok(());
    }
    let reason = format!(
        "a hook has set it to `{}`, but workers must be started by `{command}`; check RAY_RUNTIME_ENV_HOOK",
        found.unwrap_or("nothing")
    );
    Err(RayError::RuntimeEnv { key: "py_executable".to_owned(), reason })
}

/// Returns `true` if any node has another address than this process.
fn several_hosts(ray: &Bound<'_, PyModule>) -> PyResult<bool> {
    let nodes = ray.call_method0("nodes")?.extract::<Vec<Bound<'_, PyAny>>>()?;
    let own: String = ray.getattr("util")?.call_method0("get_node_ip_address")?.extract()?;
    let addresses = nodes.iter().map(|node| node.get_item("NodeManagerAddress")?.extract::<String>());
    Ok(addresses.collect::<PyResult<Vec<_>>>()?.iter().any(|address| *address != own))
}

/// Parameters of the command that starts workers.
struct WorkerCommand {
    environment: Environment,
    program: Program,
    job: Job,
}

impl WorkerCommand {
    /// Creates the runtime environment that makes Ray start this program in place of Python. Also
    /// returns the command in it.
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
                reason: format!("it cannot be copied to the folder that Ray uploads: {error}"),
            })?;
            environment.set_item("working_dir", python::text(&folder))?;
            command.push_str(" ./program");
        }
        environment.set_item("py_executable", &command)?;
        Ok((environment, command))
    }
}
