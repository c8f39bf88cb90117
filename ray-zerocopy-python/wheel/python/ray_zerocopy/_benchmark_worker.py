"""A worker process of the benchmark: loads a pipeline, calls it, and tells what that took."""

import pickle
import time

from . import _worker


class _Measured:
    def __init__(self):
        self._load = self._pipeline = None

    def run(self, command, *arguments):
        return getattr(self, command)(*arguments)

    def prepare(self, kind, what):
        """Imports what a load needs. Returns the memory of this process."""
        import cloudpickle  # noqa: F401

        from . import _weights  # noqa: F401

        if kind == "shared":
            self._load = lambda: _worker.load(what, None, False)
        else:
            # The pickle is freed when it has been loaded.
            pickled = [what]
            self._load = lambda: _evaluated(pickle.loads(pickled.pop()))
        return self.memory()

    def load(self):
        """Loads the pipeline. Returns the time."""
        begun = time.perf_counter()
        self._pipeline = self._load()
        return time.perf_counter() - begun

    def call(self, method, arguments, calls):
        """Calls the pipeline. Returns the time of each call."""
        import torch

        called = getattr(self._pipeline, method)
        times = []
        with torch.no_grad():
            for _ in range(2 + calls):
                begun = time.perf_counter()
                called(*arguments)
                times.append(time.perf_counter() - begun)
        return times[2:]

    def memory(self):
        """Returns the proportional set size of this process in bytes, without the pages of shared weights."""
        total, is_weights = 0, False
        with open("/proc/self/smaps") as mappings:
            for line in mappings:
                name, _, value = line.partition(":")
                if "-" in name:
                    is_weights = "/memfd:ray-zerocopy " in line
                # Pages of the weights that the process has written to are copies of its own.
                elif name == ("Anonymous" if is_weights else "Pss"):
                    total += int(value.split()[0]) << 10
        return total


def main(descriptor, threads):
    """Serves commands until the connection is closed."""
    _worker.serve(descriptor, threads, _Measured().run)


def _evaluated(root):
    """Sets the modules of an object to evaluation mode, as those of shared pipelines are."""
    import torch

    from . import _walk

    # By id, with the objects, so that no other one gets the same id.
    found, left = {}, [root]
    while left:
        value = left.pop()
        if id(value) in found:
            continue
        found[id(value)] = value
        if isinstance(value, torch.nn.Module):
            value.eval()
        left.extend(child for _, child in _walk.children(value))
    return root
