"""Homogenisation learned: one training in this process, and all that is measured of it; `microstructure.py` starts it.

From the conductivity of a cell to both fluctuations χ and to the effective conductivity, three numbers that are learned
as fields that are the same everywhere. All networks have the same case, losses, loop and processor time. FNO lives on a
grid, which has a mesh of its own made of the same grains; χ comes there, and back, by linear interpolation. The
equation as a loss is the energy of linear elements, on the mesh (gno) or on the grid (PINO: Li et al. 2021,
arXiv:2111.03794, with this energy in place of a residual).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import microstructure_classical as classical
import numpy as np
import torch
from channel_run import OnGrid, adamw
from jaxtyping import Float
from microstructure_cells import (
    CACHE,
    REGIMES,
    SPACING,
    Grains,
    cells,
    centred,
    effective,
    gradients,
    mesh_area,
    slopes,
    tensor,
)
from quiet import train_quietly, training
from torch import nn

from gno.graph import MeshData, SampleSpec, build_sample, collate
from gno.mesh import CellBlock, Mesh, interpolation, node_mass
from gno.train import Case
from gno.train.blueprint import Blueprint
from gno.train.loop import Progress
from gno.train.physics import with_given, with_physics
from gno.train.task import task_of

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "gray_scott"))
from domains import alternating

TESTS = {"test": 40, "more hard grains": 24, "higher contrast": 24, "larger cells": 12, "finer meshes": 12}
N_VALIDATION = 24
GRID = 32  # of FNO, along a length of 1: about as many points as a mesh has nodes
MODELS: dict[str, dict[str, Any]] = {
    "gno": {"coordinates": False},
    "graph without levels": {"coordinates": False, "n_levels": 1, "n_blocks": 6},
    "FNO": {"coordinates": False, "n_levels": 2},
}
FNO_WIDTH = 32
PREDICTED = CACHE / "predicted"
EQUATION = {
    "equation": "microstructure_cells:law",
    "parameters": {"conductivity": "conductivity"},
    "unknowns": ["fluctuation"],
}


class Answer(NamedTuple):
    """What a method says of a cell: χ at the nodes of its mesh, A, A of the field's energy, and milliseconds."""

    chi: Float[np.ndarray, "n_nodes 2"]
    tensor: Float[np.ndarray, "2 2"]
    of_field: Float[np.ndarray, "2 2"]
    prepare_ms: float
    ms: float


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a row of the results without what was measured.

    Args:
        model: a key of `MODELS`.
        n_train: cells.
        seed: of weights and shuffling.
        minutes: of processor time.
        lr: learning rate.
        batch_size: cells a step.
        physics: changes of [physics]; empty for a training on data alone.
        knobs: further keys of the [model] of the case.
        modes: of FNO, along both axes; 32 are all.
    """

    model: str
    n_train: int = 256
    seed: int = 0
    minutes: float = 0.75
    lr: float = 3e-3
    batch_size: int = 4
    physics: dict[str, Any] = dataclasses.field(default_factory=dict)
    knobs: dict[str, Any] = dataclasses.field(default_factory=dict)
    modes: int = 32

    @property
    def file(self) -> str:
        """Where a prediction is kept."""
        changes = "".join(f"-{key}-{value}" for key, value in {**self.physics, **self.knobs}.items())
        settings = f"{self.minutes:g}-{self.lr:g}-{self.batch_size}{changes}-{self.modes}"
        return f"{self.model}-{self.n_train}-{self.seed}-{settings}.npy"


def case_of(job: Job) -> Case:
    """The case as a user would write it."""
    return Case.model_validate(
        {
            "data": {"inputs": ["conductivity"], "log": ["conductivity"], "targets": ["fluctuation", "effective"]},
            "model": {**MODELS[job.model], **job.knobs},
            "training": training(job, job.batch_size),
            **({"physics": {**EQUATION, **job.physics}} if job.physics else {}),
        }
    )


# ── grids ──


def on_grid(mesh: Mesh, n: int) -> Mesh:
    """The grains of a mesh on a grid of n × n squares, each two triangles whose diagonals alternate."""
    grains = Grains.of(mesh)
    lattice, triangles = alternating(n)
    points = lattice * grains.side / n
    return Mesh(
        points,
        (CellBlock("triangle", triangles),),
        cell_fields={"conductivity": grains.at(points[triangles].mean(1))},
        global_fields=mesh.global_fields,
        period=mesh.period,
    )


def seen(job: Job, mesh: Mesh, spacing: float = SPACING) -> Mesh:
    """The mesh that a network works on, its own or a grid as fine."""
    return on_grid(mesh, round(GRID * mesh.period[0] * SPACING / spacing)) if job.model == "FNO" else mesh


def labelled(job: Job, mesh: Mesh) -> Mesh:
    """The same with χ."""
    own = seen(job, mesh)
    chi = mesh.point_fields["fluctuation"]
    return own.with_point_fields(fluctuation=chi if own is mesh else interpolation(mesh, own.points) @ chi)


# ── training ──


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network with averaged weights, and what its training was like."""

    job: Job
    model: nn.Module
    blueprint: Blueprint
    progress: Progress

    @torch.inference_mode()
    def __call__(self, mesh: Mesh, spacing: float) -> Answer:
        start = time.process_time()
        own, scale = seen(self.job, mesh, spacing), self.blueprint.normalisation
        sample = build_sample(own, self.blueprint.spec)
        sample = with_given(sample, own, self.blueprint.case, self.blueprint.spec)
        batch = collate([scale.apply(sample)])
        middle = time.process_time()
        u = scale.targets.decode(self.model(batch).fields[0]).double().numpy()
        chi, known = u[:, :2], node_mass(own) @ u[:, 2:] / mesh_area(own)
        of_field = effective(own, gradients(own, chi))
        if own is not mesh:
            n = round(own.n_nodes**0.5)
            chi = classical.periodic_field(chi.reshape(n, n, 2)[:-1, :-1], mesh.period[0])(mesh.points)
        end = time.process_time()
        return Answer(centred(mesh, chi), tensor(known), of_field, 1e3 * (middle - start), 1e3 * (end - middle))


