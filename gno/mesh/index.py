"""Files that need other files: which they are, and which belong to them."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from gno.mesh.topology import TRAJECTORIES, candidates

INDEX = {".pvd", ".xdmf", ".xdmf3", ".xmf", ".pvtu", ".pvtp", ".pvti", ".pvtr", ".pvts", ".pvtk", ".vtm"}
"""Formats whose file is an index of other files."""

# An extension begins with a letter, so that no number of a data item is taken for a name.
EXTENSION = re.compile(r"\.[A-Za-z]\w*$")
LONGEST = 4096
"""Longer texts are data, and no names."""


def files_in(path: Path) -> list[Path]:
    """The files that an index names and that are there, or the topologies of a trajectory; none of any other file."""
    if path.suffix.lower() in TRAJECTORIES:
        return candidates(path)
    if path.suffix.lower() not in INDEX:
        return []
    found = (path.parent / name for name in sorted(set(_names(path))))
    return [file for file in found if file != path and os.path.isfile(file)]  # noqa: PTH113 (a name may be none at all)


def _names(path: Path) -> Iterator[str]:
    """What may be names of files in an index: attributes and texts, up to a colon (``data.h5:/points``), and words."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError:  # whoever reads it says so
        return
    for element in root.iter():
        for text in (*element.attrib.values(), element.text or ""):
            if len(text) > LONGEST:
                continue
            parts = text.strip().split(":")
            for name in (*itertools.accumulate(parts, "{}:{}".format), *re.findall(r"[^\s:]+", text)):
                if EXTENSION.search(name):
                    yield name


def without_parts(paths: Iterable[Path]) -> list[Path]:
    """The files but for those that an index among them names: its pieces, frames, or heavy data."""
    paths = list(paths)
    parts = {os.path.normpath(part) for path in paths for part in files_in(path)}
    return [path for path in paths if os.path.normpath(path) not in parts]
