"""Pipelines of the tests. Worker processes import this module."""

import dataclasses
import os
import time

import torch
from torch import nn


class OddError(Exception):
    """Can be pickled, and not be unpickled: its arguments are not those of its constructor."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")


class Pipeline:
    """Modules at any depth, ties, views, several dtypes, and ordinary attributes."""

    def __init__(self):
        torch.manual_seed(7)
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.heads = {"en": [nn.Linear(64, 4).bfloat16()], ("a", 1): nn.Linear(64, 64)}
        self.heads[("a", 1)].weight = self.encoder[0].weight
        self.inner = Inner(nn.Embedding(100, 8), (nn.LayerNorm(8),))
        self.table = torch.arange(10.0)
        self.rows = self.table[3:5]
        self.columns = torch.arange(12).reshape(3, 4).t()
        self.mask = torch.tensor([True, False])
        self.sparse = torch.eye(3).to_sparse()
        self.empty = torch.empty(0, 3)
        self.config = {"threshold": 0.5}
        self.calls = 0

    def __call__(self, rows):
        """Computes scores."""
        self.calls += 1
        return self.heads["en"][0](self.encoder(rows).bfloat16()).float()

    def embed(self, ids, scale: float = 1.0):
        """Embeds ids.

        They are numbers below 100.
        """
        return self.inner.norms[0](self.inner.embedding(ids)) * scale

    def echo(self, *values, **named):
        return values, named

    def count(self):
        self.calls += 1
        return os.getpid(), self.calls

    def fail(self, text):
        raise KeyError(text)

    def fail_oddly(self, code, text):
        raise OddError(code, text)

    def die(self):
        os._exit(3)

    def sleep(self, seconds):
        time.sleep(seconds)

    def write(self, value):
        self.encoder[0].weight.fill_(value)
        return self.encoder[0].weight[0, 0].item()

    def first(self):
        return self.encoder[0].weight[0, 0].item()

    def first_after(self, seconds):
        time.sleep(seconds)
        return os.getpid(), self.first()


@dataclasses.dataclass
class Inner:
    """A pipeline in a pipeline."""

    embedding: nn.Embedding
    norms: tuple


class Slotted:
    """A pipeline without `__dict__`."""

    __slots__ = ("layer", "bias")

    def __init__(self):
        self.layer = nn.Linear(2, 3)
        self.bias = torch.ones(3)

    def __call__(self, rows):
        return self.layer(rows) + self.bias


class Network(nn.Module):
    """A module with layers of several kinds."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        """Classifies images."""
        return self.head(self.features(image).mean((2, 3)))


class Large(nn.Module):
    """A module of a given size in MiB, in layers of 4 MiB."""

    def __init__(self, mib):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(mib // 4))

    def forward(self, rows):
        for layer in self.layers:
            rows = layer(rows).relu()
        return rows


class Block(nn.Module):
    """A module with an attribute of its own, for many of them in one script."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.layer = nn.Linear(16, 16)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, rows):
        return self.norm(self.layer(rows)) * self.factor + rows

    @torch.jit.export
    def scale(self, rows):
        return rows * self.factor


def evaluated(pipeline):
    """Puts the modules of a pipeline into evaluation mode, as they are when they are loaded."""
    for value in vars(pipeline).values():
        if isinstance(value, nn.Module):
            value.eval()
    return pipeline


def anonymous():
    """Bytes of anonymous memory of this process."""
    with open("/proc/self/smaps_rollup") as rollup:
        return next(int(line.split()[1]) << 10 for line in rollup if line.startswith("Anonymous:"))


def eventually(condition, seconds=60):
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)


def cause(ray, call):
    """The error of a call of an actor whose constructor has failed. Ray first says that the actor is unavailable."""
    found = []

    def is_known():
        try:
            found.append(ray.get(call()))
        except ray.exceptions.RayError as error:
            found.append(error)
        return not isinstance(found[-1], ray.exceptions.ActorUnavailableError)

    eventually(is_known)
    return str(found[-1])
