"""Graphs and TorchScript modules that Rust runs, without PyTorch."""

import collections.abc
import os

import numpy

from ._native import _base, _Graph, _to_numpy

# numpy's names of the element types of a graph.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "float32", "Bool": "bool",
    **{f"{sign}{bits}": f"{'u' if sign == 'U' else ''}int{bits}" for sign in "IU" for bits in (8, 16, 32, 64)},
}  # fmt: skip


class Graph:
    """A graph, or a TorchScript module, in this process.

    ``path`` is a file written by ``TracedGraph::save`` or ``TorchScript::save``, or by ``torch.jit.save`` if
    this package was built with ``torchscript``. ``device`` is where the graph runs: ``"cpu"`` borrows the
    weights. With ``strict`` it is an error if a weight has to be copied.

    Call it with arrays, by name or by position. It returns a dictionary of read-only arrays. C-contiguous
    arrays are read in place. Their element types must be those of the graph, except that integers may have
    another width. Columns of pandas and pyarrow are accepted as arrays, and so are torch tensors on the CPU
    that do not require a gradient. A number or a 0-dimensional array is an array of one element. An empty
    batch gives empty outputs.

    A fork of the process may call it too. The call raises RuntimeError there if another thread was calling
    the graph at the time of the fork.
    """

    __slots__ = ("_native", "_about")

    def __init__(self, path, device="cpu", *, strict=False):
        with open(path, "rb"):
            pass  # Raises Python's own errors for missing and unreadable files.
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
        """The name of the Rust type or TorchScript file that it was created from."""
        return self._about["origin"]

    @property
    def inputs(self):
        """Names and types of the inputs. For a TorchScript module, those of ``forward``."""
        methods = self._about["methods"]
        return dict(self._about["inputs"]) if methods is None else self.methods["forward"]

    @property
    def outputs(self):
        """Names and types of the outputs. None for a TorchScript module, which does not declare them."""
        return dict(self._about["outputs"]) if self._about["methods"] is None else None

    @property
    def methods(self):
        """The methods of a TorchScript module, with their arguments. Empty for a graph."""
        methods = self._about["methods"] or {}
        return {name: {own: kind for own, kind, _ in arguments} for name, arguments in methods.items()}

    @property
    def weight_bytes(self):
        """The size of the weights in bytes."""
        return self._about["weight_bytes"]

    def copied(self):
        """Returns how many bytes of weights were copied because they could not be borrowed."""
        return self._native.copied()

    def traffic(self):
        """Returns how many arrays were read in place, and how many were copied."""
        return dict(zip(("borrowed", "copied"), self._native.traffic()))

    def save(self, path):
        """Writes the graph with its weights into a file."""
        self._native.save(os.fspath(path))

    def call(self, method, /, *arrays, **named):
        """Calls a method of a TorchScript module. Its arguments may be numbers, lists, tuples and dictionaries too."""
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
        # Ray Data's empty batches lose the shape of their rows. It is restored from the graph's inputs.
        # Sizes that vary between calls are set to 16, which most graphs accept.
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
            "a Graph cannot be sent to another process, because its weights are shared: "
            "send JitActorWrapper(graph), and call its load() there"
        )

    def __repr__(self):
        return f"<ray_zerocopy.Graph of {self.origin}>"


def _flat(named):
    # Flattens lists, tuples and dictionaries: nested values get dotted names.
    flat = {}
    for name, value in named.items():
        if isinstance(value, dict):
            flat.update(_flat({f"{name}.{key}": inner for key, inner in value.items()}))
        elif isinstance(value, (list, tuple)):
            flat.update(_flat({f"{name}.{index}": inner for index, inner in enumerate(value)}))
        elif value is not None:
            flat[name] = value
    return flat


class JitActorWrapper(_base.ActorWrapper):
    """A graph with its weights in Ray's object store, to be passed to any task or actor.

    It is small: only Ray's reference to the weights is sent. ``load()`` borrows them, so that all processes of
    a node share one copy. A full store is an error, unless ``spill`` is set.
    """

    def __init__(self, graph, device="cpu", *, strict=False, spill=False):
        _base.import_ray()
        if not isinstance(graph, Graph):
            # ``device`` and ``strict`` apply to ``load()``; here the file is only read.
            graph = Graph(graph)
        self._put(graph._native, device, strict, spill)

    def load(self, device=None):
        """Loads the graph in this process. Its weights stay in the object store."""
        return Graph._of(self._attach(_Graph.attach, _Graph.use_threads, device))


class JitTaskWrapper(_base.TaskWrapper):
    """A graph whose calls are Ray tasks. The workers of a node share one copy of its weights.

    Call it for the outputs, or ``remote(...)`` for a reference to them. ``options`` are Ray's: ``num_cpus``,
    ``max_retries`` and so on.
    """

    def __init__(self, graph, device="cpu", *, strict=False, spill=False, **options):
        self.__setstate__((JitActorWrapper(graph, device, strict=strict, spill=spill), options))

    def remote(self, *arrays, **named):
        """Starts a task. Inputs may be references to results of other tasks."""
        return self.call_remote(None, *arrays, **named)

    def call_remote(self, method, /, *arrays, **named):
        """Starts a task that calls a method of a TorchScript module."""
        return self._remote("graph", _task).remote(self._wrapper, method, *arrays, **named)

    def __call__(self, *arrays, **named):
        return _base.import_ray().get(self.remote(*arrays, **named))

    def options(self, **options):
        """Returns the same graph with options of Ray for its tasks."""
        return self._with_options(options)


class Batches:
    """Callable class for ``map_batches`` of Ray Data: runs a graph on columns and returns its outputs as columns.

    ``inputs`` maps inputs to columns of another name, ``{"ids": "tokens"}``. ``keep`` lists columns to keep,
    or is True for all. ``method`` is a method of a TorchScript module. Batches may have any ``batch_format``:
    ``"numpy"``, ``"pandas"`` or ``"pyarrow"``. The result is a dictionary of numpy arrays.

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
            raise ValueError(f"the batch has no column {', '.join(missing)}; it has {', '.join(map(str, columns))}")
        given = {name: batch[column] for name, column in self._columns.items()}
        if not any(len(column) for column in given.values()):
            given = self.graph._empty(given)
        outputs = self.graph._run(self._method, (), given)
        kept = {name: _to_numpy(batch[name]) for name in (columns if self._keep is True else self._keep)}
        return {**kept, **outputs}


def _columns(batch):
    # Returns the column names of a dictionary of arrays, a pyarrow table or a pandas data frame.
    for attribute in ("column_names", "columns"):
        names = getattr(batch, attribute, None)
        if names is not None:
            return list(names)
    if isinstance(batch, collections.abc.Mapping):
        return list(batch)
    raise TypeError(
        f"a batch should be a dict of arrays, a pandas.DataFrame or a pyarrow.Table, found {type(batch).__module__}.{type(batch).__qualname__}"
    )


_loaded = _base.Cache()


def _task(wrapper, method, *arrays, **named):
    # The function that each task runs.
    return _loaded.get(wrapper)._run(method, arrays, named)
