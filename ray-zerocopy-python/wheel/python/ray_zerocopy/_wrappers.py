"""Wrappers of pipelines: small objects that can be sent to other processes, and whose weights are shared."""

import functools
import inspect
import os

from . import _forks


class _Wrapper:
    # The base of all wrappers: weights, and how to load them.

    def __init__(self, pipeline, device, strict, spill, engine=None):
        _check_torch()
        import torch

        from ._weights import share

        self._check(pipeline)
        if device is not None:
            device = str(torch.device(device))
        _forks.check(type(self).__name__)
        _forks.used()
        if engine is not None:
            # Before the weights are shared, so that they go straight into the object store.
            engine.connect()
        self._weights = share(pipeline, spill, engine is not None and engine.is_local)
        self._device = device
        self._strict = strict

    def _check(self, pipeline):
        # Raises TypeError for an object that this wrapper is not for.
        if isinstance(pipeline, type):
            raise TypeError(f"pipeline should be an object, found the class {pipeline.__qualname__}: call it first")
        if isinstance(pipeline, (str, bytes, os.PathLike)):
            raise TypeError(
                f"pipeline should be an object, found {pipeline!r}: a file is loaded first, with torch.load, torch.jit.load "
                "or torch.export.load"
            )

    @property
    def _reference(self):
        # For the cache of Ray's workers, which has the pipelines by reference.
        return self._weights.reference

    def load(self, device=None):
        """Returns the pipeline in this process. Its weights stay in shared memory.

        ``device`` is where its tensors are, instead of that of the wrapper: ``"cpu"`` reads them in place, and
        ``"cuda:0"`` copies them there once. Modules are in evaluation mode, and tensors require no gradient. A
        tensor may be written to: this process gets its own copy of the pages that change.
        """
        from ._weights import Loaded

        _forks.check("load()")
        _forks.used()
        return Loaded(self._weights.arena(), device or self._device).take(self._strict)

    def verify(self):
        """Compares all weights with their checksums. Raises RuntimeError if one differs."""
        self._weights.arena().verify()

    def report(self):
        """Returns a :class:`Report` on the weights, and on the processes of this machine that map them."""
        from ._report import Report

        return Report(self._weights)

    def __repr__(self):
        return f"<ray_zerocopy.{type(self).__name__} of {self._weights!r}>"


class ActorWrapper(_Wrapper):
    """A pipeline whose weights are shared, to be sent to actors and other processes.

    ``pipeline`` is any object with :class:`torch.nn.Module` objects at any depth, or a module. It must be
    possible to pickle it. It can be deleted afterwards, which frees its own copy of the weights.

    The wrapper is small. It can be sent to Ray's actors and tasks, to Ray Data, and to processes of
    ``multiprocessing``, ``concurrent.futures`` and ``joblib`` that are not forks. There, :meth:`load` returns the
    pipeline. On a Ray cluster the weights are in the object store, once on each node. Otherwise they are in sealed
    memory of this machine, as long as one process has them.

    ``device`` is where :meth:`load` puts the tensors, ``"cpu"`` or ``"cuda:0"``; by default, where they were.
    With ``strict`` it is an error if a class copies the weights that it is given. A full object store is an error,
    unless ``spill`` is set.

    >>> import torch
    >>> wrapper = ActorWrapper({"layers": [torch.nn.Linear(2, 3)]}, strict=True)
    >>> wrapper.load()["layers"][0].weight.shape
    torch.Size([3, 2])
    >>> wrapper.report().tensors
    [("['layers'][0].weight", 24), ("['layers'][0].bias", 12)]
    """

    def __init__(self, pipeline, device=None, *, strict=False, spill=False):
        super().__init__(pipeline, device, strict, spill)


