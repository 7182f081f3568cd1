"""Brackets under load: machine parts in three dimensions whose shape differs, linear elasticity on tetrahedra."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import scipy.sparse as sp
import skfem
from jaxtyping import Float, Int

from gno.demo.shapes import silent_gmsh
from gno.mesh import CellBlock, Mesh
from gno.post.tensors import von_mises

SPACING = 6.5  # mm, half of it at round faces; about 1,800 nodes
MODULUS = 70e3  # MPa, about that of aluminium
POISSON = 0.33
GAP = 3.0  # mm between bolt holes and whatever else there is

LAME = MODULUS * POISSON / (1 + POISSON) / (1 - 2 * POISSON)
SHEAR = MODULUS / 2 / (1 + POISSON)


@dataclasses.dataclass(frozen=True)
class Bracket:
    """A bracket before it is meshed; lengths in mm.

    The base lies on z = 0 from x = 0 on, the wall stands on it at x = 0 and narrows to a round head with a boss and a
    bore along x; a fillet joins the two. y = 0 is the middle.

    Args:
        width, length: of the base. base, wall: thicknesses. fillet: radius.
        bore: radius. centre: y and z of the bore. rim: of the head around the bore. boss: radius and height.
        ribs: y of each rib's middle. rib: thickness, length along the base and height of all ribs.
        bolts: x, y and radius of the bolt holes.
        traction: force per area of the bore, MPa.
    """

    width: float
    length: float
    base: float
    wall: float
    fillet: float
    bore: float
    centre: tuple[float, float]
    rim: float
    boss: tuple[float, float]
    ribs: tuple[float, ...]
    rib: tuple[float, float, float]
    bolts: tuple[tuple[float, float, float], ...]
    traction: Float[np.ndarray, " 3"]


def brackets(seed: int, spacing: float = SPACING) -> Mesh:
    """The solved bracket number `seed`: −∇·σ = 0, u = 0 on the bolt holes, σn = t on the bore, Hooke's law.

    Tetrahedra with point fields `displacement` (n, 3) in mm and `von_mises` in MPa; global fields `traction` (3,) in
    MPa and `solver_seconds`, the processor time of assembly and solution; point sets `bolts` and `bore`. Of three
    brackets, at half the spacing displacements differ by 0.9 to 1.1 % and von Mises stress by 8 to 10 % (relative L2 of
    stresses interpolated to the coarser nodes), of whose square 15 to 46 % is at the bolt holes, where it is singular.
    """
    problem = random_bracket(seed)
    mesh = bracket_mesh(problem, spacing)
    start = time.process_time()
    displacement, stress = solve_elasticity(mesh, problem.traction)
    seconds = time.process_time() - start
    return mesh.replace(
        point_fields={"displacement": displacement, "von_mises": von_mises(stress)},
        global_fields={"traction": problem.traction, "solver_seconds": np.array(seconds)},
        source=f"bracket {seed}",
    )


def random_bracket(seed: int) -> Bracket:
    """Draws bracket number `seed`: none to two ribs, two to four bolts, a force of 1 to 3 kN in any direction."""
    rng = np.random.default_rng([seed, 0xB2AC])
    width, length = rng.uniform(50, 80), rng.uniform(70, 110)
    base, wall, fillet = rng.uniform(8, 13), rng.uniform(8, 13), rng.uniform(7, 15)
    bore, rim = rng.uniform(7, 14), rng.uniform(7, 12)
    centre = rng.uniform(-0.6, 0.6) * (width / 2 - bore - rim), rng.uniform(55, 95)
    boss = bore + 0.75 * rim, rng.uniform(4, 12)
    rib = rng.uniform(5, 8), rng.uniform(0.4, 0.75) * length, rng.uniform(0.4, 0.6) * centre[1]
    middle, apart = rng.uniform(-0.06, 0.06) * width, rng.uniform(0.2, 0.32) * width
    ribs = ((), (4 * middle,), (middle - apart, middle + apart))[rng.integers(0, 3)]
    direction, force = rng.normal(size=3), rng.uniform(1e3, 3e3)
    depth = wall + boss[1]
    traction = force / (2 * np.pi * bore * depth) * direction / np.linalg.norm(direction)
    bolts: tuple[tuple[float, float, float], ...] = ()
    while not bolts:  # the first ones may have left no room
        bolts = _random_bolts(rng, (wall + fillet, length), width, ribs, rib)
    return Bracket(width, length, base, wall, fillet, bore, centre, rim, boss, ribs, rib, bolts, traction)


def _random_bolts(
    rng: np.random.Generator,
    along: tuple[float, float],
    width: float,
    ribs: tuple[float, ...],
    rib: tuple[float, float, float],
) -> tuple[tuple[float, float, float], ...]:
    """Two to four bolts that keep clear of edges, fillet, ribs and each other; none if that did not come about."""
    bolts: list[tuple[float, float, float]] = []
    n = int(rng.integers(2, 5))
    for _ in range(200):
        radius = rng.uniform(3.5, 6)
        edge = radius + 2 * GAP
        x, y = rng.uniform(along[0] + radius + GAP, along[1] - edge), rng.uniform(-1, 1) * (width / 2 - edge)
        clear = all(np.hypot(x - a, y - b) > radius + c + 2 * GAP for a, b, c in bolts)
        beside = all(abs(y - at) > radius + rib[0] / 2 + GAP for at in ribs)
        if clear and (beside or x > rib[1] + radius + GAP):
            bolts.append((x, y, radius))
        if len(bolts) == n:
            return tuple(bolts)
    return ()


def bracket_mesh(problem: Bracket, spacing: float) -> Mesh:
    """Tetrahedra of a size, half of it at fillet, holes and other round faces, and point sets `bolts` and `bore`."""
    with silent_gmsh() as gmsh:
        body = _solid(gmsh.model.occ, problem)
        gmsh.model.occ.synchronize()
        holes = _holes(gmsh, problem)
        field = gmsh.model.mesh.field
        field.add("Distance", 1)
        field.setNumbers(1, "SurfacesList", _cylinders(gmsh))
        field.add("MathEval", 2)
        field.setString(2, "F", f"Min({spacing}, {spacing / 2} + 0.3 * F1)")
        field.setAsBackgroundMesh(2)
        for other in ("FromPoints", "FromCurvature", "ExtendFromBoundary"):
            gmsh.option.setNumber(f"Mesh.MeshSize{other}", 0)
        gmsh.model.mesh.generate(3)
        tags, xyz, _ = gmsh.model.mesh.getNodes(3, body, includeBoundary=True)
        _, corners = gmsh.model.mesh.getElementsByType(4)
        on = {
            name: np.concatenate([gmsh.model.mesh.getNodes(2, surface, includeBoundary=True)[0] for surface in found])
            for name, found in holes.items()
        }
    known, first = np.unique(tags, return_index=True)
    number = {name: np.unique(np.searchsorted(known, found)) for name, found in on.items()}
    cells = np.searchsorted(known, corners).reshape(-1, 4).astype(np.int64)
    return Mesh(xyz.reshape(-1, 3)[first], (CellBlock("tetra", cells),), point_sets=number)


def _solid(occ, problem: Bracket) -> int:
    """gmsh's number of the solid."""
    half, height = problem.width / 2, problem.centre[1] + problem.bore + problem.rim + 1
    inner, upper = problem.wall + problem.fillet, problem.base + problem.fillet
    profile = [(0, 0), (problem.length, 0), (problem.length, problem.base), (inner, problem.base)]
    profile += [(problem.wall, upper), (problem.wall, height), (0, height)]
    angle = _face(occ, [(x, -half, z) for x, z in profile], {3: (inner, -half, upper)})
    outline, arcs = _outline(problem)
    shape = _face(occ, [(-1, y, z) for y, z in outline], {k: (-1, *at) for k, at in arcs.items()})
    body, _ = occ.intersect(
        _extruded(occ, angle, (0, problem.width, 0)), _extruded(occ, shape, (problem.length + 2, 0, 0))
    )
    (y, z), depth = problem.centre, problem.wall + problem.boss[1]
    added = [(3, occ.addCylinder(problem.wall - 1, y, z, problem.boss[1] + 1, 0, 0, problem.boss[0]))]
    added += [solid for at in problem.ribs for solid in _rib(occ, problem, at)]
    body, _ = occ.fuse(body, added)
    cut = [(3, occ.addCylinder(-1, y, z, depth + 2, 0, 0, problem.bore))]
    cut += [(3, occ.addCylinder(x, y, -1, 0, 0, problem.base + 2, radius)) for x, y, radius in problem.bolts]
    body, _ = occ.cut(body, cut)
    return body[0][1]


