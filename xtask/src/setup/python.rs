//! Python: the interpreter, what pip fetches for the tests, and the environments with Ray, with the peers of a
//! benchmark, and with clients of the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress;
use crate::shell::{cache, succeeds, target};

/// The release of `typos` that accepts the tree.
const TYPOS: &str = "typos==1.52.0";

/// The packages of the environment with Ray.
///
/// Ray is pinned because its interfaces change from release to release. The other versions are
/// those that the tests ran with.
pub(crate) const PACKAGES: &[&str] = &[
    "ray==2.60.0",
    "numpy==2.4.6",
    "pyarrow==26.0.1",
    "pandas==3.1.1",
    "pytest==9.2.0",
    "maturin==1.16.0",
    "cloudpickle==3.1.3",
    "joblib==1.5.3",
];

/// The packages of the environment with the peers of the benchmark `compiled`, and what they depend
/// on, since a figure is of one version.
///
/// PyTorch is not one of them: its wheel for x86-64 on PyPI needs CUDA's libraries, 3 GB in all.
const PEERS: &[&str] = &[
    "onnxruntime==1.32.0",
    "onnx==1.23.2",
    "numpy==2.4.6",
    "protobuf==7.36.2",
    "flatbuffers==25.12.19",
    "ml_dtypes==0.6.0",
    "packaging==26.4",
    "typing_extensions==4.16.0",
];

/// The packages of the environment with clients of `rzc serve`, and what they depend on. They contain those of Ray Serve.
const CLIENTS: &[&str] = &[
    "aiohappyeyeballs==2.7.1",
    "aiohttp-retry==2.9.1",
    "aiohttp==3.14.5",
    "aiosignal==1.4.0",
    "annotated-doc==0.0.7",
    "annotated-types==0.8.0",
    "anyio==4.16.0",
    "attrs==26.1.0",
    "brotli==1.2.1",
    "certifi==2026.10.19.post1",
    "cffi==2.1.1",
    "charset-normalizer==3.5.3",
    "click==8.5.1",
    "cloudevents==1.13.0",
    "cryptography==50.0.2",
    "deprecation==2.1.0",
    "durationpy==0.11",
    "fastapi==0.165.0",
    "frozenlist==1.8.0",
    "gevent==26.9.0",
    "geventhttpclient==2.6.1",
    "greenlet==3.3.2",
    "grpc-interceptor==0.15.4",
    "grpcio-reflection==1.81.1",
    "grpcio-tools==1.81.1",
    "grpcio==1.85.3",
    "h11==0.16.0",
    "httpcore2==2.16.2",
    "httpcore==1.0.9",
    "httptools==0.9.0",
    "httpx2==2.16.2",
    "httpx==0.28.1",
    "idna==3.20",
    "jiter==0.19.0",
    "kserve==0.21.0",
    "kubernetes==37.0.1",
    "ml_dtypes==0.5.4",
    "multidict==7.2.1",
    "numpy==2.4.6",
    "oauthlib==4.0.1",
    "openai==3.57.0",
    "opentelemetry-api==1.45.2",
    "orjson==3.13.0",
    "packaging==26.4",
    "pandas==2.3.3",
    "pillow==13.0.0",
    "prometheus_client==0.26.0",
    "propcache==0.5.4",
    "protobuf==6.33.6",
    "psutil==5.9.8",
    "pyasn1==0.6.5",
    "pycparser==3.12",
    "pydantic==2.14.4",
    "pydantic_core==2.50.5",
    "PyJWT==2.15.1",
    "python-dateutil==2.9.0.post0",
    "python-dotenv==1.2.4",
    "python-multipart==0.0.34",
    "python-rapidjson==1.25",
    "pytz==2026.6",
    "PyYAML==6.0.4",
    "requests-oauthlib==2.0.0",
    "requests==2.34.2",
    "six==1.17.0",
    "sniffio==1.3.1",
    "starlette==1.10.0",
    "tabulate==0.10.0",
    "timing-asgi==0.3.2",
    "tritonclient==2.73.0",
    "truststore==0.10.5",
    "typing-inspection==0.4.5",
    "typing_extensions==4.16.0",
    "tzdata==2026.6",
    "urllib3==2.8.0",
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "watchfiles==1.3.0",
    "websocket-client==1.9.2",
    "websockets==17.4",
    "yarl==1.25.1",
    "zope.event==6.2",
    "zope.interface==8.7",
];

