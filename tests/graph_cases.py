"""Small meshes and samples that tests of the graph and the operator share."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import Delaunay

from gno.graph import MeshData, SampleSpec, build_sample
from gno.mesh import CellBlock, Mesh
from gno.nn import NeuroScale, OperatorConfig


def square(n: int = 9, *, seed: int = 0, scale: float = 1.0, dim: int = 2) -> Mesh:
    """Jittered grid of the unit square or cube as simplices, with an input `a`, targets `u` (scalar), `w` (vector)."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(0, 1, n)
    points = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)
    inner = ((points > 0) & (points < 1)).all(1)
    points[inner] += rng.uniform(-0.2, 0.2, (inner.sum(), dim)) / n
    kind = "triangle" if dim == 2 else "tetra"
    cells = np.sort(Delaunay(points).simplices, axis=1)
    a = np.sin(3 * points[:, 0]) + points[:, 1] ** 2 + 0.1 * seed
    fields = {"a": a, "u": a**2, "w": np.stack([a] * dim, 1) * points}
    return Mesh(
        points * scale, (CellBlock(kind, cells),), fields, point_sets={"left": np.flatnonzero(points[:, 0] == 0)}
    )


def spec_of(*meshes: Mesh, **options) -> SampleSpec:
    return SampleSpec.fit(meshes, inputs=["a"], targets=["u", "w"], **{"n_levels": 3, "first_step": 2.0, **options})


def samples_of(*meshes: Mesh, spec: SampleSpec | None = None) -> list[MeshData]:
    """float64 samples."""
    return [build_sample(mesh, spec or spec_of(*meshes), torch.float64) for mesh in meshes]


def operator_for(sample: MeshData, *, seed: int = 0, convolutions=None, **options) -> NeuroScale:
    """A small float64 operator with random weights."""
    torch.manual_seed(seed)
    config = OperatorConfig(
        dim=sample.pos_0.shape[1],
        n_inputs=sample.x.shape[1],
        n_geometry=sample.geometry.shape[1],
        n_outputs=sample.y.shape[1],
        n_levels=sample.n_levels,
        **{"width": 32, "n_blocks": 2, "n_heads": 2, **options},
    )
    return NeuroScale(config, convolutions).double()
