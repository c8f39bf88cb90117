"""One copy of a Python pipeline's weights per GPU, with the driver of the Rust tests instead of a GPU.

It has memory and runs no kernel, and PyTorch for the CPU has no tensors there. So these tests read the memory that
PyTorch would be given.
"""

import os
import pathlib
import subprocess
import sys

import pytest

DRIVER = pathlib.Path(__file__).parents[4] / "tests" / "cuda" / "libcuda.c"

# Prints what a process finds: for each storage its size on the GPU, and whether it has the bytes of the arena.
READER = """
import ctypes, sys
from ray_zerocopy import _gpu
from ray_zerocopy._native import _Arena
arena = _Arena.find(sys.argv[1])
parts, reason = arena.on_gpu(0, _gpu._SHARED_FROM)
if parts is None:
    print("not shared:", reason)
else:
    for at, (path, offset, size) in enumerate(arena.tensors()):
        place = parts.place(at)
        if place is not None:
            same = ctypes.string_at(place[0], size) == ctypes.string_at(arena.address + offset, size)
            print(path, place[1] == size and same)
    print("uploaded" if parts.is_uploaded else "found", parts.size, flush=True)
sys.stdin.read()
"""

# Shares a pipeline, as long as its input is open.
OWNER = """
import sys, torch
import ray_zerocopy as rz
from torch import nn
model = nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.Linear(256, 128, bias=False))
wrapper = rz.ActorWrapper(model)
arena = wrapper._weights.arena().offer()
print(arena.id, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    compiler = ["cc", "-shared", "-fPIC", "-O1", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1", DRIVER]
    subprocess.run(compiler, check=True)
    return folder


def start(code, *arguments, **variables):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=os.environ | variables, **pipes)


def lines(process):
    found = []
    for line in process.stdout:
        found.append(line.rstrip())
        if line.startswith(("uploaded", "found", "not shared")):
            return found
    raise AssertionError(f"the process has ended: {found}")


@pytest.fixture
def arena():
    owner = start(OWNER)
    yield owner.stdout.readline().strip()
    owner.communicate("")


def test_processes_share_one_copy(driver, arena):
    variables = {"LD_LIBRARY_PATH": str(driver), "STAND_IN_NAME": f"python-{os.getpid()}"}
    first = start(READER, arena, **variables)
    # Weights of 256 and 128 KiB. Biases and statistics are each process's own.
    assert lines(first) == ["0.weight True", "2.weight True", "uploaded 2097152"]
    second = start(READER, arena, **variables)
    assert lines(second)[-1] == "found 2097152"
    # The copy outlives the process that has uploaded it.
    first.kill()
    first.wait()
    third = start(READER, arena, **variables)
    assert lines(third) == ["0.weight True", "2.weight True", "found 2097152"]
    second.communicate("")
    third.communicate("")


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"STAND_IN_WITHOUT_VMM": "1"}, "not shared: the GPU has no memory that processes can share"),
        ({"STAND_IN_INIT": "100"}, "not shared: no CUDA device: the driver answers CUDA_ERROR_NO_DEVICE to cuInit"),
    ],
)
def test_reason_is_given_if_memory_cannot_be_shared(driver, arena, variables, reason):
    process = start(READER, arena, LD_LIBRARY_PATH=str(driver), **variables)
    assert lines(process) == [reason]
    process.communicate("")


def test_full_gpu_is_an_error_that_names_sizes(driver, arena):
    code = "import sys\nfrom ray_zerocopy._native import _Arena\n_Arena.find(sys.argv[1]).on_gpu(0, 1)"
    variables = {"LD_LIBRARY_PATH": str(driver), "STAND_IN_NAME": f"full-{os.getpid()}", "STAND_IN_MIB": "0"}
    done = subprocess.run([sys.executable, "-c", code, arena], env=os.environ | variables, capture_output=True, text=True)
    assert "RuntimeError: the weights take 1 MiB, and `cuda:0` has 0 of 0 MiB free" in done.stderr, done.stderr
