"""Steady flow past obstacles in a channel: Navier–Stokes with Taylor–Hood elements."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import skfem
from jaxtyping import Float
from scipy.sparse import bmat, csr_matrix
from skfem.helpers import ddot, div, dot, grad, mul

from gno.demo.plates import skfem_mesh, solve_with_values
from gno.demo.shapes import Star, divide, scatter_stars, triangulate
from gno.mesh import CellBlock, Mesh

SPACING = 0.062  # about 1,100 nodes
LENGTH = 2.0  # of the channel; its height is 1
VISCOSITY = 0.02  # kinematic, for density 1: the Reynolds number of an obstacle is about 5 to 20

Profile = Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]]


@dataclasses.dataclass(frozen=True)
class Channel:
    """A channel before it is meshed: obstacles, and the speed at the inlet over the height."""

    obstacles: tuple[Star, ...]
    inlet: Profile


def flow(seed: int, spacing: float = SPACING) -> Mesh:
    """(u·∇)u − ν∆u + ∇p = 0, ∇·u = 0; u given at the inlet, zero on walls and obstacles, no traction at the outlet.

    Point field `inlet` (the inlet's speed at the height of the node, everywhere), `velocity` (n, 2), `pressure`;
    point sets `inlet`, `outlet`, `walls` and `obstacles`.
    """
    problem = random_channel(seed)
    mesh = channel_mesh(problem, spacing)
    start = time.process_time()
    solution = solve_flow(mesh, problem.inlet)
    seconds = time.process_time() - start
    velocity, pressure = solution.nodal_values()
    return mesh.replace(
        point_fields={"inlet": problem.inlet(mesh.points[:, 1]), "velocity": velocity, "pressure": pressure},
        global_fields={"solver_seconds": np.array(seconds)},
        source=f"flow {seed}",
    )


def random_channel(seed: int) -> Channel:
    """Draws channel number `seed`: one to four obstacles, and an inlet of random strength and shape."""
    rng = np.random.default_rng([seed, 0xF10E])
    obstacles = scatter_stars(
        rng,
        int(rng.integers(1, 5)),
        box=np.array([[0.3, 0.0], [1.4, 1.0]]),
        radius=(0.06, 0.14),
        gap=0.1,
        inside=lambda x: (x[:, 1] > 0) & (x[:, 1] < 1),
    )
    speed, tilt, dent = rng.uniform(0.5, 1.5), rng.uniform(-0.6, 0.6), rng.uniform(-0.4, 0.4)

    def inlet(y: np.ndarray) -> np.ndarray:
        shape = 1 + tilt * (2 * y - 1) + dent * np.cos(2 * np.pi * y)
        return 4 * speed * y * (1 - y) * shape

    return Channel(obstacles, inlet)


def channel_mesh(problem: Channel, spacing: float) -> Mesh:
    """Triangles and point sets of the channel, with half the spacing or less at the obstacles."""
    corners = np.array([(0.0, 0.0), (LENGTH, 0.0), (LENGTH, 1.0), (0.0, 1.0)])
    edges = [
        divide(np.stack([a, b]), np.array([spacing]))[:-1]
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    holes = [obstacle.polygon(spacing / 2) for obstacle in problem.obstacles]
    points, triangles = triangulate(np.concatenate(edges), holes)
    n_outer, n_holes = sum(map(len, edges)), sum(map(len, holes))
    x, y = points.T
    sets = {
        "inlet": np.flatnonzero(x == 0),
        "outlet": np.flatnonzero(x == LENGTH),
        "walls": np.flatnonzero((y == 0) | (y == 1)),
        "obstacles": np.arange(n_outer, n_outer + n_holes),
    }
    return Mesh(points, (CellBlock("triangle", triangles),), point_sets=sets)


@dataclasses.dataclass(frozen=True)
class Flow:
    """Degrees of freedom of a Taylor–Hood solution."""

    velocity_basis: skfem.Basis
    pressure_basis: skfem.Basis
    velocity: Float[np.ndarray, " n_velocities"]
    pressure: Float[np.ndarray, " n_pressures"]
    divergence: csr_matrix

    def nodal_values(self) -> tuple[Float[np.ndarray, "n_nodes 2"], Float[np.ndarray, " n_nodes"]]:
        """Velocity and pressure at the nodes of the mesh."""
        return self.velocity[self.velocity_basis.nodal_dofs].T, self.pressure[self.pressure_basis.nodal_dofs[0]]


@skfem.BilinearForm
def _friction(u, v, _):
    return VISCOSITY * ddot(grad(u), grad(v))


@skfem.BilinearForm
def _divergence(u, q, _):
    return div(u) * q


@skfem.BilinearForm
def _mass(p, q, _):
    return p * q


@skfem.BilinearForm
def _convection_derivative(u, v, w):
    return dot(mul(grad(u), w.u0) + mul(grad(w.u0), u), v)


@skfem.LinearForm
def _convection(v, w):
    return dot(mul(grad(w.u0), w.u0), v)


def solve_flow(mesh: Mesh, inlet: Profile, *, tolerance: float = 1e-10, max_steps: int = 20) -> Flow:
    """Newton's method from Stokes flow, until a step changes the velocity by less than a tolerance (relative).

    Raises:
        RuntimeError: no convergence, as where a steady flow is hard to find at a high Reynolds number.
    """
    triangles = skfem_mesh(mesh)
    basis_u = skfem.Basis(triangles, skfem.ElementVector(skfem.ElementTriP2()), intorder=5)
    basis_p = skfem.Basis(triangles, skfem.ElementTriP1(), intorder=5)
    friction, divergence = _friction.assemble(basis_u), _divergence.assemble(basis_u, basis_p)
    # The zeros on the pressure's diagonal make a direct solver swap rows, at ten times the cost. A slight
    # compressibility in the Jacobian alone avoids them; the residual, and so the converged flow, knows nothing of it.
    compressibility = 1e-7 * _mass.assemble(basis_p)
    fixed, values = _fixed_velocities(basis_u, inlet)
    u, p = np.zeros(basis_u.N), np.zeros(basis_p.N)
    u[fixed] = values
    block, convection = friction, np.zeros(basis_u.N)  # the first step finds Stokes flow
    for _ in range(max_steps):
        jacobian = bmat([[block, -divergence.T], [-divergence, -compressibility]], format="csr")
        residual = np.concatenate([friction @ u + convection - divergence.T @ p, -divergence @ u])
        step_u, step_p = np.split(solve_with_values(jacobian, -residual, fixed, 0 * values), [basis_u.N])
        u, p = u + step_u, p + step_p
        change = np.linalg.norm(step_u) / np.linalg.norm(u)
        if change < tolerance:
            return Flow(basis_u, basis_p, u, p, divergence)
        field = basis_u.interpolate(u)
        block = friction + _convection_derivative.assemble(basis_u, u0=field)
        convection = _convection.assemble(basis_u, u0=field)
    raise RuntimeError(f"Newton's method: expected a change below {tolerance:g}, got {change:g} ({mesh.source})")


def _fixed_velocities(basis: skfem.Basis, inlet: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom everywhere on the boundary but at the outlet, and their values."""
    boundary = basis.mesh.boundary_facets()
    x = basis.mesh.p[0, basis.mesh.facets[:, boundary]]
    fixed = basis.get_dofs(boundary[(x < LENGTH).any(0)]).all()
    x, y = basis.doflocs[:, fixed]
    horizontal = np.isin(fixed, np.concatenate([basis.nodal_dofs[0], basis.facet_dofs[0]]))
    return fixed, np.where(horizontal & (x == 0), inlet(y), 0.0)
