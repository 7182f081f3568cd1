"""One training on Gray–Scott in this process, and all that is measured of it; `gray_scott.py` starts it.

Every model is trained in gno's loop, on the same windows, losses, increments and processor time; the model and its
optimiser differ. Trajectories begin at t = 100, when islands have become a pattern.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from quiet import train_quietly, training
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph import MeshData, SampleSpec, build_sample, collate
from gno.mesh import Mesh, interpolation, node_mass
from gno.nn import Output
from gno.train import Case
from gno.train.blueprint import Blueprint
from gno.train.case import Training
from gno.train.dynamics import Evolution, rolled
from gno.train.loop import Progress
from gno.train.physics_in_time import with_step_physics
from gno.train.task import task_of
from gno.train.time_metrics import WINDOWS
from gno.train.trajectory import Trajectory

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "gray_scott"))

from domains import DOMAINS, Region, periodic_square, square  # noqa: E402
from make_data import SPLITS, Settings, trajectory  # noqa: E402
from pattern_statistics import PatternStatistics, differences  # noqa: E402
from solver import Parameters, assemble, simulate  # noqa: E402

CACHE = Path(__file__).parent / ".cache" / "gray_scott"
SPACING, SIDE = 0.015, 0.6
FIRST = 5  # the frame at which trajectories begin
TESTS = {"test": 6, "interpolation": 4, "extrapolation": 4}  # trajectories
LONG = 2
OTHERS = {"plane"}  # domains that are another one in each trajectory
RUNS = CACHE / "runs"  # operators for surfaces are kept: `examples/gray_scott/picture.py` draws what they predict

# Nodes along a side and longest time step of the solver.
SOLVERS = [
    (61, 2.0),
    (61, 4.0),
    (51, 2.0),
    (51, 4.0),
    (41, 1.0),
    (41, 2.0),
    (41, 4.0),
    (41, 10.0),
    (31, 4.0),
    (21, 4.0),
]

# Short-range dynamics that are the same everywhere: no coordinates, no attention, a local law on the mesh.
PLAIN = {"coordinates": False, "width": 32, "n_heads": 2, "n_blocks": 1, "attention": False, "learned_pooling": False}
MODELS: dict[str, dict[str, Any]] = {
    "gno": {**PLAIN, "n_levels": 2, "n_substeps": 6},
    "gno, law alone": {**PLAIN, "n_levels": 1, "n_blocks": 0, "n_substeps": 6},
    "gno, stencils": {**PLAIN, "n_stencils": 4},
    "graph without levels": {"coordinates": False, "width": 32, "n_heads": 2, "n_blocks": 6, "n_levels": 1},
}
# Width, modes: the first of the authors' examples, and half of it, which makes more steps in the same time.
FNO_SIZES = {"FNO": (32, 16), "FNO wide": (64, 16)}


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a row of the results without what was measured.

    Args:
        model: a key of `MODELS` or `FNO_SIZES`.
        n_train: trajectories.
        seed: of weights and shuffling.
        minutes: of processor time.
        lr: learning rate.
        time: changes of the [time] of the case.
        physics: the [physics] of the case, if any.
        domain: `square`, `periodic` for the square whose sides are identified, or `plane` for squares in space.
        spacing, n_frames: of the nodes, and frames of a training trajectory; others are for a quick look.
    """

    model: str
    n_train: int
    seed: int
    minutes: float
    lr: float
    time: dict[str, Any] = dataclasses.field(default_factory=lambda: {"unroll": 1})
    physics: dict[str, Any] | None = None
    domain: str = "square"
    spacing: float = SPACING
    n_frames: int = Settings.n_frames

    @property
    def quick(self) -> bool:
        """Whether this is no more than a trial."""
        return self.n_frames < Settings.n_frames


@dataclasses.dataclass(frozen=True)
class Series:
    """States of one trajectory on the mesh of its region, from `FIRST` on."""

    region: Region
    states: Float[np.ndarray, "n_frames n_nodes 2"]
    feed: float
    kill: float
    solver_seconds: float

    def mesh(self, frame: int = 0) -> Mesh:
        """The mesh with the fields of a frame."""
        u, v = self.states[frame].T
        constants = {"F": np.array(self.feed), "k": np.array(self.kill)}
        return self.region.mesh.replace(point_fields={"u": u, "v": v}, global_fields=constants)


