"""Quadrature on every element, its boundary, batches; scikit-fem there and back."""

import numpy as np
import pytest
import skfem
import torch
from mesh_cases import REAL_FILES
from physics_cases import ELEMENTS, QUADRATIC, SOLIDS, bent, box, sphere

from gno.mesh import CellBlock, Mesh, MeshError, cell_volume, read
from gno.mesh.geometry import domain_dim
from gno.mesh.shapes import reference_nodes
from gno.physics.elements import ELEMENTS as TABLE
from gno.physics.elements import node_order, shape_functions
from gno.physics.fem import from_skfem, skfem_sides, to_skfem
from gno.physics.quadrature import Domain, build_domain


def boundary_integral(domain, name="boundary"):
    """∫ x·n and ∫ n."""
    parts = domain.facets[name]
    moment = sum(float((p.weight * (p.position * p.normal).sum(-1)).sum()) for p in parts)
    return moment, sum((p.weight[..., None] * p.normal).sum((0, 1)) for p in parts)


@pytest.mark.parametrize(("form", "n_nodes"), TABLE)
def test_local_functions_are_one_at_their_own_node(form, n_nodes):
    cell_type = form if n_nodes == len(TABLE[form, n_nodes]().refdom.p.T) else f"{form}{n_nodes}"
    order = node_order(cell_type, n_nodes)
    phi, _ = shape_functions(TABLE[form, n_nodes](), reference_nodes(cell_type, n_nodes)[list(order)].T)
    np.testing.assert_allclose(phi, np.eye(n_nodes), atol=1e-12)


@pytest.mark.parametrize("cell_type", SOLIDS)
def test_linear_fields_and_their_gradients_are_exact(cell_type):
    mesh = bent(box(cell_type, 2))
    domain = build_domain(mesh)
    slope = torch.arange(1.0, mesh.dim + 1, dtype=torch.float64)
    u = (torch.from_numpy(mesh.points) @ slope)[:, None] + 3
    for part, value, grad in zip(domain.cells, domain.values(u), domain.gradients(u), strict=True):
        torch.testing.assert_close(value[..., 0], part.position @ slope + 3, rtol=0, atol=1e-12)
        torch.testing.assert_close(grad[..., 0, :], slope.expand_as(grad[..., 0, :]), rtol=0, atol=1e-10)
    for part in domain.facets["boundary"]:
        torch.testing.assert_close(part.values(u)[..., 0], part.position @ slope + 3, rtol=0, atol=1e-12)
        grad = part.gradients(u)[..., 0, :]
        torch.testing.assert_close(grad, slope.expand_as(grad), rtol=0, atol=1e-10)


@pytest.mark.parametrize("cell_type", SOLIDS)
def test_the_boundary_closes_and_holds_the_volume(cell_type):
    mesh = bent(box(cell_type, 2))
    domain = build_domain(mesh)
    volume = sum(float(part.weight.sum()) for part in domain.cells)
    moment, closed = boundary_integral(domain)
    assert moment == pytest.approx(mesh.dim * volume, abs=1e-12)
    assert closed.abs().max() < 1e-12
    if cell_type not in QUADRATIC:
        assert volume == pytest.approx(cell_volume(mesh).sum(), rel=1e-12)


@pytest.mark.parametrize("cell_type", QUADRATIC)
def test_quadratic_fields_are_exact_on_straight_cells(cell_type):
    mesh = box(cell_type, 2)
    domain = build_domain(mesh)
    x = torch.from_numpy(mesh.points)
    u = (x[:, 0] * x[:, 1] + x[:, -1] ** 2)[:, None]
    for part, value in zip(domain.cells, domain.values(u), strict=True):
        p = part.position
        torch.testing.assert_close(value[..., 0], p[..., 0] * p[..., 1] + p[..., -1] ** 2, rtol=0, atol=1e-12)


