"""What cannot be shared or loaded is an error that names it."""

import os
import pickle
import socket
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from torch import nn

import ray_zerocopy as rz
from ray_zerocopy._gpu import Gpus
from ray_zerocopy._weights import Loaded
from models import Network, Pipeline


class Stage:
    def __init__(self, part):
        self.layer = nn.Linear(2, 2)
        self.parts = {"a": [1, part]}


@pytest.mark.parametrize(
    "make, path, kind",
    [
        (lambda: Stage(threading.Lock()), r"`parts\['a'\]\[1\]` of the test_failures.Stage", "_thread.lock"),
        (lambda: Stage(socket.socket()), r"`parts\['a'\]\[1\]`", "socket.socket"),
        (lambda: [Stage(Stage(x for x in []))], r"`\[0\].parts\['a'\]\[1\].parts\['a'\]\[1\]`", "generator"),
    ],
)
def test_unpicklable_attribute_is_named(make, path, kind):
    with pytest.raises(TypeError, match=path) as caught:
        rz.ActorWrapper(make())
    assert f"a {kind}, cannot be shared" in str(caught.value) and "create it in the worker" in str(caught.value)


def test_pipeline_that_cannot_be_pickled_is_named():
    with pytest.raises(TypeError, match="the _thread.lock, a _thread.lock, cannot be shared"):
        rz.ActorWrapper(threading.Lock())


def test_meta_tensors_and_lazy_parameters_are_named():
    with pytest.raises(ValueError, match="`1.weight` of the torch.nn.modules.container.Sequential.* is a meta tensor.*load the weights first"):
        rz.ActorWrapper(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")))
    with pytest.raises(ValueError, match="`weight` of the .*LazyLinear.* it is a lazy parameter"):
        rz.ActorWrapper(nn.LazyLinear(3))


def test_class_is_not_an_object():
    with pytest.raises(TypeError, match="pipeline should be an object, found the class Network"):
        rz.ActorWrapper(Network)


def test_pipeline_that_cannot_be_called_is_named():
    wrapped = rz.TaskWrapper(Stage(1), workers=1)
    for call in (wrapped, wrapped.remote):
        with pytest.raises(TypeError, match="Stage cannot be called: it has no `__call__`"):
            call()


def test_devices_are_checked_where_they_are_used(monkeypatch):
    assert not torch.cuda.is_available()
    with pytest.raises(RuntimeError, match="tpu"):
        rz.ActorWrapper(Network(), device="tpu")
    wrapper = rz.ActorWrapper(Network(), device="cuda:1")
    with pytest.raises(RuntimeError, match=r"to be loaded on `cuda:1`, and process [0-9]+ has 0 CUDA devices: call load\(device='cpu'\)"):
        wrapper.load()
    assert wrapper.load(device="cpu").head.weight.device.type == "cpu"


def test_other_versions_of_torch_are_refused(monkeypatch):
    wrapper = rz.ActorWrapper(Network())
    release = ".".join(torch.__version__.split(".")[:2])
    monkeypatch.setattr(torch, "__version__", "2.0.1")
    with pytest.raises(ImportError, match=f"shared with torch {release}.*, and this process has torch 2.0.1: install torch {release} in both"):
        wrapper.load()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    with pytest.raises(ImportError, match="was shared with Python 3.*, and this process has Python 3.99"):
        wrapper.load()


def test_class_that_cannot_be_imported_is_named(tmp_path):
    (tmp_path / "elsewhere.py").write_text("from models import Network\nclass Own(Network): pass\n")
    script = "import pickle, sys; from elsewhere import Own; import ray_zerocopy as rz; w = rz.ActorWrapper(Own()); print(pickle.dumps(w).hex(), flush=True); sys.stdin.read()"
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        wrapper = pickle.loads(bytes.fromhex(owner.stdout.readline()))
        with pytest.raises(ImportError, match="the pipeline needs `elsewhere.Own`, which cannot be imported in this process .*PYTHONPATH"):
            wrapper.load()
    finally:
        owner.communicate()


def test_memory_that_is_missing_is_an_error():
    script = """
import resource, torch, ray_zerocopy as rz
from models import Large
model = Large(64)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    rz.ActorWrapper(model)
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "ulimit" in done.stdout or "RLIMIT_FSIZE" in done.stdout, done.stdout + done.stderr


def test_corrupted_skeleton_is_refused():
    with pytest.raises(ValueError, match="`xyz` is not the id of an arena"):
        rz._native._Arena.find("xyz")
    arena = rz._native._Arena.build("python x", [], [("about", b"{}")], 0)
    with pytest.raises(RuntimeError, match="it has no `skeleton`"):
        arena.value("skeleton")
    with pytest.raises(ValueError, match="`F99` is not the name of a dtype"):
        rz._native._Arena.build("python x", [("a", "F99", [1], b"1")], [], 0)
    with pytest.raises(RuntimeError, match="a.*F32.*does not fit its 3 bytes"):
        rz._native._Arena.build("python x", [("a", "F32", [1], b"123")], [], 0)


def test_state_of_the_pipeline_is_not_shared():
    wrapper = rz.ActorWrapper(Pipeline())
    one, two = wrapper.load(), wrapper.load()
    one.config["threshold"] = 1.0
    one.count()
    assert two.config == {"threshold": 0.5} and two.calls == 0


class WithoutSharing:
    """An arena on a machine whose GPUs have no memory that processes can share."""

    def on_gpu(self, index, least):
        return None, "the GPU is too old"


def test_weights_that_are_not_shared_on_a_gpu_are_named_once():
    gpus = Gpus(WithoutSharing())
    with pytest.warns(UserWarning, match="own copy of the weights on `cuda:3`: the GPU is too old"):
        assert gpus.storage(torch.device("cuda", 3), 0) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gpus.storage(torch.device("cuda", 3), 1) is None
    loaded = Loaded(rz.ActorWrapper(nn.Linear(2, 2))._weights.arena(), None)
    loaded._gpus = gpus
    with pytest.raises(RuntimeError, match="strict: each process would have its own copy of the weights on `cuda:3`: the GPU is too old"):
        loaded.take(True)