@functools.cache
def region_of(domain: str, number: int, spacing: float) -> Region:
    """A domain of the example; the periodic square is as large as the one with walls."""
    return periodic_square(0, spacing, SIDE) if domain == "periodic" else DOMAINS[domain](number, spacing)


def series(job: Job, split: str, count: int, domain: str | None = None) -> list[Series]:
    """The first trajectories of a split in the domain of the job, or another one; solved where the cache lacks them."""
    domain = domain or job.domain
    settings = Settings(domain, job.spacing, n_frames=job.n_frames)
    folder = CACHE / f"{domain}-{job.spacing:g}-{job.n_frames}"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(SPLITS[split].first, SPLITS[split].first + count):
        file, region = folder / f"{number:06d}.npz", region_of(domain, number if domain in OTHERS else 0, job.spacing)
        if not file.exists():
            frames = list(trajectory(settings, split, number, region))
            constants = {name: value for name, value in frames[-1].global_fields.items()}
            states = np.stack([np.stack([f.point_fields["u"], f.point_fields["v"]], axis=1) for f in frames])
            temporary = file.with_suffix(".tmp.npz")
            np.savez(temporary, states=states, **constants)
            temporary.replace(file)
        with np.load(file) as stored:
            states, *rest = (stored[name] for name in ("states", "F", "k", "solver_seconds"))
        found.append(Series(region, states[min(FIRST, len(states) - 2) :], *map(float, rest)))
    return found


def trajectories(all_series: Sequence[Series], spec: SampleSpec) -> list[Trajectory]:
    """As `gno.train` would make them of files; the hierarchy of a mesh that they share is built once."""
    known: dict[int, MeshData] = {}
    found = []
    for one in all_series:
        if id(one.region) not in known:
            known[id(one.region)] = build_sample(one.mesh(), spec)
        sample, states = copy.copy(known[id(one.region)]), torch.as_tensor(one.states).double()
        sample.x = torch.tensor([[one.feed, one.kill]]).expand(states.shape[1], 2).to(sample.x).clone()
        times = Settings.every * torch.arange(len(states), dtype=torch.float64)
        nothing = torch.zeros(*states.shape[:2], 0, dtype=torch.float64)
        found.append(Trajectory((sample,), states, nothing, times, source=f"F = {one.feed:.4f}, k = {one.kill:.4f}"))
    return found


class OnGrid(nn.Module):
    """neuraloperator's FNO on the nodes of the square; with padding where there are walls, as its authors advise."""

    def __init__(self, n_inputs: int, width: int, modes: int, side: int, periodic: bool) -> None:
        from neuralop.models import FNO

        super().__init__()
        self.side, self.periodic = side, periodic
        padding = None if periodic else 0.125
        self.fno = FNO((modes, modes), n_inputs, 2, hidden_channels=width, n_layers=4, domain_padding=padding)

    def forward(self, batch: Batch) -> Output:
        grid = batch.x.view(batch.num_graphs, self.side, self.side, -1).permute(0, 3, 1, 2)
        if self.periodic:  # the last row and column repeat the first
            u = nn.functional.pad(self.fno(grid[..., :-1, :-1]), (0, 1, 0, 1), mode="circular")
        else:
            u = self.fno(grid)
        fields = u.permute(0, 2, 3, 1).reshape(len(batch.x), -1)
        return Output((fields,), (batch.mass_0,), (batch.pos_0,), (batch.pos_0_batch,), ())


def adamw(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """As FNO's authors have it."""
    return torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=1e-4)


