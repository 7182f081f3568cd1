"""From the wall to the flow: one training in this process, and all that is measured of it; `channel.py` starts it.

Given are ∂u/∂n, ∂w/∂n and the pressure on a wall, wanted are the fluctuations of u, v and w on planes at three heights
above it, as Guastoni et al. (2021, J. Fluid Mech. 928, A27) have it for convolutional networks. Every snapshot of
`channel_solver.py` is two examples, as both walls are alike with y and v mirrored. Fields are sums of Fourier modes, so
they are known exactly at any point: on finer and coarser grids and on meshes that are no grid.

Lengths along x are divided by `STRETCH`: structures at a wall are long, and steps along x are twice those along z.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import channel_solver
import numpy as np
import torch
from channel_solver import Channel, Solver, in_wall_units, load, snapshots, statistics
from jaxtyping import Complex, Float
from quiet import train_quietly, training
from scipy.spatial import Delaunay
from torch import nn
from torch_geometric.data import Batch

from gno.graph import MeshData, SampleSpec, build_sample, collate
from gno.mesh import CellBlock, Mesh, interpolation, node_mass
from gno.nn import Output
from gno.train import Case
from gno.train.blueprint import Blueprint
from gno.train.case import Training
from gno.train.loop import Parts, Progress
from gno.train.losses import data_terms

CHANNEL = Channel()
HEIGHTS = (15, 30, 50)  # y⁺ of the planes
COLUMNS = tuple(f"{c}{y}" for y in HEIGHTS for c in "uvw")
INPUTS = ("∂u/∂n", "∂w/∂n", "p")
STRETCH = 2.0
# Shares of the time: what comes first is learned from; apart from it lie the snapshots of validation and of the test.
PARTS = {"train": (0.0, 0.75), "validation": (0.78, 0.82), "test": (0.84, 1.0)}
N_TEST = 30  # snapshots at most, each with two walls
SIDE = 32  # nodes along a side in training
PAIRS = Complex[np.ndarray, "n n_x n_z c"]

MODELS: dict[str, dict[str, Any]] = {
    "gno": {"coordinates": False},
    "graph without levels": {"coordinates": False, "n_levels": 1, "n_blocks": 6},
}
FNO_WIDTH = 32


# ── data ──


class Pairs(NamedTuple):
    """Wall and flow by wave number, in units of their own deviation over the training, means taken off."""

    wall: PAIRS
    flow: PAIRS

    def part(self, index: np.ndarray) -> Pairs:
        return Pairs(self.wall[index], self.flow[index])


def mirrored(field: np.ndarray, rows: np.ndarray, sign: float) -> np.ndarray:
    """Values at some distances from both walls, (n_x, n_z, 2, n_heights); ``rows`` interpolate from y = −1 on."""
    return np.stack([field @ rows.T, sign * (field[..., ::-1] @ rows.T)], axis=2)


def rows_at(solver: Solver, y: np.ndarray) -> np.ndarray:
    """Interpolation across, exact for polynomials: (n_heights, n_y)."""
    n = solver.channel.n_y
    basis = np.polynomial.chebyshev.chebvander
    return np.linalg.solve(basis(solver.y, n - 1).T, basis(y, n - 1).T).T


@functools.cache
def raw(folder: Path) -> tuple[Pairs, float]:
    """All pairs of a run in units of the solver, in the order of time, and Re_tau before the test; kept in a file."""
    paths = snapshots(folder)[channel_solver.FIRST :]
    if not paths:
        raise SystemExit(f"{folder}: expected snapshots of a turbulent flow, got none; run channel_solver.py first")
    file = folder / "planes.npz"
    if file.exists():
        with np.load(file) as stored:
            if len(stored["wall"]) == 2 * len(paths):
                return Pairs(stored["wall"], stored["flow"]), float(stored["re_tau"])
    solver = Solver(CHANNEL, channel_solver.STEP)
    early = (load(path) for path in paths[: int(PARTS["train"][1] * len(paths))])
    re_tau = in_wall_units(solver, statistics(solver, early))["re_tau"]
    rows = rows_at(solver, np.array(HEIGHTS) / re_tau - 1)
    found = [pair for path in paths for pair in both_walls(solver, load(path), rows)]
    pairs = Pairs(*(np.stack(part).astype(np.complex64) for part in zip(*found, strict=True)))
    temporary = folder / "planes.tmp.npz"
    np.savez(temporary, **pairs._asdict(), re_tau=re_tau)
    temporary.replace(file)
    return pairs, re_tau


def both_walls(solver: Solver, state: channel_solver.State, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """What is known at each wall, and the velocity above it."""
    signs = zip(solver.velocity(state), (1.0, -1.0, 1.0), strict=True)
    flow = np.stack([mirrored(field, rows, sign) for field, sign in signs], axis=-1)
    flow = flow.reshape(*flow.shape[:3], -1)
    wall = solver.wall(state)
    return [(wall[:, :, side], flow[:, :, side]) for side in range(2)]


def mean_square(coefficients: PAIRS) -> np.ndarray:
    """⟨f²⟩ over planes and examples of every column."""
    weight = np.where(np.arange(coefficients.shape[2]) > 0, 2.0, 1.0)[:, None]
    return (np.abs(coefficients) ** 2 * weight).sum((1, 2)).mean(0)


def data(folder: Path, n_train: int = 0) -> dict[str, Pairs]:
    """Training, validation and test; ``n_train`` snapshots spread over the time of training, 0 for all."""
    pairs, _ = raw(folder)
    count = len(pairs.wall) // 2
    scaled = Pairs(*(in_deviations(part.astype(complex), 2 * int(PARTS["train"][1] * count)) for part in pairs))
    found = {}
    for name, (begin, end) in PARTS.items():
        first, last = int(begin * count), int(end * count) - 1
        wanted = (n_train or count) if name == "train" else N_TEST
        index = np.unique(np.linspace(first, last, min(wanted, last - first + 1)).astype(int))
        found[name] = scaled.part(np.stack([2 * index, 2 * index + 1], 1).ravel())
    return found


def in_deviations(coefficients: PAIRS, early: int) -> PAIRS:
    """Fluctuations in units of their root mean square, mean and deviation being those of the first examples."""
    coefficients[:, 0, 0] -= coefficients[:early, 0, 0].mean(0)
    return coefficients / np.sqrt(mean_square(coefficients[:early]))


# ── meshes ──


def grid(side: int) -> Mesh:
    """A periodic grid of triangles whose diagonals alternate; the last row and column repeat the first."""
    i, j = np.meshgrid(np.arange(side + 1), np.arange(side + 1), indexing="ij")
    a, b, c, d = (x.ravel() for x in _corners(i * (side + 1) + j))
    rising = ((i + j)[:-1, :-1] % 2 == 0).ravel()[:, None]
    first = np.where(rising, np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(rising, np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return _plane(np.stack([i, j], -1).reshape(-1, 2) / side, np.concatenate([first, second]))


def irregular(side: int, seed: int) -> Mesh:
    """A triangulation of points of which there is one, anywhere, in each cell of a grid; regular at the sides."""
    rng = np.random.default_rng([seed, 0x1E6])
    i, j = np.meshgrid(np.arange(side + 1), np.arange(side + 1), indexing="ij")
    points = np.stack([i, j], -1).astype(float)
    points[1:-1, 1:-1] += rng.uniform(-0.5, 0.5, (side - 1, side - 1, 2))
    points = points.reshape(-1, 2) / side
    return _plane(points, Delaunay(points).simplices)


def _corners(number: np.ndarray) -> tuple[np.ndarray, ...]:
    return number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]


def _plane(points: np.ndarray, triangles: np.ndarray) -> Mesh:
    """Points of the unit square on the plane of the channel."""
    box = np.array(CHANNEL.lengths) / (STRETCH, 1.0)
    return Mesh(points * box, (CellBlock("triangle", triangles.astype(np.int64)),), period=tuple(box))


def values(coefficients: PAIRS, points: Float[np.ndarray, "n_nodes 2"]) -> Float[np.ndarray, "n n_nodes c"]:
    """Sums of the modes at points of a mesh."""
    along, n_z = channel_solver.wave_numbers(coefficients.shape[1]), coefficients.shape[2]
    turns = points / (np.array(CHANNEL.lengths) / (STRETCH, 1.0))
    waves = np.exp(2j * np.pi * along[:, None, None] * turns[:, 0]) * np.exp(
        2j * np.pi * np.arange(n_z)[:, None] * turns[:, 1]
    )
    waves[:, 1:] *= 2.0  # the wave numbers that are not kept
    waves = waves.reshape(-1, len(points))
    flat = np.moveaxis(coefficients, 3, 1).reshape(len(coefficients), coefficients.shape[3], -1)
    return np.swapaxes(flat.real @ waves.real - flat.imag @ waves.imag, 1, 2)


def samples(pairs: Pairs, meshes: Sequence[Mesh], spec: SampleSpec) -> list[MeshData]:
    """Each pair on one of the meshes in turn, whose hierarchies are built once."""
    ready = [build_sample(mesh.with_point_fields(**_at(pairs.part(slice(1)), mesh)), spec) for mesh in meshes]
    found: list[MeshData] = [None] * len(pairs.wall)  # type: ignore[list-item]
    for k, (mesh, first) in enumerate(zip(meshes, ready, strict=True)):
        mine = range(k, len(found), len(meshes))
        x, y = (torch.from_numpy(values(part[mine.start :: mine.step], mesh.points)).float() for part in pairs)
        for number, wall, flow in zip(mine, x, y, strict=True):
            found[number] = copy.copy(first)
            found[number].x, found[number].y = wall, flow
    return found


def _at(pairs: Pairs, mesh: Mesh) -> dict[str, np.ndarray]:
    return {name: values(part, mesh.points)[0] for name, part in pairs._asdict().items()}


# ── models ──


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a row of the results without what was measured.

    Args:
        model: a key of `MODELS`, `FNO`, or `linear`.
        n_train: snapshots, 0 for all that there are.
        seed: of weights and shuffling.
        minutes: of processor time.
        lr: learning rate.
        knobs: further keys of the [model] of the case.
        meshes: what it is trained on, `grid` or `irregular`: eight triangulations.
        heights: planes that are learned.
        batch_size: planes a step.
        modes: of FNO, along both axes; 32 are all.
        images: whether examples are learned with their mirror images along z as well, as the linear estimate does.
    """

    model: str
    n_train: int = 0
    seed: int = 0
    minutes: float = 0.75
    lr: float = 3e-3
    knobs: dict[str, Any] = dataclasses.field(default_factory=dict)
    meshes: str = "grid"
    heights: Sequence[int] = HEIGHTS
    batch_size: int = 4
    modes: int = 32
    images: bool = False

    @property
    def file(self) -> str:
        """Where a prediction is kept."""
        knobs = "".join(f"-{key}-{value}" for key, value in self.knobs.items())
        heights = "-".join(map(str, self.heights))
        settings = f"{self.minutes:g}-{self.lr:g}-{self.batch_size}{knobs}-{self.modes}-{self.images}"
        return f"{self.model}-{settings}-{self.meshes}-{heights}.npy"

    @property
    def columns(self) -> list[int]:
        """Which columns of the flow are learned."""
        return [k for k, name in enumerate(COLUMNS) if int(name[1:]) in self.heights]


