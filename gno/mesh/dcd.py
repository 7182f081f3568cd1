"""Trajectories of CHARMM, NAMD, OpenMM and LAMMPS in binary (.dcd): positions in the units of the file.

Records of Fortran: a header with 20 numbers, titles, the number of particles, then for each frame its cell and one
record for each of x, y and z. What the numbers mean is described with VMD's plugin for the format
(www.ks.uiuc.edu/Research/vmd/plugins/molfile/dcdplugin.html).
"""

from __future__ import annotations

import dataclasses
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.particles import decimal, particles, remembered, upright
from gno.mesh.topology import described

_NUMBERS = 84
"""Bytes of the first record: the word CORD and 20 numbers."""
_CELL = 48
# Cells have no sharper corners; smaller numbers are no degrees.
_LEAST_ANGLE = 30.0


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the frames are, and what each of them holds."""

    order: str
    count: int
    start: int
    cell: bool
    axes: int
    times: tuple[float, ...] = ()

    @property
    def sizes(self) -> list[int]:
        """Bytes of each record of a frame."""
        return [_CELL] * self.cell + [4 * self.count] * self.axes

    @property
    def frame(self) -> int:
        """Bytes of a frame with the lengths around its records."""
        return sum(size + 8 for size in self.sizes)


@remembered
def dcd_times(path: Path) -> list[float]:
    """Time of each frame in the unit of the file; its number where the header does not say."""
    return list(_layout(path).times)


def read_dcd(path: Path, step: int) -> Mesh:
    """Read one frame; the topology beside the file says what the particles are.

    Raises:
        MeshError: cut off, a frame that is damaged, or a topology of another number of particles.
    """
    layout = _layout(path)
    with path.open("rb") as file:
        file.seek(layout.start + step * layout.frame)
        records = [_record(file, layout.order, f"frame {step}", size) for size in layout.sizes]
    axes = np.stack([np.frombuffer(record, f"{layout.order}f4") for record in records[-layout.axes :]], axis=1)
    fields, sets = described(path, layout.count)
    return particles(
        axes[:, :3].astype(np.float32),
        box=_box(np.frombuffer(records[0], f"{layout.order}f8")) if layout.cell else None,
        source=str(path),
        point_fields=fields,
        point_sets=sets,
        time=layout.times[step],
    )


@remembered
def _layout(path: Path) -> _Layout:
    with path.open("rb") as file:
        return _read_layout(file, path.stat().st_size)


def _read_layout(file: BinaryIO, size: int) -> _Layout:
    begin = file.read(8)
    order = next((order for order in "<>" if begin == struct.pack(f"{order}i", _NUMBERS) + b"CORD"), "")
    if not order:
        raise MeshError("expected a trajectory that begins with CORD, got something else")
    file.seek(0)
    head = _record(file, order, "header", _NUMBERS)
    numbers = struct.unpack_from(f"{order}20i", head, 4)
    charmm = numbers[19] != 0  # X-PLOR has neither cells nor a fourth axis, and a longer step
    (step,) = struct.unpack_from(f"{order}f" if charmm else f"{order}d", head, 4 + 9 * 4)
    _skip_titles(file, order)
    (count,) = struct.unpack(f"{order}i", _record(file, order, "number of particles", 4))
    if count < 1 or numbers[8]:
        got = f"{count}, of which {numbers[8]} are fixed and in the first frame alone"
        raise MeshError(f"expected particles that are in every frame, got {got}")
    cell, axes = charmm and numbers[10] != 0, 4 if charmm and numbers[11] else 3
    layout = _Layout(order, count, file.tell(), cell, axes)
    n_frames = -(-(size - layout.start) // layout.frame)
    if n_frames < 1:
        raise MeshError("expected frames, got none (file cut off?)")
    first, every = numbers[1], numbers[2]
    known = np.isfinite(step) and step * every > 0
    step = decimal(step) if charmm else step
    times = [(first + k * every) * step if known else float(k) for k in range(n_frames)]
    return dataclasses.replace(layout, times=tuple(times))


def _skip_titles(file: BinaryIO, order: str) -> None:
    """By the number of lines of 80 characters: programs write other lengths around them."""
    try:
        _, lines = struct.unpack(f"{order}2i", file.read(8))
    except struct.error:
        lines = -1
    if lines < 0:
        raise MeshError("expected titles behind the header, got none (file cut off?)")
    file.seek(80 * lines + 4, os.SEEK_CUR)


def _record(file: BinaryIO, order: str, what: str, size: int) -> bytes:
    """The next record, of ``size`` bytes, which stands between two equal lengths."""
    try:
        (before,) = struct.unpack(f"{order}i", file.read(4))
        if before != size:
            raise ValueError(before)
        data = file.read(size)
        (after,) = struct.unpack(f"{order}i", file.read(4))
        if after != size:
            raise ValueError(f"{before} and {after}")
    except struct.error:
        raise MeshError(f"{what}: expected a record of {size} bytes, got less (file cut off?)") from None
    except ValueError as error:
        raise MeshError(f"{what}: expected a record of {size} bytes, got {error} (file damaged?)") from None
    return data


def _box(cell: np.ndarray) -> np.ndarray | None:
    """Vectors of the cell, one per row; none where it has no size.

    The six numbers are a, γ, b, β, α, c with angles in degrees or as cosines; or, by newer versions of CHARMM, the
    lower half of a symmetric matrix whose rows are the vectors. Nothing else says which.
    """
    a, gamma, b, beta, alpha, c = cell
    lengths, angles = np.array([a, b, c]), np.array([alpha, beta, gamma])
    if not np.isfinite(cell).all():
        raise MeshError(f"cell: expected six numbers, got {cell.tolist()}")
    if not lengths.any():
        return None
    if (np.abs(angles) <= 1).all():
        return upright(lengths, angles)
    if ((angles >= _LEAST_ANGLE) & (angles <= 180)).all():
        return upright(lengths, np.cos(np.deg2rad(angles)))
    return cell[[[0, 1, 3], [1, 2, 4], [3, 4, 5]]]