def _outline(problem: Bracket) -> tuple[list[np.ndarray], dict[int, tuple[float, float]]]:
    """Corners in y and z of base, wall and head as seen along x, and the centre of the arcs that begin at some."""
    half, radius, centre = problem.width / 2, problem.bore + problem.rim, np.array(problem.centre)
    up = np.array([0, radius])
    foot = problem.base + problem.fillet + 2
    tangent = []
    for side in (1, -1):  # of the head's circle, from the upper corner of the base's outline
        offset = np.array([side * half, foot]) - centre
        angle = np.arctan2(offset[1], offset[0]) + side * np.arccos(radius / np.linalg.norm(offset))
        tangent.append(centre + radius * np.array([np.cos(angle), np.sin(angle)]))
    low = [np.array(corner) for corner in ((-half, -1), (half, -1), (half, foot))]
    corners = [*low, tangent[0], centre + up, tangent[1], np.array([-half, foot])]
    return corners, {3: problem.centre, 4: problem.centre}


def _rib(occ, problem: Bracket, at: float) -> list[tuple[int, int]]:
    thickness, length, height = problem.rib
    inside, blunt = (problem.wall - 1, problem.base - 1), 1.5
    corners = [inside, (length, inside[1]), (length, problem.base + blunt)]
    corners += [(problem.wall + blunt, height), (inside[0], height)]
    face = _face(occ, [(x, at - thickness / 2, z) for x, z in corners], {})
    return _extruded(occ, face, (0, thickness, 0))


