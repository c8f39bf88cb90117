"""TorchScript modules, exported programs and compiled modules as pipelines and as parts of pipelines."""

import functools
import inspect
import io
import subprocess
import sys
import types

import pytest
import torch
from torch import nn

import ray_zerocopy as rz
from models import Block, Large, Network, anonymous


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize("compile", [lambda model, image: torch.jit.trace(model, image), lambda model, image: torch.jit.script(model)])
def test_script_module_is_a_pipeline(compile, image):
    model = Network().eval()
    script = compile(model, image)
    wrapper = rz.JITActorWrapper(script, strict=True)
    loaded = wrapper.load()
    assert isinstance(loaded, torch.jit.ScriptModule)
    assert torch.equal(loaded(image), model(image)) and torch.equal(script(image), model(image))
    paths = dict(wrapper.report().tensors)
    assert paths["features.0.weight"] == model.features[0].weight.nbytes and "features.1.running_mean" in paths
    with torch.no_grad():
        loaded.head.weight.zero_()
    assert torch.equal(wrapper.load()(image), model(image))


def test_scripts_are_found_in_pipelines(image):
    model = Network().eval()

    class Pipeline:
        def __init__(self):
            self.steps = {"classify": [torch.jit.trace(model, image)], "raw": model}

        def __call__(self, image):
            return self.steps["classify"][0](image), self.steps["raw"](image)

    wrapper = rz.JITActorWrapper(Pipeline())
    traced, raw = wrapper.load()(image)
    assert torch.equal(traced, raw) and torch.equal(raw, model(image))
    # The weights of the traced module are those of the original, once.
    sizes = [size for path, size in wrapper.report().tensors if path.endswith("head.weight")]
    assert len(sizes) == 1
    with pytest.raises(TypeError, match="pipeline should be a torch.jit.ScriptModule or contain some, found Network: use ActorWrapper"):
        rz.JITActorWrapper(model)


def part(script, path):
    """A part of a script, which has no `get_submodule`."""
    return functools.reduce(getattr, path.split("."), script)


@pytest.mark.parametrize("compile", [lambda model, rows: torch.jit.trace(model, rows), lambda model, rows: torch.jit.script(model)])
def test_equal_layers_of_a_script_have_one_class(compile):
    torch.manual_seed(1)
    rows = torch.randn(3, 16)
    model = nn.Sequential(*(nn.Sequential(Block(1.0 + index), Block(2.0)) for index in range(6))).eval()
    script = compile(model, rows)
    loaded = rz.JITActorWrapper(script, strict=True).load()
    assert torch.equal(loaded(rows), script(rows))
    # Submodules are wrapped when they are used, and are the same ones each time.
    assert part(loaded, "3.1") is part(loaded, "3.1") and len(list(loaded.modules())) == len(list(script.modules()))
    assert part(loaded, "3").original_name == "Sequential" and [*dict(loaded.named_parameters())] == [*dict(script.named_parameters())]
    assert all(torch.allclose(part(loaded, path)(rows), model.get_submodule(path)(rows)) for path in ("5.0", "2", "0.1.norm"))
    if not isinstance(script, torch.jit.TopLevelTracedModule):
        block = part(loaded, "4.0")
        assert block.factor == 5.0 and torch.equal(block.scale(rows), rows * 5.0)
    with torch.no_grad():
        part(loaded, "0.0.layer.weight").zero_()
    assert part(script, "0.0.layer.weight").any() and part(loaded, "1.0.layer.weight").any()
    kinds = {part._c._type().qualified_name() for part in loaded.modules() if part.original_name == "Linear"}
    # Names of variables differ in the first layer, whose input is that of the whole module.
    assert len(kinds) <= 2
    file = io.BytesIO()
    torch.jit.save(loaded, file)
    assert torch.equal(torch.jit.load(io.BytesIO(file.getvalue()))(rows), loaded(rows))
    again = rz.JITActorWrapper(script).load()
    assert part(loaded.train(), "0.0.norm").training and not part(again, "0.0.norm").training


def test_script_that_cannot_be_made_smaller_is_loaded_as_it_is():
    class Listed(nn.Module):
        def __init__(self, tensor):
            super().__init__()
            self.tensors = [tensor]

        def forward(self, rows):
            return rows + self.tensors[0]

    script = torch.jit.script(nn.Sequential(Listed(torch.ones(2)), Listed(torch.full((2,), 5.0))))
    loaded = rz.JITActorWrapper(script).load()
    assert torch.equal(loaded(torch.zeros(2)), torch.full((2,), 6.0)) and torch.equal(part(loaded, "0")(torch.zeros(2)), torch.ones(2))


@pytest.mark.parametrize("function, error", [("_archive.compact", KeyError("data.pkl")), ("_wrapped", AttributeError("_construct"))])
@pytest.mark.parametrize("compile", [lambda model, rows: torch.jit.trace(model, rows), lambda model, rows: torch.jit.script(model)])
def test_script_of_an_unknown_release_is_shared_by_public_functions(monkeypatch, compile, function, error):
    rows = torch.randn(3, 16)
    model = nn.Sequential(Block(1.0), Block(2.0), nn.Linear(16, 1 << 15)).eval()
    model[1].layer.weight = model[0].layer.weight
    script = compile(model, rows).train()

    def fails(*_):
        raise error

    with monkeypatch.context() as other:
        other.setattr(f"ray_zerocopy._torchscript.{function}", fails)
        with pytest.warns(RuntimeWarning, match=f"PyTorch {torch.__version__.replace('+', '[+]')} stores TorchScript otherwise .*{error.args[0]}"):
            wrapper = rz.JITActorWrapper(script, strict=True)
        loaded = wrapper.load()
    assert torch.equal(loaded(rows), model(rows)) and script.training and not loaded.training
    assert not any(each.requires_grad for each in loaded.parameters()) and wrapper.report().copied_bytes < 1 << 20
    with torch.no_grad():
        part(loaded, "0.layer.weight").zero_()
    assert not part(loaded, "1.layer.weight").any() and part(wrapper.load(), "0.layer.weight").any()


