"""Assembles LibTorch for the CPU from wheels: `libtorch.py WHEELS FOLDER`.

The wheels on PyPI contain LibTorch for CUDA, 4 GB with its dependencies. Two of its libraries
compute on the CPU, and link four more. Without `libtorch_cuda.so` in the folder, programs are built
for the CPU.
"""

import pathlib
import shutil
import sys
import zipfile

# The members of each wheel, and their paths in the folder. A name that ends in a slash is a folder
# with all of its files.
MEMBERS = {
    "torch-": {
        "torch/lib/libc10.so": "lib/libc10.so",
        "torch/lib/libtorch_cpu.so": "lib/libtorch_cpu.so",
        "torch/lib/libgomp.so.1": "lib/libgomp.so.1",
        "torch/include/": "include/",
        "torch-2.9.1.dist-info/licenses/LICENSE": "licenses/torch.txt",
        "torch-2.9.1.dist-info/licenses/NOTICE": "licenses/torch-notice.txt",
    },
    "nvidia_cuda_runtime_cu12-": {
        "nvidia/cuda_runtime/lib/libcudart.so.12": "lib/libcudart.so.12",
        "nvidia_cuda_runtime_cu12-12.8.90.dist-info/License.txt": "licenses/cuda-runtime.txt",
    },
    "nvidia_cuda_cupti_cu12-": {
        "nvidia/cuda_cupti/lib/libcupti.so.12": "lib/libcupti.so.12",
        "nvidia_cuda_cupti_cu12-12.8.90.dist-info/License.txt": "licenses/cuda-cupti.txt",
    },
}


def unpack(wheel, members, folder):
    """Unpacks members of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name, target in members.items():
            below = [each for each in archive.namelist() if each.startswith(name) and not each.endswith("/")]
            if not below:
                sys.exit(f"{wheel.name} lacks {name}")
            for each in below:
                path = folder / (target + each.removeprefix(name))
                path.parent.mkdir(parents=True, exist_ok=True)
                # zipfile checks the CRC when the end is read.
                with archive.open(each) as source, path.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)


def main():
    wheels, folder = map(pathlib.Path, sys.argv[1:])
    for start, members in MEMBERS.items():
        found = sorted(wheels.glob(start + "*.whl"))
        if len(found) != 1:
            sys.exit(f"{wheels} has {len(found)} wheels {start}*.whl, and one was expected")
        unpack(found[0], members, folder)
    # Programs link `libtorch.so`. The one in the wheel links CUDA, so a linker script replaces it.
    (folder / "lib/libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")


main()