def _face(occ, corners: list, arcs: dict[int, tuple[float, float, float]]) -> int:
    """A plane face; the side after corner k is an arc around arcs[k] where that is given."""
    points = [occ.addPoint(*corner) for corner in corners]
    sides = []
    for k, (start, end) in enumerate(zip(points, points[1:] + points[:1], strict=True)):
        if k in arcs:
            middle = occ.addPoint(*arcs[k])
            sides.append(occ.addCircleArc(start, middle, end))
        else:
            sides.append(occ.addLine(start, end))
    return occ.addPlaneSurface([occ.addCurveLoop(sides)])


def _extruded(occ, face: int, by: tuple[float, float, float]) -> list[tuple[int, int]]:
    return [entity for entity in occ.extrude([(2, face)], *by) if entity[0] == 3]


def _cylinders(gmsh) -> list[int]:
    return [surface for _, surface in gmsh.model.getEntities(2) if gmsh.model.getType(2, surface) == "Cylinder"]


def _holes(gmsh, problem: Bracket) -> dict[str, list[int]]:
    """The faces inside the bolt holes and the bore, found by where they are."""
    found: dict[str, list[int]] = {"bolts": [], "bore": []}
    for surface in _cylinders(gmsh):
        low, high = np.reshape(gmsh.model.getBoundingBox(2, surface), (2, 3))
        middle, radius = (low + high) / 2, (high - low) / 2
        if np.allclose([*middle[1:], *radius[1:]], [*problem.centre, problem.bore, problem.bore], atol=1e-3):
            found["bore"].append(surface)
        elif any(np.allclose([*middle[:2], *radius[:2]], [x, y, r, r], atol=1e-3) for x, y, r in problem.bolts):
            found["bolts"].append(surface)
    return found


def solve_elasticity(
    mesh: Mesh, traction: Float[np.ndarray, " 3"], *, tolerance: float = 1e-5
) -> tuple[Float[np.ndarray, "n_nodes 3"], Float[np.ndarray, "n_nodes 3 3"]]:
    """Displacement and stress at the nodes of a mesh that is held at `bolts` and pulled at `bore`.

    Quadratic displacement on straight tetrahedra, conjugate gradients until the residual is a `tolerance` of the load.
    The stress at a node is the mean over the cells around it, weighted by their volumes.
    """
    solid = skfem.MeshTet(np.ascontiguousarray(mesh.points.T), np.ascontiguousarray(mesh.cells[0].nodes.T))
    basis = skfem.Basis(solid, skfem.ElementTetP2(), intorder=2)
    bore = skfem.FacetBasis(solid, skfem.ElementTetP2(), facets=_facets_within(solid, mesh.point_sets["bore"]))
    load = np.outer(skfem.LinearForm(lambda v, _: v).assemble(bore), traction)
    held = basis.get_dofs(_facets_within(solid, mesh.point_sets["bolts"]))
    u = _solve(_stiffness(basis), load, basis, np.setdiff1d(np.arange(basis.N), held), tolerance)
    return u[: mesh.n_nodes], _nodal_stress(basis, u)


