"""The examples, as users run them. Their packages are in the folder that `cargo xtask setup python-examples` makes."""

import contextlib
import importlib
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


def package(name):
    """A package that only examples need. In the repository's own test command it is not missing."""
    if os.environ.get("RAY_ZEROCOPY_REQUIRE") == "examples":
        return importlib.import_module(name)
    return pytest.importorskip(name)


def run(*arguments):
    done = subprocess.run([sys.executable, "-W", "ignore", *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_images_of_a_folder_are_classified(tmp_path):
    Image = package("PIL.Image")
    for index in range(12):
        Image.new("RGB", (80, 60), (20 * index, 255 - 20 * index, 99)).save(tmp_path / f"{index}.png")
    rows = [json.loads(line) for line in run(EXAMPLES / "images.py", tmp_path, "--actors", 1).splitlines() if line.startswith("{")]
    assert {pathlib.Path(row["path"]).name for row in rows} == {f"{index}.png" for index in range(12)}
    assert all(row["class"] in ("tree", "street", "face") for row in rows)
    assert len({row["pid"] for row in rows}) == 1


def test_processes_of_the_standard_library():
    found = json.loads(run(EXAMPLES / "processes.py", "--workers", 2))
    assert found["pool"] == found["executor"] == pytest.approx(found["here"])
    assert set(found["workers"]) <= set(found["mapped"])


@contextlib.contextmanager
def gunicorn(*options):
    """The service on a free port. Yields the process and a function that sends requests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *options, "app:app"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    server = subprocess.Popen(command, cwd=EXAMPLES / "service", text=True, **pipes)

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    try:
        yield server, ask
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def test_workers_of_gunicorn_share_the_weights():
    package("gunicorn")
    package("fastapi")
    with gunicorn() as (server, ask):
        pids = set()

        def answers():
            assert server.poll() is None, server.stdout.read()
            try:
                found = ask("/classify", {"rows": [[0, 1, 2, 3], [9, -9, 9, -9]]})
            except OSError:
                return False
            assert len(found["classes"]) == 2
            pids.add(found["pid"])
            return len(pids) == 2

        eventually(answers, 120)
        assert server.pid not in pids
        # The workers, and the process that keeps the weights.
        assert pids < set(ask("/processes"))


def test_preloaded_app_is_told_to_use_spawn(tmp_path):
    package("gunicorn")
    # An app that shares the pipeline when it is imported, and workers that are forks of the process that did.
    (tmp_path / "preloaded.py").write_text(
        "import torch; torch.set_num_threads(2)\n"
        "import ray_zerocopy, model\n"
        "wrapper = ray_zerocopy.ActorWrapper(model.make_pipeline())\n"
        "wrapper.load()([[0, 1, 2, 3]])\n"
        "def app(environ, start):\n"
        "    start('200 OK', [])\n"
        "    try:\n"
        "        wrapper.load()\n"
        "    except RuntimeError as error:\n"
        "        return [str(error).encode()]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--config", os.devnull, "--bind", f"127.0.0.1:{port}", "--preload", "preloaded:app"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES / "service"), os.environ["PYTHONPATH"]])}
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        said = []

        def answers():
            assert server.poll() is None
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                    said.append(answer.read().decode())
            except OSError:
                return False
            return True

        eventually(answers, 120)
        assert "is a fork of process" in said[0] and "gunicorn: without `--preload`" in said[0]
    finally:
        server.terminate()
        server.wait()