def fitted(job: Job, meshes: Sequence[Mesh]) -> Trained:
    """Train; the clock is the processor time of this process."""
    case, own = case_of(job), [labelled(job, mesh) for mesh in meshes]
    data = case.data
    spec = SampleSpec.fit(own, inputs=data.inputs, targets=data.targets, log=data.log, **case.model.hierarchy)
    samples = [prepared(mesh, case, spec) for mesh in own]
    blueprint = Blueprint.fit(case, spec, samples)
    torch.manual_seed(job.seed)
    fno = job.model == "FNO"
    model = OnGrid(spec.n_inputs, spec.n_targets, FNO_WIDTH, job.modes) if fno else blueprint.model(job.seed)
    task = task_of(blueprint, {"train": samples, "validation": []}, model)
    average, progress = train_quietly(case, model, task.samples, task.terms, optimiser=adamw if fno else None)
    return Trained(job, average, blueprint, progress)


def prepared(mesh: Mesh, case: Case, spec: SampleSpec) -> MeshData:
    """A sample to train on."""
    sample = build_sample(mesh, spec)
    return with_physics(sample, mesh, case, spec) if case.physics else sample


# ── what is measured ──


def errors(mesh: Mesh, answer: Answer) -> dict[str, float]:
    """Relative to the reference: χ, gradient and flux of the whole potential, and A, learned and of the field."""
    area = slopes(mesh)[1]
    a, total = mesh.cell_fields["conductivity"], mesh.cell_fields["gradient"].reshape(-1, 2, 2)
    wrong, mass = gradients(mesh, answer.chi) - total, node_mass(mesh)
    truth, known = mesh.point_fields["fluctuation"], tensor(mesh.global_fields["effective"].ravel())
    return {
        "field": _ratio(answer.chi - truth, truth, mass),
        "gradient": _ratio(wrong, total, area),
        "flux": _ratio(wrong, total, area * a**2),
        "effective": float(np.linalg.norm(answer.tensor - known) / np.linalg.norm(known)),
        "effective of field": float(np.linalg.norm(answer.of_field - known) / np.linalg.norm(known)),
        "prepare ms": answer.prepare_ms,
        "ms": answer.ms,
    }