class OnGrid(nn.Module):
    """neuraloperator's FNO on the nodes of a periodic grid."""

    def __init__(self, n_inputs: int, n_outputs: int, width: int, modes: int) -> None:
        from neuralop.models import FNO

        super().__init__()
        self.fno = FNO(
            (modes, modes), n_inputs, n_outputs, hidden_channels=width, n_layers=4, positional_embedding=None
        )

    def forward(self, batch: Batch) -> Output:
        side = round((len(batch.x) / batch.num_graphs) ** 0.5)
        planes = batch.x.view(batch.num_graphs, side, side, -1).permute(0, 3, 1, 2)
        u = nn.functional.pad(self.fno(planes[..., :-1, :-1]), (0, 1, 0, 1), mode="circular")
        fields = u.permute(0, 2, 3, 1).reshape(len(batch.x), -1)
        return Output((fields,), (batch.mass_0,), (batch.pos_0,), (batch.pos_0_batch,), ())


class Linear:
    """Linear stochastic estimation: at each wave number the flow is a matrix times the wall, by least squares.

    As extended proper orthogonal decomposition (Borée 2003, Exp. Fluids 35, 188) with all modes, which are Fourier's in
    directions that repeat. Reflection along z, which turns the sign of ∂w/∂n and w, doubles the examples.
    """

    def __init__(self, train: Pairs, ridge: float = 1e-3) -> None:
        wall, flow = with_images(train)
        gram = np.einsum("nxza,nxzb->xzab", wall.conj(), wall)
        cross = np.einsum("nxza,nxzc->xzac", wall.conj(), flow)
        small = ridge * np.einsum("xzaa->xz", gram).real / gram.shape[-1] + 1e-300
        self.matrix = np.linalg.solve(gram + small[..., None, None] * np.eye(gram.shape[-1]), cross)

    def __call__(self, wall: PAIRS) -> PAIRS:
        return np.einsum("nxza,xzac->nxzc", wall, self.matrix)


