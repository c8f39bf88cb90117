"""Messages between processes of this machine: pickles over a socket, with large arrays and tensors in shared memory."""

import array
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
# Values of these types are pickled without cloudpickle. Those of others may be of a class of `__main__`.
_PLAIN = {type(None), bool, int, float, str, bytes, numpy.ndarray}


def _reduce_tensor(tensor):
    import torch

    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return tensor.__reduce_ex__(5)
    plain = tensor.detach().contiguous()
    raw = plain.reshape(-1).view(torch.uint8).numpy()
    buffer = pickle.PickleBuffer(raw) if raw.nbytes >= _LARGE else raw.tobytes()
    return _tensor, (buffer, str(plain.dtype).removeprefix("torch."), tuple(plain.shape))


def _tensor(buffer, dtype, shape):
    import torch

    dtype = getattr(torch, dtype)
    if not memoryview(buffer).nbytes:
        return torch.empty(shape, dtype=dtype)
    if isinstance(buffer, bytes):
        buffer = bytearray(buffer)
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape)


def _dispatch():
    # The tensor types of PyTorch, if it is imported.
    torch = sys.modules.get("torch")
    return {} if torch is None else {torch.Tensor: _reduce_tensor, torch.nn.Parameter: _reduce_tensor}


class _Plain(pickle.Pickler):
    def __init__(self, file, callback):
        super().__init__(file, 5, buffer_callback=callback)
        self.dispatch_table = _dispatch()


class _Cloud(cloudpickle.Pickler):
    def __init__(self, file, callback):
        super().__init__(file, 5, buffer_callback=callback)
        self._tensors = _dispatch()

    def reducer_override(self, value):
        reduce = self._tensors.get(type(value))
        return super().reducer_override(value) if reduce is None else reduce(value)


def _is_plain(value, torch, depth=3):
    kind = type(value)
    if kind in _PLAIN or (torch is not None and kind is torch.Tensor):
        return True
    if depth and kind in (tuple, list) and len(value) <= 64:
        return all(_is_plain(each, torch, depth - 1) for each in value)
    if depth and kind is dict and len(value) <= 64:
        return all(_is_plain(each, torch, depth - 1) for each in value.values()) and all(type(key) is str for key in value)
    return False


def encode(value):
    """Pickles a value. Returns the pickle and its large buffers."""
    buffers = []

    def callback(buffer):
        raw = buffer.raw()
        if raw.nbytes < _LARGE:
            return True
        buffers.append(raw)
        return False

    file = io.BytesIO()
    kind = _Plain if _is_plain(value, sys.modules.get("torch")) else _Cloud
    kind(file, callback).dump(value)
    return file.getvalue(), buffers


def send(connection, message):
    """Sends an encoded message."""
    payload, buffers = message
    sizes = [each.nbytes for each in buffers]
    head = _HEADER.pack(len(payload), len(buffers)) + b"".join(map(_SIZE.pack, sizes))
    if not buffers:
        _send_all(connection, [head, payload], ())
        return
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
    descriptor = next((_descriptor(each) for _, _, each in ancillary), None)
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
