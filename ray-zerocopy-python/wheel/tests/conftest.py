"""Fixtures for the installed package (`maturin develop` in the folder above) and for programs that cargo has built."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / os.environ.get("RAY_ZEROCOPY_PROFILE", "debug")
# Helpers that are shared with the tests of the crate `ray-zerocopy-python`.
sys.path.append(str(ROOT / "ray-zerocopy-python" / "tests"))
# Never connect to a cluster that already runs on this machine.
os.environ["RAY_ADDRESS"] = "local"

TYPES = {"F32": "float32", "I32": "int32", "I64": "int64", "Bool(Native)": "bool", "Bool(U8)": "bool"}


def program(name):
    path = TARGET / name
    if not path.exists():
        pytest.exit(f"{path} is missing: cargo build --workspace --features ray --bins --examples", returncode=2)
    return str(path)


def arrays(named):
    """Decodes tensors from their bits in hexadecimal."""
    return {
        name: np.frombuffer(bytes.fromhex(one["bytes"]), TYPES[one["dtype"]]).reshape(one["shape"])
        for name, one in named.items()
    }


@pytest.fixture(scope="session")
def graphs(tmp_path_factory):
    """Graphs by their names, which a Rust program has traced and compiled: the file of each one, inputs, and the outputs that
    the program, its workers and Ray have computed."""
    folder = tmp_path_factory.mktemp("graphs")
    done = subprocess.run([program("examples/everywhere"), str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {}
    for name in ["model", "compiled", "int8"]:
        answers = json.loads((folder / f"{name}.json").read_text())
        found[name] = folder / f"{name}.rzg", arrays(answers["inputs"]), arrays(answers["outputs"])
    return found


@pytest.fixture(scope="session")
def traced(graphs):
    """The graph that is not compiled."""
    return graphs["model"]


@pytest.fixture(scope="session")
def ray(traced):
    """A Ray cluster on this machine, which is shut down after the tests. It starts after that of the Rust program has ended."""
    import ray

    ray.init("local", num_cpus=4, include_dashboard=False, logging_level="warning", object_store_memory=256 << 20)
    yield ray
    ray.shutdown()
