"""Writes the TorchScript modules of the tests and PyTorch's outputs for them: `python make.py [SILERO]`.

Needs torch 2.9.1 (`pip install torch==2.9.1`). `expected.json` contains inputs and outputs as nested lists. With
the path of Silero's `silero_vad.jit` from the PyPI package `silero-vad` 6.2.3, it also contains the probabilities of
speech in a signal that this script and the test both generate.
"""

import json
import math
import pathlib
import sys
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

FOLDER = pathlib.Path(__file__).parent
torch.manual_seed(7)


class Mlp(nn.Module):
    """A typical module for tracing. Its dropout is off."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Linear(16, 4)

    def forward(self, rows):
        return self.second(self.drop(torch.relu(self.first(rows))))


class Counter(nn.Module):
    """Has state: the number of calls in a buffer, the last row in an attribute, and running means in a layer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("scale", torch.full((4,), 2.0))
        self.last = torch.zeros(4)

    def forward(self, rows: Tensor) -> Tuple[Tensor, Tensor]:
        self.calls += 1
        self.last = rows[0]
        return self.norm(rows) * self.scale, self.calls

    @torch.jit.export
    def remembered(self) -> Tensor:
        return self.last


class Answer(NamedTuple):
    total: Tensor
    count: int


class Structured(nn.Module):
    """Takes and returns values that are not tensors."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(4, dtype=torch.float32))

    def forward(
        self,
        rows: Tensor,
        times: int,
        state: Tuple[Tensor, Tensor],
        more: List[Tensor],
        named: Dict[str, Tensor],
        mask: Optional[Tensor] = None,
        scale: float = 1.0,
        negate: bool = False,
    ) -> Dict[str, Tensor]:
        total = rows * self.weight * times * scale + state[0] - state[1]
        for each in more:
            total = total + each
        for key in named:
            total = total + named[key]
        if mask is not None:
            total = total * mask
        return {"total": -total if negate else total, "seen": torch.tensor([len(more), len(named)])}

    @torch.jit.export
    def summed(self, rows: Tensor) -> Answer:
        return Answer(rows.sum(), rows.numel())

    @torch.jit.export
    def text(self) -> str:
        return "not a tensor"


class Tied(nn.Module):
    """Has one tensor with two names."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))


class Kinds(nn.Module):
    """Has tensors of many element types, one that is stored transposed, and one of rank 0."""

    def __init__(self):
        super().__init__()
        self.halves = nn.Parameter(torch.linspace(0, 1, 4).half())
        self.brains = nn.Parameter(torch.linspace(0, 1, 4).bfloat16())
        self.doubles = nn.Parameter(torch.linspace(0, 1, 4).double())
        self.turned = nn.Parameter(torch.arange(8, dtype=torch.float32).reshape(2, 4).t())
        self.register_buffer("longs", torch.arange(4))
        self.register_buffer("flags", torch.tensor([True, False, True, False]))
        self.register_buffer("alone", torch.tensor(3.0))

    def forward(self, rows: Tensor) -> Tensor:
        sum = rows + self.halves + self.brains + self.doubles.float() + self.longs + self.alone
        return torch.where(self.flags, sum, -sum) @ self.turned


