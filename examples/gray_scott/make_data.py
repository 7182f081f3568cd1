"""Trajectories of Gray–Scott as .pvd series, for training and for tests.

    python examples/gray_scott/make_data.py holes  # 112 trajectories in gray_scott/holes, ten minutes of one core
    python examples/gray_scott/make_data.py sphere --train 256 --spacing 0.014
    python examples/gray_scott/make_data.py --mesh bunny.vtu   # on a mesh of yours

Each trajectory is a folder, `<split>/<number>/frames.pvd` with one .vtu per frame: point fields `u` and `v`, global
fields `F`, `k` and `solver_seconds`. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from domains import DOMAINS, Region, random_start, refined, surface_file
from regimes import draw_extrapolation, draw_interpolation, draw_training
from solver import Parameters, assemble, simulate

from gno.demo.parallel import map_processes
from gno.mesh import Mesh, write_series
from gno.mesh.files import atomic


@dataclasses.dataclass(frozen=True)
class Split:
    """A part of the data set.

    Args:
        first: number of its first trajectory; numbers of splits never meet.
        count: how many trajectories there are by default.
        draw: where in (F, k).
        longer: how many times longer than in training they are.
    """

    first: int
    count: int
    draw: Callable[[np.random.Generator], Parameters]
    longer: int = 1


SPLITS = {
    "train": Split(0, 64, draw_training),
    "validation": Split(100_000, 8, draw_training),
    "test": Split(200_000, 12, draw_training),
    "interpolation": Split(300_000, 12, draw_interpolation),
    "extrapolation": Split(400_000, 12, draw_extrapolation),
    "long": Split(500_000, 4, draw_training, longer=10),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all trajectories of a folder have in common.

    Args:
        domain: a name in `DOMAINS`, or the file of a mesh.
        spacing: of the nodes.
        refine: how often the solver halves that spacing; the files hold the coarse nodes.
        n_frames: frames after the start, in training; those before `begin` are not kept.
        every: time between frames.
        step: largest time step of the solver.
        begin: time of the first frame; before it, islands become a pattern.
    """

    domain: str
    spacing: float = 0.02
    refine: int = 1
    n_frames: int = 40
    every: float = 20.0
    step: float = 1.0
    begin: float = 0.0

    def region(self, seed: int) -> Region:
        """The domain number `seed`."""
        return DOMAINS.get(self.domain, surface_file(Path(self.domain)))(seed, self.spacing)


def trajectory(settings: Settings, split: str, seed: int, region: Region | None = None) -> Iterator[Mesh]:
    """The frames of trajectory number `seed`, the start included, in its domain or in a region that is given; the same
    on every machine and in every process."""
    kind = SPLITS[split]
    parameters = kind.draw(np.random.default_rng([seed, 0xFEED]))
    region = solved = settings.region(seed) if region is None else region
    for _ in range(settings.refine):
        solved = refined(solved)
    start = random_start(seed, solved.mesh.points, period=region.period)
    times = settings.every * np.arange(kind.longer * settings.n_frames + 1)
    clock = time.process_time()
    states = simulate(assemble(solved.mesh, solved.unknown), parameters, start, times.tolist(), step=settings.step)
    frames = (state[: region.mesh.n_nodes].T for state in states)
    for when, (u, v) in zip(times, frames, strict=True):
        if when < settings.begin:
            continue
        constants = {"F": parameters.feed, "k": parameters.kill, "solver_seconds": time.process_time() - clock}
        yield region.mesh.replace(
            points=region.mesh.points.astype(np.float32),
            point_fields={"u": u.astype(np.float32), "v": v.astype(np.float32)},
            global_fields={name: np.array(value) for name, value in constants.items()},
            time=float(when),
        )


def make(settings: Settings, folder: Path, counts: dict[str, int], *, workers: int) -> list[Path]:
    """Write the trajectories that are missing; returns the .pvd files of all.

    Args:
        settings: what they have in common.
        folder: made if it does not exist; holds trajectories of these settings only.
        counts: number of trajectories by split.
        workers: processes that solve at the same time.

    Raises:
        ValueError: the folder holds trajectories of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note, mine = folder / "settings.json", dataclasses.asdict(settings)
    if note.exists() and (theirs := json.loads(note.read_text())) != mine:
        raise ValueError(f"{note}: expected {mine}, got {theirs}; take another folder")
    with atomic(note) as temporary:
        temporary.write_text(json.dumps(mine, indent=1))
    jobs = [(split, SPLITS[split].first + n) for split, count in counts.items() for n in range(count)]
    jobs.sort(key=lambda job: -SPLITS[job[0]].longer)  # the long ones first, so that no process waits for them
    missing = [job for job in jobs if not _file(folder, *job).exists()]
    map_processes(
        partial(_write, settings, folder), missing, workers=workers, description=f"Gray–Scott, {settings.domain}"
    )
    return [_file(folder, *job) for job in jobs]


def _file(folder: Path, split: str, seed: int) -> Path:
    return folder / split / f"{seed:06d}" / "frames.pvd"


def _write(settings: Settings, folder: Path, job: tuple[str, int]) -> None:
    file = _file(folder, *job)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_series(trajectory(settings, *job), file)  # the .pvd comes last: where it is, the trajectory is whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", nargs="?", choices=sorted(DOMAINS), default="holes")
    parser.add_argument("--mesh", type=Path, help="file of a triangle mesh, instead of a domain")
    parser.add_argument("--folder", type=Path, help="where to; gray_scott/<domain> by default")
    for name in ("spacing", "every", "step", "begin"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Settings, name), help="default: %(default)g")
    parser.add_argument("--refine", type=int, default=Settings.refine, help="default: %(default)d")
    parser.add_argument("--frames", type=int, default=Settings.n_frames, help="default: %(default)d")
    for name, split in SPLITS.items():
        parser.add_argument(f"--{name}", type=int, default=split.count, help="trajectories; default: %(default)d")
    parser.add_argument("--workers", type=int, default=2, help="processes; default: %(default)d")
    options = parser.parse_args()
    domain = str(options.mesh.resolve()) if options.mesh else options.domain
    settings = Settings(
        domain, options.spacing, options.refine, options.frames, options.every, options.step, options.begin
    )
    folder = options.folder or Path("gray_scott") / Path(domain).stem
    start = time.perf_counter()
    try:
        files = make(settings, folder, {name: getattr(options, name) for name in SPLITS}, workers=options.workers)
    except ValueError as error:
        parser.error(str(error))
    print(f"{folder}: {len(files)} trajectories, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
