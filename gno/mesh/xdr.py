"""Binary trajectories of GROMACS: .trr, read here, and .xtc, whose positions MDAnalysis unpacks. nm, ps, kJ/mol.

Both are rows of frames in XDR (RFC 4506: big-endian words of four bytes). The headers are described in the GROMACS
reference manual, "File formats", and by its library xdrfile.
"""

from __future__ import annotations

import dataclasses
import itertools
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh.mdreader import unpack_xtc
from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.particles import decimal, frame_text, particles, remembered
from gno.mesh.topology import described

_XTC, _XTC_LARGE, _TRR = 1995, 2023, 1993
# Particles that .xtc does not pack.
_FEW = 9
_TRR_HEAD = struct.Struct(">4x4x4x12s10i3i")
_NAME = b"GMX_trn_file"


@dataclasses.dataclass(frozen=True)
class _Frame:
    """Where a frame begins and where it should end, its number of particles, and its time."""

    start: int
    stop: int
    count: int
    time: float
    has_points: bool = True


def xtc_times(path: Path) -> list[float]:
    """Time of each frame in ps."""
    return [frame.time for frame in _xtc_frames(path)]


def trr_times(path: Path) -> list[float]:
    """Time in ps of each frame that has positions."""
    return [frame.time for frame in _trr_frames(path)]


def read_xtc(path: Path, step: int) -> Mesh:
    """Read one frame; the topology beside the file says what the particles are.

    Raises:
        MeshError: cut off or damaged, no MDAnalysis, or a topology of another number of particles.
    """
    frame = _whole(path, _xtc_frames(path), step)
    found = unpack_xtc(path, frame.start)
    return _mesh(path, frame, found["points"], found["box"])


def read_trr(path: Path, step: int) -> Mesh:
    """Read one frame that has positions, with ``velocity`` and ``force`` where it has them.

    Raises:
        MeshError: cut off, or a topology of another number of particles.
    """
    frame = _whole(path, _trr_frames(path), step)
    data = frame_text(path, (frame.start, frame.stop))
    sizes, real, body = _trr_head(data, 0)
    starts = dict(zip(sizes, itertools.accumulate(sizes.values(), initial=body), strict=False))
    parts = {name: np.frombuffer(data, real, sizes[name] // real.itemsize, starts[name]) for name in sizes}
    native = real.newbyteorder("=")
    box, points, velocity, force = (parts[name].reshape(-1, 3).astype(native) for name in ("box", "x", "v", "f"))
    fields = {name: values for name, values in (("velocity", velocity), ("force", force)) if len(values)}
    return _mesh(path, frame, points, box if len(box) else None, **fields)


def _mesh(path: Path, frame: _Frame, points: np.ndarray, box: np.ndarray | None, **fields: np.ndarray) -> Mesh:
    known, sets = described(path, frame.count)
    return particles(
        points,
        box=None if box is None or not box.any() else box,
        source=str(path),
        point_fields={**known, **fields},
        point_sets=sets,
        time=frame.time,
    )


def _whole(path: Path, frames: tuple[_Frame, ...], step: int) -> _Frame:
    frame, size = frames[step], path.stat().st_size
    if frame.stop > size:
        expected, got = frame.stop - frame.start, size - frame.start
        raise MeshError(f"frame {step}: expected {expected} bytes, got {got} (file cut off?)")
    return frame


@remembered
def _xtc_frames(path: Path) -> tuple[_Frame, ...]:
    return _scan(path, _xtc_frame)


@remembered
def _trr_frames(path: Path) -> tuple[_Frame, ...]:
    frames = tuple(frame for frame in _scan(path, _trr_frame) if frame.has_points)
    if not frames:
        raise MeshError("expected frames with positions, got none (nstxout = 0?)")
    return frames


def _scan(path: Path, frame_at: Callable[[Any, int], _Frame]) -> tuple[_Frame, ...]:
    """The frames of a file; a last one whose header is cut off is left out."""
    frames: list[_Frame] = []
    at = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while at < len(data):
            try:
                frame = frame_at(data, at)
            except struct.error:
                break
            if frames and frame.count != frames[0].count:
                expected = f"{frames[0].count} particles as before"
                raise MeshError(f"frame at byte {at}: expected {expected}, got {frame.count} (file damaged?)")
            frames.append(frame)
            at = frame.stop
    if not frames:
        raise MeshError("expected frames, got none (file cut off?)")
    return tuple(frames)


def _xtc_frame(data: Any, at: int) -> _Frame:
    magic, count, _, time, *_, again = struct.unpack_from(">3i10fi", data, at)
    if magic not in (_XTC, _XTC_LARGE) or count != again or count < 1:
        got = f"{magic} with {count} and {again} particles"
        raise MeshError(f"frame at byte {at}: expected the number {_XTC} of .xtc, got {got} (file damaged?)")
    if count <= _FEW:
        return _Frame(at, at + 56 + 12 * count, count, decimal(time))
    form = ">q" if magic == _XTC_LARGE else ">i"
    (packed,) = struct.unpack_from(form, data, at + 88)
    if packed < 0:
        raise MeshError(f"frame at byte {at}: expected packed positions, got {packed} bytes (file damaged?)")
    return _Frame(at, at + 88 + struct.calcsize(form) + -(-packed // 4) * 4, count, decimal(time))


def _trr_frame(data: Any, at: int) -> _Frame:
    sizes, real, body = _trr_head(data, at)
    count = struct.unpack_from(">i", data, at + 64)[0]
    time = struct.unpack_from(f">{real.char}", data, at + _TRR_HEAD.size)[0]
    vectors = {sizes[name] for name in ("x", "v", "f")}
    if count < 1 or vectors - {0, 3 * count * real.itemsize} or sizes["box"] not in (0, 9 * real.itemsize):
        got = f"{count} particles and sizes {list(sizes.values())}"
        raise MeshError(f"frame at byte {at}: expected sizes that fit together, got {got} (file damaged?)")
    return _Frame(at, body + sum(sizes.values()), count, decimal(time) if real.itemsize == 4 else time, sizes["x"] > 0)


def _trr_head(data: Any, at: int) -> tuple[dict[str, int], np.dtype, int]:
    """Bytes of each part of a frame, in their order, their type, and where they begin."""
    (magic,) = struct.unpack_from(">i", data, at)
    name, *numbers = _TRR_HEAD.unpack_from(data, at)
    if magic != _TRR or name != _NAME or min(numbers[:10]) < 0:
        got = f"{magic} and {name!r}"
        raise MeshError(f"frame at byte {at}: expected the number {_TRR} of .trr, got {got} (file damaged?)")
    parts = ("ir", "e", "box", "vir", "pres", "top", "sym", "x", "v", "f")
    sizes, count = dict(zip(parts, numbers[:10], strict=True)), numbers[10]
    width = sizes["box"] // 9 or max(sizes[name] for name in "xvf") // max(1, 3 * count)
    real = np.dtype(">f8" if width == 8 else ">f4")
    return sizes, real, at + _TRR_HEAD.size + 2 * real.itemsize
