"""The predecessor's names: its README as it is, and each of them."""

import pathlib
import subprocess
import sys

import pytest
import torch
from torch import nn

import ray_zerocopy as rz
from ray_zerocopy import JITModelWrapper, ModelWrapper


class MyPipeline:
    def __init__(self):
        self.feature_extractor = nn.Linear(4, 3)
        self.classifier = nn.Linear(3, 2)
        self.config = {"threshold": 0.5}

    def __call__(self, data):
        features = self.feature_extractor(data)
        return self.classifier(features)


class InferenceActor:
    def __init__(self, model_wrapper):
        self.pipeline = model_wrapper.load()

    def __call__(self, batch):
        with torch.no_grad():
            return {"found": self.pipeline(torch.as_tensor(batch["data"])).numpy()}

    def predict(self, data):
        with torch.no_grad():
            return self.pipeline(data)


def test_blocks_of_its_readme_run_as_they_are():
    script = pathlib.Path(__file__).parent / "predecessor_readme.py"
    done = subprocess.run([sys.executable, "-W", "ignore", str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "done", done.stdout + done.stderr


def test_actors(ray):
    pipeline, data = MyPipeline(), torch.randn(3, 4)
    model_wrapper = ModelWrapper.from_model(pipeline, mode="actor")
    actor = ray.remote(InferenceActor).options(num_cpus=0).remote(model_wrapper)
    assert torch.allclose(ray.get(actor.predict.remote(data)), pipeline(data), atol=1e-6)
    again = ModelWrapper.deserialize(**model_wrapper.serialize())
    assert torch.equal(again.load()(data), pipeline(data)) and again.load().config == {"threshold": 0.5}
    assert isinstance(model_wrapper.model_refs["classifier.weight"], ray.ObjectRef)


def test_ray_data(ray):
    from ray.data import ActorPoolStrategy

    data = torch.randn(4, 4)
    pipeline = MyPipeline()
    results = ray.data.from_items([{"data": row} for row in data.numpy()]).map_batches(
        InferenceActor,
        fn_constructor_kwargs={"model_wrapper": ModelWrapper.from_model(pipeline, mode="actor")},
        compute=ActorPoolStrategy(size=1),
    )
    found = torch.tensor([row["found"] for row in results.take_all()])
    assert torch.allclose(found.sort(0).values, pipeline(data).detach().sort(0).values, atol=1e-5)


def test_tasks(ray):
    pipeline, data = MyPipeline(), torch.randn(3, 4)
    wrapped = ModelWrapper.for_tasks(pipeline)
    assert torch.allclose(wrapped(data), pipeline(data), atol=1e-6)
    same = ModelWrapper.from_model(pipeline, mode="task").load()
    assert isinstance(same, rz.TaskWrapper)


def test_scripts(ray):
    example_input = torch.randn(3, 4)
    jit_pipeline = torch.jit.trace(nn.Linear(4, 2), example_input)
    assert torch.allclose(JITModelWrapper.for_tasks(jit_pipeline)(example_input), jit_pipeline(example_input), atol=1e-6)
    wrapper = JITModelWrapper.from_model(jit_pipeline, mode="actor")
    assert torch.equal(wrapper.load()(example_input), jit_pipeline(example_input))
    with pytest.raises(ValueError, match="mode should be 'actor' or 'task', found 'pool'"):
        JITModelWrapper.from_model(jit_pipeline, mode="pool")


def test_both_distributions_are_an_error_that_names_them(tmp_path):
    (tmp_path / "ray_zerocopy-0.2.0.dist-info").mkdir()
    (tmp_path / "ray_zerocopy-0.2.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: ray-zerocopy\nVersion: 0.2.0\n")
    script = f"import sys; sys.path.append({str(tmp_path)!r}); import ray_zerocopy"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "`ray-zerocopy-burn` and `ray-zerocopy` 0.2.0 are both installed" in done.stderr