def test_on_a_surface_gradients_are_tangential_and_the_rim_has_no_corner_normal():
    ball = build_domain(sphere(2, quadratic=True))
    assert ball.facets["boundary"] == ()
    part = ball.cells[0]
    height = part.gradients(torch.from_numpy(sphere(2, quadratic=True).points)[:, 2:])[:, :, 0]
    inward = part.position / part.position.norm(dim=-1, keepdim=True)
    assert (height * inward).sum(-1).abs().max() < 0.02
    assert float(part.weight.sum()) == pytest.approx(4 * np.pi, rel=1e-3)
    flat = box("triangle", 3)
    turned = flat.replace(points=np.column_stack([flat.points[:, 0], np.zeros(flat.n_nodes), flat.points[:, 1]]))
    moment, closed = boundary_integral(build_domain(turned))
    assert moment == pytest.approx(2.0) and closed.abs().max() < 1e-14


def test_inverted_cells_count_like_others():
    mesh = box("quad", 3)
    turned = mesh.replace(cells=(CellBlock("quad", mesh.cells[0].nodes[:, ::-1]),))
    assert boundary_integral(build_domain(turned))[0] == pytest.approx(2.0)


def test_facets_of_a_set_are_those_with_all_their_nodes_in_it():
    mesh = box("hexahedron20", 2)
    left = np.flatnonzero(mesh.points[:, 0] < 1e-9)
    near = np.flatnonzero(mesh.points[:, 0] < 0.6)
    mesh = mesh.replace(point_sets={"left": left, "near": near, "inside": np.array([0])})
    domain = build_domain(mesh, sets=("left", "near"))
    area = {name: sum(float(part.weight.sum()) for part in parts) for name, parts in domain.facets.items()}
    assert area == pytest.approx({"boundary": 6.0, "left": 1.0, "near": 3.0})
    _, normal = boundary_integral(domain, "left")
    np.testing.assert_allclose(normal, [-1, 0, 0], atol=1e-13)
    assert sum(side.dx.sum() for side in skfem_sides(mesh, "near")) == pytest.approx(3.0)
    with pytest.raises(ValueError, match=r"sets\['inside'\]: expected all nodes of one boundary facet"):
        build_domain(mesh, sets=("inside",))
    with pytest.raises(ValueError, match=r"expected point sets of the mesh .*'left'.*, got 'right'"):
        build_domain(mesh, sets=("right",))
    with pytest.raises(ValueError, match="got 'right'"):
        skfem_sides(mesh, "right")


def test_a_batch_is_its_meshes():
    meshes = [bent(box("triangle", 2)), box("mixed", 2), box("triangle", 3)]
    meshes = [m.replace(point_sets={"left": np.flatnonzero(m.points[:, 0] < 0.1)}) for m in meshes]
    domains = [build_domain(meshes[0])] + [build_domain(m, sets=("left",)) for m in meshes[1:]]
    joined = Domain.join(domains)
    u = [torch.randn(m.n_nodes, 2, dtype=torch.float64) for m in meshes]
    assert [part.type for part in joined.cells] == ["triangle", "quad"]
    values, gradients = joined.values(torch.cat(u)), joined.gradients(torch.cat(u))
    singles = [d.values(v) for d, v in zip(domains, u, strict=True)]
    torch.testing.assert_close(values[0], torch.cat([single[0] for single in singles]))
    torch.testing.assert_close(values[1], singles[1][1])
    torch.testing.assert_close(gradients[1], domains[1].gradients(u[1])[1])
    assert joined.cells[0].graph.unique_consecutive().tolist() == [0, 1, 2]
    assert joined.cells[1].cell.tolist() == (domains[1].cells[1].cell + meshes[0].n_cells).tolist()
    field = torch.arange(joined.n_cells, dtype=torch.float64)
    for part, value in zip(joined.cells, joined.at_points(field), strict=True):
        assert torch.equal(value[:, 0], field[part.cell])
    assert sum(float(p.weight.sum()) for p in joined.facets["left"]) == pytest.approx(2.0)
    assert joined.cells[0].gradient.stride(1) == 0, "gradients of straight simplices are stored once"
    with pytest.raises(ValueError, match=r"same dimension, got dimensions \[2, 3\]"):
        Domain.join([domains[0], build_domain(box("tetra", 1))])


