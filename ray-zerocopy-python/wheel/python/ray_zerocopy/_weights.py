"""The weights of a pipeline in shared memory: how an object becomes an arena, and an arena an object."""

import ctypes
import json
import os
import sys
import threading

import torch

from . import _pickling, _walk
from ._gpu import Gpus
from ._native import _Arena, _base
from ._pages import Pages

# Equal storages of at least this many bytes are stored once. Smaller ones save nothing.
_APART_BELOW = 1 << 16


def share(root, spill, is_local):
    """Copies the storages of an object into shared memory, with its skeleton. Returns the reference.

    In a process that is connected to Ray they go straight into its object store, unless ``is_local`` is set.
    """
    skeleton, stored = _pickling.dump(root)
    about = {
        "torch": torch.__version__,
        "python": list(sys.version_info[:2]),
        "devices": [str(each.storage.device) for each in stored],
    }
    # Those on another device are copied to the CPU.
    storages = [each.storage.cpu() for each in stored]
    tensors = [(each.path, each.dtype, each.shape, _bytes(storage)) for each, storage in zip(stored, storages)]
    values = [("about", json.dumps(about).encode()), ("skeleton", skeleton)]
    kind = type(root)
    parts = f"python {kind.__module__}.{kind.__qualname__}", tensors, values, _APART_BELOW
    if _ray_is_connected() and not is_local:
        ray = _base.import_ray()
        reference = _Arena.put_parts(*parts, spill)
        return Weights(_Arena.attach(ray.get(reference)), spill, reference=reference)
    return Weights(_Arena.build(*parts), spill, is_local)


def _bytes(storage):
    size = storage.nbytes()
    return memoryview((ctypes.c_char * size).from_address(storage.data_ptr()) if size else b"")