def with_images(pairs: Pairs) -> Pairs:
    """The examples, and their mirror images along z."""
    odd = [k for k, name in enumerate(COLUMNS) if name[0] == "w"]
    return Pairs(with_reflection(pairs.wall, (1,)), with_reflection(pairs.flow, odd))


def with_reflection(coefficients: PAIRS, odd: Sequence[int]) -> PAIRS:
    """The examples, and these with z turned round; of real fields c(kx, −kz) is the conjugate of c(−kx, kz)."""
    order = -np.arange(coefficients.shape[1])
    turned = coefficients[:, order].conj()
    turned[..., list(odd)] *= -1.0
    return np.concatenate([coefficients, turned])


def adamw(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """As FNO's authors have it."""
    return torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=1e-4)


def case_of(job: Job) -> Case:
    """The case as a user would write it."""
    return Case.model_validate(
        {
            "data": {"inputs": ["wall"], "targets": ["flow"]},
            "model": {**MODELS.get(job.model, {"coordinates": False, "n_levels": 2}), **job.knobs},
            "training": training(job, job.batch_size),
        }
    )


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with averaged weights, and what its training was like."""

    job: Job
    model: nn.Module
    blueprint: Blueprint
    progress: Progress
    watch: Watch

    def __call__(self, some: Sequence[MeshData]) -> Float[np.ndarray, "n n_nodes c"]:
        """Predictions in deviations."""
        return predictions(self.model, self.blueprint, some)

    @property
    def early(self) -> Trained:
        """With the weights that erred least on validation, as `gno train` keeps them."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.watch.best)
        return dataclasses.replace(self, model=model)