/// The packages of the environment with other servers of embeddings, and what they depend on. Without PyTorch, which the
/// benchmark adds: pip would fetch it with all of CUDA.
const SERVERS: &[&str] = &[
    "--no-deps",
    "annotated-types==0.8.0",
    "anyio==4.16.0",
    "backoff==2.2.1",
    "certifi==2026.10.19.post1",
    "charset-normalizer==3.5.3",
    "click==8.1.8",
    "cloudpickle==3.1.3",
    "distro==1.9.0",
    "fastapi==0.116.2",
    "flatbuffers==25.12.19",
    "h11==0.16.0",
    "hf-xet==1.8.0",
    "httptools==0.9.0",
    "huggingface_hub==0.36.2",
    "idna==3.20",
    "infinity_emb==0.0.78",
    "joblib==1.6.0",
    "markdown-it-py==4.3.0",
    "mdurl==0.1.2",
    "ml_dtypes==0.5.4",
    "narwhals==2.29.0",
    "numpy==1.26.4",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "orjson==3.13.0",
    "packaging==26.4",
    "pillow==13.0.0",
    "posthog==7.91.1",
    "prometheus-fastapi-instrumentator==7.1.0",
    "prometheus_client==0.26.0",
    "protobuf==7.36.2",
    "pydantic==2.14.4",
    "pydantic_core==2.50.5",
    "Pygments==2.21.0",
    "python-dotenv==1.2.4",
    "PyYAML==6.0.4",
    "regex==2026.11.19",
    "requests==2.34.2",
    "rich==13.9.4",
    "safetensors==0.8.0",
    "scikit-learn==1.9.1",
    "scipy==1.17.1",
    "sentence-transformers==3.4.1",
    "shellingham==1.5.4",
    "starlette==0.48.0",
    "threadpoolctl==3.8.0",
    "tokenizers==0.22.2",
    "tqdm==4.70.1",
    "transformers==4.57.6",
    "typer==0.12.5",
    "typing-inspection==0.4.5",
    "urllib3==2.8.0",
    "uvicorn==0.32.1",
    "uvloop==0.23.0",
    "watchfiles==1.3.0",
    "websockets==17.4",
];

/// Fails without Python 3.11, pip or venv.
const INTERPRETER: &str = "import sys, ensurepip, pip, venv; sys.exit(sys.version_info < (3, 11))";

/// Fails without the shared library of Python.
const LIBRARY: &str = "
import glob, os, sys, sysconfig
folder, arch, config = map(sysconfig.get_config_var, ('LIBDIR', 'MULTIARCH', 'LIBPL'))
folders = [folder or '', os.path.join(folder or '', arch or ''), config or '']
name = 'libpython%d.%d*.so*' % sys.version_info[:2]
sys.exit(not any(glob.glob(os.path.join(each, name)) for each in folders))
";

/// Returns whether `python3` is recent enough, and has pip and venv.
pub(super) fn has_interpreter() -> bool {
    succeeds(Command::new("python3").args(["-c", INTERPRETER]))
}

/// Returns whether `python3` has a shared library.
pub(super) fn has_library() -> bool {
    succeeds(Command::new("python3").args(["-c", LIBRARY]))
}

fn typos_folder() -> PathBuf {
    target().join("tools").join(TYPOS.replace("==", "-"))
}

/// The path of `typos`. It lies in the target folder.
pub(crate) fn typos() -> PathBuf {
    typos_folder().join("bin").join("typos")
}

/// Installs `typos` into the target folder.
pub(super) fn fetch_typos() -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--target"]).arg(typos_folder()).arg(TYPOS);
    progress::run("typos", pip)
}

