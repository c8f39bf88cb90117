"""Calls in worker processes of this machine, without Ray."""

import concurrent.futures
import inspect
import os
import signal
import subprocess
import sys
import threading

import numpy
import pytest
import torch

import ray_zerocopy as rz
from ray_zerocopy import _messages
from forks import in_a_fork
from models import Large, Pipeline, eventually, evaluated


@pytest.fixture(scope="module")
def wrapped():
    with rz.TaskWrapper(evaluated(Pipeline()), workers=2) as wrapped:
        yield wrapped


def test_calls_run_in_other_processes(wrapped):
    rows = torch.randn(3, 64)
    assert torch.equal(wrapped(rows), wrapped.load()(rows))
    pid, _ = wrapped.count()
    assert pid != os.getpid() and pid in wrapped._engine.pids()


def test_methods_have_docstrings_and_signatures(wrapped):
    assert wrapped.embed.__doc__.startswith("Embeds ids.") and wrapped.embed.__name__ == "embed"
    assert str(inspect.signature(wrapped.embed)) == "(ids, scale: float = 1.0)"
    assert str(inspect.signature(wrapped)) == "(rows)"
    assert "embed" in dir(wrapped) and "config" not in dir(wrapped)
    with pytest.raises(AttributeError, match=r"Pipeline has no method `config`; .*`wrapper.load\(\).config`"):
        wrapped.config
    assert wrapped.load().config == {"threshold": 0.5}


def test_values_of_all_kinds_are_sent(wrapped):
    values = (
        torch.arange(6).reshape(2, 3).t(),
        torch.ones(2, dtype=torch.bfloat16),
        torch.tensor(3),
        torch.empty(0, 2),
        torch.randn(300, 300),
        torch.randn(300, 300)[:, ::2],
        numpy.arange(5),
        numpy.ones((200, 200)),
        torch.eye(3).to_sparse(),
        torch.tensor([1 + 2j]),
        torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
        [{"a": (None, True, "text", b"bytes", 1.5)}],
    )
    given, named = wrapped.echo(*values, key=values[4])
    for found, expected in zip([*given[:6], named["key"]], [*values[:6], values[4]]):
        assert torch.equal(found, expected) and found.dtype == expected.dtype
    assert numpy.array_equal(given[6], values[6]) and numpy.array_equal(given[7], values[7])
    assert torch.equal(given[8].to_dense(), torch.eye(3)) and torch.equal(given[9], values[9])
    assert torch.equal(given[10].int_repr(), values[10].int_repr()) and given[11] == values[11]
    # What arrives belongs to the caller.
    given[0][0] = 5
    given[4][0] = 5
    given[7][0] = 5


def test_values_of_classes_of_the_main_program_are_sent(tmp_path):
    script = """
import dataclasses, torch, ray_zerocopy as rz

@dataclasses.dataclass
class Batch:
    rows: torch.Tensor

class Pipeline:
    def __init__(self):
        self.layer = torch.nn.Linear(3, 2)

    def __call__(self, batch):
        return Batch(self.layer(batch.rows))

# Not below `if __name__ == "__main__"`: workers do not run the program again.
pipeline = Pipeline()
with rz.TaskWrapper(pipeline, workers=1) as wrapped:
    rows = torch.ones(1, 3)
    found = wrapped(Batch(rows))
    print(type(found) is Batch, torch.equal(found.rows, pipeline.layer(rows)))
"""
    (tmp_path / "program.py").write_text(script)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True True", done.stdout + done.stderr


def test_results_come_as_futures(wrapped):
    futures = [wrapped.embed.remote(torch.tensor([index]), scale=2.0) for index in range(8)]
    assert all(isinstance(future, concurrent.futures.Future) for future in futures)
    loaded = wrapped.load()
    for index, future in enumerate(futures):
        assert torch.equal(future.result(60), loaded.embed(torch.tensor([index]), 2.0))
    assert wrapped.remote(torch.ones(2, 64)).result(60).shape == (2, 4)


