"""Small meshes and cases that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gno.graph import build_sample
from gno.mesh import CellBlock, Mesh
from gno.train import Case, Data, Model, Run, Training
from gno.train.blueprint import Blueprint
from gno.train.sources import fit_spec
from gno.uq import Ensemble


def square(seed: int, n: int = 8) -> Mesh:
    """A unit square of n × n cells with an input wave and a target that follows from it; a vector and a cell field."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, n + 1)
    points = np.stack([a.ravel() for a in np.meshgrid(x, x, indexing="ij")], axis=1)
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    quads = np.stack([corner, corner + n + 1, corner + n + 2, corner + 1], axis=1)
    wave = np.sin(rng.uniform(1, 3) * points[:, 0] + rng.uniform(-1, 1))
    return Mesh(
        points,
        (CellBlock("quad", quads),),
        point_fields={"wave": wave, "u": np.stack([2 + wave, 1 - 0.5 * wave], axis=1)},
        cell_fields={"heat": 300 + wave[quads].mean(1)},
        point_sets={"left": np.arange(n + 1)},
        source=f"square {seed}",
    )


def squares(n: int) -> list[Mesh]:
    """The first n squares."""
    return [square(seed) for seed in range(n)]


def case(**training) -> Case:
    """A case for squares, as small as it gets, on one CPU."""
    budget = {} if "minutes" in training else {"epochs": 3}
    return Case(
        data=Data(inputs=["wave"], targets=["u", "heat"]),
        model=Model(width=16, n_blocks=1, n_heads=1),
        training=Training(**{**budget, "batch_size": 2, "device": "cpu", **training}),
    )


def untrained(folder: Path) -> Ensemble:
    """Three operators for squares with weights from their seeds, which nobody trained."""
    spec = fit_spec(case(), squares(3))
    blueprint = Blueprint.fit(case(), spec, [build_sample(mesh, spec) for mesh in squares(3)])
    models = [blueprint.model(seed).requires_grad_(False).eval() for seed in range(3)]
    return Ensemble(tuple(Run(folder, blueprint, model) for model in models))
