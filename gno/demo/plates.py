"""Plates with holes of random shape under load: plane stress, solved with scikit-fem."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import skfem
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import splu
from skfem.helpers import ddot, eye, sym_grad, trace

from gno.demo.parallel import map_processes
from gno.demo.shapes import Star, divide, scatter_stars, triangulate
from gno.mesh import CellBlock, Mesh, write

HEIGHT = 100.0  # mm
MODULUS = 70e3  # MPa, about that of aluminium
POISSON = 0.3
SPACING = 0.055  # heights; about 1,100 nodes

Field = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Plate:
    """A plate before it is meshed: clamped on the left, pulled by a uniform traction on the right.

    Args:
        length: mm; the height is 100 mm.
        holes: their edges are free.
        traction: force per area of the right edge, MPa.
        modulus: Young's modulus in MPa at points of shape (n, 2).
    """

    length: float
    holes: tuple[Star, ...]
    traction: Float[np.ndarray, " 2"]
    modulus: Field


def plate(seed: int, spacing: float = SPACING, heterogeneous: bool = False) -> Mesh:
    """The solved plate number `seed`; the same seed at another spacing is the same problem on another mesh.

    −∇·σ = 0,  σ = E/(1+ν) ε + Eν/(1−ν²) tr(ε) 1,  u = 0 on the left,  σn = t on the right

    Args:
        seed: number of the problem.
        spacing: distance of nodes on the outer edges, in heights of the plate; half of it or less at holes.
        heterogeneous: Young's modulus varies smoothly, by about a factor of seven, instead of being constant.

    Returns:
        Triangles with point fields `displacement` (n, 2) in mm, `von_mises` in MPa and, if heterogeneous,
        `modulus` in MPa; global fields `traction` (2,) in MPa and `solver_seconds`, the processor time of
        assembly and solution; point sets `left`, `right`, `bottom`, `top` and `holes`.

    >>> plate(0, spacing=0.2).point_fields["displacement"].shape[1]
    2
    """
    problem = random_plate(seed, heterogeneous)
    mesh = plate_mesh(problem, spacing)
    start = time.process_time()
    displacement, stress = solve_plane_stress(mesh, problem.modulus, problem.traction)
    seconds = time.process_time() - start
    fields = {"displacement": displacement, "von_mises": von_mises(stress)}
    if heterogeneous:
        fields["modulus"] = problem.modulus(mesh.points)
    return mesh.replace(
        point_fields=fields,
        global_fields={"traction": problem.traction, "solver_seconds": np.array(seconds)},
        source=f"plate {seed}",
    )


def write_plates(
    directory: Path,
    n: int,
    *,
    spacing: float = SPACING,
    heterogeneous: bool = False,
    seed0: int = 0,
    workers: int = 2,
) -> list[Path]:
    """Solves the plates number `seed0` to `seed0 + n − 1` and writes them as plate_000000.vtu, …

    Args:
        directory: made if it does not exist.
        n: number of plates.
        spacing: see `plate`.
        heterogeneous: see `plate`.
        seed0: number of the first plate.
        workers: processes that solve at the same time; see `gno.demo.parallel.map_processes`.

    Returns:
        The files, in the order of their numbers.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    solve = partial(_write_plate, directory, spacing, heterogeneous)
    return map_processes(solve, range(seed0, seed0 + n), workers=workers, description="solving plates")


def _write_plate(directory: Path, spacing: float, heterogeneous: bool, seed: int) -> Path:
    path = directory / f"plate_{seed:06d}.vtu"
    write(plate(seed, spacing, heterogeneous), path)
    return path


