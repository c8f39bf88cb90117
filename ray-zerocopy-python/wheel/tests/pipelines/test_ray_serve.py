"""The example of Ray Serve, as users run it: replicas that Ray adds share the weights.

`RAY_ZEROCOPY_SERVE` is a folder of packages with those of `ray[serve]`. In the repository's own test command it is set.
"""

import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from models import eventually

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture
def service():
    """The example on a free port. Yields a function that sends requests."""
    packages = os.environ.get("RAY_ZEROCOPY_SERVE")
    if packages is None and os.environ.get("RAY_ZEROCOPY_REQUIRE") != "examples":
        pytest.importorskip("ray.serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-W", "ignore", EXAMPLES / "ray_serve.py", "--port", str(port), "--cpus", "4"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    server = subprocess.Popen(command, env=environment, text=True, **pipes)

    def ask(body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/classify", data, timeout=60) as answer:
            return json.load(answer)

    try:
        said = []
        for line in server.stdout:
            said.append(line)
            if line == "listening\n":
                break
        else:
            pytest.fail("".join(said))
        yield ask
    finally:
        server.send_signal(signal.SIGINT)
        try:
            said = server.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            server.kill()
            said = server.communicate()[0]
    assert server.returncode == 0, said


def test_replicas_share_the_weights(service):
    rows = [[0, 1, 2, 3], [9, -9, 9, -9]]
    expected = service({"rows": rows})["classes"]
    assert len(expected) == 2
    pids = set()

    def replicas():
        """Requests at once, until Ray has added a replica."""
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(service, [{"rows": rows}] * 200))
        assert all(answer["classes"] == expected for answer in answers)
        pids.update(answer["pid"] for answer in answers)
        return len(pids) > 1

    eventually(replicas, 120)
    assert pids <= set(service()), "every replica maps the weights"
