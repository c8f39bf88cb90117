//! Other servers of embeddings, each in processes of its own: infinity, and ONNX Runtime behind FastAPI.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use benches::child::Reaped;
use ray_zerocopy_examples::minilm::fetch::ModelFiles;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::sentences::MODEL;

/// Time within which a server has to listen.
const PATIENCE: Duration = Duration::from_secs(180);

/// A kind of server.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    command: fn(&Path, &ModelFiles, u16) -> Command,
}

/// All kinds.
pub(crate) const PEERS: [Kind; 2] = [
    Kind { name: "infinity (PyTorch)", path: "/embeddings", command: infinity },
    Kind { name: "ONNX Runtime behind FastAPI", path: "/embeddings", command: onnx },
];

/// A running server.
pub(crate) struct Peer {
    process: Reaped,
    pub(crate) address: SocketAddr,
}

fn infinity(environment: &Path, files: &ModelFiles, port: u16) -> Command {
    let mut command = Command::new(environment.join("bin/infinity_emb"));
    command.args(["v2", "--engine", "torch", "--device", "cpu", "--batch-size", "32", "--log-level", "warning"]);
    command.args(["--no-model-warmup", "--no-bettertransformer", "--served-model-name", MODEL]);
    command.arg("--model-id").arg(files.folder()).args(["--port", &port.to_string()]);
    command.env("HF_HUB_OFFLINE", "1").env("DO_NOT_TRACK", "1").env("INFINITY_ANONYMOUS_USAGE_STATS", "0");
    command
}

/// Two processes of one thread each, as gunicorn and uvicorn are run.
fn onnx(environment: &Path, files: &ModelFiles, port: u16) -> Command {
    let mut command = Command::new(environment.join("bin/python"));
    command.args(["-B", "-m", "uvicorn", "peers.serve_onnx:app", "--workers", "2", "--log-level", "warning"]);
    command.args(["--port", &port.to_string()]);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("python"));
    command.env("MINILM", files.folder());
    command
}

/// The environment with the servers, and the folder with PyTorch.
///
/// # Errors
/// If one is missing. The error names the command that fetches it.
pub(crate) fn folders() -> Result<(PathBuf, PathBuf)> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("ray-zerocopy");
    let (servers, torch) = (cache.join("servers-env"), cache.join("torch"));
    for (folder, file) in [(&servers, "packages.txt"), (&torch, "torch/__init__.py")] {
        let is_complete = folder.join(file).is_file();
        ensure!(is_complete, "`--peers` needs {}: run `cargo xtask setup servers-env torch`", folder.display());
    }
    Ok((servers, torch))
}

impl Peer {
    /// Starts a server, and waits until it listens.
    pub(crate) async fn start(kind: &Kind, files: &ModelFiles) -> Result<Self> {
        let (environment, torch) = folders()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = (kind.command)(&environment, files, port);
        command.env("PYTHONPATH", torch).env("PYTHONWARNINGS", "ignore").stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Reaped(command.spawn().with_context(|| format!("{} cannot be started", kind.name))?);
        let (address, begun) = (SocketAddr::from(([127, 0, 0, 1], port)), Instant::now());
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = process.0.try_wait()? {
                bail!("{} ended ({status}); its message is above", kind.name);
            }
            ensure!(begun.elapsed() < PATIENCE, "{} does not listen after {PATIENCE:?}", kind.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Self { process, address })
    }

    /// Ends the server, with the processes that it has started.
    pub(crate) fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.process.0), Signal::TERM)?;
        let begun = Instant::now();
        // Its status is that of the signal, or of its own choice.
        while self.process.0.try_wait()?.is_none() {
            ensure!(begun.elapsed() < PATIENCE, "server {} does not end on SIGTERM", self.process.pid());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