def random_plate(seed: int, heterogeneous: bool = False) -> Plate:
    """Draws the plate number `seed`: one to three holes, a pull that is up to 60° off the axis, a modulus."""
    rng = np.random.default_rng([seed, 0x91A7E])
    length = HEIGHT * rng.uniform(1.0, 1.5)
    size = np.array([length, HEIGHT])
    holes = scatter_stars(
        rng,
        int(rng.integers(1, 4)),
        box=np.stack([0 * size, size]),
        radius=(0.07 * HEIGHT, 0.2 * HEIGHT),
        gap=0.07 * HEIGHT,
        inside=lambda x: np.all((x > 0) & (x < size), axis=1),
    )
    angle, pull = rng.uniform(-np.pi / 3, np.pi / 3), rng.uniform(50, 150)
    traction = pull * np.array([np.cos(angle), np.sin(angle)])
    logarithm = random_smooth_field(rng, correlation=0.3 * HEIGHT)
    if not heterogeneous:
        return Plate(length, holes, traction, lambda x: np.full(len(x), MODULUS))
    return Plate(length, holes, traction, lambda x: MODULUS * np.exp(0.5 * logarithm(x)))


def random_smooth_field(rng: np.random.Generator, correlation: float, n_waves: int = 64) -> Field:
    """A sample of a Gaussian random field: f(x) = √(2/n) Σ_k cos(ω_k·x + φ_k), with variance 1.

    Args:
        rng: source of randomness.
        correlation: length l of the covariance exp(−|x−y|²/2l²).
        n_waves: number of waves n.

    Source: Rahimi and Recht, Random features for large-scale kernel machines (2007).
    """
    waves = rng.normal(size=(n_waves, 2)) / correlation
    phase = rng.uniform(0, 2 * np.pi, n_waves)
    return lambda x: np.sqrt(2 / n_waves) * np.cos(x @ waves.T + phase).sum(-1)


def plate_mesh(problem: Plate, spacing: float) -> Mesh:
    """Triangles and point sets; finer at the holes and at the ends of the clamp, where the stress is singular."""
    h = spacing * HEIGHT
    corners = np.array([(0, 0), (problem.length, 0), (problem.length, HEIGHT), (0, HEIGHT)])
    edges = [_plate_edge(a, b, h, corners[[0, 3]]) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)]
    holes = [hole.polygon(h / 2) for hole in problem.holes]
    points, triangles = triangulate(np.concatenate(edges), holes)
    n_outer, n_holes = sum(map(len, edges)), sum(map(len, holes))
    sets = {
        "left": np.flatnonzero(points[:, 0] == 0),
        "right": np.flatnonzero(points[:, 0] == problem.length),
        "bottom": np.flatnonzero(points[:, 1] == 0),
        "top": np.flatnonzero(points[:, 1] == HEIGHT),
        "holes": np.arange(n_outer, n_outer + n_holes),
    }
    return Mesh(points, (CellBlock("triangle", triangles),), point_sets=sets)


def _plate_edge(start: np.ndarray, end: np.ndarray, h: float, singular: np.ndarray) -> np.ndarray:
    """Points from `start` up to, but without, `end`: h apart, and h/8 at the singular corners."""
    line = np.linspace(start, end, 2001)
    distance = np.linalg.norm((line[1:] + line[:-1])[:, None] / 2 - singular, axis=-1).min(1)
    return divide(line, np.minimum(h, h / 8 + 0.35 * distance))[:-1]


def solve_plane_stress(
    mesh: Mesh, modulus: Field, traction: Float[np.ndarray, " 2"]
) -> tuple[Float[np.ndarray, "n_nodes 2"], Float[np.ndarray, "n_nodes 3"]]:
    """Displacement and stress (xx, yy, xy) at the nodes of a mesh with point sets `left` and `right`.

    Quadratic displacement on straight triangles: with linear ones the error of the stress is 15 % at a thousand
    nodes, and what a network learns there would not hold on a finer mesh. The stress at a node is the mean over the
    cells around it, weighted by their areas.
    """
    basis, stiffness, load = assemble_plane_stress(mesh, modulus, traction)
    clamped = basis.get_dofs(_facets_within(basis.mesh, mesh.point_sets["left"])).all()
    u = solve_with_values(stiffness, load, clamped, np.zeros(len(clamped)))
    return u[basis.nodal_dofs].T, nodal_stress(basis, modulus, u)


