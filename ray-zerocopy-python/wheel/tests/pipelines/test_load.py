"""Pipelines that are shared and loaded are equal to the original, without a copy of their weights."""

import gc
import pickle

import pytest
import torch
from torch import nn

import ray_zerocopy as rz
from models import Inner, Large, Network, Pipeline, Slotted, anonymous, evaluated


def test_loaded_pipeline_equals_the_original():
    pipeline = evaluated(Pipeline())
    rows = torch.randn(5, 64)
    expected, embedded = pipeline(rows), pipeline.embed(torch.tensor([1, 99]))
    loaded = rz.ActorWrapper(pipeline, strict=True).load()
    assert type(loaded) is Pipeline and loaded.config == {"threshold": 0.5} and loaded.calls == 1
    assert torch.equal(loaded(rows), expected) and torch.equal(loaded.embed(torch.tensor([1, 99])), embedded)
    for name in ("table", "rows", "columns", "mask", "empty"):
        assert torch.equal(getattr(loaded, name), getattr(pipeline, name)), name
    assert loaded.columns.stride() == pipeline.columns.stride()
    assert torch.equal(loaded.sparse.to_dense(), torch.eye(3)) and loaded.sparse.is_sparse
    assert loaded.heads["en"][0].weight.dtype == torch.bfloat16 and loaded.mask.dtype == torch.bool
    assert loaded.inner.embedding.weight.shape == (100, 8) and isinstance(loaded.inner, Inner)


def test_ties_and_views_are_kept():
    loaded = rz.ActorWrapper(Pipeline()).load()
    assert loaded.heads[("a", 1)].weight is loaded.encoder[0].weight
    assert loaded.rows.data_ptr() == loaded.table[3:].data_ptr()
    loaded.table[3] = -1.0
    assert loaded.rows[0] == -1.0


def test_modules_are_in_evaluation_mode_without_gradients():
    pipeline = Pipeline()
    pipeline.bare = torch.ones(3, requires_grad=True)
    loaded = rz.ActorWrapper(pipeline).load()
    assert not any(module.training for module in loaded.encoder.modules()) and not loaded.inner.norms[0].training
    assert not any(parameter.requires_grad for parameter in loaded.encoder.parameters()) and not loaded.bare.requires_grad
    assert not loaded(torch.randn(2, 64)).requires_grad
    # The original stays as it was.
    assert pipeline.encoder.training and pipeline.encoder[0].weight.requires_grad


@pytest.mark.parametrize("make", [Network, Slotted, lambda: nn.Linear(3, 2), lambda: {"a": [nn.Linear(3, 2)]}, lambda: torch.ones(3)])
def test_any_object_is_a_pipeline(make):
    original = make()
    loaded = rz.ActorWrapper(original, strict=True).load()
    assert type(loaded) is type(original)
    if isinstance(original, Network):
        image = torch.randn(2, 3, 8, 8)
        assert torch.equal(loaded(image), original.eval()(image))


def test_lambdas_and_local_classes_are_pipelines():
    scale = torch.full((3,), 2.0)

    class Local:
        def __init__(self):
            self.layer = nn.Linear(3, 3)
            self.scaled = lambda rows: self.layer(rows) * scale

    original = Local()
    wrapper = rz.ActorWrapper(original)
    assert "scaled.<scale>" in dict(wrapper.report().tensors)
    rows = torch.randn(2, 3)
    assert torch.equal(wrapper.load().scaled(rows), original.scaled(rows))


