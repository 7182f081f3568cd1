"""Series in time: .pvd collections, numbered files, files with several steps."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from gno.mesh.io import read_step, step_times
from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.pvd import write_collection
from gno.mesh.vtu import write_vtu
from gno.mesh.xdmf import SUFFIXES
from gno.mesh.xdmfwriter import write_xdmf


@dataclasses.dataclass(frozen=True)
class Series(Sequence[Mesh]):
    """Meshes of one series, read when asked for.

    Args:
        entries: file and number of the step in it.
        times: time of each mesh.
    """

    entries: tuple[tuple[Path, int], ...]
    times: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Mesh: ...

    @overload
    def __getitem__(self, index: slice) -> Series: ...

    def __getitem__(self, index: int | slice) -> Mesh | Series:
        """The mesh at an index (its time from the file, else from the series), or a shorter series for a slice."""
        if isinstance(index, slice):
            return Series(self.entries[index], self.times[index])
        path, step = self.entries[index]
        mesh = read_step(path, step)
        return mesh if mesh.time is not None else mesh.replace(time=self.times[index])

    def __iter__(self) -> Iterator[Mesh]:
        return (self[index] for index in range(len(self)))


def read_series(path: str | os.PathLike) -> Series:
    """The meshes of a .pvd, of a file with several time steps, or of files that match a pattern like ``run_*.vtu``.

    Files of a pattern are in the order of the numbers in their names (``run_9`` before ``run_10``). The last number
    is the time where the file gives none itself.

    Raises:
        MeshError: nothing matches, or the collection names a file that is not there.
    """
    path = Path(path)
    if re.search(r"[*?\[]", path.name) and not path.exists():
        files = sorted(_matching(path), key=_natural)
        if not files:
            raise MeshError(f"{path}: expected files that match, got none")
        return Series(tuple((file, 0) for file in files), tuple(_number(file, k) for k, file in enumerate(files)))
    times = step_times(path)
    return Series(tuple((path, k) for k in range(max(1, len(times)))), tuple(times) or (0.0,))


def write_series(meshes: Iterable[Mesh], path: str | os.PathLike) -> None:
    """Write meshes as a .pvd with a numbered .vtu for each, or as steps in one .xdmf.

    Args:
        meshes: the meshes; those without a time get their number.
        path: file to write; the extension says which. The .vtu files lie next to the .pvd.

    Raises:
        MeshError: another extension, no mesh, two meshes of one time, or a mesh that the format cannot hold.
    """
    path = Path(path)
    timed = [mesh if mesh.time is not None else mesh.replace(time=float(k)) for k, mesh in enumerate(meshes)]
    times = [mesh.time for mesh in timed if mesh.time is not None]
    if not timed or len(set(times)) < len(timed):
        raise MeshError(f"{path}: expected meshes of different times, got times {times}")
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        write_xdmf(timed, path)
    elif suffix == ".pvd":
        width = len(str(len(timed) - 1))
        files = [path.with_name(f"{path.stem}_{k:0{width}d}.vtu") for k in range(len(timed))]
        for mesh, file in zip(timed, files, strict=True):
            write_vtu(mesh, file)
        write_collection(path, files, times)
    else:
        raise MeshError(f"{path}: expected .pvd or .xdmf for a series, got '{path.suffix}'")


def _matching(path: Path) -> list[Path]:
    """Files that match a name; brackets in it are their own, unless there are no such files."""
    plain = "*".join(map(glob.escape, path.name.split("*")))
    found = ([file for file in path.parent.glob(name) if file.is_file()] for name in (plain, path.name))
    return next(filter(None, found), [])


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _number(path: Path, default: int) -> float:
    numbers = re.findall(r"\d+", path.stem)
    return float(numbers[-1]) if numbers else float(default)
