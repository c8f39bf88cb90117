"""Installs PyTorch for the CPU into the environment of this Python: `install_torch.py REQUIREMENT PROGRAM FOLDER`.

PROGRAM is the text of `torch.py`, which unpacks wheels with stubs instead of libraries for GPUs. So of NVIDIA's wheels only
two are fetched. FOLDER is where wheels lie meanwhile.
"""

import email
import pathlib
import subprocess
import sys
import sysconfig
import zipfile

from pip._vendor.packaging.requirements import Requirement

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
# Packages for GPUs. Those of the tests' machines have none.
GPU = ("nvidia", "cuda", "triton")
# The libraries that are used without a GPU, by the extra of `cuda-toolkit` that names their package.
USED = {"cudart": "nvidia-cuda-runtime", "cupti": "nvidia-cuda-cupti"}


def download(folder, *requirements):
    command = ["download", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--dest", str(folder)]
    subprocess.run([*PIP, *command, *requirements], check=True)


def dependencies(wheel, extra=""):
    """Returns what a wheel requires in this environment."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1]
        metadata = email.message_from_bytes(archive.read(name))
    found = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]


def plain(requirement):
    """Returns a requirement without its marker and extras."""
    return f"{requirement.name}{requirement.specifier}"


def main():
    requirement, program, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    wheels = folder / "wheels"
    download(wheels, requirement)
    [torch] = wheels.glob("torch-*.whl")
    required = dependencies(torch)
    libraries = [plain(each) for each in required if each.name.startswith(tuple(USED.values()))]
    for each in required:
        if each.name == "cuda-toolkit":
            download(folder, plain(each))
            [toolkit] = folder.glob("cuda_toolkit-*.whl")
            chosen = [found for extra in USED for found in dependencies(toolkit, extra)]
            libraries += [plain(found) for found in chosen if found.name in USED.values()]
    if len(set(libraries)) != len(USED):
        raise SystemExit(f"{torch.name} should require {' and '.join(USED.values())}, found {libraries or 'neither'}")
    download(wheels, *libraries)
    others = [plain(each) for each in required if not each.name.startswith(GPU)]
    subprocess.run([*PIP, "install", "--no-cache-dir", *others], check=True)
    subprocess.run([sys.executable, "-c", program, str(wheels), sysconfig.get_paths()["purelib"]], check=True)


main()