/// The folder of the environment with Ray. The library looks there, too.
pub(crate) fn ray_environment() -> Result<PathBuf> {
    Ok(cache()?.join("ray-env"))
}

/// The folder of the environment with the peers. The benchmark looks there, too.
pub(crate) fn peers_environment() -> Result<PathBuf> {
    Ok(cache()?.join("peers-env"))
}

/// The folder of the environment with the clients. The tests look there, too.
fn clients_environment() -> Result<PathBuf> {
    Ok(cache()?.join("clients-env"))
}

/// Returns whether the environment with the clients is complete and has the pinned packages.
pub(super) fn has_clients_environment() -> bool {
    clients_environment().is_ok_and(|folder| has_environment(&folder, CLIENTS))
}

/// Creates the environment with the clients, or updates its packages.
/// The folder of packages of the environment with clients, of which the tests of Ray Serve take some.
pub(crate) fn client_packages() -> Result<PathBuf> {
    let lib = clients_environment()?.join("lib");
    let entries = fs::read_dir(&lib).with_context(|| format!("{} cannot be read", lib.display()))?;
    for entry in entries {
        let packages = entry?.path().join("site-packages");
        if packages.is_dir() {
            return Ok(packages);
        }
    }
    bail!("{} has no folder of packages", lib.display())
}

pub(super) fn fetch_clients_environment() -> Result<()> {
    fetch_environment("clients-env", &clients_environment()?, CLIENTS)
}

/// Returns whether the environment with Ray is complete and has the pinned packages.
pub(super) fn has_ray_environment() -> bool {
    ray_environment().is_ok_and(|folder| has_environment(&folder, PACKAGES))
}

/// Creates the environment with Ray, or updates its packages.
pub(super) fn fetch_ray_environment() -> Result<()> {
    fetch_environment("ray-env", &ray_environment()?, PACKAGES)
}

/// The folder of the environment with other servers. The benchmark looks there, too.
fn servers_environment() -> Result<PathBuf> {
    Ok(cache()?.join("servers-env"))
}

/// Returns whether the environment with other servers is complete and has the pinned packages.
pub(super) fn has_servers_environment() -> bool {
    servers_environment().is_ok_and(|folder| has_environment(&folder, SERVERS))
}

/// Creates the environment with other servers, or updates its packages.
pub(super) fn fetch_servers_environment() -> Result<()> {
    fetch_environment("servers-env", &servers_environment()?, SERVERS)
}

/// Returns whether the environment with the peers is complete and has the pinned packages.
pub(super) fn has_peers_environment() -> bool {
    peers_environment().is_ok_and(|folder| has_environment(&folder, PEERS))
}

/// Creates the environment with the peers, or updates its packages.
pub(super) fn fetch_peers_environment() -> Result<()> {
    fetch_environment("peers-env", &peers_environment()?, PEERS)
}

fn has_environment(folder: &Path, packages: &[&str]) -> bool {
    let recorded = fs::read_to_string(folder.join("packages.txt"));
    recorded.is_ok_and(|recorded| recorded == packages.join("\n"))
}

/// Creates an environment, or updates its packages, and records them when it is complete.
fn fetch_environment(name: &str, folder: &Path, packages: &[&str]) -> Result<()> {
    if !folder.join("bin/python").exists() {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(folder);
        progress::run(&format!("{name}-venv"), venv)?;
    }
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check"]).args(packages);
    progress::run(&format!("{name}-packages"), pip)?;
    let record = folder.join("packages.txt");
    fs::write(&record, packages.join("\n")).with_context(|| format!("{} cannot be written", record.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::has_environment;

    #[test]
    fn environment_has_the_pinned_packages() {
        let folder = std::env::temp_dir().join(format!("xtask-environment-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert!(!has_environment(&folder, &["one==1"]), "it is not complete");
        fs::write(folder.join("packages.txt"), "one==1\ntwo==2").unwrap();
        assert!(has_environment(&folder, &["one==1", "two==2"]));
        assert!(!has_environment(&folder, &["one==1", "two==3"]), "it is out of date");
        fs::remove_dir_all(folder).unwrap();
    }
}
