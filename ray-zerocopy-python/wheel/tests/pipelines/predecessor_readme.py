"""Runs the Python blocks of `predecessor-readme.md` as they are. Prints `done`. The models and the data are defined here."""

import os
import pathlib
import re

import numpy
import ray
import torch
from torch import nn

os.environ["RAY_ADDRESS"] = "local"

TEXT = (pathlib.Path(__file__).parent / "predecessor-readme.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


class EncoderModel(nn.Module):
    """Takes the arrays of Ray Data, and tensors."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, data):
        return self.layer(torch.as_tensor(data))


class DecoderModel(nn.Module):
    """Returns columns, as Ray Data expects it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, encoded):
        return {"found": self.layer(encoded).detach().numpy()}


FeatureExtractorModel, ClassifierModel = EncoderModel, lambda: nn.Linear(3, 2)
data = example_input = torch.randn(5, 4)


def run(heading):
    """Runs the block below a heading in this namespace."""
    headings = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    index = headings.index(heading)
    exec(compile(BLOCKS[index], f"predecessor-readme.md, {heading}", "exec"), globals())


def same(found, expected):
    numpy.testing.assert_allclose(found, expected, atol=1e-5)


def main():
    """Runs the blocks and checks what they do."""
    global ds, pipeline
    assert len(BLOCKS) == 6, len(BLOCKS)
    ray.init(num_cpus=8, include_dashboard=False, logging_level="error", log_to_driver=False)
    ds = ray.data.from_items([{"data": row} for row in data.numpy()])

    run("For Ray Data Actor UDFs (Recommended for Batch Inference)")
    found = numpy.stack([row["found"] for row in results.take_all()])
    expected = pipeline(data)["found"]
    same(found[numpy.lexsort(found.T)], expected[numpy.lexsort(expected.T)])

    run("For Ray Actors (General Purpose)")
    assert len(results) == 4
    for result in results:
        same(result["found"], pipeline(data)["found"])

    run("For Ray Tasks (Ad-hoc Inference)")
    same(globals()["result"]["found"], pipeline(data)["found"])

    # This block has a class, and wraps the pipeline from above.
    run("Pipelines")
    pipeline = MyPipeline()
    run("Wrapper Classes")
    same(globals()["result"].detach(), pipeline(data).detach())
    assert pipeline.config == {"threshold": 0.5}

    # `torch.jit.trace` takes modules.
    pipeline = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    run("TorchScript Support")
    same(wrapped(data).detach(), pipeline(data).detach())
    same(wrapper.load()(data).detach(), pipeline(data).detach())


if __name__ == "__main__":
    main()
    print("done")
