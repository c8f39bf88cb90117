"""Makes the module under test importable: the library of `cargo build --workspace --features ray --example probe`."""

import os
import pathlib
import shutil
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
LIBRARY = TARGET / os.environ.get("RAY_ZEROCOPY_PROFILE", "debug") / "examples" / "libprobe.so"


def pytest_configure(config):
    if not LIBRARY.exists():
        pytest.exit(f"{LIBRARY} is missing: cargo build --workspace --features ray --example probe", returncode=2)
    folder = tempfile.mkdtemp(prefix="ray-zerocopy-probe-")
    config.add_cleanup(lambda: shutil.rmtree(folder))
    shutil.copy(LIBRARY, f"{folder}/probe.abi3.so")
    sys.path.insert(0, folder)
    # Ray's workers import it too.
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, str(pathlib.Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture
def pipeline():
    import probe

    return probe.Probe(width=3)


@pytest.fixture(scope="session")
def ray():
    """A Ray cluster on this machine, which is shut down after the tests."""
    import ray

    # Never connect to a cluster that already runs on this machine.
    os.environ["RAY_ADDRESS"] = "local"
    ray.init("local", num_cpus=4, include_dashboard=False, logging_level="warning", object_store_memory=256 << 20)
    yield ray
    ray.shutdown()
