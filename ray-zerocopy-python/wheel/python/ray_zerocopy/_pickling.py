"""Pickles of objects with their tensor storages apart.

An object becomes a skeleton, which is a pickle without the bytes of weights, and a list of storages. A
tensor is a view of a storage: tied weights and views of one storage name the same one.
"""

import collections
import copyreg
import functools
import gc
import io
import pickle
import sys

import cloudpickle
import torch

from . import _exported, _torchscript, _walk


class Stored:
    """A storage of an object: its bytes, the path of a tensor that is a view of it, and that tensor's layout."""

    def __init__(self, storage, path, tensor):
        self.storage = storage
        self.path = path
        self.dtype, self.shape = _layout(storage, tensor)


# The names of dtypes that an arena has. Tensors of other ones are stored as bytes.
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "Bool",
}  # fmt: skip


def _layout(storage, tensor):
    # The shape of the only tensor of a storage, or else the storage as a line of elements.
    name = _DTYPES.get(tensor.dtype) if tensor is not None else None
    if name is None or storage.nbytes() % tensor.element_size():
        return "U8", [storage.nbytes()]
    if tensor.is_contiguous() and tensor.numel() * tensor.element_size() == storage.nbytes():
        return name, list(tensor.shape)
    return name, [storage.nbytes() // tensor.element_size()]


# What the key of a persistent id is for the function that creates plain tensors.
_VIEW = "view"


def _view(*_):
    # Stands for `Loaded.view` in pickles, where it has no name.
    raise RuntimeError("a skeleton is loaded by `load`")


def _is_plain(tensor):
    # Whether a tensor is a strided view of a storage and nothing else. PyTorch's own pickles of these take much longer to load.
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type in ("cpu", "cuda")
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and not tensor.__dict__
        and not tensor._backward_hooks
    )


def _is_whole(tensor, storage):
    # Whether a tensor has the elements of its storage, in their order.
    if tensor.dtype not in _DTYPES or not storage.nbytes() or tensor.numel() * tensor.element_size() != storage.nbytes():
        return False
    step = 1
    for extent, stride in zip(reversed(tensor.shape), reversed(tensor.stride())):
        if stride != step:
            return False
        step *= extent
    return True


# The attributes of a module that are empty unless it has hooks: most of what a pickle of it consists of.
_HOOKS = [name for name, value in torch.nn.Module().__dict__.items() if type(value) is collections.OrderedDict]


@functools.cache
def _is_usual(kind):
    # Whether modules of this class are pickled by their attributes, and nothing else.
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and kind.__getstate__ is torch.nn.Module.__getstate__
        and kind.__setstate__ is torch.nn.Module.__setstate__
        and kind not in copyreg.dispatch_table
        and not any(hasattr(kind, name) for name in ("__getnewargs__", "__getnewargs_ex__", "__slots__"))
    )


def _reduce_usual(module):
    def is_omitted(name, value):
        return name in _HOOKS and type(value) is collections.OrderedDict and not value

    state = {name: value for name, value in module.__getstate__().items() if not is_omitted(name, value)}
    state["training"] = False
    return copyreg.__newobj__, (type(module),), state, None, None, _restore


def _restore(module, state):
    # Part of pickles.
    attributes = module.__dict__
    for name in _HOOKS:
        attributes[name] = collections.OrderedDict()
    attributes.update(state)


