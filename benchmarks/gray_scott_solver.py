"""How exact the Gray–Scott solver is, and what it costs: `python benchmarks/gray_scott_solver.py`, about three minutes.

Errors are relative L2 of v. Times are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy
import skfem
from scipy.sparse import diags

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "gray_scott"))

from domains import DOMAINS, Region, holes, periodic_square, random_start, refined  # noqa: E402
from finite_difference import simulate_grid  # noqa: E402
from pattern_statistics import PatternStatistics, differences  # noqa: E402
from solver import Operators, Parameters, assemble, simulate  # noqa: E402

MAZE = Parameters(0.037, 0.06)


def with_mass(operators: Operators, share: float) -> Operators:
    """The same with another share of the consistent mass; the solver's own is a half."""
    lumped = diags(np.asarray(operators.mass.sum(1)).ravel())
    consistent = 2 * operators.mass - lumped
    return dataclasses.replace(operators, mass=(share * consistent + (1 - share) * lumped).tocsr())


def error(v: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(v - truth) / np.linalg.norm(truth))


def rate(errors: Sequence[float], sizes: Sequence[float]) -> float:
    """Slope of log error over log size."""
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["--:"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def against_differences(horizon: float, counts: Sequence[int] = (32, 48, 64, 96), fine: int = 192) -> str:
    """Finite elements on the periodic square against fourth-order differences on a finer grid."""
    grid = np.stack(np.meshgrid(*[np.arange(fine) / fine] * 2, indexing="ij"), -1)
    start = random_start(0, grid.reshape(-1, 2), period=1.0).reshape(fine, fine, 2)
    clock = time.process_time()
    truth = next(simulate_grid(MAZE, start, [horizon], step=0.25))[..., 1]
    seconds = time.process_time() - clock
    errors: dict[float, list[float]] = {0.0: [], 0.5: [], 1.0: []}
    for n in counts:
        square = periodic_square(0, 1 / n)
        operators = assemble(square.mesh, square.unknown)
        for share, found in errors.items():
            state = random_start(0, square.mesh.points, period=1.0)
            v = next(simulate(with_mass(operators, share), MAZE, state, [horizon], step=0.25))[:, 1]
            found.append(error(v.reshape(n + 1, n + 1)[:n, :n], truth[:: fine // n, :: fine // n]))
    rows = [[f"1/{n}", *(f"{100 * found[i]:.3f} %" for found in errors.values())] for i, n in enumerate(counts)]
    rows.append(["rate", *(f"{rate(found, [1 / n for n in counts]):.2f}" for found in errors.values())])
    head = ["h", "lumped mass", "mean mass (the solver)", "consistent mass"]
    title = f"Periodic square at t = {horizon:g}, against differences of fourth order with h = 1/{fine}"
    return f"{title} ({seconds:.1f} s):\n\n{table(head, rows)}"


def in_time(horizon: float, steps: Sequence[float] = (4.0, 2.0, 1.0, 0.5)) -> str:
    """One mesh, one reference of small steps."""
    plane = holes(0, 0.03)
    operators, state = assemble(plane.mesh), random_start(0, plane.mesh.points)
    truth = next(simulate(operators, MAZE, state, [horizon], step=steps[-1] / 8))[:, 1]
    errors = [error(next(simulate(operators, MAZE, state, [horizon], step=step))[:, 1], truth) for step in steps]
    rows = [[f"{step:g}", f"{100 * found:.4f} %"] for step, found in zip(steps, errors, strict=True)]
    return f"Time steps on {plane.mesh.n_nodes} nodes at t = {horizon:g}:\n\n" + table(
        ["Δt", "error"], [*rows, ["rate", f"{rate(errors, steps):.2f}"]]
    )


def on_coarser_meshes(times: Sequence[float], spacings: Sequence[float] = (0.04, 0.028, 0.02)) -> str:
    """Accuracy against cost over a training horizon: meshes, and their refinement by two, against that by four."""
    rows = []
    for spacing in spacings:
        coarse = holes(0, spacing)
        once = refined(coarse)
        statistics = PatternStatistics(coarse.mesh)
        *found, (truth, _) = (_growth(plane, times, coarse.mesh.n_nodes) for plane in (coarse, once, refined(once)))
        for plane, (states, seconds) in zip((coarse, once), found, strict=True):
            pattern = differences(statistics(states[-1]), statistics(truth[-1]))
            errors = [f"{100 * error(v, exact):.1f} %" for v, exact in zip(states, truth, strict=True)]
            name = f"{spacing:g}" if plane is coarse else f"{spacing:g} / 2"
            last = [f"{pattern[key]:.3f}" for key in ("spectrum", "area")]
            rows.append([name, f"{plane.mesh.n_nodes}", f"{seconds:.2f}", *errors, *last])
    head = ["h", "nodes", "seconds", *(f"error at t = {t:g}" for t in times), "Δ spectrum at the end", "Δ area"]
    title = "A maze that grows on the plane with holes, Δt = 1, against the same on the mesh refined to h/4"
    return f"{title}, at the nodes of h:\n\n{table(head, rows)}"


def _growth(plane: Region, times: Sequence[float], n_nodes: int) -> tuple[list[np.ndarray], float]:
    """v at the first nodes at the given times, and the seconds of matrices, factors and steps."""
    clock = time.process_time()
    states = list(simulate(assemble(plane.mesh), MAZE, random_start(0, plane.mesh.points), times))
    return [state[:n_nodes, 1] for state in states], time.process_time() - clock


def costs(spacing: float, horizon: float) -> str:
    """Seconds of meshing, of assembly, and of one trajectory, by domain."""
    rows = []
    for name, make in DOMAINS.items():
        clock = time.process_time()
        place = make(0, spacing)
        meshing = time.process_time() - clock
        clock = time.process_time()
        operators = assemble(place.mesh, place.unknown)
        assembly = time.process_time() - clock
        start = random_start(0, place.mesh.points, period=place.period)
        clock = time.process_time()
        next(simulate(operators, MAZE, start, [horizon]))
        solving = time.process_time() - clock
        rows.append([name, f"{place.mesh.n_nodes}", *(f"{x:.2f}" for x in (meshing, assembly, solving))])
    title = f"Seconds for {horizon:g} steps at h = {spacing:g}"
    return f"{title}:\n\n{table(['domain', 'nodes', 'mesh', 'matrices', 'factors and steps'], rows)}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    versions = f"numpy {np.__version__}, scipy {scipy.__version__}, scikit-fem {skfem.__version__}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    print(f"\nF = {MAZE.feed:g}, k = {MAZE.kill:g}; errors are relative L2 of v.\n")
    for part in (
        lambda: against_differences(100.0),
        lambda: in_time(100.0),
        lambda: on_coarser_meshes((100.0, 400.0, 800.0)),
        lambda: costs(0.02, 800.0),
    ):
        print(part(), flush=True)


if __name__ == "__main__":
    main()