def test_parameters_are_found_by_their_first_axis():
    domain = build_domain(bent(box("quad", 2)))
    part = domain.cells[0]
    assert torch.equal(domain.at_points(2.5)[0], torch.full_like(part.weight, 2.5))
    nodes = torch.randn(9, 2, 2, dtype=torch.float64)
    want = part.values(nodes.reshape(9, 4)).reshape(4, 4, 2, 2)
    torch.testing.assert_close(domain.at_points(nodes)[0], want)
    cells = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(domain.at_points(cells)[0], cells[:, None].expand(4, 4, 3))
    gravity = torch.tensor([[0.0, -9.81]], dtype=torch.float64)
    assert torch.equal(domain.at_points(gravity)[0], gravity.expand(4, 4, 2))
    assert torch.equal(domain.at_points(domain.at_points(cells))[0], domain.at_points(cells)[0])
    sides = domain.facets["boundary"]
    assert torch.equal(domain.at_points(cells, sides)[1][:, 0], cells[sides[1].cell])
    with pytest.raises(ValueError, match="9 nodes, 4 cells or 1 meshes, got shape"):
        domain.at_points(torch.zeros(5))


def test_as_many_nodes_as_cells_is_said():
    ball = sphere(0)
    ring = Mesh(ball.points, (CellBlock("triangle", ball.cells[0].nodes[:6]),))
    domain = build_domain(ring)
    with pytest.raises(ValueError, match="6 nodes and 6 cells"):
        domain.at_points(torch.zeros(6))
    assert domain.at_points(domain.cell_values(torch.zeros(6)))[0].shape == domain.cells[0].weight.shape


