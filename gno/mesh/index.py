"""Files that need other files: which they are, and which belong to them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from gno.mesh.topology import TRAJECTORIES, candidates

INDEX = {".pvd", ".xdmf", ".xdmf3", ".xmf", ".pvtu", ".pvtp", ".pvti", ".pvtr", ".pvts", ".pvtk", ".vtm"}
"""Formats whose file is an index of other files."""


def files_in(path: Path) -> list[Path]:
    """The files that an index names and that are there, or the topologies of a trajectory; none of any other file."""
    if path.suffix.lower() in TRAJECTORIES:
        return candidates(path)
    if path.suffix.lower() not in INDEX:
        return []
    # an extension begins with a letter, so that no number of a data item is taken for a name
    names = sorted(set(re.findall(rb'[^\s"<>:]+\.[A-Za-z]\w*', path.read_bytes())))
    found = (path.parent / os.fsdecode(name) for name in names)
    return [file for file in found if file != path and file.is_file()]


def without_parts(paths: Iterable[Path]) -> list[Path]:
    """The files but for those that an index among them names: its pieces, frames, or heavy data."""
    paths = list(paths)
    parts = {os.path.normpath(part) for path in paths for part in files_in(path)}
    return [path for path in paths if os.path.normpath(path) not in parts]
