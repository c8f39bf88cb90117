"""Measures a pipeline in worker processes of this machine: with a copy of the weights in each, and with shared weights.

    python -m ray_zerocopy.benchmark mymodule:make_pipeline --inputs mymodule:make_inputs --workers 1 2 4 --plot out.svg

``make_pipeline`` returns the pipeline, and ``make_inputs`` the arguments of a call: a tuple, or the only one. In a
program:

>>> from ray_zerocopy import benchmark
>>> result = benchmark.measure(pipeline, (rows,), workers=[1, 2, 4])     # doctest: +SKIP
>>> print(result)                                                        # doctest: +SKIP
>>> result.plot("out.svg")                                               # doctest: +SKIP

Memory is the proportional set size (PSS) of the workers, from the kernel, in which each shared page counts once. All workers
call at the same time. Without inputs, no calls are measured.
"""

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import pickle
import platform
import statistics
import sys

from . import _forks

_KINDS = {"own": "own copies", "shared": "shared"}


@dataclasses.dataclass(frozen=True)
class Row:
    """What a number of workers took: memory in bytes, times in seconds.

    ``weights`` is ``"own"`` or ``"shared"``. ``memory`` is that of all workers and of the weights, ``bare`` that of the
    workers before they loaded anything. ``load`` is the median of the workers. ``call`` has the three quartiles of all
    calls, and ``calls_per_second`` is the sum of the workers; both are None if none were made.
    """

    weights: str
    workers: int
    memory: int
    bare: int
    load: float
    call: tuple[float, float, float] | None
    calls_per_second: float | None


