"""Finds LibTorch, for a package that was built with ``torchscript``.

A process with two LibTorches aborts. So if PyTorch is installed, its LibTorch is loaded, whether
PyTorch is imported before, after or never. Otherwise it is the one in the folder that the
environment variable ``LIBTORCH`` names.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
import warnings

PACKAGE = pathlib.Path(__file__).parent
MISSING = "ray_zerocopy was built with `torchscript`, but cannot find LibTorch: pip install torch==2.9.*, or set LIBTORCH to its folder"


def before():
    """Raises ImportError if both PyTorch and the wheel itself contain a LibTorch, which would abort the process."""
    if not any(PACKAGE.with_name("ray_zerocopy.libs").glob("libtorch_cpu*")):
        return
    message = "this wheel of ray_zerocopy contains LibTorch, and PyTorch contains another: a process cannot load both. Build the wheel with `--auditwheel skip`"
    if "torch" in sys.modules:
        raise ImportError(message)
    if _pytorch():
        warnings.warn(f"{message}, or do not import torch here", RuntimeWarning, stacklevel=3)


def load(error):
    """Loads LibTorch if ``error`` reports that it is missing."""
    if not any(f"{name}: cannot open" in str(error) for name in ("libtorch_cpu.so", "libc10.so")):
        raise _other(error)
    folder = _pytorch() or os.environ.get("LIBTORCH")
    if not folder:
        raise ImportError(MISSING) from error
    path = pathlib.Path(folder, "lib", "libtorch_cpu.so")
    try:
        # The dynamic loader then resolves the native module's dependency by the library's name.
        ctypes.CDLL(str(path))
    except OSError as found:
        raise ImportError(f"ray_zerocopy was built with `torchscript`, but {path} cannot be loaded: {found}") from error


def after(built):
    """Compares the version of LibTorch that the package was built with, if any, with the installed PyTorch."""
    found = _version()
    if built and found and built.split(".")[:2] != found.split(".")[:2]:
        raise ImportError(f"ray_zerocopy was built for PyTorch {built}, and {found} is installed: pip install torch=={built}")


def _other(error):
    # An undefined symbol means another release of PyTorch.
    found = _version()
    if "undefined symbol" in str(error) and found:
        return ImportError(f"ray_zerocopy was built for another version of PyTorch than the installed {found} ({error})")
    return error


def _pytorch():
    # Returns the folder of the package torch without importing it.
    try:
        spec = importlib.util.find_spec("torch")
    except ValueError:  # Another object is called torch in this process.
        return None
    return next(iter(spec.submodule_search_locations or ()), None) if spec and spec.origin else None


def _version():
    # Returns the version of the installed package, or None.
    try:
        return _pytorch() and importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
