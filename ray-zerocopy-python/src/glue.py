# Classes that do not depend on the module's pipeline. This source is executed in the namespace of
# the exported module, after `_base` and `_pipeline_class` have been set there.
import inspect


class PanicError(RuntimeError):
    """A method panicked in Rust. The process continues.

    ``method`` and ``message`` describe the panic, ``pid`` and ``host`` the process.
    """

    def __init__(self, method, message, pid, host):
        super().__init__(method, message, pid, host)
        self.method, self.message, self.pid, self.host = method, message, pid, host

    def __str__(self):
        return f"{self.method}() panicked in process {self.pid} on {self.host}: {self.message}"


class PipelineError(RuntimeError):
    """A method or a constructor returned ``Result::Err`` in Rust. ``error`` is its value."""

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
            f"a {type(self).__name__} cannot be sent to another process, because its weights are shared: "
            f"send ActorWrapper(pipeline), and call its load() there"
        )

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__name__}>"


def stubs():
    """Returns the text of this module's stubs, to be saved as a ``.pyi`` file next to ``pyproject.toml``."""
    return _stubs


def traffic(pipeline):
    """Returns how many arrays a pipeline's methods have read in place and how many they have copied, and their bytes."""
    names = ("borrowed", "borrowed_bytes", "copied", "copied_bytes")
    return dict(zip(names, pipeline._native.traffic()))


def copied(pipeline):
    """Returns how many bytes of a pipeline's weights were copied when it was loaded because they could not be borrowed."""
    return pipeline._native.copied()


class ActorWrapper(_base.ActorWrapper):
    """A pipeline's weights in Ray's object store, to be passed to any task or actor.

    It is small: only Ray's reference to the weights is sent. ``load()`` borrows them, so that all processes of
    a node share one copy. ``device`` is where ``load()`` puts the pipeline: ``"cpu"`` borrows in place.
    With ``strict`` it is an error if a weight has to be copied. A full store is an error, unless ``spill`` is set.
    """

    def __init__(self, pipeline, device="cpu", *, strict=False, spill=False):
        _base.import_ray()
        if not isinstance(pipeline, _Pipeline):
            raise TypeError(f"pipeline should be a {_class.__name__}, found {type(pipeline).__name__}")
        self._put(pipeline._native, device, strict, spill)

    def load(self, device=None):
        """Loads the pipeline in this process. Its weights stay in the object store."""
        return _class._of(self._attach(_pipeline_class.load, _pipeline_class.use_threads, device))


class _TaskWrapper(_base.TaskWrapper):
    def __init__(self, pipeline, device="cpu", *, strict=False, spill=False, **options):
        self.__setstate__((ActorWrapper(pipeline, device, strict=strict, spill=spill), options))

    def load(self, device=None):
        """Loads the pipeline in this process. Its weights stay in the object store."""
        return self._wrapper.load(device)

    def options(self, **options):
        """Returns the same pipeline with options of Ray for its tasks: ``num_cpus``, ``num_gpus``, ``max_retries`` and so on."""
        return self._with_options(options)


class _Task:
    """A method as a Ray task: call it for the result, or ``remote(...)`` for a reference to it."""

    __slots__ = ("_wrapper", "_method")

    def __init__(self, wrapper, method):
        self._wrapper = wrapper
        self._method = method

    def remote(self, *args, **kwargs):
        """Starts the task. Arguments may be references to results of other tasks."""
        bound = _signatures[self._method].bind(None, *args, **kwargs)
        bound.apply_defaults()
        function = self._wrapper._remote(f"{_class.__name__}.{self._method}", _run)
        return function.remote(self._wrapper._wrapper, self._method, *bound.args[1:])

    def __call__(self, *args, **kwargs):
        return _base.import_ray().get(self.remote(*args, **kwargs))

    def __repr__(self):
        return f"<task {_class.__name__}.{self._method}>"


_loaded = _base.Cache()


def _run(wrapper, method, *args):
    # The function that each task runs.
    return getattr(_loaded.get(wrapper), method)(*args)
