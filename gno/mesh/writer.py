"""Write a mesh in any format; what the format cannot hold is named, never dropped in silence."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from gno.mesh.files import atomic
from gno.mesh.io import read
from gno.mesh.mesh import Mesh, MeshError, MeshWarning
from gno.mesh.meshioreader import FORMATS
from gno.mesh.plain import SET_PREFIX, to_plain
from gno.mesh.vtklegacywriter import write_vtk_legacy
from gno.mesh.vtu import write_vtu
from gno.mesh.xdmf import SUFFIXES
from gno.mesh.xdmfwriter import write_xdmf

_MESHIO = {**FORMATS, ".med": "med", ".e": "exodus", ".exo": "exodus", ".ex2": "exodus", ".avs": "avsucd"}
WRITABLE = tuple(sorted({".vtk", ".vtu", *SUFFIXES, *_MESHIO}))
"""Extensions that ``write`` knows."""

# These hold plane meshes in two columns only.
_FLAT = ("medit",)
# These are HDF5, which brings the program down where a disk is full, and so are made in memory.
_HDF5 = ("med",)
# Numbers of components that a format has a place for; plane vectors get a third one, which is zero.
_COMPONENTS = {"gmsh": (1, 3, 9)}
# These have a place of their own for sets of nodes and none for cell fields: arrays that mark sets would be fields.
_NODE_SETS = ("exodus",)


def write(mesh: Mesh, path: str | os.PathLike) -> None:
    """Write a mesh; the file is either the old one or the whole new one.

    ``.vtu`` and ``.xdmf`` lose nothing. Any other file is read back before it takes its place: if nodes or cells
    differ nothing is written, and fields, sets or a time that it does not hold are named in a warning.

    Args:
        mesh: the mesh.
        path: file to write; the extension says the format.

    Raises:
        MeshError: an unknown extension, or nodes, cells or fields that the format cannot hold.

    Warns:
        MeshWarning: fields, sets, global values or a time were left out or changed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.parent.is_dir():
        raise MeshError(f"{path}: expected an existing folder, got none")
    if suffix == ".vtu":
        write_vtu(mesh, path)
    elif suffix in SUFFIXES:
        write_xdmf([mesh], path)
    elif suffix == ".vtk":
        _write_checked(mesh, path, write_vtk_legacy)
    elif suffix in _MESHIO:
        _write_checked(mesh, path, functools.partial(_write_with_meshio, file_format=_MESHIO[suffix]))
    else:
        raise MeshError(f"{path}: expected one of {', '.join(WRITABLE)}, got '{path.suffix}'")


def _write_checked(mesh: Mesh, path: Path, writer: Callable[[Mesh, Path], None]) -> None:
    """Write next to ``path``, read that, and put it in place if no node or cell was lost."""
    with atomic(path) as temporary:
        try:
            writer(mesh, temporary)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MeshWarning)
                back = read(temporary)
        except MeshError as error:
            reason = str(error).replace(str(temporary), path.name)
            raise MeshError(f"{path}: cannot hold {mesh!r}: {reason}") from error
        lost = _lost(mesh, back, path)
    if lost:
        warnings.warn(f"{path}: {path.suffix} does not hold {', '.join(lost)}", MeshWarning, stacklevel=3)


def _write_with_meshio(mesh: Mesh, path: Path, file_format: str) -> None:
    import meshio

    plain = to_plain(mesh)
    ends = np.cumsum([len(block) for block in mesh.cells])
    columns = 2 if file_format in _FLAT and mesh.dim == 2 else 3
    points = np.pad(mesh.points, ((0, 0), (0, 3 - mesh.points.shape[1])))[:, :columns]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            raw = meshio.Mesh(
                points,
                [(block.type, block.nodes) for block in mesh.cells],
                point_data=_that_fit(plain.point_arrays, file_format),
                cell_data={k: np.split(v, ends[:-1]) for k, v in _that_fit(plain.cell_arrays, file_format).items()},
                point_sets=dict(mesh.point_sets),
                cell_sets={name: _per_block(index, ends) for name, index in mesh.cell_sets.items()},
            )
            if file_format in _HDF5:
                buffer = io.BytesIO()
                meshio.write(buffer, raw, file_format)
                path.write_bytes(buffer.getbuffer())
            else:
                meshio.write(path, raw, file_format)
    except (Exception, SystemExit) as error:
        # meshio's writers raise whatever they trip over, and not all of them say that a disk is full.
        _check_room(mesh, path)
        if isinstance(error, OSError):
            raise
        raise MeshError(f"{file_format}: {type(error).__name__} {' '.join(str(error).split())[:160]}") from error


