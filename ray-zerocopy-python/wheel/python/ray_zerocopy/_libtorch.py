"""Finds LibTorch, for a package that was built with ``torchscript``.

A process has one LibTorch at most: a second one ends it. So where PyTorch is installed, its LibTorch is taken, whether it is imported before,
after or never. Elsewhere it is the one in the folder that the variable ``LIBTORCH`` names.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
import warnings

PACKAGE = pathlib.Path(__file__).parent
MISSING = "ray_zerocopy was built with `torchscript`, and finds no LibTorch: pip install torch==2.9.*, or set LIBTORCH to the folder of one"


def before():
    """Refuses what would end the process: two LibTorches, of PyTorch and in the wheel itself."""
    if not any(PACKAGE.with_name("ray_zerocopy.libs").glob("libtorch_cpu*")):
        return
    apart = "this wheel of ray_zerocopy has a LibTorch of its own, and PyTorch another: a process cannot have both. Build it with `--auditwheel skip`"
    if "torch" in sys.modules:
        raise ImportError(apart)
    if _pytorch():
        warnings.warn(f"{apart}, or do not import torch here", RuntimeWarning, stacklevel=3)


def load(error):
    """Loads LibTorch, if it is what ``error`` says is missing."""
    if not any(f"{name}: cannot open" in str(error) for name in ("libtorch_cpu.so", "libc10.so")):
        raise _other(error)
    folder = _pytorch() or os.environ.get("LIBTORCH")
    if not folder:
        raise ImportError(MISSING) from error
    path = pathlib.Path(folder, "lib", "libtorch_cpu.so")
    try:
        # The loader takes what is there already, under the name that the native half asks for.
        ctypes.CDLL(str(path))
    except OSError as found:
        raise ImportError(f"ray_zerocopy was built with `torchscript`, and {path} is not to be loaded: {found}") from error


def after(built):
    """Compares the LibTorch that the package was built with, None if with none, with PyTorch."""
    found = _version()
    if built and found and built.split(".")[:2] != found.split(".")[:2]:
        raise ImportError(f"ray_zerocopy was built for PyTorch {built}, and {found} is installed: pip install torch=={built}")


def _other(error):
    # A symbol that is not there: another release.
    found = _version()
    if "undefined symbol" in str(error) and found:
        return ImportError(f"ray_zerocopy was built for another PyTorch than {found}, which is installed ({error})")
    return error


def _pytorch():
    # The folder of the package, without importing it.
    try:
        spec = importlib.util.find_spec("torch")
    except ValueError:  # Something else is called torch in this process.
        return None
    return next(iter(spec.submodule_search_locations or ()), None) if spec and spec.origin else None


def _version():
    # Of the package that is installed, if it says so.
    try:
        return _pytorch() and importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
