"""Uses the installed module. Ray's workers import it from the same place."""

import os
import pathlib
import sys

import pytest

PROJECT = pathlib.Path(__file__).parents[1]
# Never connect to a cluster that already runs on this machine.
os.environ["RAY_ADDRESS"] = "local"
os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(PROJECT)])
sys.path.append(str(PROJECT))


@pytest.fixture(scope="session")
def pipeline():
    import embedder

    return embedder.Embedder.open()
