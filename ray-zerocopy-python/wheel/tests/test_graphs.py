"""A graph that a Rust program has traced gives identical bits in Rust, in Python, in `rzc`, on Ray and in Ray Data."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import ray_zerocopy as rz
from conftest import program


def same(found, expected):
    assert sorted(found) == sorted(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype and found[name].shape == expected[name].shape
        assert found[name].tobytes() == expected[name].tobytes(), f"`{name}` has other bits"


@pytest.mark.parametrize("name", ["model", "compiled", "int8"])
def test_identical_bits_everywhere(graphs, name, ray, tmp_path):
    path, inputs, expected = graphs[name]
    assert np.abs(expected["image"]).max() > 0.01 and expected["positive"].dtype == bool

    # `rzc run`, on files.
    command = [program("rzc"), "run", str(path)]
    for name, array in inputs.items():
        np.save(tmp_path / f"{name}.npy", array)
        command += ["--input", f"{name}={tmp_path / name}.npy"]
    for name in expected:
        command += ["--output", f"{name}={tmp_path / name}.npy"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    same({name: np.load(tmp_path / f"{name}.npy") for name in expected}, expected)

    # Python: in this process, in a task, in an actor.
    same(rz.Graph(path)(**inputs), expected)
    wrapper = rz.JitActorWrapper(path, strict=True)
    same(wrapper.load()(**inputs), expected)
    same(rz.JitTaskWrapper(path, num_cpus=1)(**inputs), expected)

    @ray.remote
    class Actor:
        def __init__(self, wrapper):
            self.graph = wrapper.load()

        def run(self, inputs):
            return self.graph(**inputs), self.graph.copied()

    found, copied = ray.get(Actor.remote(wrapper).run.remote(inputs))
    same(found, expected)
    assert copied == 0

    # Ray Data: all rows in one batch, since the bits of a matrix product may depend on the batch.
    rows = len(inputs["ids"])
    items = [{name: array[row] for name, array in inputs.items()} for row in range(rows)]
    data = ray.data.from_items(items, override_num_blocks=1)
    mapped = data.map_batches(rz.Batches, fn_constructor_args=(wrapper,), batch_size=rows, concurrency=1)
    batch = mapped.take_batch(rows)
    same({name: np.ascontiguousarray(batch[name]) for name in expected}, expected)


def test_ray_data_has_many_batches_and_keeps_columns(traced, ray):
    path, inputs, _ = traced
    graph = rz.Graph(path)
    wrapper = rz.JitActorWrapper(graph)
    ids = np.tile(inputs["ids"], (40, 1))
    data = ray.data.from_items(
        [{"key": row, "tokens": ids[row], "padding": np.zeros(ids.shape[1], bool)} for row in range(len(ids))]
    )
    kwargs = {"inputs": {"ids": "tokens"}, "keep": ["key"]}
    mapped = data.map_batches(
        rz.Batches, fn_constructor_args=(wrapper,), fn_constructor_kwargs=kwargs, batch_size=32, concurrency=2
    )
    found = mapped.to_pandas().sort_values("key")
    assert list(found.columns) == ["key", "image", "positive"] and list(found["key"]) == list(range(len(ids)))
    expected = graph(ids=ids, padding=np.zeros(ids.shape, bool))["image"]
    assert np.abs(np.stack(found["image"]) - expected).max() < 1e-6
    with pytest.raises(ValueError, match="the graph has no input id; it has ids, padding"):
        rz.Batches(wrapper, inputs={"id": "tokens"})
    with pytest.raises(ValueError, match="the batch has no column padding; it has ids"):
        rz.Batches(wrapper)({"ids": ids})


def test_graph_describes_its_inputs(traced):
    path, inputs, expected = traced
    graph = rz.Graph(path)
    assert graph.inputs == {"ids": "I32 [batch, length]", "padding": "Bool [batch, length]"}
    assert list(graph.outputs) == ["image", "positive"]
    assert graph.methods == {} and graph.copied() == 0 and graph.weight_bytes > 0
    assert "Mixed" in graph.origin and "Mixed" in repr(graph)
    # By position, and with integers of numpy's default width.
    same(graph(inputs["ids"].astype("int64"), inputs["padding"]), expected)
    assert graph.traffic()["borrowed"] == 2
    same(graph(inputs["ids"].tolist(), inputs["padding"].tolist()), expected)
    assert graph.traffic()["copied"] == 2


def test_results_are_read_only_and_unshared(traced):
    path, inputs, _ = traced
    given = rz.Graph(path)(**inputs)
    assert not given["image"].flags.writeable
    assert not any(np.shares_memory(one, other) for one in given.values() for other in inputs.values())


def test_wrong_inputs_are_errors_that_name_them(traced):
    path, inputs, _ = traced
    graph = rz.Graph(path)
    with pytest.raises(ValueError, match="input `padding` is missing; the graph takes `ids`, `padding`"):
        graph(ids=inputs["ids"])
    with pytest.raises(ValueError, match="input `mask` is not one of the graph's"):
        graph(**inputs, mask=inputs["padding"])
    with pytest.raises(TypeError, match="`ids` should be an array of integers with 2 dimensions, found numpy.ndarray of float32"):
        graph(ids=inputs["ids"].astype("float32"), padding=inputs["padding"])
    with pytest.raises(ValueError, match="`ids` is of I32, which has no 1099511627776"):
        graph(ids=np.full((2, 6), 1 << 40), padding=inputs["padding"][:2, :6])
    with pytest.raises(ValueError, match="where `batch` is 5 by `ids`"):
        graph(ids=inputs["ids"], padding=inputs["padding"][:2])
    with pytest.raises(TypeError, match=r"takes 2 inputs, ids, padding: 3 were given"):
        graph(1, 2, 3)
    with pytest.raises(TypeError, match="got `ids` twice"):
        graph(inputs["ids"], ids=inputs["ids"])
    with pytest.raises(ValueError, match="there is no method `forward`; there is `run`"):
        graph.call("forward", **inputs)
    with pytest.raises(TypeError, match="send JitActorWrapper"):
        pickle.dumps(graph)


def test_without_ray_it_says_what_to_install(traced):
    script = """
import sys
sys.modules["ray"] = None
import ray_zerocopy as rz
graph = rz.Graph(sys.argv[1])
try:
    rz.JitActorWrapper(graph)
except ModuleNotFoundError as error:
    print(graph.origin, error)
"""
    path, _, _ = traced
    said = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True, timeout=60).stdout
    assert "Mixed" in said and "pip install 'ray[data]" in said


def test_missing_files_and_devices_are_named(traced, tmp_path):
    path, _, _ = traced
    with pytest.raises(FileNotFoundError, match="nowhere.rzg"):
        rz.Graph(tmp_path / "nowhere.rzg")
    with pytest.raises(RuntimeError, match="`tpu` is not a device"):
        rz.Graph(path, "tpu")
    broken = bytearray(path.read_bytes())
    broken[len(broken) // 2] ^= 0x55
    (tmp_path / "broken.rzg").write_bytes(broken)
    with pytest.raises(RuntimeError, match="of the arena is corrupted"):
        rz.Graph(tmp_path / "broken.rzg")
    (tmp_path / "other.rzg").write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(RuntimeError, match="not a TorchScript module: it is a zip file that is not whole"):
        rz.Graph(tmp_path / "other.rzg")


def test_a_graph_that_is_saved_again_is_the_same(traced, tmp_path):
    path, inputs, expected = traced
    rz.Graph(path).save(tmp_path / "again.rzg")
    same(rz.Graph(tmp_path / "again.rzg")(**inputs), expected)
