"""What the particles of a binary trajectory are: .xtc, .trr and .dcd hold places only, a file beside them the rest.

It has the name of the trajectory, or is in the same folder and has as many particles.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from gno.mesh.files import DAMAGE
from gno.mesh.gromacs import read_gro
from gno.mesh.lammpsdata import SUFFIXES, read_lammps_data
from gno.mesh.mdreader import TOPOLOGIES, read_topology
from gno.mesh.mesh import Mesh, MeshError, MeshWarning
from gno.mesh.particles import remembered
from gno.mesh.pdb import read_pdb

Values = Mapping[str, np.ndarray]

TRAJECTORIES = (".dcd", ".trr", ".xtc")
"""Formats that need a topology."""
_STRUCTURES: dict[str, Callable[[Path], Mesh]] = {
    **dict.fromkeys(SUFFIXES, read_lammps_data),
    ".gro": functools.partial(read_gro, step=0),
    ".pdb": functools.partial(read_pdb, step=0),
}
# Those that belong to one frame.
_MOVING = ("v", "velocity")
_SUFFIXES = (*TOPOLOGIES, *_STRUCTURES)
"""Those that say most come first."""


def candidates(path: Path) -> list[Path]:
    """The files that may say what the particles of a trajectory are: those of its name, else all in its folder."""
    named = [path.with_suffix(suffix) for suffix in _SUFFIXES]
    if found := [file for file in named if file.is_file()]:
        return found
    beside = sorted(file for file in path.parent.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    return sorted(beside, key=lambda file: _SUFFIXES.index(file.suffix.lower()))


def described(path: Path, count: int) -> tuple[Values, Values]:
    """Fields and sets of a trajectory's particles; none, with a warning, where no file says.

    Raises:
        MeshError: as for :func:`topology_of`.
    """
    file = topology_of(path, count)
    return _known(file)[1:] if file else ({}, {})


def topology_of(path: Path, count: int) -> Path | None:
    """The file that says what the ``count`` particles of a trajectory are; none for other formats.

    Warns:
        MeshWarning: no file says.

    Raises:
        MeshError: a file of its name with another number of particles, or files in its folder that differ.
    """
    if path.suffix.lower() not in TRAJECTORIES:
        return None
    files = candidates(path)
    alike = (list(files) for _, files in itertools.groupby(files, lambda file: file.suffix.lower()))
    named = bool(files) and files[0].stem == path.stem
    fitting = next(filter(None, ([file for file in group if _number(file, named) == count] for group in alike)), [])
    if not fitting:
        got = " and ".join(map(_found, files[:3])) or "no such file"
        text = f"{path}: expected a topology of {count} particles ({', '.join(_SUFFIXES)}) beside it, got {got}"
        if named:
            raise MeshError(text)
        warnings.warn(f"{text}: read without kinds, charges and masses", MeshWarning, stacklevel=2)
        return None
    first, *others = fitting
    if differing := [file for file in others if not _say_the_same(file, first)]:
        advice = f"link the one that belongs to it as {path.with_suffix(first.suffix).name}"
        got = f"{first.name} and {differing[0].name}, which differ"
        raise MeshError(f"{path}: expected one topology, got {got}; {advice}")
    return first


def _number(file: Path, must: bool = False) -> int:
    """Particles that a topology describes; 0 where it cannot be read, unless it must."""
    try:
        return _known(file)[0]
    except DAMAGE:
        if must:
            raise
        return 0


def _found(file: Path) -> str:
    """What a topology that does not fit holds, in words."""
    try:
        return f"{_known(file)[0]} in {file.name}"
    except DAMAGE as error:
        return f"{file.name}, which cannot be read ({' '.join(str(error).removeprefix(f'{file}: ').split())[:160]})"


@remembered
def _known(file: Path) -> tuple[int, Values, Values]:
    """Number, fields and sets of the particles that a topology describes."""
    if file.suffix.lower() in TOPOLOGIES:
        return read_topology(file)
    try:
        mesh = _STRUCTURES[file.suffix.lower()](file)
    except DAMAGE as error:  # not of the trajectory, which is being read
        raise MeshError(f"{file}: {error}") from error
    return mesh.n_nodes, {name: x for name, x in mesh.point_fields.items() if name not in _MOVING}, mesh.point_sets


def _say_the_same(one: Path, other: Path) -> bool:
    pairs = zip(_known(one)[1:], _known(other)[1:], strict=True)
    return all(a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a) for a, b in pairs)
