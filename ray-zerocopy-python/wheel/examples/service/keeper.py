"""A process that shares the pipeline, and keeps its weights as long as the service runs."""

import base64
import multiprocessing
import os
import pickle

# The variable in which workers find the wrapper.
VARIABLE = "CLASSIFIER"


class Keeper:
    """The process, in the process that has started it."""

    def __init__(self, process, connection):
        self.process = process
        self.connection = connection

    def end(self):
        """Ends the process. Workers that have loaded the pipeline keep it."""
        self.connection.close()
        self.process.join()


def start():
    """Starts the process, and puts the wrapper into the environment. Forks of this process inherit it."""
    context = multiprocessing.get_context("spawn")
    own, other = context.Pipe()
    process = context.Process(target=_keep, args=(other,), daemon=True)
    process.start()
    other.close()
    os.environ[VARIABLE] = own.recv()
    return Keeper(process, own)


def wrapper():
    """Returns the wrapper, in a worker."""
    return pickle.loads(base64.b64decode(os.environ[VARIABLE]))


def _keep(connection):
    from model import make_pipeline
    from ray_zerocopy import ActorWrapper

    shared = ActorWrapper(make_pipeline(), strict=True)
    connection.send(base64.b64encode(pickle.dumps(shared)).decode())
    try:
        connection.recv()
    except EOFError:
        # The service has ended.
        pass
