"""Potential flow around ellipsoids, known in closed form, on tetrahedra that grow some twentyfold away from them."""

from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation
from scipy.special import elliprd

from gno.mesh import CellBlock, Mesh

AROUND = 200  # nodes on a shell
OUTER = 20.0  # outer radius over the mean one of the ellipsoid
JITTER = 0.2  # of inner nodes, in spacings


def ellipsoid(seed: int) -> Mesh:
    """An ellipsoid with random axes and orientation in a flow of unit speed along x.

    Point fields `velocity` (n, 3) and `pressure`, 1 − |u|²; point sets `body` and `outer`.
    """
    rng = np.random.default_rng([seed, 0xE111])
    axes = np.exp(rng.uniform(-0.6, 0.6, 3))
    axes *= rng.uniform(0.7, 1.4) / axes.prod() ** (1 / 3)
    turn = Rotation.random(random_state=rng).as_matrix()
    spacing = np.sqrt(4 * np.pi / AROUND)
    shells = round(np.log(OUTER) / spacing) + 1
    shell = np.repeat(np.arange(shells), AROUND)
    inside = ((shell > 0) & (shell < shells - 1))[:, None]
    shake = JITTER * spacing * inside * rng.uniform(-1, 1, (len(shell), 4))
    normal = np.concatenate([_directions(rng) for _ in range(shells)]) + shake[:, :3]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    mean = axes.prod() ** (1 / 3)
    grown = mean**2 * (np.exp(2 * (shell * np.log(OUTER) / (shells - 1) + shake[:, 3])) - 1)  # λ: 0 on the body
    place = normal * np.sqrt(axes**2 + grown[:, None])
    velocity = around(place, grown, axes, turn[0]) @ turn.T
    cells = Delaunay(place).simplices
    cells = cells[(shell[cells] > 0).any(1)].astype(np.int64)
    return Mesh(
        place @ turn.T,
        (CellBlock("tetra", cells),),
        {"velocity": velocity, "pressure": 1 - (velocity**2).sum(1)},
        global_fields={"inflow": np.array([1.0, 0.0, 0.0])},
        point_sets={"body": np.flatnonzero(shell == 0), "outer": np.flatnonzero(shell == shells - 1)},
        source=f"ellipsoid {seed}",
    )


def around(place: np.ndarray, grown: np.ndarray, axes: np.ndarray, inflow: np.ndarray) -> np.ndarray:
    """Velocity at places on the confocal ellipsoids Σ x_i²/(a_i² + λ) = 1 with the parameters λ = `grown`.

    φ = Σ U_i x_i (1 + α_i(λ)/(2 − α_i(0))), α_i(λ) = abc ∫_λ^∞ ds / ((a_i² + s) Δ(s)).
    Lamb, Hydrodynamics, section 114.
    """
    squared = axes**2 + grown[:, None]
    delta = np.sqrt(squared.prod(1))
    slope = 2 * place / squared / (place**2 / squared**2).sum(1, keepdims=True)  # ∇λ
    velocity = np.tile(inflow, (len(place), 1))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        alpha = axes.prod() * 2 / 3 * elliprd(squared[:, j], squared[:, k], squared[:, i])
        first = axes.prod() * 2 / 3 * elliprd(axes[j] ** 2, axes[k] ** 2, axes[i] ** 2)
        share = inflow[i] / (2 - first)
        velocity[:, i] += share * alpha
        velocity -= share * (place[:, i] * axes.prod() / (squared[:, i] * delta))[:, None] * slope
    return velocity


def _directions(rng: np.random.Generator) -> np.ndarray:
    """Unit vectors about as far from each other, turned at random."""
    k = np.arange(AROUND) + 0.5
    height, angle = 1 - 2 * k / AROUND, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    return (
        np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1)
        @ Rotation.random(random_state=rng).as_matrix()
    )
