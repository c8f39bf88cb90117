"""The engine of Ray tasks: each call is a task, and a worker keeps the pipelines that it has loaded."""

from ._native import _base


class RayTasks:
    """Runs calls as Ray tasks, with options of Ray."""

    is_local = False

    def __init__(self, options):
        self._options = options
        # Ray's remote functions by their names.
        self._functions = {}

    def connect(self):
        """Connects this process to a cluster, unless it is. Without an address, Ray starts one on this machine."""
        ray = _base.import_ray()
        if not ray.is_initialized():
            ray.init()

    def with_options(self, options):
        """Returns the engine with further options."""
        return RayTasks({**self._options, **options})

    def start(self, wrapper, method, args, kwargs):
        """Starts a task. Returns Ray's reference to its result."""
        function = self._functions.get(method)
        if function is None:
            name = f"{wrapper._weights.origin.rpartition('.')[2]}.{method}"
            function = self._functions[method] = _base.import_ray().remote(**{"name": name, **self._options})(run)
        if wrapper._weights.reference is None:
            wrapper._weights.to_ray()
        return function.remote(Handle(wrapper), method, *args, **kwargs)

    def call(self, wrapper, method, args, kwargs):
        """Runs a task, and returns its result."""
        return _base.import_ray().get(self.start(wrapper, method, args, kwargs))

    def close(self):
        """Does nothing: the workers are Ray's."""

    def __reduce__(self):
        return RayTasks, (self._options,)


class Handle:
    """What a worker needs to load a pipeline."""

    def __init__(self, wrapper):
        self._weights, self._device, self._strict = wrapper._weights, wrapper._device, wrapper._strict
        self._reference = wrapper._weights.reference

    def load(self):
        """Loads the pipeline."""
        from ._weights import Loaded

        return Loaded(self._weights.arena(), self._device).take(self._strict)


_loaded = _base.Cache()


def run(handle, method, *args, **kwargs):
    """The function that each task runs."""
    from ._worker import called

    return called(_loaded.get(handle), method)(*args, **kwargs)
