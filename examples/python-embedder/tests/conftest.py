"""The module is the one that is installed. Ray's workers find it where these tests do."""

import os
import pathlib
import sys

import pytest

PROJECT = pathlib.Path(__file__).parents[1]
# Never a cluster that runs here already: it is somebody else's.
os.environ["RAY_ADDRESS"] = "local"
os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(PROJECT)])
sys.path.append(str(PROJECT))


@pytest.fixture(scope="session")
def pipeline():
    import embedder

    return embedder.Embedder.open()
