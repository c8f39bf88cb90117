"""Assembles PyTorch for the CPU from wheels: `torch.py WHEELS FOLDER LIBTORCH`.

PyPI's PyTorch for x86-64 is built for CUDA: 1.1 GB of it, and 4 GB of NVIDIA's libraries, are code
for GPUs. `libtorch_python.so` needs about 200 functions from there to be linked, and calls none of
them on a machine without a GPU. So `libtorch_cuda.so` and three libraries of NVIDIA are replaced by
stubs: libraries that define these names and end the process if one is called.
"""

import filecmp
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

# Parts of the wheels that tests do not use: code for GPUs, headers and programs.
OMITTED = ("torch/lib/libtorch_cuda", "torch/lib/libtorch_nvshmem", "torch/lib/libcaffe2_nvrtc", "torch/include/", "torch/bin/protoc")
# The libraries of NVIDIA's wheels that are used, as they are.
NVIDIA = {
    "nvidia_cuda_runtime": ("nvidia/cuda_runtime/lib/libcudart.so.12", "License.txt"),
    "nvidia_cuda_cupti": ("nvidia/cuda_cupti/lib/libcupti.so.12", "License.txt"),
}
STUBS = ("libtorch_cuda.so", "libcudnn.so.9", "libcusparseLt.so.0", "libcufile.so.0")
# It is called when the library is loaded, and returns a reference to a function pointer, which is null here.
CALLED = "_ZN4c10d15get_gil_checkerEv"


def target(wheel, name):
    """Returns the path in the folder for a member of a wheel, or None if it is omitted."""
    nvidia = next((parts for start, parts in NVIDIA.items() if wheel.name.startswith(start)), None)
    if nvidia is None:
        return None if name.endswith("/") or name.startswith(OMITTED) else name
    library, licence = nvidia
    if name == library:
        return f"torch/lib/{pathlib.Path(name).name}"
    # Without its metadata, which would list files that are not here.
    return f"licenses/{wheel.name.partition('-')[0]}.txt" if name.endswith(licence) else None


def unpack(wheel, folder):
    """Unpacks a wheel, without what is omitted. zipfile checks the CRC of each file."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            found = target(wheel, name)
            if found is None:
                continue
            path = folder / found
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            if found.startswith("torch/bin/"):
                path.chmod(0o755)


def symbols(library, kind):
    """Returns the names that a library defines or lacks, with their versions."""
    done = subprocess.run(["nm", "-D", kind, str(library)], check=True, capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    # Weak names (`w`) may stay undefined.
    return {row[-1].replace("@@", "@") for row in rows if kind == "--defined-only" or row[-2] == "U"}


def missing(libraries):
    """Returns the names that no library in the folder, and none of the system, defines."""
    found = [path for path in libraries.iterdir() if ".so" in path.name]
    needed = set().union(*(symbols(path, "--undefined-only") for path in found if "libtorch_cpu" not in path.name))
    standard = subprocess.run(["c++", "-print-file-name=libstdc++.so.6"], check=True, capture_output=True, text=True)
    defined = set().union(*(symbols(path, "--defined-only") for path in found))
    plain = {name.split("@")[0] for name in defined | symbols(standard.stdout.strip(), "--defined-only")}
    # Names with another version belong to the system's libraries, and those of Python to the interpreter.
    return sorted(
        name
        for name in needed
        if name.split("@")[0] not in plain and not name.startswith(("Py", "_Py")) and name.partition("@")[2] in ("", *STUBS)
    )


def stub(library, names):
    """Builds a library that defines names."""
    text = [".text", ".type unavailable,@function", "unavailable: call abort@plt"]
    for name in names:
        if name.startswith("_ZTI"):
            # Class names are compared when Python classes are registered.
            table = "_ZTVN10__cxxabiv117__class_type_infoE+16"
            text += [".data", ".balign 8", f".globl {name}", f".type {name},@object", f".size {name},16"]
            text += [f"{name}: .quad {table}, 1f", f'1: .asciz "{name[4:]}"', ".text"]
        elif name.startswith("_ZTV"):
            text += [f".globl {name}", f".type {name},@object", f".set {name}, zeros"]
        elif name == CALLED:
            text += [f".globl {name}", f".type {name},@function", f"{name}: lea zeros(%rip), %rax", "ret"]
        else:
            text += [f".globl {name}", f".type {name},@function", f".set {name}, unavailable"]
    text += [".data", ".balign 64", "zeros: .zero 4096", '.section .note.GNU-stack,"",@progbits', ""]
    source, script = library.with_name("stub.s"), library.with_name("stub.map")
    source.write_text("\n".join(text))
    script.write_text(f"{library.name} {{ global: *; }};\n")
    build = ["c++", "-shared", "-o", str(library), f"-Wl,-soname,{library.name}", str(source)]
    # Names of the library itself have no version, those of NVIDIA have that of their library.
    subprocess.run(build if library.name == STUBS[0] else [*build, f"-Wl,--version-script={script}"], check=True)
    source.unlink()
    script.unlink()


def main():
    wheels, folder, libtorch = map(pathlib.Path, sys.argv[1:])
    for wheel in sorted(wheels.glob("*.whl")):
        unpack(wheel, folder)
    libraries = folder / "torch/lib"
    names = missing(libraries)
    for library in STUBS:
        version = "" if library == STUBS[0] else library
        stub(libraries / library, [name.partition("@")[0] for name in names if name.partition("@")[2] == version])
    # The largest library is that of LibTorch in the cache.
    for path in libraries.iterdir():
        same = libtorch / path.name
        if same.is_file() and filecmp.cmp(same, path, shallow=False):
            path.unlink()
            os.link(same, path)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    check = "import torch; assert torch.nn.Linear(3, 4)(torch.ones(2, 3)).shape == (2, 4) and not torch.cuda.is_available()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", check], check=True, env=environment)


main()
