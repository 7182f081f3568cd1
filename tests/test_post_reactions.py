"""Nodal forces are scikit-fem's residual; resultants balance; a flow around a cylinder has its published drag."""

import numpy as np
import pytest
import skfem
from post_cases import ELEMENTS, lame, stress_form, twin
from skfem.helpers import ddot, div, dot, grad, mul

from gno.mesh import CellBlock, Mesh
from gno.post.gauss import flux
from gno.post.goals import boundary_goal, goal, largest
from gno.post.reactions import coefficients, fluid_force, heat_flow, nodal_forces, reaction
from gno.post.stress import Elastic, stress


@pytest.mark.parametrize("cell_type", ELEMENTS)
def test_forces_are_the_residual_of_scikit_fem(cell_type):
    case = twin(cell_type)
    plane = "strain" if case.mesh.dim == 2 else None
    material = Elastic(7.0, 0.3, plane)
    expected = (stress_form(*lame(7.0, 0.3, plane)).assemble(case.vector) @ case.u)[case.number]
    forces = nodal_forces(stress(case.mesh, "u", material))
    assert np.allclose(forces, expected, rtol=0, atol=1e-10)
    found = reaction(case.mesh, "u", material, "left", body_force=np.arange(1.0, 1.0 + case.mesh.dim))
    weight = skfem.LinearForm(lambda v, w: v).assemble(case.scalar)[:, None] * np.arange(1.0, 1.0 + case.mesh.dim)
    left = case.mesh.point_sets["left"]
    assert np.allclose(found.force, (expected - weight)[left].sum(0), atol=1e-10)
    laplace = skfem.BilinearForm(lambda u, v, w: dot(grad(u), grad(v))).assemble(case.scalar)
    inflow = 2.0 * (laplace @ case.mesh.point_fields["T"])[left].sum()
    assert heat_flow(case.mesh, "T", "left", 2.0) == pytest.approx(inflow, abs=1e-10)
    assert np.allclose(nodal_forces(flux(case.mesh, "T")), -laplace @ case.mesh.point_fields["T"], atol=1e-10)


def test_all_forces_balance_and_a_moment_follows_its_point():
    mesh = twin("tetra10").mesh
    mesh = mesh.replace(point_sets={"all": np.arange(mesh.n_nodes), **mesh.point_sets})
    material = Elastic(1.0, 0.25)
    whole = reaction(mesh, "u", material, "all")
    assert np.abs(whole.force).max() < 1e-12 and np.abs(whole.moment).max() < 1e-12
    here, there = (reaction(mesh, "u", material, "left", about=about) for about in ((0, 0, 0), (1, 2, 3)))
    assert np.allclose(there.moment, here.moment - np.cross([1, 2, 3], here.force))


def test_goals_are_integrals_of_scikit_fem():
    case = twin("quad9")
    temperature = case.mesh.point_fields["T"]
    expected = skfem.Functional(lambda w: w["T"] ** 2 * w.x[0] + dot(grad(w["T"]), grad(w["T"]))).assemble(
        case.scalar, T=case.scalar.interpolate(temperature)
    )
    found = goal(case.mesh, "T", lambda u, g, x: u[..., 0] ** 2 * x[..., 0] + (g[..., 0, :] ** 2).sum(-1))
    assert float(found) == pytest.approx(expected, rel=1e-12)
    edges = skfem.FacetBasis(
        case.scalar.mesh, case.scalar.elem, facets=case.scalar.mesh.facets_satisfying(lambda x: x[0] == 1)
    )
    pull = skfem.Functional(lambda w: w["T"] * w.n[0] * w.x[1]).assemble(edges, T=edges.interpolate(temperature))
    assert float(
        boundary_goal(case.mesh, "T", "right", lambda u, n, x: u[..., 0] * n[..., 0] * x[..., 1])
    ) == pytest.approx(pull, rel=1e-12)
    top = largest(case.mesh, "T")
    assert abs(top.value) == np.abs(temperature).max() and np.array_equal(top.position, case.mesh.points[top.node])


def test_a_cylinder_in_a_channel_has_its_published_drag_and_lift():
    """Case 2D-1 of Schäfer and Turek (1996): drag 5.5795, lift 0.0106 at Reynolds number 20."""
    mesh = flow_around_a_cylinder()
    force = fluid_force(mesh, "velocity", "pressure", "cylinder", viscosity=1e-3, density=1.0)
    drag, lift = coefficients(force.force, speed=0.2, length=0.1, density=1.0)
    assert drag == pytest.approx(5.5795, rel=0.01)
    assert lift == pytest.approx(0.0106, abs=0.002)


