"""Series in time, known in closed form, that the tests of dynamics share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gno.mesh import CellBlock, Mesh
from gno.train import Case, Data, Model, Training
from gno.train.case import Time


def grid(n: int = 6) -> Mesh:
    """The unit square of n × n quads."""
    x = np.linspace(0, 1, n + 1)
    points = np.stack([a.ravel() for a in np.meshgrid(x, x, indexing="ij")], axis=1)
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    quads = np.stack([corner, corner + n + 1, corner + n + 2, corner + 1], axis=1)
    return Mesh(points, (CellBlock("quad", quads),))


def start_of(seed: int, points: np.ndarray) -> np.ndarray:
    """A smooth field."""
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(1, 3, 2)
    return 1.5 + np.sin(a * points[:, 0] + b) * np.cos(b * points[:, 1] + a)


def decay(seed: int, times: Sequence[float] = tuple(np.arange(8) * 0.1), n: int = 6) -> list[Mesh]:
    """du/dt = −k u with the global field k; v is a vector that goes with u."""
    mesh, k = grid(n), 0.5 + 0.25 * (seed % 4)
    frames = []
    for t in times:
        u = start_of(seed, mesh.points) * np.exp(-k * t)
        fields = {"u": u, "v": np.stack([u, -2 * u], axis=1)}
        frames.append(
            mesh.replace(
                point_fields=fields, global_fields={"k": np.array([k])}, time=float(t), source=f"decay {seed} t={t:.3g}"
            )
        )
    return frames


def moving(seed: int, n_frames: int = 6) -> list[Mesh]:
    """The decay of a linear field on a mesh that gets finer with every frame: interpolation costs nothing."""
    frames = []
    for j in range(n_frames):
        mesh = decay(seed, [0.1 * j], n=5 + j)[0]
        u = (1 + mesh.points @ [1.0, 2.0 + seed]) * np.exp(-0.1 * j * float(mesh.global_fields["k"][0]))
        frames.append(mesh.with_point_fields(u=u))
    return frames


def case(time: Time | None = None, targets: Sequence[str] = ("u",), inputs: Sequence[str] = ("k",), **training) -> Case:
    """A case in time, as small as it gets, on one CPU."""
    budget = {} if "minutes" in training else {"epochs": 2}
    return Case(
        data=Data(inputs=inputs, targets=targets),
        model=Model(width=16, n_blocks=1, n_heads=1),
        training=Training(**{**budget, "batch_size": 4, "device": "cpu", **training}),
        time=time or Time(unroll=2),
    )
