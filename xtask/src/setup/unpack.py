"""Unpacks wheels into a folder for `PYTHONPATH`: `unpack.py WHEELS FOLDER`. zipfile checks the CRC of each file."""

import pathlib
import sys
import zipfile

wheels, folder = map(pathlib.Path, sys.argv[1:])
for wheel in sorted(wheels.glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