def case_of(job: Job) -> Case:
    """The case as a user would write it."""
    return Case.model_validate(
        {
            "data": {"inputs": ["F", "k"], "targets": ["u", "v"]},
            "model": MODELS.get(job.model, {"n_levels": 2, "coordinates": False}),
            # A window has 1,681 nodes, each with a neighbourhood of its own: many small steps learn most.
            "training": training(job, batch_size=1),
            "time": {"noise": 0.0, **job.time},
            "physics": job.physics,
        }
    )


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with averaged weights, and what its training was like."""

    model: nn.Module
    blueprint: Blueprint
    progress: Progress


def fitted(job: Job) -> Trained:
    """Train; `clock` is the processor time of this process."""
    case, train = case_of(job), series(job, "train", job.n_train)
    spec = SampleSpec.fit([train[0].mesh()], inputs=["F", "k"], targets=["u", "v"], **case.model.hierarchy)
    ready = trajectories(train, spec)
    if case.physics:
        pairs = zip(ready, train, strict=True)
        ready = [with_step_physics(t, [one.mesh(k) for k in range(len(t))], case, spec) for t, one in pairs]
    blueprint = Blueprint.fit(case, spec, ready)
    torch.manual_seed(job.seed)
    fno, side = FNO_SIZES.get(job.model), round(SIDE / job.spacing) + 1
    periodic = job.domain == "periodic"
    model = OnGrid(blueprint.config.n_inputs, *fno, side, periodic) if fno else blueprint.model(job.seed)
    task = task_of(blueprint, {"train": ready, "validation": []}, model)
    options = {"optimiser": adamw if fno else None, "objective": task.objective}
    average, progress = train_quietly(case, model, task.samples, task.terms, **options)
    return Trained(average, blueprint, progress)


@torch.inference_mode()
def rollout(trained: Trained, one: Trajectory) -> Iterator[Float[Tensor, "n_nodes 2"]]:
    """The states that follow the first."""
    scale, dtype = trained.blueprint.normalisation, next(trained.model.parameters()).dtype
    ready = one.normalised(scale, [], torch.float32 if dtype.is_complex else dtype)
    evolution = Evolution(trained.model, scale, trained.blueprint.spec, ()).eval()
    mesh, past = collate([ready.samples[0]]), one.past(0, 1).double()
    yield from rolled(
        evolution, mesh, past, ready.past(0, len(one), ready.forcing), one.times.diff()[None], scale.states
    )


def squares(v: np.ndarray, truth: np.ndarray, mass: np.ndarray) -> tuple[float, float]:
    """⟨(v − y)²⟩ and ⟨(y − ȳ)²⟩; a state that is no number counts as far away."""
    share = mass / mass.sum()
    error = share @ np.nan_to_num(v - truth, nan=1e3, posinf=1e3, neginf=-1e3).clip(-1e3, 1e3) ** 2
    return float(error), float(share @ (truth - share @ truth) ** 2)


def vrmse(pairs: Float[np.ndarray, "n_series n_steps 2"]) -> dict[str, float]:
    """Error of v over the deviation of the truth, both as root mean squares over trajectories and steps."""
    windows = {f"{a}:{b}": slice(a - 1, b) for a, b in WINDOWS} | {"all": slice(None), "last": slice(-1, None)}
    total = {name: pairs[:, part].sum((0, 1)) for name, part in windows.items() if pairs[:, part].size}
    return {name: float(np.sqrt(error / size)) for name, (error, size) in total.items()}


def scores(trained: Trained, tests: Sequence[Series]) -> dict[str, Any]:
    """VRMSE of v over rollouts, in windows of steps, and milliseconds of one step."""
    found, seconds, steps = [], 0.0, 0
    for one, ready in zip(tests, trajectories(tests, trained.blueprint.spec), strict=True):
        mass, start = ready.samples[0].mass_0.numpy(), time.process_time()
        states = [u.numpy() for u in rollout(trained, ready)]
        seconds, steps = seconds + time.process_time() - start, steps + len(states)
        found.append([squares(u[:, 1], y[:, 1], mass) for u, y in zip(states, one.states[1:], strict=True)])
    return {**vrmse(np.array(found)), "ms": 1e3 * seconds / steps}


def long_scores(trained: Trained, tests: Sequence[Series]) -> dict[str, float]:
    """Rollouts to ten times the horizon: largest value, and how far statistics of the patterns are from the truth.

    Mean over the trajectories and over the last fifth of the frames, of which eight are looked at. `unlike` is the
    same between the true patterns of different trajectories: what a wrong pattern scores.
    """
    rows, unlike, largest = [], [], 0.0
    for one, ready in zip(tests, trajectories(tests, trained.blueprint.spec), strict=True):
        measure = PatternStatistics(one.region.mesh, unknown=one.region.unknown, period=one.region.period)
        states = np.stack([u.numpy() for u in rollout(trained, ready)])
        largest = max(largest, float(np.abs(np.nan_to_num(states, nan=1e9, posinf=1e9, neginf=1e9)).max()))
        states = np.nan_to_num(states, nan=0.0, posinf=1e3, neginf=-1e3).clip(-1e3, 1e3)
        look = np.linspace(0.8 * len(states), len(states) - 1, 8).astype(int)
        rows += [differences(measure(states[k, :, 1]), measure(one.states[k + 1, :, 1])) for k in look]
        for other in tests:
            if other is not one:
                last = [measure(s.states[-1, :, 1]) for s in (other, one)]
                unlike.append(differences(*last))
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    other = {f"unlike {name}": float(np.mean([row[name] for row in unlike])) for name in rows[0] if unlike}
    return {**mean, **other, "largest": largest}


def solver_rows(tests: Sequence[Series]) -> list[dict[str, Any]]:
    """Error and seconds of the solver on other meshes and with other steps, from the same states on."""
    rows = []
    for n, step in SOLVERS:
        results = [solved(one, n, step) for one in tests]
        seconds = statistics.fmean(s for _, s in results)
        rows.append({"model": "solver", "n": n, "step": step, "test": vrmse(np.array([r for r, _ in results]))})
        rows[-1]["seconds"] = seconds
    return rows


def solved(one: Series, n: int, step: float) -> tuple[np.ndarray, float]:
    """Squares of error and deviation of v at each frame, on n × n nodes, and the seconds of matrices and steps."""
    fine, coarse = one.mesh(), square(0, SIDE / (n - 1)).mesh
    down, up = interpolation(fine, coarse.points), interpolation(coarse, fine.points)
    times, clock = list(20.0 * np.arange(1, len(one.states))), time.process_time()
    try:
        states = list(
            simulate(assemble(coarse), Parameters(one.feed, one.kill), down @ one.states[0], times, step=step)
        )
    except ValueError:  # not stable with such steps
        states = [np.full((coarse.n_nodes, 2), np.nan)] * len(times)
    seconds, mass = time.process_time() - clock, node_mass(fine)
    pairs = zip(states, one.states[1:], strict=True)
    return np.array([squares((up @ w)[:, 1], y[:, 1], mass) for w, y in pairs]), seconds


def save(trained: Trained, folder: Path) -> None:
    """As a run that `gno predict` and `gno show` know."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"average": trained.model.state_dict()}
    trained.blueprint.save(folder / "best.safetensors", parts, dataclasses.asdict(trained.progress))


def run(job: Job) -> dict[str, Any]:
    """Train and measure; one row of the results."""
    torch.set_num_threads(1)
    trained = fitted(job)
    counts = {split: 1 if job.quick else count for split, count in TESTS.items()}
    splits = counts if job.domain == "square" else {"test": counts["test"]}
    measured: dict[str, Any] = {split: scores(trained, series(job, split, count)) for split, count in splits.items()}
    if job.domain == "square" and job.seed == 0:
        measured["long"] = long_scores(trained, series(job, "long", 1 if job.quick else LONG))
    if job.domain == "plane":
        sphere = series(job, "test", 1 if job.quick else LONG, "sphere")
        measured["sphere"] = scores(trained, sphere) | long_scores(trained, sphere)
        save(trained, RUNS / f"{job.model} {job.n_train} {job.seed} {job.minutes:g}")
    return {
        **dataclasses.asdict(job),
        **measured,
        "steps": trained.progress.step,
        "weights": sum(p.numel() * (2 if p.is_complex() else 1) for p in trained.model.parameters()),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
