"""Traced graphs of Rust pipelines, and TorchScript modules, with one copy of their weights per machine.

A graph is a file, ``model.rzg``, that ``jit::trace`` of the Rust crate ``ray-zerocopy`` has made. Nothing of the Rust program is
needed to run it, and no compiler.

>>> graph = Graph("model.rzg")                                       # doctest: +SKIP
>>> graph(rows=numpy.ones((3, 8), "float32"))["output"].shape        # doctest: +SKIP
(3, 4)

On Ray, a :class:`JitActorWrapper` is what goes to workers: a reference to the weights, which all of a node borrow.

>>> wrapper = JitActorWrapper("model.rzg")                           # doctest: +SKIP
>>> data.map_batches(Batches, fn_constructor_args=(wrapper,), concurrency=4)   # doctest: +SKIP
"""

import collections
import collections.abc
import os
import sys
import threading
import time

import numpy

from . import _libtorch

_libtorch.before()
try:
    from ._native import __libtorch__, __version__, _Graph, _kept
except ImportError as error:
    _libtorch.load(error)
    from ._native import __libtorch__, __version__, _Graph, _kept
_libtorch.after(__libtorch__)

__all__ = ["Batches", "Graph", "JitActorWrapper", "JitTaskWrapper"]


def _ray():
    # Not at the start: a graph in one process does without.
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("this needs Ray: pip install 'ray[data]>=2.50' 'pyarrow>=15'", name="ray") from error
    if _lost is not None and _connection() is _lost:
        raise RuntimeError(
            "this process is a fork of one that had joined Ray, and cannot use its connection: call load() before the fork, "
            "or start the process with multiprocessing's `spawn`"
        )
    return ray


def _connection():
    # Ray's connection of this process; None if it has not joined a cluster.
    worker = sys.modules.get("ray._private.worker")
    return getattr(getattr(worker, "global_worker", None), "core_worker", None)


# The connection of the parent, in a fork of a process that had joined Ray.
_lost = None


def _in_child():
    # Threads and locks of the parent are not in its fork.
    global _lost, _lock, _tidying
    _lost, _lock, _tidying = _connection(), threading.Lock(), False


os.register_at_fork(after_in_child=_in_child)


# numpy's names of the elements that a graph takes.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "float32", "Bool": "bool",
    **{f"{sign}{bits}": f"{'u' if sign == 'U' else ''}int{bits}" for sign in "IU" for bits in (8, 16, 32, 64)},
}  # fmt: skip


