"""Data sets of the benchmarks: `python benchmarks/data.py NAME N` computes them into benchmarks/.cache.

Each generator is a function (seed, spacing) -> Mesh. The same seed at another spacing is the same problem on another
mesh. The global field `solver_seconds` is the processor time of assembly and solution.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import brackets as solids
import diffusion
import flow as channel
import numpy as np
from diffusion import diffusion_grains, diffusion_smooth
from flow import flow

from gno.demo import plates as demo_plates
from gno.demo.parallel import map_processes
from gno.mesh import Mesh, read, write

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "airfoil"))
import potential_flow

# What an operator reads and predicts; coefficients that vary by factors enter as logarithms.
FIELDS: dict[str, dict[str, list[str]]] = {
    "plates": {"inputs": ["modulus", "traction"], "log": ["modulus"], "targets": ["displacement", "von_mises"]},
    "diffusion_smooth": {"inputs": ["conductivity"], "log": ["conductivity"], "targets": ["u"]},
    "diffusion_grains": {"inputs": ["conductivity"], "log": ["conductivity"], "targets": ["u"]},
    "flow": {"inputs": ["inlet"], "targets": ["velocity", "pressure"]},
    "airfoil": {"inputs": ["inflow"], "targets": ["velocity", "pressure"]},
    "brackets": {"inputs": ["traction"], "targets": ["displacement", "von_mises"]},
}
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
    "airfoil": potential_flow.airfoil,
    "brackets": solids.brackets,
}
SPACING = {
    "plates": demo_plates.SPACING,
    "diffusion_smooth": diffusion.SPACING,
    "diffusion_grains": diffusion.SPACING,
    "flow": channel.SPACING,
    "airfoil": potential_flow.SPACING,
    "brackets": solids.SPACING,
}


def files(name: str, split: str, n: int, spacing: float | None = None, *, workers: int = 2) -> list[Path]:
    """Files of the first `n` meshes of a split, computed into the cache where they are missing.

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
    directory = CACHE / f"{name}-v{VERSION}-{spacing:g}"
    directory.mkdir(parents=True, exist_ok=True)
    first = TEST_SEED if split == "test" else 0
    seeds = range(first, first + n)
    missing = [seed for seed in seeds if not _file(directory, seed).exists()]
    compute = partial(_compute, name, spacing, directory)
    map_processes(compute, missing, workers=workers, description=f"{name} {split} {spacing:g}")
    return [_file(directory, seed) for seed in seeds]


def dataset(name: str, split: str, n: int, spacing: float | None = None, *, workers: int = 2) -> list[Mesh]:
    """The first `n` meshes of a split; see `files`."""
    return [read(path) for path in files(name, split, n, spacing, workers=workers)]


def _file(directory: Path, seed: int) -> Path:
    return directory / f"{seed:07d}.vtu"


def _compute(name: str, spacing: float, directory: Path, seed: int) -> None:
    write(GENERATORS[name](seed, spacing), _file(directory, seed))


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