@dataclasses.dataclass(frozen=True)
class Result:
    """The rows of a measurement, and what ran: ``pipeline``, ``weights`` in bytes, ``calls`` of each worker, ``machine``."""

    pipeline: str
    weights: int
    calls: int
    machine: str
    rows: list[Row]

    def __str__(self):
        head = ("weights", "workers", "memory", "over bare", "load", "call: quartiles", "calls/s")
        table = [head, *map(self._cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        about = f"{self.pipeline}: {_mb(self.weights)} of weights; {self.calls} calls of each worker; {self.machine}"
        return "\n".join([about, *lines])

    def _cells(self, row):
        call = "" if row.call is None else " / ".join(f"{each * 1e3:.2f}" for each in row.call) + " ms"
        rate = "" if row.calls_per_second is None else f"{row.calls_per_second:.1f}"
        load = f"{row.load * 1e3:.1f} ms"
        return _KINDS[row.weights], str(row.workers), _mb(row.memory), _mb(row.memory - row.bare), load, call, rate

    def to_json(self):
        """Returns the result as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def plot(self, path):
        """Writes a picture of memory, load times and calls to a file. Its suffix is the format, such as ``.svg``."""
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("a plot needs matplotlib: pip install matplotlib", name=error.name) from error
        panels = [("memory, MB", lambda row: row.memory / 1e6), ("load, ms", lambda row: row.load * 1e3)]
        if all(row.call for row in self.rows):
            panels.append(("median of a call, ms", lambda row: row.call[1] * 1e3))
        figure = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
        counts = sorted({row.workers for row in self.rows})
        for axes, (name, value) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
            for weights, label in _KINDS.items():
                rows = sorted((row for row in self.rows if row.weights == weights), key=lambda row: row.workers)
                axes.plot([row.workers for row in rows], [value(row) for row in rows], marker="o", label=label)
            axes.set(xlabel="workers", ylabel=name, xticks=counts)
            axes.set_ylim(bottom=0)
            axes.legend()
        figure.suptitle(self.pipeline)
        figure.savefig(path)


def measure(pipeline, inputs=None, *, workers=(1, 2, 4), calls=20, method="__call__"):
    """Measures a pipeline, and returns a :class:`Result`.

    ``inputs`` is a tuple of the arguments of ``method``, or its only argument. Each worker makes ``calls`` calls, after two
    that are not counted. The processors are divided among the workers. The pipeline is also copied to all workers, so there
    must be memory for as many copies.
    """
    counts = sorted(set(workers))
    if not counts or counts[0] < 1:
        raise ValueError(f"workers should be numbers of at least 1, found {list(workers)}")
    if calls < 1:
        raise ValueError(f"calls should be at least 1, found {calls}")
    if inputs is not None and not callable(getattr(pipeline, method, None)):
        raise TypeError(f"{type(pipeline).__qualname__} has no method `{method}` to be measured")
    import torch

    from ._weights import share

    _forks.check("benchmark")
    _forks.used()
    arguments = inputs if inputs is None or isinstance(inputs, tuple) else (inputs,)
    weights = share(pipeline, False, True)
    stored = weights.arena().stored_bytes
    rows = []
    for count in counts:
        for kind in _KINDS:
            rows.append(_run(kind, count, weights, pipeline, arguments, calls, method))
    kind = type(pipeline)
    machine = f"{_cpus()} processors, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    return Result(f"{kind.__module__}.{kind.__qualname__}", stored, 0 if inputs is None else calls, machine, rows)


def _run(kind, count, weights, pipeline, arguments, calls, method):
    import cloudpickle

    from . import _benchmark_worker, _messages
    from ._pool import Process, result

    started = []
    try:
        for _ in range(count):
            started.append(Process(_benchmark_worker.__name__, max(1, _cpus() // count)))

        def all_of(request):
            # The messages are sent first, so that the workers run at the same time.
            message = _messages.encode(request)
            for worker in started:
                worker.send(message)
            return [result(worker.receive()) for worker in started]

        if kind == "shared":
            what = weights.id, weights.origin, weights._owner
        else:
            # A buffer is passed in shared memory, and not in the message.
            what = pickle.PickleBuffer(cloudpickle.dumps(pipeline))
        bare = sum(all_of(("prepare", kind, what)))
        loads = all_of(("load",))
        found = [] if arguments is None else all_of(("call", method, arguments, calls))
        memory = sum(all_of(("memory",))) + (weights.arena().size if kind == "shared" else 0)
        call = rate = None
        if found:
            times = sorted(time for times in found for time in times)
            call = tuple(statistics.quantiles(times, n=4, method="inclusive")) if len(times) > 1 else (times[0],) * 3
            rate = sum(len(times) / sum(times) for times in found)
        return Row(kind, count, memory, bare, statistics.median(loads), call, rate)
    finally:
        for worker in started:
            worker.close()
        for worker in started:
            worker.wait()


def _cpus():
    return max(1, len(os.sched_getaffinity(0)))


def _mb(size):
    return f"{size / 1e6:.0f} MB"


def _named(text):
    module, _, name = text.partition(":")
    if not module or not name:
        raise SystemExit(f"`{text}` should be `module:name`")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise SystemExit(f"`{text}` cannot be imported: {error}") from error


def main(arguments=None):
    """The program ``python -m ray_zerocopy.benchmark``."""
    parser = argparse.ArgumentParser(
        prog="python -m ray_zerocopy.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("factory", help="`module:function` that returns the pipeline")
    parser.add_argument("--inputs", help="`module:function` that returns the arguments of a call")
    parser.add_argument("--method", default="__call__", help="the method that is called (default: the pipeline itself)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers of workers (default: 1 2 4)")
    parser.add_argument("--calls", type=int, default=20, help="calls of each worker (default: 20)")
    parser.add_argument("--plot", help="file for a picture, such as out.svg; needs matplotlib")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        # Before the measurement, which takes long.
        raise SystemExit("a plot needs matplotlib: pip install matplotlib")
    inputs = _named(options.inputs)() if options.inputs else None
    try:
        result = measure(_named(options.factory)(), inputs, workers=options.workers, calls=options.calls, method=options.method)
    except (TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(result.to_json() if options.json else result)
    if options.plot:
        result.plot(options.plot)


if __name__ == "__main__":
    main()
