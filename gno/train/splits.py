"""Which files are for training, validation and test; which numbered files are one series."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gno.mesh.address import stem
from gno.mesh.files import atomic
from gno.mesh.io import READABLE, STEPPED, step_times

SPLITS = ("train", "validation", "test")
# What a run's files were, in its folder: files that come later change a split at random.
FILE = "files.json"
# Formats of which one file can hold, or list, a whole series; of others the numbered files are one.
SERIES = {".pvd", ".xdmf", ".xmf", ".e", ".exo", ".ex2", ".frd"}


def series_of(path: Path) -> Path:
    """The series that a file belongs to: itself, or the pattern of the numbered files beside it.

    >>> series_of(Path("run/step_0012.vtu")).as_posix(), series_of(Path("run/all.pvd")).as_posix()
    ('run/step_*.vtu', 'run/all.pvd')
    >>> series_of(Path("run/dump.1000")).as_posix()
    'run/dump.*'
    """
    name = stem(path)
    suffix = path.name[len(name) :].lower()
    # A file is one frame of numbered ones or a whole trajectory; a dump of LAMMPS has any name.
    either = suffix in STEPPED or suffix not in READABLE
    if suffix in SERIES or (either and path.is_file() and len(step_times(path)) > 1):
        return path
    return path.with_name(re.sub(r"\d+$", "*", name) + path.name[len(name) :])


def series_files(files: Iterable[Path]) -> list[Path]:
    """The series that files belong to, each once."""
    return list(dict.fromkeys(series_of(file) for file in files))


def split_items(
    items: Iterable, fractions: tuple[float, float, float], seed: int, what: str = "data.files"
) -> dict[str, list]:
    """Items dealt at random to train, validation and test; every wanted split gets at least one.

    >>> {key: len(value) for key, value in split_items(range(10), (0.8, 0.1, 0.1), 0).items()}
    {'train': 8, 'validation': 1, 'test': 1}
    """
    items = list(items)
    random.Random(seed).shuffle(items)
    counts = [max(1, round(f * len(items))) if f > 0 else 0 for f in fractions[1:]]
    if sum(counts) >= len(items):
        wanted = 1 + sum(f > 0 for f in fractions[1:])
        noun = what.rpartition(".")[2]
        raise ValueError(f"{what}: expected at least {wanted} {noun} for the split {fractions}, got {len(items)}")
    n_train = len(items) - sum(counts)
    cuts = (0, n_train, n_train + counts[0], len(items))
    return {key: items[cuts[k] : cuts[k + 1]] for k, key in enumerate(SPLITS)}


def save_splits(directory: Path, files: Mapping[str, Sequence[Path]]) -> None:
    """Keep in the folder of a run which files were for what."""
    directory.mkdir(parents=True, exist_ok=True)
    with atomic(directory / FILE) as part:
        names = {key: [str(file) for file in files[key]] for key in SPLITS}
        part.write_text(json.dumps({"folder": str(directory.resolve()), **names}, indent=1) + "\n")


def load_splits(directory: Path) -> dict[str, list[Path]]:
    """The files of each split when the run in a folder was trained; none where that is not known.

    Of a run that was moved together with its files, where they are now.
    """
    path, here = directory / FILE, directory.resolve()
    found = json.loads(path.read_text()) if path.is_file() else {}

    def place(file: Path) -> Path:
        moved = Path(os.path.normpath(here / os.path.relpath(file, found.get("folder", here))))
        return moved if moved.parent.is_dir() and not file.parent.is_dir() else file

    return {key: [place(Path(file)) for file in found.get(key, ())] for key in SPLITS}