class Graph:
    """A graph, or a TorchScript module, in this process.

    ``path`` is a file of ``TracedGraph::save`` or ``TorchScript::save``, or of ``torch.jit.save`` if this package was built
    with ``torchscript``. ``device`` is where it computes: ``"cpu"`` borrows the weights. With ``strict`` it is an error if a
    weight has to be copied.

    Call it with arrays, by name or in order; it gives a dictionary of read-only arrays. Arrays are read where they are if they are
    in one piece, in the order of C. Their elements have to be those of the graph, but that integers may have another width.
    Columns of pandas and pyarrow are arrays too, and so are torch's tensors on the CPU that require no gradient. A number, or an array
    without dimensions, is an array of one element. An empty batch gives empty outputs.

    A fork of the process may call it too. It is a RuntimeError there if another thread was calling it at the fork.
    """

    __slots__ = ("_native", "_about")

    def __init__(self, path, device="cpu", *, strict=False):
        with open(path, "rb"):
            pass  # Python's own errors for files that are not there, or not to be read.
        self._set(_Graph.open(os.fspath(path), device, strict))

    def _set(self, native):
        self._native = native
        self._about = native.describe()

    @classmethod
    def _of(cls, native):
        self = object.__new__(cls)
        self._set(native)
        return self

    @property
    def origin(self):
        """What it was made of: the name of a Rust type, or of a TorchScript file."""
        return self._about["origin"]

    @property
    def inputs(self):
        """What it takes: names, and what each has to be. Of a TorchScript module, what ``forward`` takes."""
        methods = self._about["methods"]
        return dict(self._about["inputs"]) if methods is None else self.methods["forward"]

    @property
    def outputs(self):
        """What it gives: names, and what each is; None for a TorchScript module, where only a call tells."""
        return dict(self._about["outputs"]) if self._about["methods"] is None else None

    @property
    def methods(self):
        """The methods of a TorchScript module, and what each takes. A graph has none."""
        methods = self._about["methods"] or {}
        return {name: {own: kind for own, kind, _ in arguments} for name, arguments in methods.items()}

    @property
    def weight_bytes(self):
        """The bytes of its weights."""
        return self._about["weight_bytes"]

    def copied(self):
        """How many bytes of weights were copied, since they could not be borrowed."""
        return self._native.copied()

    def traffic(self):
        """How many arrays were read in place, and how many had to be copied."""
        return dict(zip(("borrowed", "copied"), self._native.traffic()))

    def save(self, path):
        """Writes the graph with its weights into a file."""
        self._native.save(os.fspath(path))

    def call(self, method, /, *arrays, **named):
        """Calls a method of a TorchScript module. Numbers, lists, tuples and dictionaries go where it takes such."""
        return self._run(method, arrays, named)

    def __call__(self, *arrays, **named):
        return self._run(None, arrays, named)

    def _run(self, method, arrays, named):
        if self._about["methods"] is None:
            names = self._about["inputs"]
        else:
            names = [name for name, _, _ in self._about["methods"].get(method or "forward", ())]
            named = _flat(named)
        if len(arrays) > len(names):
            raise TypeError(f"graph() takes {len(names)} inputs, {', '.join(names)}: {len(arrays)} were given")
        for name, array in zip(names, arrays):
            if name in named:
                raise TypeError(f"graph() got `{name}` twice")
            named.update(_flat({name: array}) if self._about["methods"] else {name: array})
        return self._native.run(method, named)

    def _empty(self, columns):
        # Ray Data's empty batches have lost the shape of their rows. That of a graph is known, but for sizes that differ from call to call:
        # 16 is one that most graphs can have.
        inputs = self._about["inputs"] if self._about["methods"] is None else {}
        shaped = {}
        for name, column in columns.items():
            about = inputs.get(name)
            if about is not None:
                dtype, extents = about.split(" ", 1)
                extents = extents.strip("[]").split(", ")[1:]
                shape = [int(extent) if extent.isdecimal() else 16 for extent in extents]
                found = getattr(column, "shape", ())
                if len(found) != len(shape) + 1:
                    column = numpy.empty((0, *shape), _DTYPES[dtype])
            shaped[name] = column
        return shaped

    def __reduce__(self):
        raise TypeError(
            "a Graph is not sent to other processes, its weights are shared: send JitActorWrapper(graph), and call its load() there"
        )

    def __repr__(self):
        return f"<ray_zerocopy.Graph of {self.origin}>"


def _flat(named):
    # What is in lists, tuples and dictionaries, under names with dots.
    flat = {}
    for name, value in named.items():
        if isinstance(value, dict):
            flat.update(_flat({f"{name}.{key}": inner for key, inner in value.items()}))
        elif isinstance(value, (list, tuple)):
            flat.update(_flat({f"{name}.{index}": inner for index, inner in enumerate(value)}))
        elif value is not None:
            flat[name] = value
    return flat


class JitActorWrapper:
    """A graph with its weights in Ray's object store, to be sent to any task or actor.

    It is small: what is sent is Ray's reference to the weights. ``load()`` borrows them, so that any number of processes of
    a node have them once. A store that has no room is an error, unless ``spill``.
    """

    def __init__(self, graph, device="cpu", *, strict=False, spill=False):
        ray = _ray()

        if not isinstance(graph, Graph):
            # Where it will compute is for others to say; here it is only read.
            graph = Graph(graph)
        if not ray.is_initialized():
            ray.init()
        self._reference = graph._native.put(spill)
        self._device = device
        self._strict = strict

    def load(self, device=None):
        """The graph in this process. Its weights stay where they are, in the object store."""
        ray = _ray()

        context = ray.get_runtime_context()
        if context.worker.mode == ray.WORKER_MODE:
            # A worker computes with the processors that Ray has given it.
            _Graph.use_threads(max(1, int(context.get_assigned_resources().get("CPU", 1))))
        return Graph._of(_Graph.attach(ray.get(self._reference), device or self._device, self._strict))

    def __repr__(self):
        return f"<ray_zerocopy.JitActorWrapper of {self._reference}>"


