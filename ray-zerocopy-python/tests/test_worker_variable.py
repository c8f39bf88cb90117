"""A process that imports an exported module never becomes a Ray worker, even if the variable of Ray's workers is set."""

import os
import subprocess
import sys


def test_a_running_python_does_not_become_a_worker(tmp_path):
    folder = tmp_path / "ray" / "_private" / "workers"
    folder.mkdir(parents=True)
    script = folder / "default_worker.py"
    script.write_text("import probe\nprint('imported', probe.__name__)\n")
    environment = {
        **os.environ,
        "RAY_ZEROCOPY_RAY_WORKER": sys.executable,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    result = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "imported probe\n"
