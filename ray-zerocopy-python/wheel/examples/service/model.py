"""The pipeline of the service."""

import torch
from torch import nn


class Classifier:
    """Classifies rows of four numbers."""

    def __init__(self):
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 256), nn.ReLU(), nn.Linear(256, 3))

    def __call__(self, rows):
        """Returns the class of each row."""
        return self.layers(torch.tensor(rows, dtype=torch.float32)).argmax(1).tolist()


def make_pipeline():
    """Returns the pipeline: yours may read a file here."""
    return Classifier()