class JitTaskWrapper:
    """A graph whose every call is a Ray task, on weights that the workers of a node have once.

    Call it for the outputs, or ``remote(...)`` for a reference to them. ``options`` are Ray's: ``num_cpus``, ``max_retries``
    and so on.
    """

    def __init__(self, graph, device="cpu", *, strict=False, spill=False, **options):
        self._wrapper = JitActorWrapper(graph, device, strict=strict, spill=spill)
        self._options = options
        self._function = None

    def remote(self, *arrays, **named):
        """Starts a task. Inputs may be references to what other tasks will give."""
        return self.call_remote(None, *arrays, **named)

    def call_remote(self, method, /, *arrays, **named):
        """Starts a task that calls a method of a TorchScript module."""
        ray = _ray()

        if self._function is None:
            self._function = ray.remote(**{"name": "graph", **self._options})(_task)
        return self._function.remote(self._wrapper, method, *arrays, **named)

    def __call__(self, *arrays, **named):
        ray = _ray()

        return ray.get(self.remote(*arrays, **named))

    def options(self, **options):
        """The same graph, whose tasks ask Ray for more."""
        return _rewrap(self._wrapper, {**self._options, **options})

    def __reduce__(self):
        return _rewrap, (self._wrapper, self._options)

    def __repr__(self):
        return f"<ray_zerocopy.JitTaskWrapper of {self._wrapper._reference}>"


def _rewrap(wrapper, options):
    self = object.__new__(JitTaskWrapper)
    self._wrapper, self._options, self._function = wrapper, options, None
    return self


class Batches:
    """What ``map_batches`` of Ray Data calls: runs a graph on columns, and gives its outputs as columns.

    ``inputs`` says which column is which input where their names differ, ``{"ids": "tokens"}``; ``keep`` names columns that stay, or is
    True for all. ``method`` is one of a TorchScript module. Batches may have any ``batch_format``: ``"numpy"``, ``"pandas"`` or
    ``"pyarrow"``. What is given back is a dictionary of numpy's arrays.

    >>> data.map_batches(Batches, fn_constructor_args=(wrapper,), fn_constructor_kwargs={"keep": True},
    ...                  batch_size=256, concurrency=4)                  # doctest: +SKIP
    """

    def __init__(self, wrapper, inputs=None, keep=(), method=None):
        self.graph = wrapper.load()
        self._method = method
        self._keep = keep
        names = self.graph.inputs if method is None else self.graph.methods[method]
        self._columns = {name: (inputs or {}).get(name, name) for name in names}
        unknown = set(inputs or ()) - set(self._columns)
        if unknown:
            raise ValueError(f"the graph has no input {', '.join(sorted(unknown))}; it has {', '.join(names)}")

    def __call__(self, batch):
        columns = _columns(batch)
        missing = [column for column in self._columns.values() if column not in columns]
        if missing:
            raise ValueError(f"there is no column {', '.join(missing)}; there is {', '.join(map(str, columns))}")
        given = {name: batch[column] for name, column in self._columns.items()}
        if not any(len(column) for column in given.values()):
            given = self.graph._empty(given)
        outputs = self.graph._run(self._method, (), given)
        kept = {name: _kept(batch[name]) for name in (columns if self._keep is True else self._keep)}
        return {**kept, **outputs}


def _columns(batch):
    # Of a dictionary of arrays, a table of pyarrow, or a data frame of pandas.
    for attribute in ("column_names", "columns"):
        names = getattr(batch, attribute, None)
        if names is not None:
            return list(names)
    if isinstance(batch, collections.abc.Mapping):
        return list(batch)
    raise TypeError(
        f"a batch should be a dict of arrays, a pandas.DataFrame or a pyarrow.Table, found {type(batch).__module__}.{type(batch).__qualname__}"
    )


# What tasks have loaded in this process, and when it was last used. A graph that nobody asks for is dropped, and with it the hold on
# its weights.
_loaded = collections.OrderedDict()
_lock = threading.Lock()
# Whether a thread looks after them.
_tidying = False


def _task(wrapper, method, *arrays, **named):
    global _tidying
    key = (wrapper._reference.hex(), wrapper._device, wrapper._strict)
    with _lock:
        found = _loaded.get(key)
        if found is None:
            # First what may fail: there is nothing to tidy up after a graph that was not loaded.
            found = _loaded[key] = [wrapper.load(), 0.0]
        found[1] = time.monotonic()
        if not _tidying:
            threading.Thread(target=_tidy, name="ray-zerocopy tidy", daemon=True).start()
            _tidying = True
    return found[0]._run(method, arrays, named)


def _tidy():
    global _tidying
    keep = max(0.4, float(os.environ.get("RAY_ZEROCOPY_KEEP_SECONDS", "60")))
    while True:
        time.sleep(keep / 4)
        with _lock:
            old = [key for key, (_, used) in _loaded.items() if time.monotonic() - used > keep]
            dropped = [_loaded.pop(key) for key in old]
            if not _loaded:
                _tidying = False
                return
        del dropped
