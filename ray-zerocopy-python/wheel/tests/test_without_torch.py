"""The package without PyTorch: graphs run, and pipelines say what to install."""

import importlib.util
import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules["torch"] = None
import ray_zerocopy as rz
for wrapper in (rz.ActorWrapper, rz.TaskWrapper, rz.JITActorWrapper, rz.JITTaskWrapper):
    try:
        wrapper({})
    except ModuleNotFoundError as error:
        print(error)
print("torch" in dir(rz), rz.Graph)
"""


def test_pipelines_say_what_to_install():
    said = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.count("pipelines need PyTorch: pip install torch") == 4 and "Graph" in said


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_importing_the_package_does_not_import_pytorch():
    script = "import sys, ray_zerocopy; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.strip() == "False"