class Scribbler(nn.Module):
    """Writes into its input, which belongs to the caller."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, rows: Tensor) -> Tensor:
        rows.mul_(2.0)
        return rows + self.weight


@torch.jit.script
class Cell:
    def __init__(self):
        self.value = torch.zeros(4)

    def add(self, rows: Tensor):
        self.value.add_(rows)


class Holder(nn.Module):
    """Has an object with state that is not a module."""

    def __init__(self):
        super().__init__()
        self.cell = Cell()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, rows: Tensor) -> Tensor:
        self.cell.add(rows)
        return self.cell.value * self.weight


class Hidden(nn.Module):
    """Writes into parameters by operations whose signatures do not declare that they return their argument."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.ones(4), requires_grad=False)
        self.second = nn.Parameter(torch.ones(1, 4), requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        first = torch.atleast_1d(self.first)
        first += rows
        second = torch.feature_dropout(self.second, 0.5, False)
        second += rows
        return first + second[0]


class Writes(nn.Module):
    """Writes into a parameter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        self.weight.add_(1.0)
        return rows * self.weight


class WritesView(nn.Module):
    """Writes into a view of a parameter of a submodule, in a branch."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, rows: Tensor) -> Tensor:
        if rows.sum() > 100.0:
            first = self.inner.weight.detach()[0]
            first[1:3] = 0.0
        return self.inner(rows)


class Keeps(nn.Module):
    """Assigns a parameter to an attribute, and writes through it later."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4), requires_grad=False)
        self.kept = torch.zeros(4)

    def forward(self, rows: Tensor) -> Tensor:
        self.kept = self.weight
        return rows * self.weight

    @torch.jit.export
    def later(self) -> Tensor:
        self.kept.add_(1.0)
        return self.kept


RATE = 16000


def voice():
    """Two seconds of signal. The middle second is a voice: four syllables with changing vowels and falling pitch."""
    signal, phase = [], 0.0
    for at in range(2 * RATE):
        time = at / RATE
        pitch = 180 - 20 * time
        phase += 2 * math.pi * pitch / RATE
        open = 0.5 + 0.5 * math.sin(2 * math.pi * 1.3 * time)
        formants = ((350 + 450 * open, 1.0), (2000 - 800 * open, 0.5), (2600, 0.25))
        tone = 0.0
        for number in range(1, 30):
            if number * pitch > 4500:
                break
            loud = 0.02 + sum(by * math.exp(-(((number * pitch - formant) / 200) ** 2)) for formant, by in formants)
            tone += loud * math.sin(number * phase) * number**-0.3
        syllable = math.sqrt(max(0.0, math.sin(2 * math.pi * 4 * (time - 0.5))))
        signal.append(0.1 * syllable * tone if 0.5 <= time < 1.5 else 0.0)
    return signal


def main():
    eye = torch.linspace(-1, 1, 24).reshape(3, 8)
    rows = torch.linspace(-1, 1, 12).reshape(3, 4)
    expected = {}

    def save(name, module):
        torch.jit.save(module, FOLDER / f"{name}.pt")
        return module

    mlp = save("mlp", torch.jit.trace(Mlp().eval(), eye))
    expected["mlp"] = mlp(eye).tolist()
    counter = torch.jit.script(Counter())
    save("counter", counter)
    expected["counter"] = [each.tolist() for each in counter(rows)]
    normed = save("normed", torch.jit.trace(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)).eval(), rows))
    expected["normed"] = normed(rows).tolist()
    structured = save("structured", torch.jit.script(Structured()))
    given = (rows, 2, (rows, rows / 2), [rows, rows], {"a": rows, "b": rows}, rows > 0, 0.5, True)
    expected["structured"] = {key: value.tolist() for key, value in structured(*given).items()}
    tied = save("tied", torch.jit.script(Tied()))
    expected["tied"] = tied(torch.tensor([0, 5, 2])).tolist()
    kinds = save("kinds", torch.jit.script(Kinds()))
    expected["kinds"] = kinds(rows).tolist()
    save("frozen", torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 3300), nn.Linear(3300, 1)).eval())))
    # Instance norm writes its statistics even in evaluation.
    image = torch.linspace(-1, 1, 24).reshape(1, 4, 6)
    instance = nn.Sequential(nn.InstanceNorm1d(4, track_running_stats=True), nn.Conv1d(4, 2, 3)).eval()
    instance = save("instance", torch.jit.trace(instance, image, check_trace=False))
    expected["instance"] = torch.jit.load(FOLDER / "instance.pt")(image).tolist()
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 4)), {nn.Linear}, dtype=torch.qint8)
    quantised = save("quantised", torch.jit.trace(quantised, eye))
    expected["quantised"] = quantised(eye).tolist()
    # Masks are filled in place, and are passed as optionals.
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)
    encoder = save("encoder", torch.jit.script(encoder.eval()))
    expected["encoder"] = encoder(eye.reshape(1, 3, 8)).tolist()
    for module in (Scribbler(), Holder(), Hidden(), Writes(), WritesView(), Keeps()):
        save(type(module).__name__.lower(), torch.jit.script(module))
    if len(sys.argv) > 1:
        vad = torch.jit.load(sys.argv[1])
        expected["silero"] = vad.audio_forward(torch.tensor([voice()]), RATE)[0].tolist()
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
