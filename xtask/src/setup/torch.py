"""Assembles PyTorch for the CPU from wheels: `torch.py WHEELS FOLDER [LIBTORCH]`.

PyPI's PyTorch for x86-64 is built for CUDA: 1.1 GB of it, and 4 GB of NVIDIA's libraries, are code
for GPUs. `libtorch_python.so` needs about 200 functions from there to be linked, and calls none of
them on a machine without a GPU. So `libtorch_cuda.so` and the libraries of NVIDIA that no wheel here
has are replaced by stubs: libraries that define these names and end the process if one is called.
Files that LIBTORCH has too become links to it.
"""

import filecmp
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

# Parts of the wheels that tests do not use: code for GPUs, headers and programs.
OMITTED = ("torch/lib/libtorch_cuda", "torch/lib/libtorch_nvshmem", "torch/lib/libcaffe2_nvrtc", "torch/include/", "torch/bin/protoc")
# The libraries of NVIDIA's wheels that are used, as they are. Their folder depends on the release of CUDA.
NVIDIA = re.compile(r"nvidia/\w+/lib/lib(cudart|cupti)\.so\.\d+")
CUDA = "libtorch_cuda.so"
# The functions that are called when the library is loaded or torch.distributed is initialised, each with its code. The first
# returns a reference to a function pointer, which is null here. The second is a constructor: it sets the table of virtual
# functions, from which the class of the object is read, and which do nothing.
CALLED = {
    "_ZN4c10d15get_gil_checkerEv": ["lea zeros(%rip), %rax", "ret"],
    "_ZN4c10d16ProcessGroupNCCL7OptionsC1Eb": [
        "lea 2f(%rip), %rax", "mov %rax, (%rdi)", "ret", ".data", ".balign 8",
        ".quad 0, _ZTIN4c10d16ProcessGroupNCCL7OptionsE", "2:", ".rept 32", ".quad 3f", ".endr", ".text", "3: ret",
    ],
}  # fmt: skip

# Kernels for GPUs in Python, which replace those of `libtorch_cuda.so` when recent releases of torch are imported: the file
# that does so, and the line.
OVERRIDES = "torch/_native/__init__.py", "    registry._register_all_overrides()\n"


def target(wheel, name):
    """Returns the path in the folder for a member of a wheel, or None if it is omitted."""
    if not wheel.name.startswith("nvidia"):
        return None if name.endswith("/") or name.startswith(OMITTED) else name
    if NVIDIA.fullmatch(name):
        return f"torch/lib/{pathlib.Path(name).name}"
    # Without its metadata, which would list files that are not here.
    return f"licenses/{wheel.name.partition('-')[0]}.txt" if name.endswith("License.txt") else None


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


def needed(library):
    """Returns the names of the libraries that a library needs, and which of them each version of a symbol is from."""
    done = subprocess.run(["readelf", "--wide", "-d", "-V", str(library)], check=True, capture_output=True, text=True)
    names = set(re.findall(r"\(NEEDED\).*\[(.*)\]", done.stdout))
    versions, file = {}, None
    for found in re.finditer(r"File: (\S+) +Cnt|Name: (\S+) +Flags", done.stdout):
        file = found[1] or file
        if found[2]:
            versions[found[2]] = file
    return names, versions


def installed():
    """Returns the names of the system's libraries, which the dynamic loader finds."""
    loader = shutil.which("ldconfig") or "/sbin/ldconfig"
    done = subprocess.run([loader, "-p"], check=True, capture_output=True, text=True)
    return set(re.findall(r"^\s+(\S+) \(", done.stdout, re.MULTILINE))


def missing(libraries):
    """Returns the libraries that neither the folder nor the system has, each with the names that are needed of it, by version."""
    found = [path for path in libraries.iterdir() if ".so" in path.name]
    lists = [needed(path) for path in found]
    absent = set().union(*(names for names, _ in lists)) - {path.name for path in found} - installed()
    absent = {name for name in absent if not name.startswith("libpython")} | {CUDA}
    files = {version: name for _, versions in lists for version, name in versions.items()}
    undefined = set().union(*(symbols(path, "--undefined-only") for path in found if "libtorch_cpu" not in path.name))
    standard = subprocess.run(["c++", "-print-file-name=libstdc++.so.6"], check=True, capture_output=True, text=True)
    defined = set().union(*(symbols(path, "--defined-only") for path in found))
    plain = {name.split("@")[0] for name in defined | symbols(standard.stdout.strip(), "--defined-only")}
    stubs = {name: {} for name in absent}
    for name in sorted(undefined):
        symbol, _, version = name.partition("@")
        # Names with another version belong to the system's libraries, and those of Python to the interpreter.
        library = files.get(version, "") if version else CUDA
        if symbol not in plain and not symbol.startswith(("Py", "_Py")) and library in stubs:
            stubs[library].setdefault(version, []).append(symbol)
    return stubs


def stub(library, versions):
    """Builds a library that defines names of several versions."""
    text = [".text", ".type unavailable,@function", "unavailable: call abort@plt"]
    for name in (name for names in versions.values() for name in names):
        if name.startswith("_ZTI"):
            # Class names are compared when Python classes are registered.
            table = "_ZTVN10__cxxabiv117__class_type_infoE+16"
            text += [".data", ".balign 8", f".globl {name}", f".type {name},@object", f".size {name},16"]
            text += [f"{name}: .quad {table}, 1f", f'1: .asciz "{name[4:]}"', ".text"]
        elif name.startswith("_ZTV"):
            text += [f".globl {name}", f".type {name},@object", f".set {name}, zeros"]
        elif name in CALLED:
            text += [f".globl {name}", f".type {name},@function", f"{name}:", *CALLED[name]]
        else:
            text += [f".globl {name}", f".type {name},@function", f".set {name}, unavailable"]
    text += [".data", ".balign 64", "zeros: .zero 4096", '.section .note.GNU-stack,"",@progbits', ""]
    source, script = library.with_name("stub.s"), library.with_name("stub.map")
    source.write_text("\n".join(text))
    nodes = [f"{version} {{ global: {' '.join(f'{name};' for name in names)} }};\n" for version, names in versions.items() if version]
    script.write_text("".join(nodes))
    build = ["c++", "-shared", "-o", str(library), f"-Wl,-soname,{library.name}", str(source)]
    # Names of PyTorch have no version, and most of NVIDIA's have that of their library.
    subprocess.run([*build, f"-Wl,--version-script={script}"] if nodes else build, check=True)
    source.unlink()
    script.unlink()


def main():
    wheels, folder, *libtorch = map(pathlib.Path, sys.argv[1:])
    for wheel in sorted(wheels.glob("*.whl")):
        unpack(wheel, folder)
    libraries = folder / "torch/lib"
    for library, versions in missing(libraries).items():
        stub(libraries / library, versions)
    overrides = folder / OVERRIDES[0]
    if overrides.is_file():
        overrides.write_text(overrides.read_text().replace(OVERRIDES[1], "    pass\n"))
    # The largest library is that of LibTorch in the cache.
    for path in libraries.iterdir() if libtorch else ():
        same = libtorch[0] / path.name
        if same.is_file() and filecmp.cmp(same, path, shallow=False):
            path.unlink()
            os.link(same, path)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    check = "import torch; assert torch.nn.Linear(3, 4)(torch.ones(2, 3)).shape == (2, 4) and not torch.cuda.is_available()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", check], check=True, env=environment)


main()
