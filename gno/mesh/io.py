"""Read and write meshes: one Mesh or one MeshError, whatever the file."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gno.mesh import (
    cgns,
    dcd,
    exodus,
    frd,
    gmshreader,
    gromacs,
    lammps,
    lammpsdata,
    med,
    meshioreader,
    pdb,
    pvd,
    vtkreaders,
    xdmf,
    xdr,
    xyz,
)
from gno.mesh.address import numbers, split_address
from gno.mesh.files import DAMAGE
from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.meshioreader import read_rare, read_with_meshio
from gno.mesh.text import read_mfem, read_su2, read_ucd
from gno.mesh.vtklegacy import read_vtk_legacy
from gno.mesh.vtkreaders import read_with_vtk
from gno.mesh.vtu import read_vtk_xml

T = TypeVar("T")
Stepped = tuple[Callable[[Path], list[float]], Callable[[Path, int], Mesh]]

_STEPPED: dict[str, Stepped] = {
    **dict.fromkeys(exodus.SUFFIXES, (exodus.exodus_times, exodus.read_exodus)),
    **dict.fromkeys(xdmf.SUFFIXES, (xdmf.xdmf_times, xdmf.read_xdmf)),
    **dict.fromkeys(lammps.SUFFIXES, (lammps.dump_times, lammps.read_dump)),
    **dict.fromkeys(xyz.SUFFIXES, (xyz.xyz_times, xyz.read_xyz)),
    ".dcd": (dcd.dcd_times, dcd.read_dcd),
    ".trr": (xdr.trr_times, xdr.read_trr),
    ".xtc": (xdr.xtc_times, xdr.read_xtc),
    ".frd": (frd.frd_times, frd.read_frd),
    cgns.SUFFIX: (cgns.cgns_times, read_with_vtk),
    med.SUFFIX: (med.med_times, med.read_med),
    ".msh": (gmshreader.msh_times, gmshreader.read_msh),
    ".gro": (gromacs.gro_times, gromacs.read_gro),
    ".pdb": (pdb.pdb_times, pdb.read_pdb),
}
"""Times of and reader for formats that can hold several time steps."""

_OWN_READERS: dict[str, Callable[[Path], Mesh]] = {
    **dict.fromkeys(lammpsdata.SUFFIXES, lammpsdata.read_lammps_data),
    ".avs": read_ucd,
    ".su2": read_su2,
    ".ucd": read_ucd,
    ".vtk": read_vtk_legacy,
    ".vtp": read_vtk_xml,
    ".vtu": read_vtk_xml,
}
READABLE = tuple(
    sorted({".pvd", *_OWN_READERS, *_STEPPED, *vtkreaders.SUFFIXES, *meshioreader.FORMATS, *meshioreader.RARE})
)
"""Extensions that ``read`` knows."""
STEPPED = tuple(_STEPPED)
"""Those that can hold several time steps in one file."""
_DUMP = b"ITEM: "
"""How a dump of LAMMPS begins, which has any name."""


def read(path: str | os.PathLike, *, step: int | None = None) -> Mesh:
    """Read a mesh with its fields, sets and time; the extension and the first lines say the format.

    Args:
        path: a mesh or result file; ``docs/formats.md`` lists the formats. ``file@12`` is its step 12.
        step: number of the time step, negative from the end; the last one by default.

    Returns:
        the mesh, with every field in the type and to the bit as in the file.

    Raises:
        MeshError: no such file, an unknown format, damaged or cut off data, or a mesh that does not fit together.
    """
    path = Path(path)
    file, frame = split_address(path)
    if frame is not None and step is None:
        (number,) = _numbers(path, single=True)
        return read_step(file, number).replace(source=str(path))
    count = max(1, len(step_times(path)))
    number = count - 1 if step is None else step + count if step < 0 else step
    if not 0 <= number < count:
        raise MeshError(f"{path}: expected a step from 0 to {count - 1}, got {step}")
    return read_step(path, number)


def each_frame(path: Path) -> list[Path]:
    """``file@0``, ``file@1``, … for ``file@:`` or another slice of frames; the path itself if it names no frames.

    Raises:
        MeshError: no such file, or no such frame.
    """
    file, frame = split_address(path)
    return [path] if frame is None else [file.with_name(f"{file.name}@{k}") for k in _numbers(path)]


def _numbers(path: Path, *, single: bool = False) -> range:
    """The frames that a path means, at least one of those there are."""
    file, frame = split_address(path)
    assert frame is not None
    count = max(1, len(step_times(file)))
    found = numbers(frame, count)
    if not found or (single and ":" in frame):
        raise MeshError(f"{path}: expected {'a frame' if single else 'frames'} from 0 to {count - 1}, got '{frame}'")
    return found


def step_times(path: Path) -> list[float]:
    """Times of a file's steps; empty for a file that holds no series, and for a single frame."""
    if split_address(path)[1] is not None:
        return []
    _check_file(path)
    suffix = _extension(path)
    if suffix == ".pvd":
        return [time for _, time in pvd.entries(path)]
    return _guarded(path, _STEPPED[suffix][0], path) if suffix in _STEPPED else []