def _ratio(wrong: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """‖wrong‖ / ‖right‖, of squares summed with a weight for each row."""
    part, whole = (weight @ (x**2).reshape(len(x), -1).sum(1) for x in (wrong, right))
    return float((part / whole) ** 0.5)


def measured(method: Callable[[Mesh, float], Answer], name: str, n: int) -> dict[str, float]:
    """Mean errors over the cells of a regime, and the median of the times."""
    rows = [errors(mesh, method(mesh, REGIMES[name].spacing)) for mesh in cells(name, n)]
    return {
        key: (statistics.median if key.endswith("ms") else statistics.fmean)(row[key] for row in rows)
        for key in rows[0]
    }


def run(job: Job) -> dict[str, Any]:
    """Train and measure; one row of the results."""
    torch.set_num_threads(1)
    start = time.process_time()
    trained = fitted(job, cells("train", job.n_train))
    seconds = time.process_time() - start
    weights = sum(p.numel() * (2 if p.is_complex() else 1) for p in trained.model.parameters())
    draw_from(trained)
    return {
        **dataclasses.asdict(job),
        "machine": machine(),
        "seconds": seconds,
        "steps": trained.progress.step,
        "weights": weights,
        "validation": measured(trained, "validation", N_VALIDATION),
        **{name: measured(trained, name, n) for name, n in TESTS.items()},
    }


def draw_from(trained: Trained) -> None:
    """Keep what is predicted on one cell, for the picture."""
    PREDICTED.mkdir(parents=True, exist_ok=True)
    (shown,) = cells("test", 1)
    np.save(PREDICTED / trained.job.file, trained(shown, SPACING).chi)


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


# ── without learning ──


def mean_field(estimate: Callable[[float, float, float], float]) -> Callable[[Mesh, float], Answer]:
    """An isotropic A from the share and the conductivities of the phases; of the field it says nothing."""

    def method(mesh: Mesh, _: float) -> Answer:
        start, a = time.process_time(), mesh.cell_fields["conductivity"]
        share = float(slopes(mesh)[1][a > 1].sum() / mesh_area(mesh))
        found = estimate(share, 1.0, float(a.max())) * np.eye(2)
        ms = 1e3 * (time.process_time() - start)
        return Answer(np.full((mesh.n_nodes, 2), np.nan), found, found, 0.0, ms)

    return method


def elements(mesh: Mesh, _: float) -> Answer:
    """Linear elements on the mesh itself."""
    start = time.process_time()
    chi, found = classical.on_mesh(mesh)
    return Answer(chi, found, found, 0.0, 1e3 * (time.process_time() - start))


def on_squares(
    solve: Callable[[np.ndarray, float], tuple[classical.Field, np.ndarray]],
) -> Callable[[Mesh, float], Answer]:
    """A method on a grid, whose coefficients are sampled beforehand; χ comes to the nodes by interpolation."""

    def method(mesh: Mesh, _: float) -> Answer:
        start = time.process_time()
        grains = Grains.of(mesh)
        a = classical.pixels(grains)
        middle = time.process_time()
        field, found = solve(a, grains.side)
        chi = field(mesh.points)
        end = time.process_time()
        return Answer(centred(mesh, chi), found, found, 1e3 * (middle - start), 1e3 * (end - middle))

    return method


@functools.cache
def anchors_of() -> tuple[Case, SampleSpec]:
    """The case and the hierarchy of gno with its balance kept, as training has them."""
    case = case_of(Job("gno", physics={"conservative": True}))
    data = case.data
    return case, SampleSpec.fit(
        cells("train", 16), inputs=data.inputs, targets=data.targets, log=data.log, **case.model.hierarchy
    )


def on_anchors(mesh: Mesh, _: float) -> Answer:
    """What the correction of `physics.conservative` makes of a field of zeros, without any network."""
    case, spec = anchors_of()
    start = time.process_time()
    space = with_given(build_sample(mesh, spec), mesh, case, spec).coarse_space
    middle = time.process_time()
    chi = space.correct(torch.zeros(mesh.n_nodes, 2, dtype=torch.float64)).numpy()
    found = effective(mesh, gradients(mesh, chi))
    end = time.process_time()
    return Answer(centred(mesh, chi), found, found, 1e3 * (middle - start), 1e3 * (end - middle))


def averaged(per_length: int) -> Callable[[Mesh, float], Answer]:
    return on_squares(lambda a, side: classical.averaged(a, side, round(per_length * side)))


def multiscale(per_length: int, oversampling: int = 0) -> Callable[[Mesh, float], Answer]:
    return on_squares(lambda a, side: classical.multiscale(a, side, round(per_length * side), oversampling))


CLASSICAL: dict[str, Callable[[Mesh, float], Answer]] = {
    "Voigt, upper bound": mean_field(classical.voigt),
    "Reuss, lower bound": mean_field(classical.reuss),
    "Hashin–Shtrikman, upper": mean_field(lambda *phases: classical.hashin_shtrikman(*phases)[1]),
    "Hashin–Shtrikman, lower (Mori–Tanaka)": mean_field(lambda *phases: classical.hashin_shtrikman(*phases)[0]),
    "self-consistent": mean_field(classical.self_consistent),
    "averaged coefficients, 8 × 8": averaged(8),
    "averaged coefficients, 16 × 16": averaged(16),
    "averaged coefficients, 32 × 32": averaged(32),
    "pixels, 64 × 64": averaged(64),
    "MsFEM, 8 × 8": multiscale(8),
    "MsFEM, 8 × 8, oversampled": multiscale(8, 4),
    "MsFEM, 16 × 16": multiscale(16),
    "balance of gno's anchors alone": on_anchors,
    "linear elements on the mesh": elements,
}


def run_classical(name: str) -> dict[str, Any]:
    """All that is measured of a method that learns nothing; a row of the results."""
    torch.set_num_threads(1)
    tests = {test: measured(CLASSICAL[name], test, n) for test, n in TESTS.items()}
    return {"classical": name, "machine": machine(), **tests}