@torch.inference_mode()
def predictions(model: nn.Module, blueprint: Blueprint, some: Sequence[MeshData]) -> Float[np.ndarray, "n n_nodes c"]:
    """In deviations."""
    scale, found = blueprint.normalisation, []
    for sample in some:
        output = model(collate([scale.apply(sample)]))
        found.append(scale.targets.decode(output.fields[0]).numpy())
    return np.stack(found)


class Watch:
    """The error of averaged weights on the grid, a plane of validation each, twenty times on the way; off the clock.

    Args:
        blueprint: of the model. planes: to validate on.
    """

    def __init__(self, blueprint: Blueprint, planes: Sequence[MeshData]) -> None:
        self.blueprint, self.planes = blueprint, planes
        self.curve: list[float] = []
        self.best: dict[str, torch.Tensor] = {}
        self.away = 0.0

    def clock(self) -> float:
        return time.process_time() - self.away

    def __call__(self, model: nn.Module) -> dict[str, float]:
        start, mesh = time.process_time(), grid(SIDE)
        truth = np.stack([plane.y.numpy() for plane in self.planes])
        error = scores(predictions(model, self.blueprint, self.planes), truth, mesh)["error"]
        self.curve.append(float(np.mean(error)))
        self.away += time.process_time() - start
        return {"score": self.curve[-1]}

    def save(self, name: str, parts: Parts, progress: dict[str, Any]) -> None:
        """Keep the weights that were best so far."""
        if name == "best":
            self.best = {key: value.clone() for key, value in parts["average"].items()}


