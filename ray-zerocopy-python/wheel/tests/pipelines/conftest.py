"""Fixtures of the tests of PyTorch pipelines: `PYTHONPATH` has PyTorch, as `cargo xtask setup torch` makes it."""

import os
import pathlib
import sys

import pytest
import torch

# The processes of tests, and Ray's workers, import the modules of this folder.
os.environ["PYTHONPATH"] = os.pathsep.join([str(pathlib.Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
sys.path.append(str(pathlib.Path(__file__).parents[3] / "tests"))
torch.set_num_threads(2)


@pytest.fixture(scope="session")
def ray():
    """A Ray cluster on this machine."""
    import ray

    # Workers import the modules of these tests, wherever pytest was started.
    paths = [str(pathlib.Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
    limits = {"num_cpus": 4, "object_store_memory": 256 << 20}
    ray.init("local", include_dashboard=False, logging_level="warning", runtime_env=environment, **limits)
    yield ray
    ray.shutdown()
