"""Patterns that grow on a surface, by the solver and by a trained operator, as one picture.

    python examples/gray_scott/picture.py gray_scott/run --mesh meshes/rabbit.vtu -o rabbit.png

Both start from the same state, at t = 100. The solver has every triangle divided in four, and is shown at the nodes of
the mesh; a surface of a file is scaled to the area 1. `--domain torus` takes one of those of `make_data.py`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from domains import DOMAINS, Region, random_start, refined, surface_file
from pattern_statistics import PatternStatistics, differences
from PIL import Image
from solver import Parameters, assemble, simulate

from gno.mesh import Mesh, node_mass, read_series
from gno.mesh.files import atomic
from gno.post.painter import painted
from gno.post.quantity import quantity
from gno.post.scene import surface_panel, view_of
from gno.post.window import has_opengl, pixels
from gno.train import Run

EVERY, BEGIN = 20.0, 100.0


def grown(place: Region, parameters: Parameters, times: Sequence[float], seed: int) -> list[Mesh]:
    """The solver's frames from islands of v on."""
    solved, n = refined(place).mesh, place.mesh.n_nodes
    states = simulate(assemble(solved), parameters, random_start(seed, solved.points), list(times))
    constants = {"F": np.array(parameters.feed), "k": np.array(parameters.kill)}
    return [
        place.mesh.replace(point_fields={"u": u, "v": v}, global_fields=constants, time=time)
        for time, (u, v) in zip(times, (state[:n].T for state in states), strict=True)
    ]


def predicted(run: Run, first: Mesh, n_steps: int) -> list[Mesh]:
    """The operator's frames from one of the solver's on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollout.pvd"
        run.roll_out([first], path, n_steps=n_steps, step=EVERY)
        return list(read_series(path))


def images(meshes: Sequence[Mesh], field: str, size: tuple[int, int]) -> list[np.ndarray]:
    """Pictures of a field, all in the same colours and seen from the same side."""
    panels = [surface_panel(m, quantity(m, field), "", limits=(0.0, 0.4), edges=False) for m in meshes]
    return trimmed((pixels if has_opengl() else painted)(panels, view_of(panels), size))


def trimmed(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Without the white margins that all have in common."""
    drawn = np.stack([(picture[..., :3] < 250).any(-1) for picture in pictures]).any(0)
    rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
    return [picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for picture in pictures]


def draw(rows: dict[str, list[np.ndarray]], titles: Sequence[str], path: Path) -> None:
    """Rows of pictures with their names at the left and the times above."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = next(iter(rows.values()))[0].shape[:2]
    across, high = len(titles) * (width + 20) + 40, len(rows) * (height + 10) + 30
    figure = Figure(figsize=(across / 100, high / 100), facecolor="white")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    figure.subplots_adjust(left=40 / across, right=1, bottom=0, top=1 - 30 / high, wspace=0.05, hspace=0.03)
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name, fontsize=12)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=12)
    canvas.draw()
    palette = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(256)  # a third of the bytes
    with atomic(path) as temporary:
        palette.save(temporary, format="png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained operator, as of case.toml")
    parser.add_argument("--mesh", type=Path, default=Path("meshes/rabbit.vtu"), help="a surface; %(default)s")
    parser.add_argument("--domain", choices=sorted(DOMAINS), help="in place of a file")
    parser.add_argument("--spacing", type=float, default=0.015, help="of the nodes of a domain; %(default)g")
    parser.add_argument("--times", type=float, nargs="+", default=[100.0, 200.0, 400.0, 800.0], help="%(default)s")
    parser.add_argument("--feed", type=float, default=0.037, help="F; %(default)g")
    parser.add_argument("--kill", type=float, default=0.06, help="k; %(default)g")
    parser.add_argument("--seed", type=int, default=0, help="of the start; %(default)d")
    parser.add_argument("-o", "--output", type=Path, default=Path("gray_scott.png"))
    options = parser.parse_args()
    domain = DOMAINS[options.domain] if options.domain else surface_file(options.mesh)
    place = domain(options.seed, options.spacing)
    times = np.arange(BEGIN, max(options.times) + EVERY / 2, EVERY)
    truth = grown(place, Parameters(options.feed, options.kill), times, options.seed)
    guess = predicted(Run.load(options.run), truth[0], len(times) - 1)
    shown = [round((time - BEGIN) / EVERY) for time in options.times]
    size = (380, 380)
    rows = {
        "solver": images([truth[k] for k in shown], "v", size),
        "prediction": images([guess[k] for k in shown], "predicted_v", size),
    }
    draw(rows, [f"t = {time:g}" for time in options.times], options.output)
    measure, mass = PatternStatistics(place.mesh), node_mass(place.mesh)
    for k in shown:
        v, y = guess[k].point_fields["predicted_v"], truth[k].point_fields["v"]
        error = np.sqrt(mass @ (v - y) ** 2 / (mass @ (y - mass @ y / mass.sum()) ** 2))
        apart = ", ".join(f"{name} {value:.3f}" for name, value in differences(measure(v), measure(y)).items())
        print(f"t = {times[k]:g}: VRMSE of v {error:.3f}; statistics differ by: {apart}")


if __name__ == "__main__":
    main()
