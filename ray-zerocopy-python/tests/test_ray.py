"""The wrappers on a Ray cluster on this machine."""

import os
import pickle
import signal
import time

import numpy as np
import pytest

import probe


def wait_until(true, seconds=60):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "the condition was not met in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def shared(ray):
    return probe.ActorWrapper(probe.Probe(width=3))


ROWS = np.arange(12, dtype="float32").reshape(4, 3)


def address(x):
    return x.__array_interface__["data"][0]


def store(pid="self"):
    """Returns the address ranges at which the object store is mapped."""
    found = []
    for line in open(f"/proc/{pid}/maps"):
        if "plasma" in line or "/dev/shm" in line:
            found.append(range(*(int(end, 16) for end in line.split()[0].split("-"))))
    return found


def in_store(x):
    return any(address(x) in part for part in store())


def test_wrapper_borrows_from_the_store(ray, shared):
    here = shared.load()
    assert in_store(here.weights())
    assert probe.copied(here) == 0
    assert (here(ROWS) == shared.load("cpu")(ROWS)).all()
    with pytest.raises(RuntimeError, match="no-such-device"):
        shared.load("no-such-device")


def test_weights_in_the_store_are_protected(ray):
    # Large enough for whole pages.
    wide = probe.ActorWrapper(probe.Probe(width=100_000)).load()
    middle = address(wide.weights()) + wide.weights().nbytes // 2
    flags = [line.split()[1] for line in open("/proc/self/maps") if middle in range(*(int(end, 16) for end in line.split()[0].split("-")))]
    assert flags == ["r--s"]


def test_actors_have_the_same_weights_and_their_own_state(ray, shared):
    @ray.remote
    class Actor:
        def __init__(self, wrapper):
            self.pipeline = wrapper.load()

        def run(self, rows):
            given = self.pipeline(rows)
            return given, in_store(self.pipeline.weights()), in_store(rows), probe.traffic(self.pipeline)["borrowed"]

        def count(self):
            return self.pipeline.count()

    expected = shared.load()(ROWS)
    actors = [Actor.options(num_cpus=0.5).remote(shared) for _ in range(3)]
    rows = ray.put(ROWS)
    for given, weights, argument, borrowed in ray.get([actor.run.remote(rows) for actor in actors]):
        assert (given == expected).all()
        assert weights and argument and borrowed == 1
    assert ray.get([actors[0].count.remote(), actors[0].count.remote(), actors[1].count.remote()]) == [1, 2, 1]
    [ray.kill(actor) for actor in actors]


def test_a_wrapper_is_pickled_as_a_reference(ray, shared):
    assert len(pickle.dumps(shared)) < 2000
    assert (pickle.loads(pickle.dumps(shared)).load()(ROWS) == shared.load()(ROWS)).all()


def test_pipeline_with_an_arena_is_reloaded_after_a_panic(ray, shared):
    pipeline = shared.load()
    with pytest.raises(probe.PanicError, match="half way"):
        pipeline.spoil()
    assert pipeline.count() == 1


def test_tasks(ray, shared):
    pipeline = probe.Probe(width=3)
    tasks = probe.TaskWrapper(pipeline)
    expected = pipeline(ROWS)
    assert (tasks(ROWS) == expected).all()
    assert (tasks.call(rows=ROWS) == expected).all()
    reference = tasks.call.remote(ray.put(ROWS))
    assert isinstance(reference, ray.ObjectRef)
    assert (ray.get(reference) == expected).all()
    assert tasks.values(1, 2, flag=True) == (1, 2, True, None)
    assert tasks.pid() != os.getpid()
    # Methods that take `&mut self` are not available as tasks.
    assert not hasattr(tasks, "count")
    assert tasks.half.__doc__ is not None or probe.TaskWrapper.half.__doc__ == "Returns half of an even number."
    assert ray.get(ray.remote(lambda tasks: tasks.half(8)).remote(tasks)) == 4


def test_a_worker_keeps_what_it_loaded(ray):
    tasks = probe.TaskWrapper(probe.Probe(width=3))

    @ray.remote
    def twice(tasks):
        loaded = set()
        for _ in range(2):
            probe._run(tasks._wrapper, "pid")
            loaded.add(id(probe._loaded.get(tasks._wrapper)))
        return len(loaded) == 1

    assert ray.get(twice.remote(tasks))


def test_errors_and_panics_of_tasks(ray):
    tasks = probe.TaskWrapper(probe.Probe(width=3))
    with pytest.raises(probe.PipelineError, match="3 is odd"):
        tasks.half(3)
    with pytest.raises(probe.PanicError, match=r"no more bread \(.*probe\.rs") as error:
        tasks.clash("bread")
    assert "panicked in process" in str(error.value)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        tasks.half(3, nothing=3)
    with pytest.raises(TypeError, match="`n` should be `int`"):
        tasks.half("x")
    with pytest.raises(TypeError, match="pipeline should be a Probe, found int"):
        probe.TaskWrapper(3)


def test_a_task_whose_worker_dies_runs_again(ray):
    tasks = probe.TaskWrapper(probe.Probe(width=3), max_retries=1)
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        tasks.die()
    assert tasks.half(2) == 1
    os.kill(tasks.pid(), signal.SIGKILL)
    assert tasks.half(4) == 2


def test_full_store_is_an_error(ray):
    with pytest.raises(RuntimeError, match="(?i)store"):
        probe.ActorWrapper(probe.Probe(width=64 << 20))


def test_weights_are_released(ray):
    def used():
        return sum(
            node.get("object_store_memory", 0)
            for node in ray._private.state.total_resources_per_node().values()
        ) - ray._private.state.available_resources_per_node()[ray.get_runtime_context().get_node_id()].get("object_store_memory", 0)

    time.sleep(1)
    before = used()
    wrapper = probe.ActorWrapper(probe.Probe(width=2 << 20))
    pipeline = wrapper.load()
    weights = pipeline.weights()
    wait_until(lambda: used() >= before + weights.nbytes)
    del wrapper, pipeline
    assert np.isfinite(weights[::4096]).all(), "the array keeps its memory alive"
    del weights
    wait_until(lambda: used() < before + (8 << 20))


def test_ray_data_with_a_pool_of_actors(ray, shared):
    class Score:
        def __init__(self, wrapper):
            self.pipeline = wrapper.load()

        def __call__(self, batch):
            inside = in_store(batch["data"])
            before = probe.traffic(self.pipeline)
            scores = self.pipeline(batch["data"])
            after = probe.traffic(self.pipeline)
            here = after["borrowed"] > before["borrowed"] and after["copied"] == before["copied"]
            rows = len(scores)
            return {"score": scores, "borrowed": np.full(rows, inside and here), "pid": np.full(rows, os.getpid())}

    # Ray keeps small objects out of the store; each part here has 240 kB.
    rows = np.random.default_rng(0).random((160_000, 3), "float32")
    data = ray.data.from_numpy(np.array_split(rows, 8))
    found = data.map_batches(Score, fn_constructor_args=(shared,), batch_size=5000, concurrency=2, num_cpus=1).to_pandas()
    order = np.lexsort(np.stack(found["score"]).T)
    expected = shared.load()(rows)
    assert (np.stack(found["score"])[order] == expected[np.lexsort(expected.T)]).all()
    share = found["borrowed"].mean()
    assert share == 1, f"{share:.0%} of the batches were read in the store"
