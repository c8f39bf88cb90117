"""Classifies a folder of images with Ray Data: each actor loads the model in place, on one copy of its weights.

    python images.py folder/of/images --actors 2

Prints one line of JSON for each image: its path, its class, and the process that classified it.
"""

import argparse
import json
import os

import numpy
import ray
import torch
from torch import nn

from ray_zerocopy import ActorWrapper

SIZE = (64, 64)


class Classifier:
    """A pipeline: a network, and what surrounds it."""

    def __init__(self):
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 3)
        )
        self.names = ["tree", "street", "face"]

    def __call__(self, images):
        """Returns the name of the class of each image, from an array of bytes: image, row, column, channel."""
        rows = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return [self.names[index] for index in self.network(rows).argmax(1)]


class Actor:
    """What each actor of Ray Data has."""

    def __init__(self, wrapper):
        self.classify = wrapper.load()

    def __call__(self, batch):
        images = numpy.stack(batch["image"])
        # Images of Ray Data are in its object store, and read-only.
        names = self.classify(images.copy())
        return {"path": batch["path"], "class": names, "pid": [os.getpid()] * len(names)}


def main():
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--actors", type=int, default=2)
    options = parser.parse_args()
    ray.init(logging_level="warning", include_dashboard=False)
    wrapper = ActorWrapper(Classifier(), strict=True)
    images = ray.data.read_images(options.folder, size=SIZE, mode="RGB", include_paths=True)
    found = images.map_batches(Actor, fn_constructor_kwargs={"wrapper": wrapper}, batch_size=4, concurrency=options.actors)
    for row in found.iter_rows():
        print(json.dumps({"path": row["path"], "class": row["class"], "pid": int(row["pid"])}))


if __name__ == "__main__":
    main()
