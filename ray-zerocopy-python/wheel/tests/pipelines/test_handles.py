"""Wrappers that are sent to processes of other libraries."""

import concurrent.futures
import multiprocessing
import os
import pickle
import subprocess
import sys

import joblib
import pytest
import torch

import ray_zerocopy as rz
from models import Network, Pipeline, evaluated


def answer(wrapper, rows):
    return os.getpid(), wrapper.load()(rows)


class Rows(torch.utils.data.Dataset):
    def __init__(self, wrapper):
        self.wrapper = wrapper
        self.pipeline = None

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if self.pipeline is None:
            self.pipeline = self.wrapper.load()
        return self.pipeline.table[index] * 2


@pytest.fixture(scope="module")
def work():
    pipeline = evaluated(Pipeline())
    rows = torch.randn(3, 64)
    return rz.ActorWrapper(pipeline), rows, pipeline(rows)


def check(found, expected):
    pid, result = found
    assert pid != os.getpid() and torch.allclose(result, expected)


def test_multiprocessing(work):
    wrapper, rows, expected = work
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        check(pool.apply(answer, (wrapper, rows)), expected)


def test_concurrent_futures(work):
    wrapper, rows, expected = work
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        check(pool.submit(answer, wrapper, rows).result(), expected)


def test_joblib(work):
    wrapper, rows, expected = work
    [found] = joblib.Parallel(n_jobs=2, backend="loky")([joblib.delayed(answer)(wrapper, rows)])
    check(found, expected)


@pytest.mark.parametrize("context", ["spawn", "fork"])
def test_workers_of_a_data_loader(work, context):
    wrapper, _, _ = work
    loader = torch.utils.data.DataLoader(Rows(wrapper), batch_size=4, num_workers=1, multiprocessing_context=context)
    assert torch.equal(torch.cat(list(loader)), torch.arange(8.0) * 2)


OTHER = """
import pickle, sys
print(pickle.load(sys.stdin.buffer).load()(__import__("torch").ones(1, 3, 8, 8)).shape)
"""


def other(data):
    return subprocess.run([sys.executable, "-c", OTHER], input=data, capture_output=True, timeout=120)


def test_any_process_of_the_user_may_load():
    wrapper = rz.ActorWrapper(Network())
    assert b"torch.Size([1, 5])" in other(pickle.dumps(wrapper)).stdout


def test_weights_outlive_the_process_that_shared_them():
    script = """
import pickle, sys
import ray_zerocopy as rz
from models import Network
wrapper = rz.ActorWrapper(Network())
sys.stdout.buffer.write(pickle.dumps(wrapper))
sys.stdout.flush()
sys.stdin.read()
"""
    maker = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    data = os.read(maker.stdout.fileno(), 1 << 16)
    wrapper = pickle.loads(data)
    wrapper.load()
    maker.communicate()
    # This process has the weights, and hands them on.
    assert b"torch.Size([1, 5])" in other(pickle.dumps(wrapper)).stdout
    del wrapper
    # No process has them.
    done = other(data)
    assert b"no process of user" in done.stderr and b"which shared them, has ended or belongs to another user" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_another_user_may_not_load():
    # A process that has imported what it needs, and then becomes another user.
    script = OTHER.replace("import pickle, sys", "import pickle, sys, os, torch, models, ray_zerocopy._weights; os.setuid(65534)")
    data = pickle.dumps(rz.ActorWrapper(Network()))
    environment = {**os.environ}
    environment.pop("XDG_RUNTIME_DIR", None)
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, timeout=120, env=environment)
    assert b"no process of user 65534" in done.stderr, done.stderr.decode()