def flow_around_a_cylinder():
    """Steady flow, quadratic velocity and linear pressure, by scikit-fem and Newton's method."""
    import gmsh

    gmsh.initialize(interruptible=False)
    gmsh.option.setNumber("General.Terminal", 0)
    channel = gmsh.model.occ.addRectangle(0, 0, 0, 2.2, 0.41)
    disk = gmsh.model.occ.addDisk(0.2, 0.2, 0, 0.05, 0.05)
    gmsh.model.occ.cut([(2, channel)], [(2, disk)])
    gmsh.model.occ.synchronize()
    gmsh.model.mesh.field.add("MathEval", 1)
    gmsh.model.mesh.field.setString(1, "F", "0.008 + 0.12*Sqrt((x-0.2)^2 + (y-0.2)^2)*(1 - 0.5*x/2.2)")
    gmsh.model.mesh.field.setAsBackgroundMesh(1)
    for option in ("MeshSizeExtendFromBoundary", "MeshSizeFromPoints"):
        gmsh.option.setNumber(f"Mesh.{option}", 0)
    gmsh.model.mesh.generate(2)
    tags, coordinates, _ = gmsh.model.mesh.getNodes()
    _, triangles = gmsh.model.mesh.getElementsByType(2)
    gmsh.finalize()
    place = np.zeros(int(tags.max()) + 1, dtype=int)
    place[tags] = np.arange(len(tags))
    cells = place[triangles].reshape(-1, 3)
    used, cells = np.unique(cells, return_inverse=True)
    grid = skfem.MeshTri(coordinates.reshape(-1, 3)[used, :2].T, cells.reshape(-1, 3).T)
    return solved_flow(grid)


def solved_flow(grid):
    """Velocity and pressure at the nodes of triangles with mid-side nodes."""
    fast = skfem.Basis(grid, skfem.ElementVector(skfem.ElementTriP2()), intorder=5)
    slow = fast.with_element(skfem.ElementTriP1())
    viscous = skfem.BilinearForm(lambda u, v, w: 1e-3 * ddot(grad(u) + grad(u).swapaxes(0, 1), grad(v))).assemble(fast)
    incompressible = skfem.BilinearForm(lambda u, q, w: div(u) * q).assemble(fast, slow)
    turn = skfem.BilinearForm(lambda u, v, w: dot(mul(grad(u), w["u"]) + mul(grad(w["u"]), u), v))
    carry = skfem.LinearForm(lambda v, w: dot(mul(grad(w["u"]), w["u"]), v))
    x, y = fast.doflocs
    fixed = fast.get_dofs(grid.facets_satisfying(lambda x: x[0] < 2.2 - 1e-9, boundaries_only=True)).all()
    state = np.zeros(fast.N + slow.N)
    inflow = np.intersect1d(fixed, fast.nodal_dofs[0])
    inflow = np.concatenate([inflow, np.intersect1d(fixed, fast.facet_dofs[0])])
    inflow = inflow[x[inflow] < 1e-9]
    state[inflow] = 4 * 0.3 * y[inflow] * (0.41 - y[inflow]) / 0.41**2
    for _ in range(6):
        u = fast.interpolate(state[: fast.N])
        block = skfem.utils.bmat(
            [[viscous + turn.assemble(fast, u=u), -incompressible.T], [-incompressible, None]], "csr"
        )
        residual = np.concatenate([viscous @ state[: fast.N] + carry.assemble(fast, u=u), np.zeros(slow.N)])
        residual -= np.concatenate([incompressible.T @ state[fast.N :], incompressible @ state[: fast.N]])
        state += skfem.solve(*skfem.condense(block, -residual, D=fixed))
    scalar = fast.with_element(skfem.ElementTriP2())
    nodes = scalar.element_dofs.T.astype(np.int64)
    velocity, pressure = np.zeros((scalar.N, 2)), np.zeros(scalar.N)
    for k in range(2):
        velocity[scalar.element_dofs, k] = state[fast.element_dofs[k::2]]
    linear = state[fast.N :][slow.element_dofs]
    pressure[scalar.element_dofs] = np.concatenate([linear, (linear + np.roll(linear, -1, 0)) / 2])
    points = scalar.doflocs.T
    round_body = np.flatnonzero(np.abs(np.linalg.norm(points - 0.2, axis=1) - 0.05) < 2e-3)
    edge = np.unique(scalar.get_dofs().all())
    body = np.intersect1d(round_body, edge)
    fields = {"velocity": velocity, "pressure": pressure}
    return Mesh(points, (CellBlock("triangle6", nodes),), fields, point_sets={"cylinder": body}, source="flow")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda mesh: reaction(mesh, "u", Elastic(1.0, 0.3, "stress"), "top"),
            "set 'top': expected one of left, right",
        ),
        (
            lambda mesh: reaction(mesh, "u", Elastic(1.0, 0.3, "stress"), "left", body_force=[1.0]),
            "expected 2 components",
        ),
        (lambda mesh: reaction(mesh, "u", Elastic(1.0, 0.3, "stress"), "left", about=[1.0]), "expected 2 coordinates"),
        (lambda mesh: heat_flow(mesh, "u", "left"), "expected a scalar for a flux"),
        (lambda mesh: boundary_goal(mesh, "T", "none", lambda u, n, x: u), "none"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=r"\w") as found:
        call(twin("quad").mesh)
    assert says in str(found.value)
