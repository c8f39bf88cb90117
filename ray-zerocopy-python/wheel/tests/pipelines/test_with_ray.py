"""Pipelines on a Ray cluster: tasks, actors and Ray Data, with the weights in the object store."""

import os
import re
import resource
import signal

import cloudpickle
import numpy as np
import pytest
import torch

import ray_zerocopy as rz
import test_in_place_writes
from models import Large, Network, Pipeline, cause, evaluated


class Actor:
    """An actor as users write it."""

    def __init__(self, wrapper):
        self.pipeline = wrapper.load()

    def __call__(self, batch):
        return {"scores": self.pipeline(torch.as_tensor(batch["rows"])).numpy()}

    def run(self, method, *args):
        return getattr(self.pipeline, method)(*args)

    def forward(self, rows):
        return self.pipeline(rows)

    def pages(self):
        # The kind of the mapping that the weights are in.
        address = self.pipeline.encoder[0].weight.data_ptr()
        for line in open("/proc/self/maps"):
            span, permissions = line.split()[:2]
            start, end = (int(each, 16) for each in span.split("-"))
            if start <= address < end:
                return permissions, line.split()[-2 if "(deleted)" in line else -1]


@pytest.fixture(scope="module")
def work(ray):
    pipeline = evaluated(Pipeline())
    rows = torch.randn(6, 64)
    return pipeline, rows, pipeline(rows).detach()


def test_calls_are_tasks(ray, work):
    pipeline, rows, expected = work
    wrapped = rz.TaskWrapper(pipeline)
    assert torch.allclose(wrapped(rows), expected, atol=1e-5)
    reference = wrapped.embed.remote(torch.tensor([3]), scale=2.0)
    assert isinstance(reference, ray.ObjectRef)
    assert torch.allclose(ray.get(reference), pipeline.embed(torch.tensor([3]), 2.0), atol=1e-5)
    # Arguments may be references.
    assert wrapped(ray.put(rows)).shape == expected.shape
    assert "in Ray" in repr(wrapped) and wrapped.embed.__doc__.startswith("Embeds")
    with pytest.raises(KeyError, match="why"):
        wrapped.fail("why")


def test_worker_keeps_what_it_has_loaded(ray, work):
    wrapped = rz.TaskWrapper(work[0], num_cpus=1)
    found = [wrapped.options(name="counted").count() for _ in range(12)]
    assert len({pid for pid, _ in found}) <= 4
    assert max(calls for _, calls in found) >= 3, "a worker that had loaded the pipeline served another call"


def test_actors_load_the_weights_in_place(ray, work):
    pipeline, rows, expected = work
    wrapper = rz.ActorWrapper(pipeline, strict=True)
    actors = [ray.remote(Actor).options(num_cpus=0).remote(wrapper) for _ in range(2)]
    for found in ray.get([actor.forward.remote(rows) for actor in actors]):
        assert torch.allclose(found, expected, atol=1e-5)
    for permissions, path in ray.get([actor.pages.remote() for actor in actors]):
        assert permissions == "rw-p" and "plasma" in path
    # A write of one actor reaches neither the other one nor the store.
    first = pipeline.first()
    assert ray.get(actors[0].run.remote("write", 7.0)) == 7.0
    assert ray.get(actors[0].run.remote("first")) == 7.0 and ray.get(actors[1].run.remote("first")) == first
    assert wrapper.load().first() == first
    wrapper.verify()
    assert wrapper.report().place == "Ray's object store"


class Writer:
    def __init__(self, wrapper):
        self.module = wrapper.load()

    def write(self, function):
        function(self.module)
        return self.state()

    def state(self):
        return {name: tensor.clone() for name, tensor in self.module.state_dict().items()}


def test_writes_of_every_kind_stay_in_their_actor(ray):
    cloudpickle.register_pickle_by_value(test_in_place_writes)
    model = Network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapper = rz.ActorWrapper(model)
    writer, reader = [ray.remote(Writer).options(num_cpus=0).remote(wrapper) for _ in range(2)]
    same = lambda one, other: all(torch.equal(one[name], other[name]) for name in before)
    last = before
    for write in test_in_place_writes.WRITES:
        now = ray.get(writer.write.remote(write))
        assert not same(now, last), f"{write.__name__} had an effect"
        last = now
        assert same(ray.get(reader.state.remote()), before) and same(wrapper.load().state_dict(), before), write.__name__
    wrapper.verify()


