"""Forks of a process that has run a graph: gunicorn's `--preload`, multiprocessing, DataLoader."""

import multiprocessing
import threading

import numpy as np
import pytest

import ray_zerocopy as rz
from ray_zerocopy._graphs import _task
from forks import in_a_fork


@pytest.fixture(scope="module")
def work(traced):
    """A graph that has run on all threads, with inputs large enough for that, and its result."""
    path, inputs, _ = traced
    large = {name: np.tile(array, (200, 1)) for name, array in inputs.items()}
    graph = rz.Graph(path)
    return path, large, graph, graph(**large)["image"].tobytes()


def test_a_fork_calls_a_graph_of_its_parent(work):
    _, inputs, graph, expected = work
    assert in_a_fork(lambda: graph(**inputs)["image"].tobytes() == expected) == "True"


def test_a_fork_opens_and_calls_a_graph_of_its_own(work):
    path, inputs, _, expected = work
    assert in_a_fork(lambda: rz.Graph(path)(**inputs)["image"].tobytes() == expected) == "True"


def test_threads_and_forks_of_a_fork_compute(work):
    _, inputs, graph, expected = work

    def child():
        found = []
        threads = [threading.Thread(target=lambda: found.append(graph(**inputs)["image"].tobytes() == expected)) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return found, in_a_fork(lambda: graph(**inputs)["image"].tobytes() == expected)

    assert in_a_fork(child) == "([True, True, True], 'True')"


def answer(_):
    graph, inputs = answer.work
    return graph(**inputs)["image"].tobytes()


def test_multiprocessing_with_fork(work):
    _, inputs, graph, expected = work
    answer.work = graph, inputs
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(answer, range(6)).get(timeout=120) == [expected] * 6


def test_a_fork_during_a_call_is_answered_or_refused(work):
    _, inputs, graph, expected = work
    done = threading.Event()

    def busy():
        while not done.is_set():
            graph(**inputs)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        said = {in_a_fork(lambda: graph(**inputs)["image"].tobytes() == expected)[:60] for _ in range(12)}
    finally:
        done.set()
        thread.join()
    assert said <= {"True", "RuntimeError: this process was forked while another thread computed with it"[:60]}
    assert graph(**inputs)["image"].tobytes() == expected


def test_ray_is_not_for_forks(work, ray):
    path, inputs, _, expected = work
    wrapper = rz.JitActorWrapper(path)
    loaded = wrapper.load()
    assert in_a_fork(wrapper.load).startswith("RuntimeError: this process is a fork of one that had joined Ray")
    assert in_a_fork(lambda: rz.JitActorWrapper(path)).startswith("RuntimeError: this process is a fork")
    # A graph that was loaded before the fork still runs.
    assert in_a_fork(lambda: loaded(**inputs)["image"].tobytes() == expected) == "True"


def test_a_task_that_cannot_load_leaves_no_thread(work, ray):
    path, inputs, _, _ = work
    wrapper = rz.JitActorWrapper(path, device="tpu")
    for _ in range(5):
        with pytest.raises(RuntimeError, match="`tpu` is not a device"):
            _task(wrapper, None, **inputs)
    assert not [thread for thread in threading.enumerate() if thread.name == "ray-zerocopy tidy"]
