# The classes of a module that do not depend on its pipeline. Run in the module, after `_kind` has been set.
import collections
import inspect
import os
import sys
import threading
import time


class PanicError(RuntimeError):
    """A method panicked, in Rust. The process lives on.

    ``method``, ``message``, ``pid`` and ``host`` say what, why and where.
    """

    def __init__(self, method, message, pid, host):
        super().__init__(method, message, pid, host)
        self.method, self.message, self.pid, self.host = method, message, pid, host

    def __str__(self):
        return f"{self.method}() panicked in process {self.pid} on {self.host}: {self.message}"


class PipelineError(RuntimeError):
    """A method or a constructor gave an error, a ``Result::Err`` in Rust. ``error`` is its value."""

    def __init__(self, message, error=None):
        super().__init__(message, error)
        self.error = error

    def __str__(self):
        return self.args[0]


class _Pipeline:
    __slots__ = ("_native",)

    @classmethod
    def _of(cls, native):
        self = object.__new__(cls)
        self._native = native
        return self

    def __reduce__(self):
        raise TypeError(
            f"a {type(self).__name__} is not sent to other processes, its weights are shared: "
            f"send ActorWrapper(pipeline), and call its load() there"
        )

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__name__}>"


def stubs():
    """The text of this module's stubs, to be saved as a ``.pyi`` file beside ``pyproject.toml``."""
    return _stubs


def traffic(pipeline):
    """How many arrays a pipeline's methods have read in place, how many they had to copy, and their bytes."""
    names = ("borrowed", "borrowed_bytes", "copied", "copied_bytes")
    return dict(zip(names, pipeline._native.traffic()))


def copied(pipeline):
    """How many bytes of a pipeline's weights were copied when it was loaded, since they could not be borrowed."""
    return pipeline._native.copied()


def _ray():
    import ray

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


class ActorWrapper:
    """A pipeline's weights in Ray's object store, to be sent to any task or actor.

    It is small: what is sent is Ray's reference to the weights. ``load()`` borrows them, so that any number of
    processes of a node have them once. ``device`` is where ``load()`` puts the pipeline: ``"cpu"`` borrows in place.
    With ``strict`` it is an error if a weight has to be copied. A store that has no room is an error, unless ``spill``.
    """

    def __init__(self, pipeline, device="cpu", *, strict=False, spill=False):
        ray = _ray()

        if not isinstance(pipeline, _Pipeline):
            raise TypeError(f"pipeline should be a {_class.__name__}, found {type(pipeline).__name__}")
        if not ray.is_initialized():
            ray.init()
        self._reference = pipeline._native.put(spill)
        self._device = device
        self._strict = strict

    def load(self, device=None):
        """The pipeline in this process. Its weights stay where they are, in the object store."""
        ray = _ray()

        _use_threads(ray)
        return _class._of(_kind.load(ray.get(self._reference), device or self._device, self._strict))

    def __repr__(self):
        return f"<{type(self).__module__}.ActorWrapper of {self._reference}>"


def _use_threads(ray):
    # A worker computes with the processors that Ray has given it.
    context = ray.get_runtime_context()
    if context.worker.mode == ray.WORKER_MODE:
        _kind.use_threads(max(1, int(context.get_assigned_resources().get("CPU", 1))))


class _TaskWrapper:
    def __init__(self, pipeline, device="cpu", *, strict=False, spill=False, **options):
        self._wrapper = ActorWrapper(pipeline, device, strict=strict, spill=spill)
        self._options = options
        self._functions = {}

    def load(self, device=None):
        """The pipeline in this process. Its weights stay where they are, in the object store."""
        return self._wrapper.load(device)

    def options(self, **options):
        """The same pipeline, whose tasks ask Ray for more: ``num_cpus``, ``num_gpus``, ``max_retries`` and so on."""
        other = object.__new__(type(self))
        other._wrapper, other._options, other._functions = self._wrapper, {**self._options, **options}, {}
        return other

    def _function(self, method):
        ray = _ray()

        function = self._functions.get(method)
        if function is None:
            options = {"name": f"{_class.__name__}.{method}", **self._options}
            function = self._functions[method] = ray.remote(**options)(_run)
        return function

    def __reduce__(self):
        return _rewrap, (self._wrapper, self._options)

    def __repr__(self):
        return f"<{type(self).__module__}.TaskWrapper of {self._wrapper._reference}>"


def _rewrap(wrapper, options):
    self = object.__new__(TaskWrapper)
    self._wrapper, self._options, self._functions = wrapper, options, {}
    return self


class _Task:
    """A method as a Ray task: call it for the result, or ``remote(...)`` for a reference to it."""

    __slots__ = ("_wrapper", "_method")

    def __init__(self, wrapper, method):
        self._wrapper = wrapper
        self._method = method

    def remote(self, *args, **kwargs):
        """Starts the task. Arguments may be references to what other tasks will give."""
        bound = _signatures[self._method].bind(None, *args, **kwargs)
        bound.apply_defaults()
        return self._wrapper._function(self._method).remote(self._wrapper._wrapper, self._method, *bound.args[1:])

    def __call__(self, *args, **kwargs):
        ray = _ray()

        return ray.get(self.remote(*args, **kwargs))

    def __repr__(self):
        return f"<task {_class.__name__}.{self._method}>"


# What tasks have loaded in this process, and when it was last used. A pipeline that no task uses any more is dropped, and with
# it the hold on its weights.
_loaded = collections.OrderedDict()
_lock = threading.Lock()
# Whether a thread looks after them.
_tidying = False


def _run(wrapper, method, *args):
    # What a task does.
    global _tidying
    key = (wrapper._reference.hex(), wrapper._device, wrapper._strict)
    with _lock:
        found = _loaded.get(key)
        if found is None:
            # First what may fail: there is nothing to tidy up after a pipeline that was not loaded.
            found = _loaded[key] = [wrapper.load(), 0.0]
        found[1] = time.monotonic()
        if not _tidying:
            threading.Thread(target=_tidy, name="ray-zerocopy tidy", daemon=True).start()
            _tidying = True
    return getattr(found[0], method)(*args)


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