class _Pickler(cloudpickle.Pickler):
    def __init__(self, file, paths):
        super().__init__(file, protocol=5)
        self._paths = paths
        self._indices = {}
        self._is_collecting = True
        # What has been pickled, in order.
        self.stored = []
        self.modules = []
        self.with_gradients = []

    def dump_all(self, root):
        # Two pickles with one memo: the second one refers to objects of the first.
        self.dump(root)
        self._is_collecting = False
        self.dump((self.modules, self.with_gradients))

    def persistent_id(self, value):
        if isinstance(value, torch.storage.TypedStorage):
            return self._index(value._untyped_storage), value.dtype
        if isinstance(value, torch.UntypedStorage):
            return self._index(value), None
        if value is _view:
            return _VIEW
        if self._is_collecting:
            if isinstance(value, torch.Tensor):
                self._check(value)
                if value.requires_grad and not _is_plain(value):
                    self.with_gradients.append(value)
            elif isinstance(value, torch.nn.Module) and not isinstance(value, torch.jit.ScriptModule):
                if not _is_usual(type(value)):
                    self.modules.append(value)
        return None

    def reducer_override(self, value):
        if isinstance(value, torch.Tensor) and _is_plain(value):
            storage = value.untyped_storage()
            layout = self._index(storage), value.dtype, tuple(value.shape), isinstance(value, torch.nn.Parameter)
            if not _is_whole(value, storage):
                layout += value.storage_offset(), value.stride()
            return _view, layout
        if isinstance(value, torch.jit.ScriptModule):
            return _torchscript.reduce_script(value)
        if isinstance(value, torch.export.ExportedProgram):
            return _exported.reduce_program(value)
        if _torchscript.is_compiled(value):
            return _torchscript.reduce_compiled(value)
        if isinstance(value, torch.nn.Module) and _is_usual(type(value)):
            return _reduce_usual(value)
        return super().reducer_override(value)

    def _index(self, storage):
        key = storage._cdata
        index = self._indices.get(key)
        if index is None:
            index = self._indices[key] = len(self.stored)
            path, tensor = self._paths.get(key, (f"storage[{index}]", None))
            self.stored.append(Stored(storage, path, tensor))
        return index

    def _check(self, tensor):
        if tensor.is_meta:
            raise ValueError("it is a meta tensor, which has a shape and no data: load the weights first")
        if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
            raise ValueError("it is a lazy parameter, which has no data yet: call the module once first")


def dump(root):
    """Returns the skeleton of an object and its storages.

    Raises TypeError or ValueError, with the path of the part that cannot be shared.
    """
    paths = {}
    for path, tensor in _walk.tensors(root):
        if not _has_storage(tensor):
            continue
        for suffix, part in _walk.layers(tensor):
            paths.setdefault(part.untyped_storage()._cdata, (path + suffix, part))
    pickler = _Pickler(file := io.BytesIO(), paths)
    try:
        pickler.dump_all(root)
    except RecursionError:
        raise
    except Exception as error:
        raise _unpicklable(root, error) from error
    return file.getvalue(), pickler.stored


def _has_storage(tensor):
    if tensor.is_meta or isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        return False
    try:
        return all(part.untyped_storage() is not None for _, part in _walk.layers(tensor))
    except (NotImplementedError, RuntimeError):  # A tensor of another library, without a storage.
        return False


def _unpicklable(root, error):
    def fails(part):
        try:
            _Pickler(io.BytesIO(), {}).dump_all(part)
        except Exception:
            return True
        return False

    path, value = _walk.culprit(root, fails)
    what = f"`{path}` of the {_name(type(root))}" if path else f"the {_name(type(root))}"
    kind = ValueError if isinstance(error, ValueError) else TypeError
    advice = "" if kind is ValueError else "; create it in the worker, or leave it out of `__getstate__`"
    return kind(f"{what}, a {_name(type(value))}, cannot be shared: {error}{advice}")


def _name(kind):
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, storage, view):
        super().__init__(file)
        self._storage = storage
        self._view = view

    def persistent_load(self, key):
        if key == _VIEW:
            return self._view
        index, dtype = key
        storage = self._storage(index)
        return storage if dtype is None else torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)

    def find_class(self, module, name):
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"the pipeline needs `{module}.{name}`, which cannot be imported in this process ({error}): install "
                f"it here too, add its folder to PYTHONPATH, or call cloudpickle.register_pickle_by_value({module.split('.')[0]}) "
                f"before the pipeline is shared; the folders here are {sys.path}"
            ) from error


def load(skeleton, storage, view):
    """Rebuilds an object.

    ``storage`` is a function that returns a storage by its index. ``view`` returns a tensor by the index of its
    storage, its dtype and shape, and whether it is a parameter; and by its offset and strides, unless it has all
    elements of the storage in their order.
    Modules are in evaluation mode, and tensors require no gradient.
    """
    unpickler = _Unpickler(io.BytesIO(skeleton), storage, view)
    # The thousands of objects are all in use, and would only be traversed.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        root = unpickler.load()
        modules, with_gradients = unpickler.load()
    finally:
        if is_collecting:
            gc.enable()
    # Those that are pickled in a way of their own. Others are stored in evaluation mode.
    found = set(map(id, modules))
    for module in modules:
        module.training = False
        for child in module._modules.values():
            if child is None or id(child) in found or isinstance(child, torch.jit.ScriptModule):
                continue
            # A module that another one has created when it was loaded.
            if child.training:
                child.eval()
    for tensor in with_gradients:
        tensor.requires_grad_(False)
    return root
