"""A worker process: loads pipelines and runs their methods."""

import os
import signal
import socket
import traceback

import cloudpickle

from . import _messages


def main(descriptor, threads):
    """Serves calls until the connection is closed."""
    loaded = {}
    serve(descriptor, threads, lambda *request: _run(loaded, *request))


def serve(descriptor, threads, run):
    """Answers requests by a function of them, until the connection is closed."""
    # An interrupt is for the process that waits for the result.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    import torch

    torch.set_num_threads(threads)
    while True:
        try:
            request = _messages.receive(connection)
            if request is None:
                os._exit(0)
            answer = _messages.encode((True, run(*request), None))
        except Exception as error:
            answer = _failed(error)
        try:
            _messages.send(connection, answer)
        except ConnectionError:
            # The caller has ended.
            os._exit(0)


def _run(loaded, arena, device, strict, method, args, kwargs):
    key = arena[0], device, strict
    pipeline = loaded.get(key)
    if pipeline is None:
        pipeline = loaded[key] = load(arena, device, strict)
    return called(pipeline, method)(*args, **kwargs)


def called(pipeline, method):
    """Returns a method of a pipeline."""
    import torch

    if method == "__call__" and isinstance(pipeline, torch.export.ExportedProgram):
        # A program is not called itself. The module is kept with it.
        module = pipeline.__dict__.get("_ray_zerocopy_module")
        if module is None:
            module = pipeline.__dict__["_ray_zerocopy_module"] = pipeline.module()
        return module
    return getattr(pipeline, method)


def load(arena, device, strict):
    """Loads a pipeline from its arena, given by id, origin and owner."""
    from ._weights import Loaded, Weights

    weights = object.__new__(Weights)
    identity, origin, owner = arena
    weights.__setstate__((identity, origin, False, None, owner))
    return Loaded(weights.arena(), device).take(strict)


def _failed(error):
    trace = traceback.format_exc()
    try:
        # An exception with arguments of its own can often be pickled, and not be unpickled.
        cloudpickle.loads(cloudpickle.dumps(error))
        return _messages.encode((False, error, trace))
    except Exception:
        return _messages.encode((False, RuntimeError(f"{type(error).__qualname__}: {error}"), trace))
