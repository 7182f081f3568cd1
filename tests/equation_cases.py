"""Boxes with named sides, manufactured solutions and their errors."""

import numpy as np
import skfem
import torch
from torch.func import jacfwd, vmap

from gno.mesh import CellBlock, Mesh
from gno.physics import build_domain

SIDES = {"left": (0, 0.0), "right": (0, 1.0), "bottom": (1, 0.0), "top": (1, 1.0), "front": (2, 0.0), "back": (2, 1.0)}
MADE = {"triangle": skfem.MeshTri, "quad": skfem.MeshQuad, "tetra": skfem.MeshTet}


def box(n, kind="triangle", bend=0.05):
    """The unit square or cube, n cells per side, its inside bent, with its sides as sets."""
    dim = 3 if kind == "tetra" else 2
    mesh = MADE[kind].init_tensor(*[np.linspace(0, 1, n + 1)] * dim)
    sets = {
        name: np.flatnonzero(np.isclose(mesh.p[axis], value)) for name, (axis, value) in SIDES.items() if axis < dim
    }
    bump = bend * np.prod(np.sin(np.pi * mesh.p), axis=0)
    return Mesh((mesh.p + bump).T, [CellBlock(kind, mesh.t.T)], point_sets=sets)


def nodal(function):
    """A function of torch points as one of numpy points, for conditions."""
    return lambda x: function(torch.from_numpy(x)).numpy()


def at_points(function):
    """A function of one point, at many (cells, points, dim)."""
    return vmap(vmap(function))


def gradient(function):
    return jacfwd(function)


def divergence(flux):
    """Of a function of one point, over its last axis."""
    return lambda x: jacfwd(flux)(x).diagonal(dim1=-2, dim2=-1).sum(-1)


def l2_error(mesh, values, exact):
    """``‖u − u_h‖``, by a rule exact to order 4."""
    parts = build_domain(mesh, order=4).cells
    return (
        sum(
            float((part.weight * (part.values(values) - exact(part.position)).square().sum(-1)).sum()) for part in parts
        )
        ** 0.5
    )


def h1_error(mesh, values, exact):
    """``‖∇u − ∇u_h‖``, by a rule exact to order 2."""
    slope, total = at_points(jacfwd(exact)), 0.0
    for part in build_domain(mesh, order=2).cells:
        total += float((part.weight * (part.gradients(values) - slope(part.position)).square().sum((-2, -1))).sum())
    return total**0.5


def rates(errors):
    """Orders of convergence, from halving to halving."""
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
