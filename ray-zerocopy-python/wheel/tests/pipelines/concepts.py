"""Runs the Python blocks of `core-concepts.md` as they are. Prints `done`. The models are defined here, beside them."""

import os
import pathlib
import re
import sys

import torch
from torch import nn

if sys.argv[1:] == ["without Ray"]:
    sys.modules["ray"] = None
os.environ["RAY_ADDRESS"] = "local"

TEXT = (pathlib.Path(__file__).parent / "core-concepts.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


class FeatureExtractorModel(nn.Linear):
    def __init__(self):
        super().__init__(16, 8)


class ClassifierModel(nn.Sequential):
    def __init__(self):
        super().__init__(nn.BatchNorm1d(8), nn.Linear(8, 3))


EncoderModel = DecoderModel = DiscriminatorModel = FeatureExtractorModel


class TextEmbedding(nn.Embedding):
    def __init__(self):
        super().__init__(10, 4)


ImageEmbedding = TextEmbedding
data = torch.randn(5, 16)
batch = {"rows": data.numpy()}


def run(index):
    """Runs a block in this namespace."""
    exec(compile(BLOCKS[index], f"core-concepts.md, block {index}", "exec"), globals())


def same(found, expected):
    assert torch.allclose(found, expected, atol=1e-6), (found, expected)


def loaded_and_called(wrapper, data):
    """Is what another process does."""
    return wrapper.load()(data)


def main():
    """Runs the blocks and checks what they do."""
    global pipeline, example_input
    assert len(BLOCKS) == 7, len(BLOCKS)
    # The pipeline, and the one with nested models.
    run(0)
    run(1)
    # A task. `pipeline` has state of training mode, and workers evaluate.
    run(2)
    pipeline.classifier.eval()
    same(result, pipeline(data))
    assert wrapped.load().config == {"threshold": 0.5}
    # An actor.
    run(3)
    same(InferenceActor(actor_wrapper)(data), pipeline.classifier.eval() and pipeline(data))
    if sys.modules.get("ray", 0) is not None:
        import ray

        actor = ray.remote(InferenceActor).options(num_cpus=0).remote(actor_wrapper)
        same(ray.get(actor.__call__.remote(data)), InferenceActor(actor_wrapper)(data))

        class Batches(InferenceActor):
            def __call__(self, batch):
                return {"scores": super().__call__(torch.tensor(batch["rows"])).numpy()}

        mapped = ray.data.from_items([{"rows": row} for row in data.numpy()]).map_batches(
            Batches, fn_constructor_kwargs={"actor_wrapper": actor_wrapper}, batch_size=5, concurrency=1
        )
        found = torch.tensor([row["scores"] for row in mapped.take_all()])
        same(found.sort(0).values, InferenceActor(actor_wrapper)(data).sort(0).values)
    else:
        import multiprocessing

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            same(pool.apply(loaded_and_called, (actor_wrapper, data)), InferenceActor(actor_wrapper)(data))
    # Nested models are found.
    paths = dict(ActorWrapper(ComplexPipeline(), strict=True).report().tensors)
    assert {"encoder.weight", "discriminator.bias", "embeddings['text'].weight", "embeddings['image'].weight"} <= set(paths), paths
    # Devices.
    run(4)
    run(5)
    try:
        InferenceActor(actor_wrapper)
    except RuntimeError as error:
        assert torch.cuda.device_count() < 2 and "`cuda:1`" in str(error), error
    else:
        assert torch.cuda.device_count() >= 2
    same(actor_wrapper.load(device="cpu")(data), pipeline(data))
    # TorchScript: the text has a pipeline that is a module.
    pipeline, example_input = nn.Sequential(FeatureExtractorModel(), nn.ReLU()), data
    run(6)
    same(actor_wrapper.load(device="cpu")(data), pipeline(data))


if __name__ == "__main__":
    main()
    print("done")