def read_step(path: Path, number: int) -> Mesh:
    """Read one time step of a file that exists."""
    suffix = _extension(path)
    if suffix == ".pvd":
        file, time = pvd.entries(path)[number]
        mesh = read(file)
        return mesh if mesh.time is not None else mesh.replace(time=time)
    if suffix in _STEPPED:
        return _guarded(path, _STEPPED[suffix][1], path, number)
    return _guarded(path, _single_reader(path), path)


def _extension(path: Path) -> str:
    """The extension, which says the format; that of a dump for a file that has none of the known ones and is one."""
    suffix = path.suffix.lower()
    if suffix in READABLE:
        return suffix
    with path.open("rb") as file:
        return lammps.SUFFIXES[0] if file.read(len(_DUMP)) == _DUMP else suffix


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise MeshError(f"{path}: expected a file, got a folder{_meshes_in(path)}")
    if not path.is_file():
        raise MeshError(f"{path}: expected a file, got none")
    if path.stat().st_size == 0:
        raise MeshError(f"{path}: expected a mesh, got an empty file")


def _meshes_in(folder: Path) -> str:
    """How to name the meshes of a folder, if there are some."""
    counts = Counter(file.suffix for file in folder.iterdir() if file.suffix.lower() in READABLE)
    if not counts:
        return ""
    suffix, count = counts.most_common(1)[0]
    return f" with {count} files {folder / '*'}{suffix}"


def _guarded(path: Path, reader: Callable[..., T], *arguments: Any) -> T:
    """What a reader gives; damaged bytes can trip a parser in any way, and all of them are one MeshError."""
    try:
        return reader(*arguments)
    except MeshError as error:
        if str(path) in str(error):
            raise
        raise MeshError(f"{path}: {error}") from error
    except DAMAGE as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:160].removesuffix(":")
        raise MeshError(f"{path}: damaged or cut off: {what}") from error


def _single_reader(path: Path) -> Callable[[Path], Mesh]:
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(512)
    if suffix == ".vtu" and b"vtkLZ4DataCompressor" in head:
        return read_with_vtk
    if suffix in _OWN_READERS:
        return _OWN_READERS[suffix]
    if suffix in vtkreaders.SUFFIXES:
        return read_with_vtk
    if suffix == ".mesh" and head.startswith(b"MFEM"):
        return read_mfem
    if suffix == ".inp" and not head.lstrip().startswith(b"*"):
        return read_ucd
    if suffix in meshioreader.RARE:
        return functools.partial(read_rare, file_format=meshioreader.RARE[suffix])
    file_format = meshioreader.FORMATS.get(suffix)
    if suffix in xdmf.HEAVY:
        raise MeshError(f"{path}: expected a mesh, got heavy data; name the .xdmf that belongs to it")
    if file_format is None:
        raise MeshError(f"{path}: expected one of {', '.join(READABLE)}, got '{suffix}'")
    return functools.partial(read_with_meshio, file_format=file_format)
