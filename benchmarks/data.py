"""Data sets of the benchmarks: `python benchmarks/data.py NAME N` computes them into benchmarks/.cache.

Each generator is a function (seed, spacing) -> Mesh. The same seed at another spacing is the same problem on another
mesh.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import diffusion
import flow as channel
import numpy as np
from diffusion import diffusion_grains, diffusion_smooth
from flow import flow

from gno.demo import plates as demo_plates
from gno.demo.parallel import map_processes
from gno.mesh import CellBlock, Mesh

CACHE = Path(__file__).parent / ".cache"
VERSION = 2  # raise it when a generator changes
TEST_SEED = 1_000_000  # training seeds count from 0, test seeds from here


def plates(seed: int, spacing: float = demo_plates.SPACING) -> Mesh:
    """A plate with holes and a modulus that varies; see `gno.demo.plates.plate`."""
    return demo_plates.plate(seed, spacing, heterogeneous=True)


GENERATORS: dict[str, Callable[..., Mesh]] = {
    "plates": plates,
    "diffusion_smooth": diffusion_smooth,
    "diffusion_grains": diffusion_grains,
    "flow": flow,
}
SPACING = {
    "plates": demo_plates.SPACING,
    "diffusion_smooth": diffusion.SPACING,
    "diffusion_grains": diffusion.SPACING,
    "flow": channel.SPACING,
}


def dataset(name: str, split: str, n: int, spacing: float | None = None, *, workers: int = 2) -> list[Mesh]:
    """The first `n` meshes of a split, from the cache or computed into it.

    Args:
        name: a key of `GENERATORS`.
        split: "train" or "test"; their seeds never meet.
        n: number of meshes.
        spacing: of the nodes; `SPACING[name]` if not given.
        workers: processes that compute what is missing.

    Raises:
        ValueError: unknown name or split.
    """
    if name not in GENERATORS or split not in ("train", "test"):
        raise ValueError(f"expected one of {', '.join(GENERATORS)} and 'train' or 'test', got {name!r} and {split!r}")
    spacing = SPACING[name] if spacing is None else spacing
    first = TEST_SEED if split == "test" else 0
    paths = {seed: _cache_path(name, seed, spacing) for seed in range(first, first + n)}
    missing = [seed for seed, path in paths.items() if not path.exists()]
    description = f"{name} {split} {spacing:g}"
    map_processes(partial(_compute, name, spacing), missing, workers=workers, description=description)
    return [_load(path) for path in paths.values()]


def _cache_path(name: str, seed: int, spacing: float) -> Path:
    return CACHE / f"{name}-v{VERSION}-{spacing:g}" / f"{seed:07d}.npz"


def _compute(name: str, spacing: float, seed: int) -> None:
    path = _cache_path(name, seed, spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(GENERATORS[name](seed, spacing), path)


_KINDS = ("point_fields", "cell_fields", "global_fields", "point_sets")


def _save(mesh: Mesh, path: Path) -> None:
    arrays = {f"{kind}/{key}": value for kind in _KINDS for key, value in getattr(mesh, kind).items()}
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    np.savez(temporary, points=mesh.points, triangles=mesh.cells[0].nodes, **arrays)
    temporary.replace(path)


def _load(path: Path) -> Mesh:
    parts: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in _KINDS}
    with np.load(path) as file:
        for key in file.files:
            kind, _, name = key.partition("/")
            if name:
                parts[kind][name] = file[key]
        return Mesh(file["points"], (CellBlock("triangle", file["triangles"]),), source=str(path), **parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute a data set into benchmarks/.cache.")
    parser.add_argument("name", choices=GENERATORS)
    parser.add_argument("n", type=int)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--spacing", type=float)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    start = time.perf_counter()
    meshes = dataset(options.name, options.split, options.n, options.spacing, workers=options.workers)
    nodes = [mesh.n_nodes for mesh in meshes]
    solver = np.mean([mesh.global_fields["solver_seconds"] for mesh in meshes])
    print(
        f"{options.name} {options.split}: {len(meshes)} meshes, {min(nodes)} to {max(nodes)} nodes, "
        f"mean {np.mean(nodes):.0f}, solver {solver:.3f} s each, {time.perf_counter() - start:.1f} s in all"
    )


if __name__ == "__main__":
    main()