def test_workers_are_started_as_they_are_needed():
    with rz.TaskWrapper(Pipeline(), workers=3) as wrapped:
        assert wrapped._engine.pids() == []
        pids = {wrapped.count()[0] for _ in range(5)}
        assert len(pids) == 1, "one call at a time needs one worker"
        threads = [threading.Thread(target=lambda: [wrapped.count() for _ in range(20)]) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(wrapped._engine.pids()) <= 3
        wrapped.close()
        assert wrapped._engine.pids() == []
        assert wrapped.count()[0] not in pids, "it starts again"


def test_worker_keeps_what_it_has_loaded():
    with rz.TaskWrapper(Pipeline(), workers=1) as wrapped:
        assert [wrapped.count()[1] for _ in range(3)] == [1, 2, 3]


def test_exceptions_arrive_with_the_traceback_of_the_worker(wrapped):
    with pytest.raises(KeyError, match="why") as caught:
        wrapped.fail("why")
    assert "in fail" in str(caught.value.__cause__) and "models.py" in str(caught.value.__cause__)
    assert isinstance(wrapped.fail.remote("why").exception(60), KeyError)
    with pytest.raises(TypeError, match="cannot pickle"):
        wrapped.echo(threading.Lock())
    assert wrapped.count()


@pytest.mark.parametrize("large", [torch.arange(1 << 18), numpy.arange(1 << 18), {"rows": [torch.zeros(1 << 20)], "name": "x"}])
def test_large_values_do_not_pass_through_pickle(large):
    payload, buffers = _messages.encode((True, large, None))
    tensor = large["rows"][0] if isinstance(large, dict) else large
    assert len(payload) < 1000 and [each.nbytes for each in buffers] == [tensor.nbytes]


def test_exception_that_cannot_be_unpickled_is_named_and_ends_no_worker():
    with rz.TaskWrapper(Pipeline(), workers=1) as wrapped:
        pid, _ = wrapped.count()
        with pytest.raises(RuntimeError, match="OddError: 7: why") as caught:
            wrapped.fail_oddly(7, "why")
        assert "in fail_oddly" in str(caught.value.__cause__)
        assert wrapped.count() == (pid, 2)


def test_dead_worker_is_an_error_and_is_replaced(wrapped):
    with pytest.raises(rz.WorkerError, match="worker [0-9]+ ended with exit code 3 during a call"):
        wrapped.die()
    call = wrapped.sleep.remote(60)
    eventually(lambda: wrapped._engine._pool._idle == [] and wrapped._engine.pids())
    for pid in wrapped._engine.pids():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(rz.WorkerError, match="was ended by SIGKILL during a call"):
        call.result(60)
    assert wrapped.count()


def test_idle_worker_that_was_killed_gets_no_call():
    with rz.TaskWrapper(Pipeline(), workers=1) as wrapped:
        pid, _ = wrapped.count()
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert wrapped.count()[0] != pid


def test_workers_share_one_copy():
    model = Large(64)
    with rz.TaskWrapper(model, workers=2) as wrapped:
        rows = torch.ones(1, 1024)
        futures = [wrapped.remote(rows) for _ in range(8)]
        assert len({tuple(future.result(120)[0, :4].tolist()) for future in futures}) == 1
        report = wrapped.report()
        mapped = [row["shared"] for row in report.processes if row["pid"] in wrapped._engine.pids()]
        assert mapped and all(shared >= 64 << 20 for shared in mapped)
        pids = {row["pid"] for row in report.processes}
        assert os.getpid() in pids and set(wrapped._engine.pids()) <= pids


def test_workers_end_with_their_parent(tmp_path):
    script = """
import os, torch, ray_zerocopy as rz
wrapped = rz.TaskWrapper(torch.nn.Linear(2, 2), workers=1)
wrapped(torch.ones(1, 2))
print(*wrapped._engine.pids(), flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    pid = int(done.stdout)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_fork_after_use_is_an_error_that_says_so(wrapped):
    wrapped.count()
    assert in_a_fork(wrapped.count).startswith("RuntimeError: process")
    said = in_a_fork(lambda: rz.ActorWrapper(torch.nn.Linear(2, 2)).load())
    assert said.startswith("RuntimeError: ActorWrapper: process") and "`spawn`" in said
    assert "is a fork of process" in in_a_fork(wrapped.load)


def test_fork_with_one_thread_may_load(wrapped):
    # As the workers of a DataLoader do.
    rows = torch.ones(2, 64)
    expected = wrapped.load()(rows)

    def child():
        torch.set_num_threads(1)
        return torch.allclose(wrapped.load()(rows), expected)

    assert in_a_fork(child) == "True"


def test_options_of_the_wrong_engine_are_refused():
    with pytest.raises(TypeError, match="num_cpus: options of Ray, and the calls run in processes"):
        rz.TaskWrapper(torch.nn.Linear(2, 2), engine="local", num_cpus=1)
    with pytest.raises(TypeError, match="workers is for engine='local'"):
        rz.TaskWrapper(torch.nn.Linear(2, 2), engine="ray", workers=2)
    with pytest.raises(ValueError, match="engine should be 'ray' or 'local', found 'dask'"):
        rz.TaskWrapper(torch.nn.Linear(2, 2), engine="dask")
    with pytest.raises(ValueError, match="workers should be at least 1, found 0"):
        rz.TaskWrapper(torch.nn.Linear(2, 2), workers=0)
    with pytest.raises(TypeError, match="num_cpus: options of Ray"):
        rz.TaskWrapper(torch.nn.Linear(2, 2), workers=1).options(num_cpus=1)
