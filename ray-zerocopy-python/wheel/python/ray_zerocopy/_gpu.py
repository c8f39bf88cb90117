"""Weights in the memory of NVIDIA GPUs: one copy per GPU, which all processes of the user share.

The copy is read-only. Code that writes to it fails with a CUDA error, which ends the use of the GPU by its process.
"""

import warnings

import torch

# Storages of at least this many bytes are shared. Smaller ones, such as running statistics and counters, are what
# modules write to: each process has its own.
_SHARED_FROM = 1 << 16


class _Range:
    # A part of a copy, in the form that PyTorch takes from other libraries. Keeps the copy.
    def __init__(self, parts, address, size):
        self._parts = parts
        # PyTorch refuses memory that says that it is read-only.
        self.__cuda_array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (address, False), "version": 3}


class Gpus:
    """The copies of an arena on the GPUs of this machine."""

    def __init__(self, arena):
        self._arena = arena
        self._copies = {}
        # Why weights are not shared on a GPU, by its number.
        self.why_copied = {}

    def storage(self, device, at):
        """Returns the storage of tensor number ``at`` in the copy on a device. None if it is not in it.

        Raises RuntimeError if the GPU has no room.
        """
        index = torch.cuda.current_device() if device.index is None else device.index
        if index not in self._copies:
            self._copies[index] = self._open(index)
        parts = self._copies[index]
        place = None if parts is None else parts.place(at)
        if place is None:
            return None
        return torch.as_tensor(_Range(parts, *place), device=torch.device("cuda", index)).untyped_storage()

    def _open(self, index):
        parts, reason = self._arena.on_gpu(index, _SHARED_FROM)
        if parts is None:
            self.why_copied[index] = reason
            warnings.warn(f"each process has its own copy of the weights on `cuda:{index}`: {reason}", stacklevel=2)
        return parts
