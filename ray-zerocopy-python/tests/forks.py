"""Runs a function in a forked child, with a timeout: it would hang if it waited for threads of the parent."""

import os
import select
import signal

import pytest


def in_a_fork(work, seconds=120):
    """Returns the result of ``work`` in a forked child as text, or its error."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = str(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], seconds)
        if not ready:
            os.kill(pid, signal.SIGKILL)
        answer = pipe.read().decode()
    os.waitpid(pid, 0)
    if not ready:
        pytest.fail(f"the forked child did not answer within {seconds} s")
    return answer
