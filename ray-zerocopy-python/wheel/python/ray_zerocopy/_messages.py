"""Messages between processes of this machine: pickles over a socket, with large arrays and tensors in shared memory."""

import array
import copyreg
import io
import mmap
import os
import pickle
import socket
import struct
import sys

import cloudpickle
import numpy

# Buffers of at least this many bytes are passed in shared memory.
_LARGE = 1 << 16
_ALIGNMENT = 64
_HEADER = struct.Struct("<QQ")
_SIZE = struct.Struct("<Q")
_FIRST = 1 << 16
# What a value consists of: values of Python's own types, also arrays and tensors, or also others, which may be of a
# class of `__main__`.
_PLAIN, _ARRAYS, _OTHERS = range(3)
_PLAIN_TYPES = {type(None), bool, int, float, str, bytes}
_dtype_names = {}


def _reduce_tensor(tensor):
    try:
        array = tensor.numpy()
    except (TypeError, RuntimeError):
        # It needs a gradient, is not on the CPU, not dense, or of a type that NumPy does not have.
        array = _bytes_of(tensor)
        if array is None:
            return tensor.__reduce_ex__(5)
    dtype = _dtype_names.get(tensor.dtype)
    if dtype is None:
        dtype = _dtype_names[tensor.dtype] = str(tensor.dtype).removeprefix("torch.")
    if array.nbytes < _LARGE:
        return _tensor, (bytearray(array.data), dtype, tuple(tensor.shape))
    return _tensor, (pickle.PickleBuffer(numpy.ascontiguousarray(array)), dtype, tuple(tensor.shape))


def _bytes_of(tensor):
    # The bytes of a dense tensor on the CPU, and None for others.
    import torch

    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return None
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()


def _tensor(buffer, dtype, shape):
    import torch

    dtype = getattr(torch, dtype)
    if not memoryview(buffer).nbytes:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(buffer, dtype=dtype)
    return flat if len(shape) == 1 else flat.view(shape)


class _Reducers(dict):
    # By type. Those of this package come before those that libraries register.
    def __missing__(self, kind):
        return copyreg.dispatch_table[kind]


class _Plain(pickle.Pickler):
    # The tensor types of PyTorch, once it is imported.
    dispatch_table = _Reducers()


class _Cloud(cloudpickle.Pickler):
    def reducer_override(self, value):
        reduce = _Plain.dispatch_table.get(type(value))
        return super().reducer_override(value) if reduce is None else reduce(value)


def _consists_of(value, tensors, depth=5):
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return _PLAIN
    if kind is numpy.ndarray or kind in tensors:
        return _ARRAYS
    if kind is dict:
        if any(type(key) is not str for key in value):
            return _OTHERS
        value = value.values()
    elif kind is not tuple and kind is not list:
        return _OTHERS
    if not depth or len(value) > 64:
        return _OTHERS
    found = _PLAIN
    for each in value:
        if type(each) not in _PLAIN_TYPES:
            found = max(found, _consists_of(each, tensors, depth - 1))
    return found


def _tensor_types():
    tensors = _Plain.dispatch_table
    if tensors:
        return tensors
    torch = sys.modules.get("torch")
    # While another thread imports it, it has no types yet.
    if hasattr(torch, "Tensor") and hasattr(torch, "nn"):
        tensors.update(dict.fromkeys((torch.Tensor, torch.nn.Parameter), _reduce_tensor))
    return tensors


def encode(value):
    """Pickles a value. Returns the pickle and its large buffers."""
    consists_of = _consists_of(value, _tensor_types())
    if consists_of == _PLAIN:
        return pickle.dumps(value, 5), ()
    buffers = []

    def callback(buffer):
        raw = buffer.raw()
        if raw.nbytes < _LARGE:
            return True
        buffers.append(raw)
        return False

    file = io.BytesIO()
    kind = _Plain if consists_of == _ARRAYS else _Cloud
    kind(file, 5, buffer_callback=callback).dump(value)
    return file.getvalue(), buffers


def send(connection, message):
    """Sends an encoded message."""
    payload, buffers = message
    if not buffers:
        head = _HEADER.pack(len(payload), 0)
        _send_all(connection, [head, payload] if len(payload) > _LARGE else [head + payload], ())
        return
    sizes = [each.nbytes for each in buffers]
    head = _HEADER.pack(len(payload), len(buffers)) + b"".join(map(_SIZE.pack, sizes))
    descriptor = os.memfd_create("ray-zerocopy message", os.MFD_CLOEXEC)
    try:
        starts, end = _layout(sizes)
        os.ftruncate(descriptor, end)
        for start, raw in zip(starts, buffers):
            # Faster than a mapping, whose pages would be zeroed first.
            while raw:
                written = os.pwrite(descriptor, raw, start)
                start, raw = start + written, raw[written:]
        _send_all(connection, [head, payload], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
    finally:
        os.close(descriptor)


def _layout(sizes):
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return starts, end


def _send_all(connection, parts, ancillary):
    sent = connection.sendmsg(parts, ancillary, socket.MSG_NOSIGNAL)
    for part in parts:
        if sent < len(part):
            connection.sendall(memoryview(part)[sent:], socket.MSG_NOSIGNAL)
            sent = 0
        else:
            sent -= len(part)


def receive(connection):
    """Receives a message. Returns None if the other process has closed the connection.

    One message is in flight at a time, so what is received first belongs to it.
    """
    data, ancillary, _, _ = connection.recvmsg(_FIRST, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    descriptor = _descriptor(ancillary[0][2]) if ancillary else None
    try:
        data = _complete(connection, data, _HEADER.size)
        length, count = _HEADER.unpack_from(data)
        start = _HEADER.size + count * _SIZE.size
        data = _complete(connection, data, start + length)
        if not count:
            return pickle.loads(memoryview(data)[start:])
        sizes = [_SIZE.unpack_from(data, _HEADER.size + index * _SIZE.size)[0] for index in range(count)]
        starts, end = _layout(sizes)
        # The sender has closed its descriptor: the memory belongs to this process.
        memory = memoryview(mmap.mmap(descriptor, end))
        buffers = [memory[at : at + size] for at, size in zip(starts, sizes)]
        return pickle.loads(memoryview(data)[start:], buffers=buffers)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _descriptor(data):
    found = array.array("i")
    found.frombytes(data[: found.itemsize])
    return found[0]


def _complete(connection, data, length):
    if len(data) >= length:
        return data
    whole = bytearray(length)
    whole[: len(data)] = data
    rest = memoryview(whole)[len(data) :]
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise EOFError(f"the connection was closed {len(rest)} bytes before the end of a message of {length} bytes")
        rest = rest[count:]
    return whole
