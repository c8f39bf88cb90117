"""Assembles LLVM for cubecl from wheels: `llvm.py WHEELS FOLDER`.

The first wheel has LLVM's libraries for x86-64, and the second one the backends of other
processors, of which only NVIDIA's is unpacked: with all of them, programs would be larger, and
cubecl would initialise each.
"""

import pathlib
import shutil
import sys
import zipfile

# Where both wheels have their files.
ROOT = "mlc_llvm_static/static/"

# The libraries of NVIDIA's backend come first, because a linker is given a library before those
# that it uses.
CONFIG = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
case " $* " in
*" --libs "* | *" --libnames "*) printf '%s ' -lLLVMNVPTXCodeGen -lLLVMNVPTXDesc -lLLVMNVPTXInfo ;;
esac
exec python3 "$here/llvm-config.py" "$@"
"""


def in_base(name):
    """Whether a file of the first wheel is unpacked."""
    return name == "bin/llvm-config.py" or not name.startswith(("bin/", "lib/clang", "lib/cmake"))


def in_targets(name):
    """Whether a file of the second wheel is unpacked."""
    return name.startswith("lib/libLLVMNVPTX")


def unpack(wheel, is_wanted, folder):
    """Unpacks the wanted files of a wheel, and its licence."""
    with zipfile.ZipFile(wheel) as archive:
        for each in archive.namelist():
            if each.endswith("/"):
                continue
            if each.startswith(ROOT) and is_wanted(each.removeprefix(ROOT)):
                path = folder / each.removeprefix(ROOT)
            elif ".dist-info/licenses/" in each:
                path = folder / "licenses" / wheel.name.split("-")[0] / pathlib.PurePath(each).name
            else:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            # zipfile checks the CRC when the end is read.
            with archive.open(each) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def main():
    wheels, folder = map(pathlib.Path, sys.argv[1:])
    for start, is_wanted in {"mlc_llvm_static-": in_base, "mlc_llvm_static_extra_targets-": in_targets}.items():
        found = sorted(wheels.glob(start + "*.whl"))
        if len(found) != 1:
            sys.exit(f"{wheels} has {len(found)} wheels {start}*.whl, and one was expected")
        unpack(found[0], is_wanted, folder)
    config = folder / "bin/llvm-config"
    config.write_text(CONFIG)
    config.chmod(0o755)
    # tracel-llvm-bundler takes the folder for complete.
    (folder / ".tracel-llvm-installed").touch()


main()