def test_memory_of_actors(ray):
    model = Large(64)
    wrapper = rz.ActorWrapper(model, strict=True)
    Plain = ray.remote(Actor).options(num_cpus=0)
    actors = [Plain.remote(wrapper) for _ in range(2)]
    rows = torch.ones(1, 1024)
    one, two = ray.get([actor.forward.remote(rows) for actor in actors])
    assert torch.equal(one, two)
    processes = [row for row in wrapper.report().processes if row["shared"] >= 60 << 20 and row["pid"] != os.getpid()]
    assert len(processes) >= 2


def test_ray_data(ray, work):
    pipeline, rows, expected = work
    wrapper = rz.ActorWrapper(pipeline)
    data = ray.data.from_items([{"rows": row} for row in np.tile(rows.numpy(), (4, 1))])
    mapped = data.map_batches(Actor, fn_constructor_kwargs={"wrapper": wrapper}, batch_size=6, concurrency=2)
    scores = np.stack([row["scores"] for row in mapped.take_all()])
    assert scores.shape == (24, 4) and np.allclose(np.sort(scores[:, 0]), np.sort(np.tile(expected[:, 0].numpy(), 4)), atol=1e-4)


def test_script_modules_are_tasks(ray):
    image = torch.randn(2, 3, 8, 8)
    script = torch.jit.trace(Network().eval(), image)
    assert torch.allclose(rz.JITTaskWrapper(script)(image), script(image), atol=1e-5)


def test_wrapper_that_was_made_before_ray_moves_into_the_store(ray, monkeypatch):
    import ray_zerocopy._weights as weights

    monkeypatch.setattr(weights, "_ray_is_connected", lambda: False)
    wrapper = rz.ActorWrapper(Pipeline())
    assert "in sealed memory" in repr(wrapper)
    monkeypatch.undo()
    first = wrapper.load().first()
    assert ray.get(ray.remote(Actor).options(num_cpus=0).remote(wrapper).run.remote("first")) == first
    assert "in Ray" in repr(wrapper)


def test_weights_go_into_the_store_without_another_copy(ray):
    # A memfd could not be written under this limit.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        wrapper = rz.ActorWrapper(Large(32), strict=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    wrapper.verify()
    assert wrapper.report().stored_bytes >= 32 << 20


def test_sizes_of_all_kinds_go_into_the_store(ray):
    # Around the sizes from which on a tensor is stored in place, and not multiples of its alignment.
    sizes = [0, 1, 63, 64, 65, 4095, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 100_003, (1 << 20) + 7]
    pipeline = [torch.arange(size, dtype=torch.int32).to(torch.uint8) + index for index, size in enumerate(sizes)]
    wrapper = rz.ActorWrapper(pipeline, strict=True)
    wrapper.verify()
    for found, expected in zip(wrapper.load(), pipeline, strict=True):
        assert torch.equal(found, expected)


def test_killed_actors_leave_the_weights_to_others(ray, work):
    pipeline, rows, expected = work
    wrapper = rz.ActorWrapper(pipeline, strict=True)
    Plain = ray.remote(Actor).options(num_cpus=0)
    killed, other = Plain.remote(wrapper), Plain.remote(wrapper)
    pid, _ = ray.get(killed.run.remote("count"))
    ray.get(other.run.remote("write", 3.0))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(killed.run.remote("first"))
    assert ray.get(other.run.remote("first")) == 3.0
    # One that is started afterwards finds them as they were.
    assert torch.allclose(ray.get(Plain.remote(wrapper).forward.remote(rows)), expected, atol=1e-5)
    wrapper.verify()


def test_class_that_a_worker_cannot_import_is_named(ray, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("from models import Network\nclass Own(Network): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    actor = ray.remote(Actor).options(num_cpus=0).remote(rz.ActorWrapper(only_here.Own()))
    said = cause(ray, lambda: actor.forward.remote(torch.ones(1, 3, 8, 8)))
    assert "the pipeline needs `only_here.Own`, which cannot be imported in this process" in said


def test_device_that_a_worker_lacks_is_named(ray, work):
    actor = ray.remote(Actor).options(num_cpus=0).remote(rz.ActorWrapper(work[0], device="cuda:3"))
    said = cause(ray, lambda: actor.forward.remote(work[1]))
    assert re.search("to be loaded on `cuda:3`, and process [0-9]+ has 0 CUDA devices", said), said


def test_store_that_is_too_small_is_an_error(ray):
    with pytest.raises(RuntimeError, match="object store.*free"):
        rz.ActorWrapper({"large": torch.randn(300 << 18)})


def test_local_engine_beside_ray(ray, work):
    with rz.TaskWrapper(work[0], workers=1) as wrapped:
        assert torch.allclose(wrapped(work[1]), work[2], atol=1e-5)
