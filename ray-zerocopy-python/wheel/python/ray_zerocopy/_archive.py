"""Archives of TorchScript modules, edited so that they load quickly.

Tracing makes a class for each submodule: a hundred equal layers have a hundred classes, with names such as
``__torch__.torch.nn.modules.linear.___torch_mangle_7.Linear``. A load compiles the code of each one, and each takes
memory in each process. :func:`compact` stores classes with the same code once.

A load then searches the methods of every instance for operations of old releases of PyTorch, a fifth of a
millisecond each. So only the first instance of a class is of that class. The others are of its hollow class, which has
the same attributes and no methods. After the load they are replaced by copies of the first one.
"""

import io
import pickletools
import re
import zipfile

# The path of a file with the code of a class, or of several, and the name of a class.
_FILE = re.compile(r"[^/]+/code/(__torch__(?:/\w+)*)\.py")
_NAME = re.compile(r"__torch__(?:\.\w+)+")
_CLASS = re.compile(r"class (\w+)\(Module\):\n")
_HOLLOW = "__torch__.ray_zerocopy_hollow"
# A class whose instances have code that runs while they are loaded, or hooks, which are methods.
_SPECIAL = re.compile(r"__setstate__|__getstate__|__forward_(?:pre_)?hooks__")


def compact(archive):
    """Returns an archive that loads as the same module, after :func:`real` has been applied to the types."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    texts, paths = {}, {}
    for path, content in files.items():
        found = _FILE.fullmatch(path)
        if found is None:
            continue
        text = content.decode()
        first = _CLASS.match(text)
        # A file with one class and nothing else.
        if first and len(re.findall(r"^\w", text, re.MULTILINE)) == 1:
            name = f"{found[1].replace('/', '.')}.{first[1]}"
            texts[name], paths[name] = text, path
    by = _equal(texts)
    for name in by:
        for suffix in ("", ".debug_pkl"):
            files.pop(paths[name] + suffix, None)
    for path, content in list(files.items()):
        if _FILE.fullmatch(path):
            text = content.decode()
            replaced = _NAME.sub(lambda name: by.get(name[0], name[0]), text)
            if replaced != text:
                files[path] = replaced.encode()
                # The places in the original source, by offsets in the text.
                files.pop(path + ".debug_pkl", None)
    usual = {name for name, text in texts.items() if name not in by and not _SPECIAL.search(text)}
    root = next(iter(files)).partition("/")[0]
    data, hollow = _with_hollow(files[f"{root}/data.pkl"], by, usual)
    files[f"{root}/data.pkl"] = data
    for name in hollow:
        module, _, _ = _hollow(name).rpartition(".")
        attributes, _, _ = files[paths[name]].decode().partition("\n  def ")
        files[f"{root}/code/{module.replace('.', '/')}.py"] = f"{attributes}\n".encode()
    compacted = io.BytesIO()
    with zipfile.ZipFile(compacted, "w", zipfile.ZIP_STORED) as written:
        for path, content in files.items():
            written.writestr(path, content)
    return compacted.getvalue()


def real(name):
    """Returns the name of the class that a hollow class stands for, or None for any other class."""
    return "__torch__" + name.removeprefix(_HOLLOW) if name.startswith(f"{_HOLLOW}.") else None


def _hollow(name):
    return _HOLLOW + name.removeprefix("__torch__")


def _equal(texts):
    # The names of classes that equal another one, each with that one's name. Classes refer to each other, so those of
    # leaves become equal first.
    by = {}
    while True:
        seen, found = {}, {}
        for name, text in texts.items():
            if name in by:
                continue
            plain = _NAME.sub(lambda other: "" if other[0] == name else by.get(other[0], other[0]), text)
            unmangled = re.sub(r"\.___torch_mangle_\d+", "", name)
            first = seen.setdefault((unmangled, plain), name)
            if first != name:
                found[name] = first
        if not found:
            return by
        by = {name: found.get(first, first) for name, first in by.items()} | found


def _with_hollow(data, by, usual):
    # A pickle in which classes have their new names, and all instances but the first of a usual class are hollow. Returns it
    # and the classes that have a hollow one.
    operations = [*pickletools.genops(data), (None, None, len(data))]
    parts, memo, seen, hollow = [], {}, set(), set()
    for (operation, argument, start), (following, number, end) in zip(operations, operations[1:]):
        part = data[start:end]
        name = None
        if operation.name == "GLOBAL" and argument.startswith("__torch__"):
            name = argument.replace(" ", ".")
            name = by.get(name, name)
            part = _global(name)
            if following is not None and following.name in ("BINPUT", "LONG_BINPUT"):
                memo[number] = name
        elif operation.name in ("BINGET", "LONG_BINGET"):
            name = memo.get(argument)
        if name in seen:
            hollow.add(name)
            part = _global(_hollow(name))
        elif name in usual:
            seen.add(name)
        parts.append(part)
    return b"".join(parts), hollow


def _global(name):
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n".encode()