def _facets_within(solid: skfem.MeshTet, nodes: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """Facets of the boundary whose nodes all belong to a set."""
    facets = solid.boundary_facets()
    return facets[np.isin(solid.facets[:, facets], nodes).all(0)]


def _stiffness(basis: skfem.Basis) -> sp.bsr_matrix:
    """A block K_ab = ∫ λ ∂_a v ∂_b u + μ (∂_b v ∂_a u + δ_ab ∇v·∇u) for each pair of nodes or middles of edges."""
    slope = np.array([function[0].grad for function in basis.basis])  # (local function, direction, cell, point)
    products = np.einsum("iacq,jbcq,cq->abcij", slope, slope, basis.dx, optimize=True)
    same = np.eye(3)[:, :, None, None, None] * np.trace(products)
    blocks = LAME * products + SHEAR * (products.swapaxes(0, 1) + same)
    at = np.broadcast_arrays(basis.element_dofs.T[:, :, None], basis.element_dofs.T[:, None, :])
    index = tuple(rows.ravel() for rows in at)
    parts = [sp.coo_matrix((block.ravel(), index)).tocsr() for block in blocks.reshape(9, -1)]
    data = np.stack([part.data for part in parts], axis=1).reshape(-1, 3, 3)
    return sp.bsr_matrix((data, parts[0].indices, parts[0].indptr))


def _solve(
    stiffness: sp.bsr_matrix,
    load: Float[np.ndarray, "n 3"],
    basis: skfem.Basis,
    free: Int[np.ndarray, " n_free"],
    tolerance: float,
) -> Float[np.ndarray, "n 3"]:
    """Conjugate gradients; linear elements on the same mesh and smoothed aggregation below them precondition."""
    import pyamg

    rows = (3 * free[:, None] + np.arange(3)).ravel()
    n_nodes, n_edges = basis.mesh.nvertices, basis.mesh.nedges
    middle = sp.csr_matrix((np.full(2 * n_edges, 0.5), (np.tile(np.arange(n_edges), 2), basis.mesh.edges.ravel())))
    nodes = free[free < n_nodes]
    up = sp.kron(sp.vstack([sp.eye(n_nodes), middle]).tocsr()[free][:, nodes], np.eye(3)).tobsr((3, 3))
    quadratic = pyamg.MultilevelSolver.Level()
    quadratic.A = stiffness.tocsr()[rows][:, rows].tobsr((3, 3))
    quadratic.P, quadratic.R = up, up.T.tobsr((3, 3))
    linear = pyamg.smoothed_aggregation_solver(
        (quadratic.R @ quadratic.A @ up).tobsr((3, 3)), B=_rigid_motions(basis.doflocs[:, nodes].T), max_coarse=200
    )
    levels = pyamg.MultilevelSolver([quadratic, *linear.levels], coarse_solver="pinv")
    smoother = ("block_gauss_seidel", {"sweep": "symmetric"})
    pyamg.relaxation.smoothing.change_smoothers(levels, smoother, smoother)
    allowed = tolerance * np.linalg.norm(load[free])
    x, failed = sp.linalg.cg(
        quadratic.A, load[free].ravel(), rtol=0, atol=allowed, maxiter=500, M=levels.aspreconditioner()
    )
    if failed:
        raise RuntimeError(f"conjugate gradients: expected a residual below {allowed:g} in 500 iterations")
    u = np.zeros_like(load)
    u[free] = x.reshape(-1, 3)
    return u


def _rigid_motions(x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3n 6"]:
    x = (x - x.mean(0)) / np.ptp(x)
    shift = np.broadcast_to(np.eye(3), (len(x), 3, 3))
    turn = np.cross(np.eye(3)[None], x[:, None]).transpose(0, 2, 1)
    return np.concatenate([shift, turn], axis=2).reshape(-1, 6)


def _nodal_stress(basis: skfem.Basis, u: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n_nodes 3 3"]:
    at = np.concatenate([np.zeros((3, 1)), np.eye(3)], axis=1)
    corners = skfem.Basis(basis.mesh, basis.elem, quadrature=(at, np.full(4, 1 / 24)))
    slope = np.array([corners.interpolate(part).grad for part in u.T])  # (component, direction, cell, corner)
    strain = (slope + slope.transpose(1, 0, 2, 3)) / 2
    stress = LAME * np.eye(3)[:, :, None, None] * np.trace(strain) + 2 * SHEAR * strain
    node, weight = basis.mesh.t.T.ravel(), corners.dx.ravel()
    sums = [np.bincount(node, weight * part.ravel()) for part in stress.reshape(9, *stress.shape[2:])]
    return (np.stack(sums, axis=1) / np.bincount(node, weight)[:, None]).reshape(-1, 3, 3)