def _check_room(mesh: Mesh, path: Path) -> None:
    """The disk has room for the numbers of a mesh.

    Raises:
        OSError: it has none.
    """
    arrays = [
        mesh.points,
        *(block.nodes for block in mesh.cells),
        *mesh.point_fields.values(),
        *mesh.cell_fields.values(),
    ]
    with path.open("wb") as file:
        for array in arrays:
            file.write(bytes(array.nbytes))


def _that_fit(arrays: Mapping[str, np.ndarray], file_format: str) -> dict[str, np.ndarray]:
    """The arrays that a format can hold, in three columns where it has no vectors of two."""
    if file_format in _HDF5:
        return _without_slashes(arrays)
    if file_format in _NODE_SETS:
        arrays = {name: v for name, v in arrays.items() if not name.startswith(SET_PREFIX)}
    places = _COMPONENTS.get(file_format)
    if places is None:
        return dict(arrays)
    plane = {name: v.ndim > 1 and v.shape[1] == 2 for name, v in arrays.items()}
    wide = {name: np.pad(v, ((0, 0), (0, 1))) if plane[name] else v for name, v in arrays.items()}
    return {name: v for name, v in wide.items() if (v.shape[1] if v.ndim > 1 else 1) in places}


def _without_slashes(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A slash in a name would be a folder in HDF5; a name that is taken gets a number.

    >>> list(_without_slashes({"a/b": np.zeros(1), "a_b": np.ones(1)}))
    ['a_b', 'a_b 2']
    """
    found = {name: v for name, v in arrays.items() if "/" not in name}
    for name, values in arrays.items():
        if "/" in name:
            free = name.replace("/", "_")
            names = itertools.chain([free], (f"{free} {k}" for k in itertools.count(2)))
            found[next(new for new in names if new not in found)] = values
    return found


def _per_block(index: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    starts = ends - np.diff(np.concatenate([[0], ends]))
    return [index[(index >= a) & (index < b)] - a for a, b in zip(starts, ends, strict=True)]


def _lost(mesh: Mesh, back: Mesh, path: Path) -> list[str]:
    """What a file does not give back.

    Raises:
        MeshError: nodes or cells.
    """
    mine = np.pad(mesh.points, ((0, 0), (0, 3 - mesh.points.shape[1])))
    theirs = np.pad(back.points, ((0, 0), (0, 3 - back.points.shape[1])))
    size = max(float(np.abs(mine).max()), np.finfo(float).tiny)
    if mine.shape != theirs.shape:
        raise MeshError(f"{path}: expected {mesh.n_nodes} nodes in the file, got {back.n_nodes}")
    if np.abs(mine - theirs).max() > 1e-4 * size:
        raise MeshError(f"{path}: expected the nodes in their order in the file, got another one, or moved nodes")
    if not _same_cells(mesh, back):
        raise MeshError(f"{path}: expected the cells of {mesh!r} in the file, got {back!r} or another order")
    lost = [] if np.array_equal(mine, theirs) else ["all digits of the coordinates"]
    for kind in ("point_fields", "cell_fields", "global_fields", "point_sets", "cell_sets"):
        kept = getattr(back, kind)
        for name, values in getattr(mesh, kind).items():
            if name not in kept or not _same(values, kept[name]):
                lost.append(f"{kind}['{name}']")
    if mesh.time is not None and back.time != mesh.time:
        lost.append("the time")
    return lost


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """To the bit; a single value is one in a row, too."""
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _same_cells(mesh: Mesh, back: Mesh) -> bool:
    flat = []
    for each in (mesh, back):
        words = [f"{block.type} {block.nodes.shape[1]}" for block in each.cells for _ in range(len(block))]
        nodes = np.concatenate([block.nodes.ravel() for block in each.cells] or [np.zeros(0, dtype=np.int64)])
        flat.append((words, nodes.tolist()))
    return flat[0] == flat[1]
