"""Forks: a process that computes with PyTorch cannot be forked, since its threads do not exist in the child."""

import os

# The process that has used pipelines. In a fork of it: that of the parent.
_used = None
_forked_from = None


def used():
    """Records that this process has shared or loaded a pipeline."""
    global _used
    _used = os.getpid()


def check(what):
    """Raises RuntimeError in a fork of a process that has used pipelines, if PyTorch computes with several threads."""
    import torch

    if _forked_from is not None and torch.get_num_threads() > 1:
        raise RuntimeError(
            f"{what}: process {os.getpid()} is a fork of process {_forked_from}, which had used pipelines, and the threads of PyTorch "
            f"do not exist here: start it with multiprocessing's `spawn` (gunicorn: without `--preload`), or call "
            f"torch.set_num_threads(1) in it first"
        )


def _after_fork():
    global _forked_from
    if _used is not None:
        _forked_from = _used


os.register_at_fork(after_in_child=_after_fork)
