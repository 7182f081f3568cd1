"""Files that are lists of other files: which they are, and which belong to them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

INDEX = {".pvd", ".xdmf", ".xdmf3", ".xmf", ".pvtu", ".pvtp", ".pvti", ".pvtr", ".pvts", ".pvtk", ".vtm"}
"""Formats whose file is an index of other files."""


def files_in(path: Path, content: bytes | None = None) -> list[Path]:
    """The files that an index names and that are there; none of a file that is no index.

    Args:
        path: any file.
        content: of it, where it is known already.
    """
    if path.suffix.lower() not in INDEX:
        return []
    # an extension begins with a letter, so that no number of a data item is taken for a name
    names = sorted(set(re.findall(rb'[^\s"<>:]+\.[A-Za-z]\w*', path.read_bytes() if content is None else content)))
    found = (path.parent / os.fsdecode(name) for name in names)
    return [file for file in found if file != path and file.is_file()]


def without_parts(paths: Iterable[Path]) -> list[Path]:
    """The files but for those that an index among them names: its pieces, frames, or heavy data."""
    paths = list(paths)
    parts = {os.path.normpath(part) for path in paths for part in files_in(path)}
    return [path for path in paths if os.path.normpath(path) not in parts]