def test_hooks_and_custom_reduce_are_kept():
    class Reduced(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.layer = nn.Linear(size, 2)

        def forward(self, rows):
            return self.layer(rows)

        def __reduce__(self):
            return _reduced, (Reduced, self.layer)

    def _reduced(kind, layer):
        module = kind(layer.in_features)
        module.layer = layer
        return module

    original = Reduced(3)
    original.layer.register_forward_hook(lambda module, given, result: result + 1)
    loaded = rz.ActorWrapper(original).load()
    rows = torch.randn(2, 3)
    assert torch.equal(loaded(rows), original(rows)) and not loaded.training


def test_modules_have_all_attributes_and_hooks_of_their_own():
    original = nn.ModuleList([nn.Linear(2, 2), nn.BatchNorm1d(2)])
    original[1].note = "kept"
    loaded = rz.ActorWrapper(original).load()
    for module, other in zip(original.modules(), loaded.modules()):
        assert module.__dict__.keys() == other.__dict__.keys()
        assert {type(value) for value in module.__dict__.values()} == {type(value) for value in other.__dict__.values()}
    assert loaded[1].note == "kept"
    loaded[0].register_forward_hook(lambda module, given, result: result + 1)
    assert len(loaded[0]._forward_hooks) == 1 and not loaded[1]._forward_hooks and not loaded._forward_hooks


def test_views_of_one_storage_share_it_in_any_order():
    whole = torch.arange(6.0)
    pipeline = {"part": whole[2:4], "whole": whole, "again": whole.detach(), "square": whole.view(2, 3), "columns": whole.view(2, 3).t()}
    for names in (list(pipeline), list(reversed(pipeline))):
        loaded = rz.ActorWrapper({name: pipeline[name] for name in names}, strict=True).load()
        for name in names:
            assert torch.equal(loaded[name], pipeline[name]) and loaded[name].stride() == pipeline[name].stride(), name
        loaded["part"].fill_(-1)
        assert loaded["whole"][2] == loaded["again"][3] == loaded["square"][1, 0] == loaded["columns"][0, 1] == -1


def test_weights_are_not_copied():
    model = Large(64)
    rows = torch.randn(1, 1024)
    expected = model.eval()(rows)
    wrapper = rz.ActorWrapper(model, strict=True)
    del model
    gc.collect()
    wrapper.load()(rows)
    before = anonymous()
    loaded = wrapper.load()
    assert torch.equal(loaded(rows), expected)
    assert anonymous() - before < 8 << 20


def test_equal_weights_are_stored_once_and_stay_apart():
    pipeline = {"a": torch.ones(1 << 18), "b": torch.ones(1 << 18), "small": [torch.zeros(4), torch.zeros(4)]}
    wrapper = rz.ActorWrapper(pipeline)
    report = wrapper.report()
    assert report.bytes > 2 << 20 > report.stored_bytes
    loaded = wrapper.load()
    loaded["a"].zero_()
    loaded["small"][0].fill_(7)
    assert loaded["b"].min() == 1 and loaded["small"][1].max() == 0


def test_arena_has_ids_paths_and_checksums():
    pipeline = Pipeline()
    wrapper, same = rz.ActorWrapper(pipeline), rz.ActorWrapper(pipeline)
    assert wrapper.report().arena == same.report().arena
    pipeline.table[0] = 5.0
    assert rz.ActorWrapper(pipeline).report().arena != wrapper.report().arena
    wrapper.verify()
    paths = dict(wrapper.report().tensors)
    assert paths["encoder.0.weight"] == 64 * 64 * 4 and paths["heads['en'][0].weight"] == 64 * 4 * 2
    assert "heads[('a', 1)].weight" not in paths, "it is tied to `encoder.0.weight`"
    assert paths["inner.norms[0].bias"] == 32 and paths["sparse.values"] == 12
    text = str(wrapper.report())
    assert "encoder.0.weight" in text and "in sealed memory" in text and "PSS" in text
    assert len(pickle.dumps(wrapper)) < 1000 and "models.Pipeline" in repr(wrapper)


def test_tensors_of_other_layouts_are_loaded():
    rows = torch.randn(6, 4)
    compressed = rows.relu().to_sparse_csr()
    channels = torch.quantize_per_channel(rows, torch.rand(6) + 0.1, torch.zeros(6), 0, torch.qint8)
    loaded = rz.ActorWrapper({"compressed": compressed, "channels": channels}).load()
    assert loaded["compressed"].layout == torch.sparse_csr and torch.equal(loaded["compressed"].to_dense(), rows.relu())
    assert torch.equal(loaded["channels"].int_repr(), channels.int_repr())
    assert torch.equal(loaded["channels"].q_per_channel_scales(), channels.q_per_channel_scales())


def test_quantised_modules_are_loaded_and_their_copies_are_counted():
    linear = nn.Linear(64, 64)
    quantised = torch.quantize_per_tensor(torch.randn(8, 8), 0.1, 3, torch.qint8)
    loaded = rz.ActorWrapper({"tensor": quantised}, strict=True).load()
    assert torch.equal(loaded["tensor"].int_repr(), quantised.int_repr()) and loaded["tensor"].q_scale() == quantised.q_scale()
    dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear})
    rows = torch.randn(2, 64)
    assert torch.equal(rz.ActorWrapper(dynamic).load()(rows), dynamic(rows))
    with pytest.raises(RuntimeError, match="strict: .* weights .* had to be copied"):
        rz.ActorWrapper(dynamic, strict=True).load()
