"""Readers that may end the program or never come back, each run in a process of its own.

The child hands the mesh over as a .vtu file, which loses nothing, or says in a line of text why there is none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.vtu import read_vtk_xml, write_vtu

_SECONDS = 30
_BYTES_PER_SECOND = 1_000_000
_REFUSED = 3


def read_apart(module: str, path: Path, *arguments: str) -> Mesh:
    """Run ``python -m module path result *arguments`` and read the result.

    Raises:
        MeshError: the child said why not, died, or took longer than half a minute and a second for each MB.
    """
    limit = _SECONDS + path.stat().st_size / _BYTES_PER_SECOND
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "mesh.vtu"
        command = [sys.executable, "-m", module, str(path.absolute()), str(result), *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part or "." for part in sys.path)}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired as error:
            raise MeshError(f"{path}: damaged or cut off: its reader gave no answer in {limit:.0f} s") from error
        if done.returncode == _REFUSED:
            raise MeshError(result.read_text(encoding="utf-8").replace(str(path.absolute()), str(path)))
        if done.returncode or not result.is_file():
            raise MeshError(f"{path}: damaged or cut off: its reader ended with status {done.returncode}")
        return read_vtk_xml(result).replace(source=str(path))


def answer(read: Callable[[], Mesh], result: str) -> int:
    """The child's part: write what ``read`` gives and return the exit status."""
    try:
        write_vtu(read(), Path(result))
    except MeshError as error:
        Path(result).write_text(str(error), encoding="utf-8")
        return _REFUSED
    return 0
