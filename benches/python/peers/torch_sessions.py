"""Sessions of PyTorch: modules in evaluation mode, which compute without gradients."""

import torch

from .torch_models import KINDS


class Session:
    """A module with the interface of a session of ONNX Runtime."""

    def __init__(self, module):
        self.module = module.eval()

    def run(self, _, batch):
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
            return [self.module(**tensors).numpy()]


def load(kind, arguments, threads, copies=1):
    """Loads `copies` sessions of a model on `threads` threads. They share its weights, since they are in one process."""
    torch.set_num_threads(threads)
    module = KINDS[kind](**arguments)
    return [Session(module) for _ in range(copies)]


def profile(session, batch, calls):
    """Returns the number and the microseconds of each kind of operation in a call."""
    session.run(None, batch)
    with torch.profiler.profile() as profiler:
        for _ in range(calls):
            session.run(None, batch)
    kinds = [(kind.key, kind.count / calls, kind.self_cpu_time_total / calls) for kind in profiler.key_averages()]
    # Functions that only call others.
    return [{"name": name, "count": round(count), "micros": micros} for name, count, micros in kinds if micros >= 0.5]
