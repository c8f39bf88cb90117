"""The text `core-concepts.md`, with and without Ray."""

import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.parametrize("surroundings", ["with Ray", "without Ray"])
def test_blocks_of_the_text_run_as_they_are(surroundings):
    command = [sys.executable, "-W", "ignore", str(HERE / "concepts.py"), surroundings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "done", done.stdout + done.stderr