class Loaded:
    """An object that was rebuilt from an arena."""

    def __init__(self, arena, device=None):
        about = json.loads(bytes(memoryview(arena.value("about"))))
        _check_versions(about)
        self._arena = arena
        self._device = None if device is None else torch.device(device)
        self._devices = [torch.device(each) if self._device is None else self._device for each in about["devices"]]
        for each in set(self._devices):
            _check_device(each, device is None)
        self._pages = Pages(arena)
        self._gpus = Gpus(arena)
        self._parts = _ranked(arena.tensors())
        self._storages = {}
        # Tensors with all elements of a storage, by index.
        self._whole = {}
        # The memory of this process that the tensors are in, by index.
        self._addresses = {}
        self.root = _pickling.load(memoryview(arena.value("skeleton")), self._storage, self.view)
        self._pages.close()

    def _storage(self, index):
        found = self._storages.get(index)
        if found is None:
            whole = self._whole.get(index)
            found = self._storages[index] = self._create(index) if whole is None else whole.untyped_storage()
        return found

    def _create(self, index):
        _, offset, size, rank = self._parts[index]
        device = self._devices[index]
        if size == 0:
            return torch.UntypedStorage(0, device=device)
        if device.type == "cuda" and (shared := self._gpus.storage(device, index)) is not None:
            return shared
        buffer, start = self._pages.buffer(offset, size, rank)
        tensor = torch.frombuffer(buffer, dtype=torch.uint8, count=size, offset=start)
        if device.type == "cpu":
            self._addresses[tensor.data_ptr()] = index
        else:
            tensor = tensor.to(device)
        return tensor.untyped_storage()

    def view(self, index, dtype, shape, is_parameter, offset=0, stride=None):
        """Returns a view of a storage: all of it, unless there are strides."""
        if stride is None and index not in self._storages and index not in self._whole and self._devices[index].type == "cpu":
            tensor = self._whole[index] = self._create_whole(index, dtype, shape)
        else:
            tensor = torch.empty(0, dtype=dtype, device=self._devices[index])
            tensor.set_(self._storage(index), offset, shape, _strides(shape) if stride is None else stride)
        # What the constructor of `Parameter` does, in half of the time.
        return torch.Tensor._make_subclass(torch.nn.Parameter, tensor, False) if is_parameter else tensor

    def _create_whole(self, index, dtype, shape):
        _, offset, size, rank = self._parts[index]
        buffer, start = self._pages.buffer(offset, size, rank)
        tensor = torch.frombuffer(buffer, dtype=dtype, count=size // dtype.itemsize, offset=start)
        self._addresses[tensor.data_ptr()] = index
        return tensor if len(shape) == 1 else tensor.view(shape)

    def take(self, strict):
        """Returns the object. With ``strict``, raises RuntimeError if a class of it has copied its weights."""
        root, self.root = self.root, None
        self._storages, self._whole = {}, {}
        if strict:
            for gpu, reason in self._gpus.why_copied.items():
                raise RuntimeError(f"strict: each process would have its own copy of the weights on `cuda:{gpu}`: {reason}")
            copied = self._copied(root)
            if copied:
                path, size = copied[0]
                raise RuntimeError(
                    f"strict: {len(copied)} weights ({sum(size for _, size in copied)} bytes) had to be copied, `{path}` "
                    f"({size} bytes) first: its class does not keep the tensor that it is given"
                )
        return root

    def _copied(self, root):
        used = set()
        for _, tensor in _walk.tensors(root):
            for _, part in _walk.layers(tensor):
                used.add(self._addresses.get(part.untyped_storage().data_ptr()))
        lost = sorted(index for index in self._addresses.values() if index not in used)
        return [(self._parts[index][0], self._parts[index][2]) for index in lost]


def _ranked(parts):
    # Adds to each part how many earlier ones have the same offset.
    counts, ranked = {}, []
    for path, offset, size in parts:
        rank = counts.get(offset, 0)
        counts[offset] = rank + 1
        ranked.append((path, offset, size, rank))
    return ranked


def _strides(shape):
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return strides[::-1]


def _check_versions(about):
    def release(version):
        return version.split("+")[0].split(".")[:2]

    if release(about["torch"]) != release(torch.__version__):
        raise ImportError(
            f"the pipeline was shared with torch {about['torch']}, and this process has torch {torch.__version__}: "
            f"install torch {'.'.join(release(about['torch']))} in both"
        )
    if about["python"] != list(sys.version_info[:2]):
        shared, here = (".".join(map(str, each)) for each in (about["python"], sys.version_info[:2]))
        raise ImportError(f"the pipeline was shared with Python {shared}, and this process has Python {here}: use one version")


def _check_device(device, is_recorded):
    if device.type != "cuda":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        why = "the pipeline was shared with tensors on" if is_recorded else "the pipeline is to be loaded on"
        raise RuntimeError(
            f"{why} `{device}`, and process {os.getpid()} has {count} CUDA devices: call load(device='cpu'), or start "
            f"it where there is one (on Ray: num_gpus=1)"
        )


class Weights:
    """Reference to an arena, which is small and can be sent to other processes of this machine or cluster.

    The arena is in Ray's object store, or in sealed memory and offered to processes of this user. In a process that
    has connected to Ray since it was shared, it moves into the store when the reference is first sent. With
    ``is_local`` it stays, for the worker processes of this machine.
    """

    def __init__(self, arena, spill, is_local=False, reference=None):
        self.id = arena.id
        self.origin = arena.origin.removeprefix("python ")
        self.spill = spill
        self.reference = reference
        self._owner = os.getpid()
        self._is_local = is_local
        # Weights in the store are attached again when they are used.
        self._set(arena.offer() if reference is None else None)

    def _set(self, arena):
        self._arena = arena
        self._lock = threading.Lock()

    def to_ray(self):
        """Moves the arena into Ray's object store."""
        with self._lock:
            if self.reference is None:
                ray = _base.import_ray()
                if not ray.is_initialized():
                    ray.init()
                self.reference = self._found().put(self.spill)
                if not self._is_local:
                    self._arena = None

    def arena(self):
        """Returns the arena in this process."""
        with self._lock:
            if self._arena is None:
                self._arena = self._found()
            return self._arena

    def _found(self):
        if self._arena is not None:
            return self._arena
        if self.reference is not None:
            if not _ray_is_connected():
                raise RuntimeError(
                    f"the weights of {self.origin} are in Ray's object store, and process {os.getpid()} is not connected to the "
                    f"cluster: load them in a task or an actor, or share the pipeline in a process without Ray"
                )
            return _Arena.attach(_base.import_ray().get(self.reference))
        found = _Arena.find(self.id)
        if found is None:
            raise RuntimeError(
                f"no process of user {os.geteuid()} on this machine has the weights of {self.origin} (arena {self.id[:12]}): "
                f"process {self._owner}, which shared them, has ended or belongs to another user; keep the wrapper in a "
                f"process that lives as long as its users"
            )
        return found

    def __getstate__(self):
        if self.reference is None and _ray_is_connected():
            self.to_ray()
        return self.id, self.origin, self.spill, self.reference, self._owner

    def __setstate__(self, state):
        self.id, self.origin, self.spill, self.reference, self._owner = state
        self._is_local = False
        self._set(None)

    def __repr__(self):
        return f"{self.origin}, arena {self.id[:12]} in {'Ray' if self.reference is not None else 'sealed memory'}"


def _ray_is_connected():
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
