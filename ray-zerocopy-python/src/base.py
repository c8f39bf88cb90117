"""Python code that modules of `export!` and the package `ray_zerocopy` share.

It is embedded in the native module of each. Every native module has a copy of its own, which is not
in `sys.modules`: nothing here may be pickled by reference, only subclasses defined elsewhere.
"""

import os
import sys
import threading
import time


def import_ray():
    """Returns the module `ray`, imported on first use, since a single process does not need it.

    Raises RuntimeError in a fork of a process that had joined a Ray cluster.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("this needs Ray: pip install 'ray[data]>=2.40' 'pyarrow>=15'", name="ray") from error
    if _inherited is not None and _connection() is _inherited:
        raise RuntimeError(
            "this process is a fork of one that had joined Ray, and cannot use its connection: call load() before the fork, "
            "or start the process with multiprocessing's `spawn`"
        )
    return ray


def _connection():
    # Ray's connection of this process; None if it has not joined a cluster.
    worker = sys.modules.get("ray._private.worker")
    return getattr(getattr(worker, "global_worker", None), "core_worker", None)


# In a forked child: the parent's connection, which the child cannot use.
_inherited = None


def _after_fork():
    global _inherited
    _inherited = _connection()


os.register_at_fork(after_in_child=_after_fork)


class ActorWrapper:
    """Reference to weights in Ray's object store, and how to load them."""

    def _put(self, native, device, strict, spill):
        # Stores the weights of a native pipeline or graph.
        ray = import_ray()
        if not ray.is_initialized():
            ray.init()
        self._reference = native.put(spill)
        self._device = device
        self._strict = strict

    def _attach(self, attach, use_threads, device):
        # Loads the weights in this process. The arguments are functions of the native module.
        ray = import_ray()
        context = ray.get_runtime_context()
        if context.worker.mode == ray.WORKER_MODE:
            # A worker computes on the CPUs that Ray has assigned to it.
            use_threads(max(1, int(context.get_assigned_resources().get("CPU", 1))))
        return attach(ray.get(self._reference), device or self._device, self._strict)

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__name__} of {self._reference}>"


class TaskWrapper:
    """An ActorWrapper whose methods are called as Ray tasks, with options for these tasks."""

    def __getstate__(self):
        return self._wrapper, self._options

    def __setstate__(self, state):
        self._wrapper, self._options = state
        # Ray's remote functions, by the name of the task.
        self._functions = {}

    def _with_options(self, options):
        other = object.__new__(type(self))
        other.__setstate__((self._wrapper, {**self._options, **options}))
        return other

    def _remote(self, name, function):
        # Returns the function as a Ray task of this name.
        found = self._functions.get(name)
        if found is None:
            found = self._functions[name] = import_ray().remote(**{"name": name, **self._options})(function)
        return found

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__name__} of {self._wrapper._reference}>"


class Cache:
    """Pipelines that tasks have loaded in this process.

    A pipeline that no task has used for RAY_ZEROCOPY_KEEP_SECONDS is dropped, which releases its
    weights.
    """

    def __init__(self):
        # Pipelines, each with the time of its last use.
        self._loaded = {}
        self._reset()
        # Threads and locks of the parent do not exist in its fork.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self):
        self._lock = threading.Lock()
        # Whether a thread drops unused pipelines.
        self._tidying = False

    def get(self, wrapper):
        """Returns the pipeline of an ActorWrapper, loaded if necessary."""
        key = (wrapper._reference.hex(), wrapper._device, wrapper._strict)
        with self._lock:
            entry = self._loaded.get(key)
            if entry is None:
                # Load before the thread is started: a failed load leaves nothing to drop.
                entry = self._loaded[key] = [wrapper.load(), 0.0]
            entry[1] = time.monotonic()
            if not self._tidying:
                threading.Thread(target=self._tidy, name="ray-zerocopy tidy", daemon=True).start()
                self._tidying = True
        return entry[0]

    def _tidy(self):
        keep = max(0.4, float(os.environ.get("RAY_ZEROCOPY_KEEP_SECONDS", "60")))
        while True:
            time.sleep(keep / 4)
            with self._lock:
                unused = [key for key, (_, used) in self._loaded.items() if time.monotonic() - used > keep]
                dropped = [self._loaded.pop(key) for key in unused]
                if not self._loaded:
                    self._tidying = False
                    return
            # Pipelines are freed after the lock is released.
            del dropped
