"""Frames by their number, as in ASE: ``run.xyz@12``, ``run.xyz@:``, ``run.xyz@0:99:3``."""

from __future__ import annotations

import re
from pathlib import Path

_FRAMES = re.compile(r"(.+)@((?:-?\d+)?(?::(?:-?\d+)?(?::-?[1-9]\d*)?)?)")


def split_address(path: Path) -> tuple[Path, str | None]:
    """A file and which of its frames are meant; None for a plain path, and for a file that has such a name itself.

    >>> split_address(Path("run.xyz@0:99:3")), split_address(Path("run.xyz"))
    ((PosixPath('run.xyz'), '0:99:3'), (PosixPath('run.xyz'), None))
    """
    found = _FRAMES.fullmatch(path.name)
    if not found or not found[2] or path.exists():
        return path, None
    return path.with_name(found[1]), found[2]


def numbers(text: str, count: int) -> range:
    """The numbers that ``text`` means of ``count`` frames, as Python's indices and slices do.

    >>> list(numbers("-1", 5)), list(numbers("::2", 5)), list(numbers("7", 5))
    ([4], [0, 2, 4], [])
    """
    if ":" not in text:
        return range(count)[int(text) :][:1] if -count <= int(text) < count else range(0)
    return range(count)[slice(*(int(part) if part else None for part in text.split(":")))]


def stem(path: Path) -> str:
    """The name of a file without its extension, which a number is not; with that of the frame if one is meant.

    >>> stem(Path("run.xyz@12")), stem(Path("part.vtu")), stem(Path("dump.1000"))
    ('run@12', 'part', 'dump.1000')
    """
    file, frame = split_address(path)
    name = file.name if file.suffix[1:].isdigit() else file.stem
    return name if frame is None else f"{name}@{frame}"
