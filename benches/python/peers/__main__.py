"""Runs models for the benchmark `compiled`: reads requests as lines of JSON, and writes a line for each.

| `command` | other fields | response |
| --- | --- | --- |
| `load` | `kind`, `arguments`, `precision` (`f32`, `int8`, or `torch`), `threads`, `copies`: the number of sessions | `version`, and `operations` after optimisation |
| `inputs` | `batches`: the inputs of one call or more, by name: `dtype`, `shape`, `numbers` | `batches`: their number |
| `run` | `calls` with the first batch | `seconds`, `processor_seconds` |
| `one` | `batch`: which | `seconds`, `processor_seconds` |
| `each` | | `seconds` of one call with each batch, as a list |
| `all`: divides the batches among the sessions, each in a thread of its own | | `seconds`, `processor_seconds` |
| `profile` | `calls` with the first batch, in a session that measures its operations | `operations`: `name`, `count` and `micros` in a call |
| `outputs` | | `shape` and `numbers` of the first batch |
"""

import json
import logging
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime

from . import operations, sessions


def measure(job):
    """Runs a job. Returns how long it took, and the CPU time of this process meanwhile, of all threads."""
    processor, begun = time.process_time(), time.perf_counter()
    job()
    return {"seconds": time.perf_counter() - begun, "processor_seconds": time.process_time() - processor}


class Peer:
    """The sessions and the inputs. Each method is a command."""

    def load(self, kind, arguments, precision, threads, copies):
        self.model = (kind, arguments, precision, threads)
        if precision == "torch":
            # Only its own process needs it.
            from . import torch_sessions

            self.sessions = torch_sessions.load(kind, arguments, threads, copies)
            return {"version": torch_sessions.torch.__version__, "operations": {}}
        self.sessions, operations = sessions.load(kind, arguments, precision, threads, copies)
        return {"version": onnxruntime.__version__, "operations": operations}

    def inputs(self, batches):
        def array(value):
            return np.array(value["numbers"], value["dtype"]).reshape(value["shape"])

        self.batches = [{name: array(value) for name, value in batch.items()} for batch in batches]
        return {"batches": len(self.batches)}

    def run(self, calls):
        session, batch = self.sessions[0], self.batches[0]

        def repeatedly():
            for _ in range(calls):
                session.run(None, batch)

        return measure(repeatedly)

    def one(self, batch):
        session, batch = self.sessions[0], self.batches[batch]
        return measure(lambda: session.run(None, batch))

    def each(self):
        return {"seconds": [self.one(batch)["seconds"] for batch in range(len(self.batches))]}

    def all(self):
        waiting, failures = queue.SimpleQueue(), []
        for batch in self.batches:
            waiting.put(batch)

        def work(session):
            try:
                while True:
                    session.run(None, waiting.get_nowait())
            except queue.Empty:
                return
            except Exception as error:
                failures.append(error)

        def together():
            # ONNX Runtime releases Python's lock while it computes.
            threads = [threading.Thread(target=work, args=[session]) for session in self.sessions]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        taken = measure(together)
        if failures:
            raise failures[0]
        return taken

    def profile(self, calls):
        if self.model[2] == "torch":
            from . import torch_sessions

            return {"operations": torch_sessions.profile(self.sessions[0], self.batches[0], calls)}
        with tempfile.TemporaryDirectory() as folder:
            [session], _ = sessions.load(*self.model, profile=str(Path(folder, "profile")))
            for _ in range(calls):
                session.run(None, self.batches[0])
            return {"operations": operations.of_profile(session.end_profiling(), calls)}

    def outputs(self):
        output = self.sessions[0].run(None, self.batches[0])[0]
        return {"shape": list(output.shape), "numbers": output.astype(float).ravel().tolist()}


def main():
    # The quantiser advises to preprocess each model.
    logging.disable(logging.WARNING)
    peer = Peer()
    commands = {name: getattr(peer, name) for name in ("load", "inputs", "run", "one", "each", "all", "profile", "outputs")}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(commands[request.pop("command")](**request)), flush=True)


main()