def fitted(job: Job, train: Pairs, validation: Pairs) -> Trained:
    """Train; the clock is the processor time of this process."""
    train = with_images(train) if job.images else train
    train, validation = (Pairs(part.wall, part.flow[..., job.columns]) for part in (train, validation))
    meshes = [grid(SIDE)] if job.meshes == "grid" else [irregular(SIDE, seed) for seed in range(8)]
    case, first = case_of(job), meshes[0].with_point_fields(**_at(train.part(slice(1)), meshes[0]))
    spec = SampleSpec.fit([first], inputs=["wall"], targets=["flow"], **case.model.hierarchy)
    ready = samples(train, meshes, spec)
    blueprint = Blueprint.fit(case, spec, ready)
    torch.manual_seed(job.seed)
    fno = job.model == "FNO"
    model = OnGrid(len(INPUTS), len(job.columns), FNO_WIDTH, job.modes) if fno else blueprint.model(job.seed)
    normalised = [blueprint.normalisation.apply(sample) for sample in ready]
    terms = data_terms(spec.targets, blueprint.normalisation.targets)
    watch = Watch(blueprint, samples(validation, [grid(SIDE)], spec))
    average, progress = train_quietly(
        case,
        model,
        normalised,
        terms,
        optimiser=adamw if fno else None,
        clock=watch.clock,
        validate=watch,
        save=watch.save,
    )
    return Trained(job, average, blueprint, progress, watch)


# ── what is measured ──


def scores(predicted: np.ndarray, truth: np.ndarray, mesh: Mesh) -> dict[str, dict[str, float]]:
    """Error over root mean square, and correlation, of each column over all planes."""
    mass = node_mass(mesh)

    def mean(product: np.ndarray) -> np.ndarray:
        return np.einsum("nic,i->c", product, mass)

    power, size = mean(predicted**2), mean(truth**2)
    error = np.sqrt(mean((predicted - truth) ** 2) / size)
    correlation = mean(predicted * truth) / np.sqrt(power * size + 1e-300)
    return {"error": error.tolist(), "correlation": correlation.tolist(), "power": (power / size).tolist()}


def spectrum(planes: Float[np.ndarray, "n n_nodes c"]) -> Float[np.ndarray, "n_k c"]:
    """⟨|û|²⟩ over wave numbers along z, of values on a grid."""
    side = round(planes.shape[1] ** 0.5)
    values = planes.reshape(len(planes), side, side, -1)[:, :-1, :-1]
    return (np.abs(np.fft.rfft(values, axis=2)) ** 2).mean((0, 1)) / (side - 1) ** 2


def spectrum_error(predicted: np.ndarray, truth: np.ndarray) -> list[float]:
    """Σ|E − E₀| / ΣE₀ over wave numbers along z, by column."""
    found, wanted = spectrum(predicted), spectrum(truth)
    return (np.abs(found - wanted).sum(0) / wanted.sum(0)).tolist()


