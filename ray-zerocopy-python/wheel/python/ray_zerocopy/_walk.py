"""Walks over Python objects: which tensors an object has, and where."""

import collections
import types

# Objects of these types have no tensors.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, range, slice)
_OPAQUE = (type, types.ModuleType, types.BuiltinFunctionType)


def children(value):
    """Yields the parts of an object, each with its path from there."""
    import torch

    if isinstance(value, (*_PLAIN, *_OPAQUE)):
        return
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"[{key!r}]", part
        # Subclasses may have attributes too.
    elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        for index, part in enumerate(value):
            yield f"[{index}]", part
    elif isinstance(value, torch.jit.ScriptModule):
        for name, part in value.named_parameters():
            yield f".{name}", part
        for name, part in value.named_buffers():
            yield f".{name}", part
        return
    elif isinstance(value, torch.nn.Module):
        for kind in ("_parameters", "_buffers", "_modules"):
            for name, part in value.__dict__.get(kind, {}).items():
                yield f".{name}", part
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or ()):
            try:
                yield f".<{name}>", cell.cell_contents
            except ValueError:  # The cell is empty.
                pass
        return
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        return
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict):
        hidden = ("_parameters", "_buffers", "_modules") if isinstance(value, torch.nn.Module) else ()
        for name, part in own.items():
            if name not in hidden:
                yield f".{name}", part
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)


def tensors(root):
    """Yields the tensors of an object with their paths, each one once."""
    import torch

    seen = {id(root)}
    # What has been visited, so that no id is used again.
    kept = []
    waiting = [("", root)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield path.lstrip(".") or "tensor", value
            continue
        kept.append(value)
        found = []
        for suffix, part in children(value):
            if isinstance(part, _PLAIN) or id(part) in seen:
                continue
            seen.add(id(part))
            found.append((path + suffix, part))
        # The first part is visited first.
        waiting.extend(reversed(found))


def layers(tensor):
    """Yields the strided tensors that a tensor consists of: itself, or the parts of a sparse one."""
    import torch

    if tensor.layout == torch.strided:
        yield "", tensor
    elif tensor.layout == torch.sparse_coo:
        yield ".indices", tensor._indices()
        yield ".values", tensor._values()
    else:
        parts = ("crow_indices", "ccol_indices", "row_indices", "col_indices", "values")
        for name in parts:
            try:
                yield f".{name}", getattr(tensor, name)()
            except RuntimeError:  # Another sparse layout has this part.
                pass


def culprit(root, fails):
    """Returns the path and the value of the innermost part for which ``fails`` returns True."""
    path, value, seen = "", root, {id(root)}
    while True:
        for suffix, part in children(value):
            if not isinstance(part, _PLAIN) and id(part) not in seen and fails(part):
                seen.add(id(part))
                path, value = path + suffix, part
                break
        else:
            return path.lstrip("."), value


def has(root, kind):
    """Returns whether an object is of a type, or contains an object that is."""
    seen, waiting = {id(root)}, [root]
    kept = []
    while waiting:
        value = waiting.pop()
        if isinstance(value, kind):
            return True
        kept.append(value)
        for _, part in children(value):
            if not isinstance(part, _PLAIN) and id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)
    return False
