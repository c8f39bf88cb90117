"""`ray_zerocopy.benchmark`, as a function and as a program."""

import json
import subprocess
import sys

import pytest
import torch

from models import Large, Network
from ray_zerocopy import benchmark


def make_large():
    return Large(128)


def make_rows():
    return torch.ones(1, 1024)


def test_own_copies_take_memory_and_shared_ones_do_not():
    result = benchmark.measure(make_large(), make_rows(), workers=[2, 2], calls=3)
    assert [(row.weights, row.workers) for row in result.rows] == [("own", 2), ("shared", 2)]
    assert result.pipeline == "models.Large" and result.weights == 128 << 20 and result.calls == 3
    own, shared = result.rows
    assert own.memory - own.bare > 250 << 20
    assert 128 << 20 <= shared.memory - shared.bare < 180 << 20
    for row in result.rows:
        assert row.load > 0 and row.calls_per_second > 0 and row.call[0] <= row.call[1] <= row.call[2]
    assert "own copies" in str(result) and "processors" in str(result)
    assert json.loads(result.to_json())["rows"][0]["weights"] == "own"


def test_program_prints_a_table():
    command = [sys.executable, "-m", "ray_zerocopy.benchmark", "test_benchmark:make_large", "--inputs", "test_benchmark:make_rows"]
    done = subprocess.run([*command, "--workers", "1", "--calls", "2"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "models.Large: 134 MB of weights; 2 calls of each worker" in done.stdout, done.stderr


def test_program_prints_json(capsys):
    benchmark.main(["models:Network", "--workers", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["call"] for row in rows] == [None, None], "there were no inputs"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["models"], "`models` should be `module:name`"),
        (["models:Missing"], "`models:Missing` cannot be imported"),
        (["models:Network", "--workers", "0"], r"workers should be numbers of at least 1, found \[0\]"),
        (["models:Network", "--calls", "0"], "calls should be at least 1, found 0"),
        (["models:Network", "--inputs", "test_benchmark:make_rows", "--method", "missing"], "Network has no method `missing`"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    with pytest.raises(SystemExit, match=said):
        benchmark.main(arguments)


def test_exception_of_a_call_arrives():
    with pytest.raises(RuntimeError, match="input to conv2d"):
        benchmark.measure(Network(), torch.ones(1, 1), workers=[1], calls=1)


def test_plot_needs_matplotlib(tmp_path, monkeypatch):
    rows = [
        benchmark.Row(kind, workers, 100 << 20, 50 << 20, 0.1, (0.1, 0.2, 0.3), 5.0) for kind in ("own", "shared") for workers in (1, 2)
    ]
    result = benchmark.Result("models.Network", 1 << 20, 3, "2 processors", rows)
    path = tmp_path / "out.svg"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        without.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ModuleNotFoundError, match="a plot needs matplotlib: pip install matplotlib"):
            result.plot(path)
    pytest.importorskip("matplotlib")
    result.plot(path)
    text = path.read_text()
    assert "<svg" in text and len(text) > 5000
