"""Worker processes of the standard library on one copy of the weights, without Ray.

    python processes.py --workers 2

A wrapper is a small object that can be pickled, so it can be an argument of `multiprocessing` and `concurrent.futures`. The
workers are started by `spawn`: a process that computes with PyTorch cannot be forked.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os

import torch
from torch import nn

from ray_zerocopy import ActorWrapper

pipeline = None


class Scorer:
    """A pipeline."""

    def __init__(self):
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 1))

    def __call__(self, rows):
        return self.layers(rows)


def load(wrapper):
    """Runs once in each worker."""
    global pipeline
    torch.set_num_threads(1)
    pipeline = wrapper.load()


def score(seed):
    """Runs in a worker for each item."""
    rows = torch.full((1, 256), float(seed))
    return os.getpid(), pipeline(rows).item()


def main():
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    wrapper = ActorWrapper(Scorer())
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, initializer=load, initargs=(wrapper,)) as pool:
        first = pool.map(score, range(8), chunksize=1)
        mapped = {row["pid"] for row in wrapper.report().processes}
    settings = {"max_workers": options.workers, "mp_context": context, "initializer": load, "initargs": (wrapper,)}
    with concurrent.futures.ProcessPoolExecutor(**settings) as pool:
        second = list(pool.map(score, range(8)))
    own = wrapper.load()
    print(
        json.dumps({
            "workers": sorted({pid for pid, _ in first}),
            "mapped": sorted(mapped),
            "pool": [result for _, result in first],
            "executor": [result for _, result in second],
            "here": [own(torch.full((1, 256), float(seed))).item() for seed in range(8)],
        })
    )


if __name__ == "__main__":
    main()