# Meshes of the test: the one of training, coarser and finer grids, and a triangulation that is none.
PLACES: dict[str, Callable[[], Mesh]] = {
    "grid": lambda: grid(SIDE),
    "coarser": lambda: grid(3 * SIDE // 4),
    "finer": lambda: grid(2 * SIDE),
    "irregular": lambda: irregular(SIDE, 100),
}


def average(measures: dict[str, Any]) -> float:
    """The mean error on the grid over components and heights."""
    return float(np.mean(measures["grid"]["error"]))


def measured(trained: Trained, test: Pairs, names: Sequence[str] = tuple(PLACES)) -> dict[str, Any]:
    """Scores by mesh; where FNO has no grid, values go to one and back by linear interpolation."""
    job, found = trained.job, {}
    test = Pairs(test.wall, test.flow[..., job.columns])
    for name in names:
        mesh = PLACES[name]()
        some, back = samples(test, [mesh], trained.blueprint.spec), None
        truth = np.stack([sample.y.numpy() for sample in some])
        if job.model == "FNO" and name == "irregular":
            regular = grid(SIDE)
            there, back = interpolation(mesh, regular.points), interpolation(regular, mesh.points)
            some = samples(test, [regular], trained.blueprint.spec)
            for sample, wall in zip(some, values(test.wall, mesh.points), strict=True):
                sample.x = torch.from_numpy(there @ wall).float()
        start = time.process_time()
        predicted = trained(some)
        ms = 1e3 * (time.process_time() - start) / len(some)
        if back is not None:
            predicted = np.stack([back @ one for one in predicted])
        found[name] = {**scores(predicted, truth, mesh), "ms": ms}
        if name == "grid":
            found[name]["spectrum"] = spectrum_error(predicted, truth)
    return found


def linear(train: Pairs, test: Pairs, names: Sequence[str] = tuple(PLACES)) -> dict[str, Any]:
    """The same for the linear estimate, which knows waves and no mesh; unevenly spread points go to a grid first."""
    estimate, regular, found = Linear(train), grid(SIDE), {}
    for name in names:
        mesh = PLACES[name]()
        wall, truth = test.wall, values(test.flow, mesh.points)
        if name == "irregular":
            there = interpolation(mesh, regular.points)
            planes = np.stack([there @ one for one in values(wall, mesh.points)])
            planes = planes.reshape(len(planes), SIDE + 1, SIDE + 1, -1)[:, :-1, :-1]
            along = channel_solver.wave_numbers(wall.shape[1])
            wall = np.fft.rfft2(planes, axes=(1, 2), norm="forward")[:, along, : wall.shape[2]]
        predicted = values(estimate(wall), mesh.points)
        found[name] = scores(predicted, truth, mesh)
        if name == "grid":
            found[name]["spectrum"] = spectrum_error(predicted, truth)
    return found


@torch.inference_mode()
def scales(trained: Trained, some: Sequence[MeshData]) -> dict[str, list]:
    """Which scale matters: attention of the nodes to each scale, and each scale's share of what is predicted.

    The share of scale s is that of what its heads add, ⟨|P…(u_s − P u_{s+1})|²⟩, by column.
    """
    attention, shares = [], []
    for sample in some:
        output = trained.model(collate([trained.blueprint.normalisation.apply(sample)]), return_attention=True)
        levels, power = output.fields, []
        for s, u in enumerate(levels):
            part = u - output.transfers[s].prolong(levels[s + 1]) if s + 1 < len(levels) else u
            for transfer in reversed(output.transfers[:s]):
                part = transfer.prolong(part)
            power.append((output.mass[0][:, None] * part**2).sum(0))
        shares.append(torch.stack(power) / torch.stack(power).sum(0))
        if output.attention is not None:
            attention.append((output.mass[0][:, None] * output.attention[0]).sum(0))
    return {
        "shares": torch.stack(shares).mean(0).tolist(),
        "attention": torch.stack(attention).mean(0).tolist() if attention else [],
        "spacings": list(trained.blueprint.spec.spacings),
    }


def draw_from(folder: Path, trained: Trained, test: Pairs) -> None:
    """Keep what is predicted above one wall, for the picture."""
    folder.mkdir(exist_ok=True)
    some = samples(Pairs(test.wall[:1], test.flow[:1, ..., trained.job.columns]), [grid(SIDE)], trained.blueprint.spec)
    np.save(folder / trained.job.file, trained(some)[0])


def run(job: Job, folder: Path = channel_solver.CACHE) -> dict[str, Any]:
    """Train and measure; one row of the results."""
    torch.set_num_threads(1)
    parts = data(folder, job.n_train)
    train, validation, test = (parts[name] for name in PARTS)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    row = {**dataclasses.asdict(job), "heights": list(job.heights), "pairs": len(train.wall), "machine": machine}
    if job.model == "linear":
        start = time.process_time()
        row |= {"test": linear(train, test), "seconds": time.process_time() - start}
        return {**row, "validation": average(linear(train, validation, ("grid",)))}
    trained = fitted(job, train, validation)
    if job.model == "gno":
        mesh = grid(SIDE)
        row["scales"] = scales(
            trained, samples(Pairs(test.wall, test.flow[..., job.columns]), [mesh], trained.blueprint.spec)
        )
    weights = sum(p.numel() * (2 if p.is_complex() else 1) for p in trained.model.parameters())
    if not job.seed and not job.n_train:
        draw_from(folder / "predicted", trained, test)
    known = train.part(np.linspace(0, len(train.wall) - 1, min(N_TEST, len(train.wall))).astype(int))
    row |= {
        "test": measured(trained, test),
        "validation": average(measured(trained, validation, ("grid",))),
        "known": average(measured(trained, known, ("grid",))),
        "early": average(measured(trained.early, test, ("grid",))),
        "curve": trained.watch.curve,
    }
    return {**row, "steps": trained.progress.step, "weights": weights}