class TaskWrapper(_Wrapper):
    """A pipeline whose method calls run in other processes, which share one copy of its weights.

    Call it, or its methods, like the pipeline. With Ray, each call is a task. A worker keeps what it has loaded. Without
    Ray, calls run in up to ``workers`` processes of this machine, which are started as they are needed. ``method.remote(...)``
    returns at once: a reference of Ray, or a :class:`concurrent.futures.Future`.

    ``engine`` is ``"ray"`` or ``"local"``; by default Ray, if it is installed. The other ``options`` are Ray's:
    ``num_cpus``, ``num_gpus``, ``max_retries`` and so on. ``device``, ``strict`` and ``spill`` are those of
    :class:`ActorWrapper`.

    >>> import torch
    >>> with TaskWrapper(torch.nn.Linear(2, 3), workers=1) as wrapped:
    ...     wrapped(torch.ones(4, 2)).shape, wrapped.extra_repr.remote().result()
    (torch.Size([4, 3]), 'in_features=2, out_features=3, bias=True')
    """

    def __init__(self, pipeline, device=None, *, strict=False, spill=False, engine=None, workers=None, **options):
        self._engine = _engine(engine, workers, options)
        super().__init__(pipeline, device, strict, spill, self._engine)
        self._kind, self._own = _methods_of(pipeline)
        self._methods = {}

    def remote(self, *args, **kwargs):
        """Starts a call of the pipeline itself. Returns a reference to the result, or a future."""
        return self._engine.start(self, self._called(), args, kwargs)

    def __call__(self, *args, **kwargs):
        return self._engine.call(self, self._called(), args, kwargs)

    def _called(self):
        import torch

        # `getattr` would find that of the class, which makes objects. A program of `torch.export` has one that raises.
        is_program = issubclass(self._kind, torch.export.ExportedProgram)
        if not is_program and not any("__call__" in vars(kind) for kind in self._kind.__mro__):
            raise TypeError(f"{self._kind.__qualname__} cannot be called: it has no `__call__`; call a method of it")
        return "__call__"

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        method = self._methods.get(name)
        if method is None:
            function = getattr(self._kind, name, None)
            if not callable(function) and name not in self._own:
                raise AttributeError(
                    f"{self._kind.__qualname__} has no method `{name}`; an attribute of the pipeline is read with "
                    f"`wrapper.load().{name}`"
                )
            method = self._methods[name] = Method(self, name, function, _signature(self._kind, name))
        return method

    def __dir__(self):
        return [*super().__dir__(), *(name for name in dir(self._kind) if callable(getattr(self._kind, name, None))), *self._own]

    @property
    def __signature__(self):
        import torch

        return _signature(self._kind, "forward" if issubclass(self._kind, torch.nn.Module) else "__call__")

    def options(self, **options):
        """Returns the same pipeline with options of Ray for its tasks."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _engine=self._engine.with_options(options), _methods={})
        return other

    def close(self):
        """Ends the worker processes of this wrapper, if it has any. The next call starts them again."""
        self._engine.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __getstate__(self):
        return {**self.__dict__, "_methods": {}}

    def __setstate__(self, state):
        self.__dict__.update(state)


class Method:
    """A method of a pipeline that runs in another process. Call it, or ``remote(...)``."""

    def __init__(self, wrapper, name, function, signature):
        self._wrapper = wrapper
        self._name = self.__name__ = name
        if function is not None:
            functools.update_wrapper(self, function, updated=())
        self.__signature__ = signature

    def remote(self, *args, **kwargs):
        """Starts the call. Returns a reference to the result, or a future."""
        return self._wrapper._engine.start(self._wrapper, self._name, args, kwargs)

    def __call__(self, *args, **kwargs):
        return self._wrapper._engine.call(self._wrapper, self._name, args, kwargs)

    def __repr__(self):
        return f"<method {self._name} of {self._wrapper!r}>"


class _Script:
    # Accepts TorchScript modules, and pipelines that contain some.

    def _check(self, pipeline):
        import torch

        from ._walk import has

        super()._check(pipeline)
        if not has(pipeline, torch.jit.ScriptModule):
            name = type(self).__name__.removeprefix("JIT")
            raise TypeError(
                f"pipeline should be a torch.jit.ScriptModule or contain some, found {type(pipeline).__qualname__}: "
                f"use {name}, or torch.jit.trace; files of graphs are for {name.replace(name, 'Jit' + name)}"
            )


class JITActorWrapper(_Script, ActorWrapper):
    """:class:`ActorWrapper` for a TorchScript module, or for a pipeline that contains some."""


class JITTaskWrapper(_Script, TaskWrapper):
    """:class:`TaskWrapper` for a TorchScript module, or for a pipeline that contains some."""


def _methods_of(pipeline):
    # The class with a pipeline's methods, and the names of those that only the object has.
    import torch

    from . import _torchscript

    if _torchscript.is_compiled(pipeline):
        return type(pipeline._orig_mod), frozenset()
    if isinstance(pipeline, torch.jit.ScriptModule):
        return type(pipeline), frozenset(pipeline._c._method_names()) - {"forward"}
    own = vars(pipeline).items() if hasattr(pipeline, "__dict__") else ()
    is_method = lambda value: callable(value) and not isinstance(value, (type, torch.nn.Module))
    return type(pipeline), frozenset(name for name, value in own if not name.startswith("_") and is_method(value))


def _signature(kind, name):
    # The signature of a method of a class, without the object itself. None if it is not known.
    function = getattr(kind, name, None)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    is_bound = not inspect.isfunction(function) or isinstance(inspect.getattr_static(kind, name), staticmethod)
    parameters = list(signature.parameters.values())
    return signature if is_bound else signature.replace(parameters=parameters[1:])


def _engine(name, workers, options):
    if name not in (None, "ray", "local"):
        raise ValueError(f"engine should be 'ray' or 'local', found {name!r}")
    if name is None:
        name = "local" if workers is not None or not _has_ray() else "ray"
    if name == "ray":
        if workers is not None:
            raise TypeError("workers is for engine='local'; on Ray, the cluster decides how many tasks run at once")
        from ._tasks import RayTasks

        return RayTasks(options)
    if options:
        raise TypeError(f"{', '.join(options)}: options of Ray, and the calls run in processes of this machine")
    from ._pool import LocalTasks

    return LocalTasks(workers)


def _has_ray():
    import importlib.util
    import sys

    if "ray" in sys.modules:
        return sys.modules["ray"] is not None
    return importlib.util.find_spec("ray") is not None


def _check_torch():
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("pipelines need PyTorch: pip install torch", name="torch") from error