def assemble_plane_stress(
    mesh: Mesh, modulus: Field, traction: Float[np.ndarray, " 2"]
) -> tuple[skfem.Basis, csr_matrix, Float[np.ndarray, " n_dofs"]]:
    """Basis, stiffness matrix and load vector, before the clamp is applied."""
    triangles = skfem_mesh(mesh)
    element = skfem.ElementVector(skfem.ElementTriP2())
    basis = skfem.Basis(triangles, element, intorder=3)
    edge = skfem.FacetBasis(triangles, element, facets=_facets_within(triangles, mesh.point_sets["right"]))
    stiffness = _stiffness.assemble(basis, modulus=_at_quadrature(basis, modulus))
    load = skfem.LinearForm(lambda v, w: traction[0] * v[0] + traction[1] * v[1]).assemble(edge)
    return basis, stiffness.tocsr(), load


def _facets_within(triangles: skfem.MeshTri, nodes: np.ndarray) -> np.ndarray:
    """Facets of the boundary whose nodes all belong to a set."""
    facets = triangles.boundary_facets()
    return facets[np.isin(triangles.facets[:, facets], nodes).all(0)]


@skfem.BilinearForm
def _stiffness(u, v, w):
    return ddot(_stress(sym_grad(u), w.modulus), sym_grad(v))


def _stress(strain, modulus):
    return modulus / (1 + POISSON) * strain + modulus * POISSON / (1 - POISSON**2) * eye(trace(strain), 2)


def _at_quadrature(basis: skfem.Basis, field: Field) -> np.ndarray:
    x = np.asarray(basis.global_coordinates())
    return field(x.reshape(2, -1).T).reshape(x.shape[1:])


def nodal_stress(basis: skfem.Basis, modulus: Field, u: np.ndarray) -> np.ndarray:
    corners = skfem.Basis(
        basis.mesh, basis.elem, quadrature=(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), np.full(3, 1 / 6))
    )
    stress = _stress(np.asarray(sym_grad(corners.interpolate(u))), _at_quadrature(corners, modulus))
    node, weight = basis.mesh.t.T, corners.dx
    area = np.bincount(node.ravel(), weight.ravel())
    return np.stack(
        [np.bincount(node.ravel(), (weight * s).ravel()) / area for s in stress[[0, 1, 0], [0, 1, 1]]], axis=1
    )


def von_mises(stress: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Equivalent stress √(σx² − σxσy + σy² + 3τ²) of plane stress (xx, yy, xy).

    >>> von_mises(np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])).round(3).tolist()
    [2.0, 1.732]
    """
    x, y, xy = stress.T
    return np.sqrt(x**2 - x * y + y**2 + 3 * xy**2)


def skfem_mesh(mesh: Mesh) -> skfem.MeshTri:
    """The triangles of a mesh for scikit-fem, with the same numbers of nodes and cells."""
    return skfem.MeshTri(np.ascontiguousarray(mesh.points.T), np.ascontiguousarray(mesh.cells[0].nodes.T))


def solve_with_values(
    matrix: csr_matrix,
    load: Float[np.ndarray, " n"],
    fixed: Int[np.ndarray, " m"],
    values: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " n"]:
    """Solves a system where the unknowns `fixed` have the given values.

    The pattern has to be symmetric, and the system solvable without exchanging rows, as definite ones are.
    """
    u = np.zeros(len(load))
    u[fixed] = values
    free = np.setdiff1d(np.arange(len(u)), fixed)
    # Minimum degree on the pattern of A + Aᵀ leaves far less fill than SuperLU's default, which expects no symmetry.
    factors = splu(
        matrix[free][:, free].tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        options={"SymmetricMode": True},
        diag_pivot_thresh=0.0,
    )
    u[free] = factors.solve((load - matrix @ u)[free])
    return u