def test_script_shares_its_weights():
    script = torch.jit.trace(Large(32).eval(), torch.ones(1, 1024))
    wrapper = rz.JITActorWrapper(script, strict=True)
    assert wrapper.report().copied_bytes < 1 << 20
    wrapper.load()(torch.ones(1, 1024))
    before = anonymous()
    loaded = wrapper.load()
    loaded(torch.ones(1, 1024))
    assert anonymous() - before < 8 << 20


def test_script_runs_in_workers(image):
    script = torch.jit.script(Network().eval())
    with rz.JITTaskWrapper(script, workers=1) as wrapped:
        assert torch.allclose(wrapped(image), script(image), atol=1e-6)


class Exporting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, rows):
        return self.layer(rows)

    @torch.jit.export
    def twice(self, rows):
        return self.layer(rows) * 2

    @staticmethod
    def named(rows, name: str = "rows"):
        return name, rows.shape


def test_exported_methods_of_a_script_run_in_workers():
    rows = torch.randn(3, 4)
    script = torch.jit.script(Exporting().eval())
    with rz.JITTaskWrapper(script, workers=1) as wrapped:
        assert torch.equal(wrapped.twice(rows), script.twice(rows)) and "twice" in dir(wrapped)
        with pytest.raises(AttributeError, match="has no method `thrice`"):
            wrapped.thrice(rows)


def test_methods_of_a_compiled_module_and_of_an_object_run_in_workers():
    rows, model = torch.randn(3, 4), Exporting().eval()
    with rz.TaskWrapper(torch.compile(model, backend="eager"), workers=1) as wrapped:
        assert torch.allclose(wrapped(rows), model(rows)) and torch.allclose(wrapped.twice(rows), model.twice(rows))
        assert str(inspect.signature(wrapped)) == "(rows)"
        assert str(inspect.signature(wrapped.named)) == "(rows, name: str = 'rows')"
        assert wrapped.named(rows, name="x") == ("x", (3, 4))
    holder = types.SimpleNamespace(model=model, double=lambda rows: rows * 2)
    with rz.TaskWrapper(holder, workers=1) as wrapped:
        assert torch.equal(wrapped.double(rows), rows * 2)


def test_compiled_module_is_compiled_where_it_is_loaded(image):
    model = Network().eval()
    compiled = torch.compile(model, backend="eager", dynamic=True)
    loaded = rz.ActorWrapper({"model": compiled}, strict=True).load()["model"]
    # The attribute of the outer module is its own in older releases.
    assert type(loaded).__name__ == "OptimizedModule" and not loaded._orig_mod.training
    assert torch.equal(loaded(image), model(image))
    default = rz.ActorWrapper(torch.compile(model, options={"max_autotune": False})).load()
    assert type(default).__name__ == "OptimizedModule" and default._orig_mod.head.weight.shape == (5, 8)


def test_exported_program_is_loaded_without_room_for_its_weights():
    # In a process of its own, whose peak is that of the load.
    script = """
import pickle, sys, torch
import ray_zerocopy as rz
from models import Large
program = torch.export.export(Large(64).eval(), (torch.ones(1, 1024),))
wrapper = rz.ActorWrapper(program)
wrapper.load()

def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

open("/proc/self/clear_refs", "w").write("5")
before = memory("VmHWM:")
loaded = wrapper.load()
print(memory("VmHWM:") - before, torch.equal(loaded.module()(torch.ones(1, 1024)), program.module()(torch.ones(1, 1024))))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    grown, is_equal = done.stdout.split()
    assert int(grown) < 32 << 10 and is_equal == "True"


def test_exported_program_of_a_file_runs_in_workers(image, tmp_path):
    model = Network().eval()
    torch.export.save(torch.export.export(model, (image,)), tmp_path / "model.pt2")
    with pytest.raises(TypeError, match="a file is loaded first, with .*torch.export.load"):
        rz.TaskWrapper(tmp_path / "model.pt2", workers=1)
    program = torch.export.load(tmp_path / "model.pt2")
    with rz.TaskWrapper(program, workers=1) as wrapped:
        for _ in range(2):
            assert torch.equal(wrapped(image), model(image))


def test_exported_program_is_a_pipeline(image):
    model = Network().eval()
    program = torch.export.export(model, (image,))
    wrapper = rz.ActorWrapper(program, strict=True)
    loaded = wrapper.load()
    assert isinstance(loaded, torch.export.ExportedProgram)
    assert torch.equal(loaded.module()(image), model(image))
    assert sum(size for _, size in wrapper.report().tensors) >= sum(tensor.nbytes for tensor in model.state_dict().values())
    file = io.BytesIO()
    torch.export.save(loaded, file)
    assert len(file.getvalue()) > 1000
