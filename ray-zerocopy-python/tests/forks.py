"""Running something in a child of `fork`, with a watchdog: a computation that waits for threads of the parent never ends."""

import os
import select
import signal

import pytest


def in_a_fork(work, seconds=120):
    """What ``work`` gives in a child, as text; or the error."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], seconds)
        if not ready:
            os.kill(pid, signal.SIGKILL)
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    if not ready:
        pytest.fail(f"the forked child did not answer within {seconds} s")
    return said
