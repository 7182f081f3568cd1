"""Meshes and files that the mesh tests share."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gno.mesh import CellBlock, Mesh
from gno.mesh.shapes import cell_dim, reference_nodes

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "meshes"
REAL = Path(os.environ.get("GNO_MESHES", ROOT / "../shared/meshes"))

TINY_FILES = sorted(path for path in TINY.iterdir() if path.suffix not in (".py", ".h5") and path.is_file())
REAL_FILES = sorted(path for path in REAL.iterdir() if path.suffix != ".md") if REAL.is_dir() else []


def assert_same(a: Mesh, b: Mesh) -> None:
    """Every array in type, shape and bits; every name in its place."""
    assert a.points.dtype == b.points.dtype
    assert a.points.tobytes() == b.points.tobytes()
    assert a.points.shape == b.points.shape
    assert [(block.type, block.nodes.tolist()) for block in a.cells] == [(c.type, c.nodes.tolist()) for c in b.cells]
    assert a.time == b.time
    for kind in ("point_fields", "cell_fields", "global_fields", "point_sets", "cell_sets"):
        mine, theirs = getattr(a, kind), getattr(b, kind)
        assert list(mine) == list(theirs), kind
        for name, values in mine.items():
            other = theirs[name]
            assert (values.dtype, values.shape) == (other.dtype, other.shape), (kind, name)
            assert values.tobytes() == other.tobytes(), (kind, name)


def rich() -> Mesh:
    """Mixed blocks, two of one type side by side, fields of every kind, sets, time."""
    rng = np.random.default_rng(0)
    blocks = (
        CellBlock("triangle", np.array([[0, 1, 2], [3, 4, 5]])),
        CellBlock("quad", np.array([[0, 1, 2, 3]])),
        CellBlock("triangle", np.array([[6, 7, 8]])),
        CellBlock("triangle", np.array([[7, 8, 9]])),
        CellBlock("line", np.array([[7, 8]])),
        CellBlock("polygon", np.array([[7, 8, 9, 10, 11]])),
        CellBlock("vertex", np.array([[9]])),
    )
    point_fields = {
        "double": rng.normal(size=30),
        "single": rng.normal(size=(30, 3)).astype(np.float32),
        "half": rng.normal(size=(30, 2)).astype(np.float16),
        "tensor": rng.normal(size=(30, 3, 3)),
        "column": rng.normal(size=(30, 1)),
        "truth": rng.random(30) > 0.5,
        "waves": rng.normal(size=30) + 1j,
        "bytes": np.arange(30, dtype=np.int8),
        "large": np.arange(30, dtype=np.uint64) + 2**63,
        'odd name <&"é': np.full(30, np.nan),
    }
    return Mesh(
        rng.random((30, 2)).astype(np.float32),
        blocks,
        point_fields,
        {"k": np.arange(8), "v": rng.normal(size=(8, 2))},
        {"load": np.float32(3.5), "box": rng.normal(size=(2, 2)), "steps": np.arange(3)},
        {"left": np.array([1, 2, 5]), "nobody": np.zeros(0, np.int64)},
        {"grain 1": np.array([0, 3])},
        time=0.1,
    )


def one_cell(cell_type: str, n_nodes: int) -> Mesh:
    """A single reference cell in three columns."""
    if cell_dim(cell_type) == 0 or cell_type in ("polygon", "poly_line", "triangle_strip"):
        angle = np.arange(n_nodes)
        points = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    else:
        points = reference_nodes(cell_type, n_nodes)
        points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    return Mesh(points, (CellBlock(cell_type, np.arange(n_nodes)[None]),))


class Hang(BaseException):
    """No reader can take this for an error of its own."""


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail where the work inside takes longer."""

    def stop(*_: object) -> None:
        raise Hang(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
