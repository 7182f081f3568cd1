"""Read and write meshes: one Mesh or one MeshError, whatever the file."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from pathlib import Path

import numpy as np

from gno.mesh.mesh import CellBlock, Mesh, MeshError


@dataclasses.dataclass(frozen=True)
class Series:
    paths: tuple[Path, ...]
    times: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Mesh:
        return read(self.paths[index])


def read(path: str | os.PathLike, *, step: int | None = None) -> Mesh:
    """Read a mesh with its fields, sets and time."""
    import meshio

    path = Path(path)
    if not path.is_file():
        raise MeshError(f"{path}: expected a file, got none")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            raw = meshio.read(path)
    except (Exception, SystemExit) as error:
        raise MeshError(f"{path}: {error}") from error
    cells = tuple(CellBlock(block.type, np.asarray(block.data)) for block in raw.cells)
    cell_fields = {name: np.concatenate(parts) for name, parts in raw.cell_data.items()}
    return Mesh(raw.points, cells, raw.point_data, cell_fields, source=str(path))


def write(mesh: Mesh, path: str | os.PathLike) -> None:
    """Write a mesh; the extension says the format."""
    import meshio

    path = Path(path)
    ends = np.cumsum([len(block) for block in mesh.cells])[:-1]
    points = np.pad(mesh.points, ((0, 0), (0, 3 - mesh.points.shape[1])))
    raw = meshio.Mesh(
        points,
        [(block.type, block.nodes) for block in mesh.cells],
        point_data=dict(mesh.point_fields),
        cell_data={name: np.split(values, ends) for name, values in mesh.cell_fields.items()},
    )
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    with contextlib.redirect_stdout(io.StringIO()):
        raw.write(temporary)
    temporary.replace(path)


def read_series(path: str | os.PathLike) -> Series:
    """Read numbered files, lazily."""
    path = Path(path)
    paths = tuple(sorted(path.parent.glob(path.name)))
    return Series(paths, tuple(float(i) for i in range(len(paths))))


def write_series(meshes: list[Mesh], path: str | os.PathLike) -> None:
    """Write meshes as numbered files."""
    path = Path(path)
    for number, mesh in enumerate(meshes):
        write(mesh, path.with_name(f"{path.stem}_{number:04d}.vtu"))
