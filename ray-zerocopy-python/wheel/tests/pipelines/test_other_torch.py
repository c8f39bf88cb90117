"""Worker processes with another release of PyTorch: the error names both.

`RAY_ZEROCOPY_OTHER_TORCH` is a folder for `PYTHONPATH` with PyTorch of another release for this Python, as
`cargo xtask wheel --versions` sets it.
"""

import os
import pickle
import subprocess
import sys

import pytest
import torch

import ray_zerocopy as rz
from models import Network, Pipeline, cause

OTHER = os.environ.get("RAY_ZEROCOPY_OTHER_TORCH")
pytestmark = pytest.mark.skipif(OTHER is None, reason="RAY_ZEROCOPY_OTHER_TORCH names no folder with another release of PyTorch")


@pytest.fixture(scope="module")
def environment():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([OTHER, os.environ["PYTHONPATH"]])}
    script = "import torch; print(torch.__version__)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    version = done.stdout.strip()
    assert version and version.split(".")[:2] != torch.__version__.split(".")[:2], (done.stderr, version)
    return environment, version


@pytest.mark.parametrize("make", [Network, lambda: torch.jit.script(Network().eval())])
def test_process_with_another_release_is_told_so(environment, make):
    variables, version = environment
    script = "import pickle, sys; pickle.load(sys.stdin.buffer).load()"
    wrapper = rz.ActorWrapper(make())
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(wrapper), capture_output=True, timeout=120, env=variables)
    said = done.stderr.decode().splitlines()[-1]
    release = ".".join(torch.__version__.split(".")[:2])
    assert said == (
        f"ImportError: the pipeline was shared with torch {torch.__version__}, and this process has torch {version}: "
        f"install torch {release} in both"
    )


def test_actor_with_another_release_is_told_so(environment, ray):
    variables, version = environment

    class Actor:
        def __init__(self, wrapper):
            self.pipeline = wrapper.load()

        def run(self):
            return self.pipeline.count()

    options = {"num_cpus": 0, "runtime_env": {"env_vars": {"PYTHONPATH": variables["PYTHONPATH"]}}}
    actor = ray.remote(Actor).options(**options).remote(rz.ActorWrapper(Pipeline()))
    assert f"this process has torch {version}: install torch" in cause(ray, actor.run.remote)