@pytest.mark.parametrize("cell_type", ["triangle6", "hexahedron"])
def test_gradients_through_values_and_sums_are_right(cell_type):
    part = build_domain(bent(box(cell_type, 1))).cells[0]
    n_nodes = len(part.ptr) - 1
    u = torch.randn(n_nodes, 2, dtype=torch.float64, requires_grad=True)
    local = torch.randn(*part.nodes.shape, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(part.values, u)
    assert torch.autograd.gradcheck(part.gradients, u)
    assert torch.autograd.gradcheck(part.scatter, local)
    assert torch.autograd.gradgradcheck(lambda v: part.values(v) ** 3, u)
    torch.testing.assert_close((part.scatter(local) * u).sum(), (local * part.gather(u)).sum())


def test_single_precision_is_kept():
    domain = build_domain(box("mixed", 2)).to(dtype=torch.float32)
    u = torch.ones(domain.n_nodes, 1)
    assert {v.dtype for v in (*domain.values(u), *domain.gradients(u), *domain.at_points(1.0))} == {torch.float32}
    assert domain.cells[0].nodes.dtype == torch.int64
    assert domain.cells[0].gradient.stride(1) == 0


@pytest.mark.parametrize("cell_type", [*ELEMENTS, "wedge", "surface"])
@pytest.mark.parametrize("vector", [False, True])
def test_to_scikit_fem_and_back(cell_type, vector):
    mesh = sphere(1, quadratic=True) if cell_type == "surface" else bent(box(cell_type, 2))
    sets = {"low": np.flatnonzero(mesh.points[:, 0] < 0.3)}
    mesh = mesh.replace(point_sets=sets, cell_sets={"some": np.array([0, 2])})
    field = np.random.default_rng(0).normal(size=(mesh.n_nodes, mesh.dim))
    field = field if vector else field[:, 0]
    basis, coefficients = to_skfem(mesh, field)
    back = from_skfem(basis, coefficients, "u")
    here, there = mesh.cells[0], back.cells[0]
    assert here.type == there.type
    np.testing.assert_allclose(back.points[there.nodes], mesh.points[here.nodes], atol=1e-14)
    np.testing.assert_array_equal(back.point_fields["u"][there.nodes], field[here.nodes])
    np.testing.assert_array_equal(back.cell_sets["some"], [0, 2])
    volume = sum(float(part.weight.sum()) for part in build_domain(mesh).cells)
    assert basis.dx.sum() == pytest.approx(volume, rel=1e-12)


def test_scikit_fem_finds_the_named_boundary():
    mesh = box("triangle6", 2)
    mesh = mesh.replace(point_sets={"left": np.flatnonzero(mesh.points[:, 0] < 1e-9)})
    basis, coefficients = to_skfem(mesh, mesh.points[:, 1])
    assert sorted(coefficients[basis.get_dofs("left").all()]) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    back = from_skfem(basis, coefficients, "y")
    np.testing.assert_allclose(back.points[back.point_sets["left"]][:, 0], 0)
    assert len(back.point_sets["left"]) == 5


def test_what_scikit_fem_cannot_have_is_said():
    with pytest.raises(MeshError, match="expected one type, got triangle, quad"):
        to_skfem(box("mixed", 2), np.zeros(9))
    with pytest.raises(ValueError, match=r"expected \(9 nodes"):
        to_skfem(box("quad", 2), np.zeros(4))
    with pytest.raises(ValueError, match="expected a scalar or 3 components on 'tetra10', got 2"):
        to_skfem(box("tetra10", 1), np.zeros((27, 2)))
    basis = skfem.CellBasis(skfem.MeshTri(), skfem.ElementTriP0())
    with pytest.raises(ValueError, match=r"expected an element with nodes .* got ElementTriP0"):
        from_skfem(basis, np.zeros(2), "u")
    with pytest.raises(ValueError, match=r"coefficients: expected \(4,\), got \(3,\)"):
        from_skfem(basis.with_element(skfem.ElementTriP1()), np.zeros(3), "u")


def test_cells_without_an_element_or_a_size_are_said():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 1]])
    with pytest.raises(MeshError, match=r"cells 'pyramid': expected a form that scikit-fem has.*\(mesh\)"):
        build_domain(Mesh(points, (CellBlock("pyramid", np.arange(5)[None]),)))
    with pytest.raises(MeshError, match="expected lines, surfaces or volumes"):
        build_domain(Mesh(points))
    flat = np.array([[0.0, 0], [1, 0], [2, 0], [1, 1]])
    cells = CellBlock("triangle", np.array([[0, 1, 3], [0, 1, 2]]))
    with pytest.raises(MeshError, match="1 of no size, the first is cell 1"):
        build_domain(Mesh(flat, (cells,)))
    folded = np.array([[0.0, 0], [1, 0], [0.1, 0.1], [0, 1]])
    with pytest.raises(MeshError, match="1 folded over, the first is cell 0"):
        build_domain(Mesh(folded, (CellBlock("quad", np.arange(4)[None]),)))


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.name)
def test_files_of_others_have_their_volume_or_one_clear_error(path):
    try:
        mesh = read(path)
    except MeshError:
        pytest.skip("cannot be read")
    try:
        domain = build_domain(mesh)
    except MeshError as said:
        assert "scikit-fem has" in str(said) and str(path) in str(said) and "\n" not in str(said)
        return
    index = torch.cat([part.cell for part in domain.cells]).numpy()
    volume = sum(float(part.weight.sum()) for part in domain.cells)
    straight = {"line", "triangle", "quad", "tetra", "hexahedron", "wedge"}
    curved = any(part.type not in straight for part in domain.cells)
    # cells with curved sides are measured as linear pieces by the mesh
    assert volume == pytest.approx(cell_volume(mesh)[index].sum(), rel=0.03 if curved else 1e-11)
    if domain_dim(mesh) == mesh.dim:
        moment, closed = boundary_integral(domain)
        size = np.abs(mesh.points).max() * sum(float(part.weight.sum()) for part in domain.facets["boundary"])
        assert (
            abs(moment - mesh.dim * volume) < 1e-12 * size
            and closed.abs().max() * np.abs(mesh.points).max() < 1e-12 * size
        )
