"""Forks of a process whose pipelines have run: gunicorn's `--preload`, multiprocessing, DataLoader."""

import multiprocessing
import threading

import numpy as np
import pytest

import probe
from forks import in_a_fork

ROWS = np.linspace(-1, 1, 512 * 4096, dtype="float32").reshape(512, 4096)


@pytest.fixture(scope="module")
def work():
    """A pipeline that has run on all threads, and its result."""
    pipeline = probe.Probe(width=4096)
    return pipeline, pipeline(ROWS).tobytes()


def test_a_fork_calls_a_pipeline_of_its_parent(work):
    pipeline, expected = work
    assert in_a_fork(lambda: pipeline(ROWS).tobytes() == expected) == "True"
    assert in_a_fork(lambda: probe.Probe(width=4096)(ROWS).shape) == "(512, 2)"


def test_threads_of_a_fork_compute(work):
    pipeline, expected = work

    def child():
        found = []
        threads = [threading.Thread(target=lambda: found.append(pipeline(ROWS).tobytes() == expected)) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return found

    assert in_a_fork(child) == "[True, True, True]"


def answer(_):
    return answer.pipeline(ROWS).tobytes()


def test_multiprocessing_with_fork(work):
    answer.pipeline, expected = work
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(answer, range(4)).get(timeout=120) == [expected] * 4


def test_ray_is_not_for_forks(work, ray):
    pipeline, expected = work
    wrapper = probe.ActorWrapper(pipeline)
    loaded = wrapper.load()
    assert in_a_fork(wrapper.load).startswith("RuntimeError: this process is a fork of one that had joined Ray")
    assert in_a_fork(lambda: probe.TaskWrapper(pipeline)).startswith("RuntimeError: this process is a fork")
    assert in_a_fork(lambda: loaded(ROWS).tobytes() == expected) == "True"


def test_a_task_that_cannot_load_leaves_no_thread(work, ray):
    wrapper = probe.ActorWrapper(work[0], device="tpu")
    for _ in range(5):
        with pytest.raises(RuntimeError, match="`tpu` is not a device"):
            probe._run(wrapper, "call", ROWS)
    assert not [thread for thread in threading.enumerate() if thread.name == "ray-zerocopy tidy"]
