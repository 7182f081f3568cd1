"""The picture of results/microstructure.md: a cell, its potential and its flux, and what is said of them.

python benchmarks/microstructure_picture.py docs/pictures/microstructure.png      # after benchmarks/microstructure.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import microstructure as benchmark
import numpy as np
from matplotlib.figure import Figure
from microstructure_cells import SPACING, cells, gradients
from microstructure_run import CLASSICAL, PREDICTED, Job

from gno.mesh import Mesh
from gno.post.picture import write_figure

LEARNED = ("gno", "gno, balance", "FNO")


def flux(mesh: Mesh, total: np.ndarray) -> np.ndarray:
    """Size of the flux on each cell, of the first unit gradient."""
    return mesh.cell_fields["conductivity"] * np.linalg.norm(total.reshape(-1, 2, 2)[:, 0], axis=1)


def draw(mesh: Mesh, found: dict[str, np.ndarray], path: Path) -> None:
    """Potential above, flux below; a column for the cell, the reference, its error by gno, and each method."""
    truth = mesh.point_fields["fluctuation"][:, 0]
    potentials = {"reference": truth, **{name: chi[:, 0] for name, chi in found.items()}}
    fluxes = {"reference": flux(mesh, mesh.cell_fields["gradient"])}
    fluxes |= {name: flux(mesh, gradients(mesh, chi)) for name, chi in found.items()}
    for fields in (potentials, fluxes):
        fields["gno − reference"] = fields["gno"] - fields["reference"]
    names = ["reference", "gno", "gno − reference", *[name for name in found if name != "gno"]]
    figure = Figure(figsize=(2.35 * (1 + len(names)), 4.6), layout="compressed", dpi=110)
    grid = figure.subplots(2, 1 + len(names))
    places = (*mesh.points.T, mesh.cells[0].nodes)
    a = mesh.cell_fields["conductivity"]
    grid[0, 0].tripcolor(*places, facecolors=a, cmap="Greys", vmax=1.5 * a.max(), rasterized=True)
    grid[0, 0].set_title(f"conductivity, 1 and {a.max():.1f}", fontsize=9)
    grid[1, 0].triplot(*places, color="0.3", linewidth=0.3)
    grid[1, 0].set_title(f"mesh, {mesh.n_nodes} nodes", fontsize=9)
    limit, top = np.abs(truth).max(), np.quantile(fluxes["reference"], 0.995)
    for k, name in enumerate(names, start=1):
        potential = grid[0, k].tripcolor(
            *places, potentials[name], cmap="RdBu_r", vmin=-limit, vmax=limit, shading="gouraud", rasterized=True
        )
        low, cmap = (-top, "RdBu_r") if name == "gno − reference" else (0, "viridis")
        size = grid[1, k].tripcolor(*places, facecolors=fluxes[name], cmap=cmap, vmin=low, vmax=top, rasterized=True)
        grid[0, k].set_title(name, fontsize=9)
        if k == 1:
            last = size
    figure.colorbar(potential, ax=grid[0], shrink=0.9, label="$\\chi_1$")
    figure.colorbar(last, ax=grid[1], shrink=0.9, label="$|a\\,(e_1 + \\nabla\\chi_1)|$")
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], aspect="equal", xlim=(0, mesh.period[0]), ylim=(0, mesh.period[1]))
    write_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--results", type=Path, default=benchmark.RESULTS)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    (mesh,) = cells("test", 1)
    found = {}
    for name in LEARNED:
        job = Job(benchmark.network(name), benchmark.N_TRAIN, **benchmark.chosen(rows, name))
        found[name] = np.load(PREDICTED / job.file)
    found["MsFEM, 8 × 8"] = CLASSICAL["MsFEM, 8 × 8"](mesh, SPACING).chi
    draw(mesh, found, options.output)


if __name__ == "__main__":
    main()
