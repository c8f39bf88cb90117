"""TorchScript modules in Python, with a package that was built with `torchscript`, and how it finds LibTorch."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import ray_zerocopy as rz
from conftest import ROOT

MODULES = ROOT / "tests" / "torchscript"
EXPECTED = json.loads((MODULES / "expected.json").read_text())

if rz.__libtorch__ is None and os.environ.get("RAY_ZEROCOPY_REQUIRE") == "torchscript":
    pytest.exit("the package was built without `torchscript`", returncode=2)
pytestmark = pytest.mark.skipif(rz.__libtorch__ is None, reason="the package was built without `torchscript`")


def rows(*shape):
    return np.linspace(-1, 1, int(np.prod(shape)), dtype="float32").reshape(shape)


def close(found, expected):
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-5, atol=1e-5)


def test_a_module_answers_as_pytorch_does():
    graph = rz.Graph(MODULES / "mlp.pt", strict=True)
    assert graph.inputs == {"rows": "Tensor"} and graph.outputs is None and graph.origin == "mlp.pt"
    assert graph.copied() == 0
    close(graph(rows=rows(3, 8))["output"], EXPECTED["mlp"])
    close(graph(rows(3, 8))["output"], EXPECTED["mlp"])
    with pytest.raises(ValueError, match="input `columns` is not one of the module's; the graph takes `rows`"):
        graph(columns=rows(3, 8))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        graph(rows=rows(3, 7))


def test_non_array_values():
    graph = rz.Graph(MODULES / "structured.pt")
    x = rows(3, 4)
    found = graph(
        rows=x, times=2, state=(x, x / 2), more=[x, x], named={"a": x, "b": x}, mask=x > 0, scale=0.5, negate=True
    )
    close(found["total"], EXPECTED["structured"]["total"])
    assert found["seen"].tolist() == [2, 2]
    assert graph.call("summed", rows=x)["count"].tolist() == [12]
    with pytest.raises(ValueError, match="there is no method `sums`; there is `forward`, `summed`, `text`"):
        graph.call("sums", rows=x)


def test_module_state_is_per_actor(ray):
    wrapper = rz.JitActorWrapper(MODULES / "counter.pt")

    @ray.remote(num_cpus=1)
    class Actor:
        def __init__(self, wrapper):
            self.graph = wrapper.load()

        def calls(self, x):
            return int(self.graph(x)["output.1"][0])

    first, second = Actor.remote(wrapper), Actor.remote(wrapper)
    assert ray.get([actor.calls.remote(rows(3, 4)) for actor in (first, first, second)]) == [1, 2, 1]


def test_tasks_and_ray_data_run_modules(ray):
    close(rz.JitTaskWrapper(MODULES / "mlp.pt", strict=True)(rows(3, 8))["output"], EXPECTED["mlp"])
    wrapper = rz.JitActorWrapper(rz.Graph(MODULES / "structured.pt"))
    data = ray.data.from_items([{"key": key, "rows": row} for key, row in enumerate(rows(30, 4))], override_num_blocks=3)
    mapped = data.map_batches(
        rz.Batches,
        fn_constructor_args=(rz.JitActorWrapper(MODULES / "mlp.pt"),),
        fn_constructor_kwargs={"inputs": {"rows": "wide"}, "keep": ["key"]},
        batch_size=10,
        concurrency=1,
    )
    with pytest.raises(Exception, match="the batch has no column wide; it has key, rows"):
        mapped.take_all()
    sums = data.map_batches(
        rz.Batches,
        fn_constructor_args=(wrapper,),
        fn_constructor_kwargs={"method": "summed"},
        batch_size=10,
        concurrency=1,
    )
    assert [int(row["count"]) for row in sums.take_all()] == [40, 40, 40]


def imported(*before, **environment):
    """Imports the package in another process, and returns the outcome."""
    script = "import ray_zerocopy as rz, sys; rz.Graph(sys.argv[1]); print(open('/proc/self/maps').read())"
    environment = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    command = [sys.executable, "-c", "".join(before) + script, str(MODULES / "mlp.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return done.stdout or done.stderr


def pytorch(folder, version):
    """A fake installation of PyTorch, with the LibTorch of these tests."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").touch()
    (folder / "torch" / "lib").symlink_to(pathlib.Path(os.environ["LIBTORCH"], "lib"))
    about = folder / f"torch-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    return str(folder)


def test_without_libtorch_it_says_what_to_do():
    assert "cannot find LibTorch: pip install torch==2.9.*, or set LIBTORCH" in imported(LIBTORCH=None)
    assert "/nowhere/lib/libtorch_cpu.so cannot be loaded" in imported(LIBTORCH="/nowhere")
    assert "lib/libtorch_cpu.so" in imported()


def test_the_libtorch_of_pytorch_comes_first_and_has_to_fit(tmp_path):
    if (found := next(iter(importlib.metadata.distributions(name="torch")), None)) is not None:
        pytest.skip(f"PyTorch {found.version} is installed here, and a fake installation would conflict with it")
    (tmp_path / "same").mkdir()
    same = pytorch(tmp_path / "same", rz.__libtorch__)
    assert "lib/libtorch_cpu.so" in imported(PYTHONPATH=same, LIBTORCH="/nowhere")
    (tmp_path / "other").mkdir()
    other = pytorch(tmp_path / "other", "1.13.0")
    assert f"was built for PyTorch {rz.__libtorch__}, and 1.13.0 is installed" in imported(PYTHONPATH=other)


def test_a_wheel_with_its_own_libtorch_does_not_go_beside_pytorch(tmp_path):
    bundled = tmp_path / "ray_zerocopy"
    bundled.symlink_to(pathlib.Path(rz.__file__).parent)
    script = f"""
import importlib.util, sys, types
spec = importlib.util.spec_from_file_location("found", {str(bundled / "_libtorch.py")!r})
found = importlib.util.module_from_spec(spec)
spec.loader.exec_module(found)
found.before()
sys.modules["torch"] = types.ModuleType("torch")
found.before()
"""
    run = lambda: subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)  # noqa: E731
    assert run().returncode == 0
    (tmp_path / "ray_zerocopy.libs").mkdir()
    (tmp_path / "ray_zerocopy.libs" / "libtorch_cpu-0123.so").touch()
    assert "Build the wheel with `--auditwheel skip`" in run().stderr
