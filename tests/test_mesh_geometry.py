"""Sizes, masses, edges, boundaries: exact on affine cells, conservative, independent of numbering."""

from __future__ import annotations

import itertools

import gmsh
import numpy as np
import pytest
from scipy.spatial import Delaunay

from gno.mesh import (
    CellBlock,
    Mesh,
    MeshError,
    boundary_facets,
    cell_volume,
    cells_to_nodes,
    components,
    mesh_edges,
    node_mass,
)
from gno.mesh.geometry import matched, of_domain, signed_volume
from gno.mesh.ordering import lattice
from gno.mesh.shapes import cell_dim, family, reference_nodes, shape

TYPES = [
    *(("line", 2), ("line3", 3), ("line4", 4), ("triangle", 3), ("triangle6", 6), ("triangle7", 7), ("triangle10", 10)),
    *(("quad", 4), ("quad6", 6), ("quad8", 8), ("quad9", 9), ("quad16", 16), ("tetra", 4), ("tetra10", 10)),
    *(("tetra20", 20), ("tetra35", 35), ("pyramid", 5), ("pyramid13", 13), ("pyramid14", 14), ("wedge", 6)),
    *(("wedge12", 12), ("wedge15", 15), ("wedge18", 18), ("wedge40", 40), ("hexahedron", 8), ("hexahedron20", 20)),
    *(("hexahedron24", 24), ("hexahedron27", 27), ("hexahedron64", 64), ("VTK_LAGRANGE_TRIANGLE", 15)),
    *(("VTK_LAGRANGE_QUADRILATERAL", 16), ("VTK_LAGRANGE_TETRAHEDRON", 20), ("VTK_LAGRANGE_HEXAHEDRON", 64)),
    *(("VTK_LAGRANGE_WEDGE", 40), ("VTK_LAGRANGE_CURVE", 5)),
]
UNIT = {"line": 1, "triangle": 1 / 2, "quad": 1, "tetra": 1 / 6, "pyramid": 1 / 3, "wedge": 1 / 2, "hexahedron": 1}
CENTROID = {
    "triangle": (1 / 3, 1 / 3),
    "tetra": (1 / 4,) * 3,
    "pyramid": (1 / 2, 1 / 2, 1 / 4),
    "wedge": (1 / 3, 1 / 3, 1 / 2),
}


def single(cell_type: str, points: np.ndarray) -> Mesh:
    return Mesh(points, (CellBlock(cell_type, np.arange(len(points))[None]),))


def boundary_integral(mesh: Mesh) -> float:
    """Size of the domain by the divergence theorem over its outward facets."""
    corners = mesh.points[boundary_facets(mesh)]
    if mesh.dim == 2:
        a, b = corners[:, 0], corners[:, 1]
        return float(np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2)
    return float(np.einsum("fd,fd->", np.cross(corners[:, 1], corners[:, 2]), corners[:, 0]) / 6)


def mixed() -> Mesh:
    """A unit cube of a hexahedron, two wedges on it, a pyramid and tetrahedra beside it; nodes in no special order."""
    points = np.array([[x, y, z] for z in (0.0, 1.0, 2.0) for y in (0.0, 1.0) for x in (0.0, 1.0)] + [[2, 0.5, 0.5]])
    lower, upper = [0, 1, 3, 2, 4, 5, 7, 6], [4, 5, 7, 6, 8, 9, 11, 10]
    wedges = [[upper[k] for k in (0, 1, 2, 4, 5, 6)], [upper[k] for k in (0, 2, 3, 4, 6, 7)]]
    pyramid = [1, 3, 7, 5, 12]
    tetra = [5, 7, 12, 9]
    return Mesh(
        points,
        (
            CellBlock("hexahedron", np.array([lower])),
            CellBlock("tetra", np.array([tetra])),
            CellBlock("wedge", np.array(wedges)),
            CellBlock("pyramid", np.array([pyramid])),
            CellBlock("triangle", np.array([[0, 1, 3]])),
        ),
    )


@pytest.mark.parametrize(("cell_type", "n_nodes"), TYPES)
def test_affine_cell_is_measured_exactly(cell_type: str, n_nodes: int) -> None:
    dim = cell_dim(cell_type)
    matrix = np.random.default_rng(1).normal(size=(dim, dim)) + 2 * np.eye(dim)
    points = reference_nodes(cell_type, n_nodes) @ matrix.T + 3
    mesh = single(cell_type, points)
    size = UNIT[family(cell_type)] * abs(np.linalg.det(matrix))
    mass = node_mass(mesh)
    centroid = np.array(CENTROID.get(family(cell_type), (1 / 2,) * dim)) @ matrix.T + 3
    assert cell_volume(mesh) == pytest.approx(size, rel=1e-13)
    assert mass.min() > 0
    assert mass.sum() == pytest.approx(size, rel=1e-13)
    np.testing.assert_allclose(mass @ points, size * centroid, rtol=1e-12)
    assert components(mesh).max() == 0
    assert np.unique(mesh_edges(mesh)).tolist() == list(range(n_nodes))
    if dim > 1:
        assert boundary_integral(mesh) == pytest.approx(size, rel=1e-12)
        # Turned over, the same cell has the same size and still an outward boundary.
        mirrored = single(cell_type, points * np.eye(dim).diagonal() * np.array([-1] + [1] * (dim - 1)))
        np.testing.assert_allclose(node_mass(mirrored), mass, rtol=1e-12)
        assert boundary_integral(mirrored) == pytest.approx(size, rel=1e-12)
        assert signed_volume(mirrored) == pytest.approx(-signed_volume(mesh))


@pytest.mark.parametrize(
    ("name", "gmsh_name", "orders"),
    [
        ("line", "Line", range(1, 6)),
        ("triangle", "Triangle", range(1, 6)),
        ("quad", "Quadrangle", range(1, 6)),
        ("tetra", "Tetrahedron", range(1, 6)),
        ("hexahedron", "Hexahedron", range(1, 5)),
        ("wedge", "Prism", range(1, 3)),
    ],
)
def test_lattice_follows_gmsh(name: str, gmsh_name: str, orders: range) -> None:
    gmsh.initialize()
    try:
        for order in orders:
            kind = gmsh.model.mesh.getElementType(gmsh_name, order)
            _, dim, _, n_nodes, local, _ = gmsh.model.mesh.getElementProperties(kind)
            local = np.reshape(local, (n_nodes, dim))
            centred = slice(None) if name in ("line", "quad", "hexahedron") else slice(2, 3) if name == "wedge" else []
            local[:, centred] = (local[:, centred] + 1) / 2
            np.testing.assert_allclose(lattice(name, n_nodes, vtk=False, gmsh=True), order * local, atol=1e-9)
    finally:
        gmsh.finalize()


@pytest.mark.parametrize("name", ["Curve", "Triangle", "Quadrilateral", "Tetra", "Hexahedron", "Wedge"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lattice_follows_vtk(name: str, order: int) -> None:
    data_model = pytest.importorskip("vtkmodules.vtkCommonDataModel")
    form = {"Curve": "line", "Quadrilateral": "quad"}.get(name, name.lower())
    n_nodes = {
        "line": order + 1,
        "triangle": (order + 1) * (order + 2) // 2,
        "quad": (order + 1) ** 2,
        "tetra": (order + 1) * (order + 2) * (order + 3) // 6,
        "hexahedron": (order + 1) ** 3,
        "wedge": (order + 1) ** 2 * (order + 2) // 2,
    }[form]
    cell = getattr(data_model, f"vtkLagrange{name}")()
    cell.GetPointIds().SetNumberOfIds(n_nodes)
    cell.GetPoints().SetNumberOfPoints(n_nodes)
    if hasattr(cell, "SetUniformOrderFromNumPoints"):
        cell.SetUniformOrderFromNumPoints(n_nodes)
    cell.Initialize()
    local = cell.GetParametricCoords()
    position = lattice(form, n_nodes, vtk=True)
    found = np.array([local[k] for k in range(3 * n_nodes)]).reshape(n_nodes, 3)[:, : position.shape[1]]
    np.testing.assert_allclose(position, order * found, atol=1e-9)


def test_quadrilateral_has_no_preferred_diagonal() -> None:
    corners = np.array([[0.0, 0.0], [3.0, 0.2], [2.5, 2.0], [0.1, 1.0]])
    turned = np.roll(corners, 1, axis=0)
    np.testing.assert_allclose(np.roll(node_mass(single("quad", corners)), 1), node_mass(single("quad", turned)))


def test_hexahedron_with_warped_faces_has_the_trilinear_volume() -> None:
    rng = np.random.default_rng(0)
    corners = reference_nodes("hexahedron", 8) + 0.2 * rng.random((8, 3))
    x, w = np.polynomial.legendre.leggauss(4)
    x, w = (x + 1) / 2, w / 2
    volume = 0.0
    signs = reference_nodes("hexahedron", 8)
    for i, j, k in np.ndindex(4, 4, 4):
        at = np.array([x[i], x[j], x[k]])
        factor = np.where(signs == 1, at, 1 - at)
        slope = np.where(signs == 1, 1.0, -1.0)
        gradient = np.stack([slope[:, d] * np.delete(factor, d, axis=1).prod(1) for d in range(3)], axis=1)
        volume += w[i] * w[j] * w[k] * np.linalg.det(corners.T @ gradient)
    assert cell_volume(single("hexahedron", corners)) == pytest.approx(volume, rel=1e-12)


def test_mixed_mesh() -> None:
    mesh = mixed()
    np.testing.assert_allclose(cell_volume(mesh), [1, 1 / 6, 1 / 2, 1 / 2, 1 / 3, 1 / 2], rtol=1e-14)
    assert node_mass(mesh).sum() == pytest.approx(2.5, rel=1e-14)
    assert boundary_integral(mesh) == pytest.approx(2.5, rel=1e-13)
    assert components(mesh).max() == 0
    i, j = mesh_edges(mesh)
    assert (i < j).all()
    assert len(np.unique(i * mesh.n_nodes + j)) == len(i)
    # Interleaved blocks give what sorted blocks give.
    order = np.argsort([block.type for block in mesh.cells], kind="stable")
    np.testing.assert_array_equal(mesh_edges(mesh.replace(cells=[mesh.cells[k] for k in order])), mesh_edges(mesh))


def test_cells_to_nodes_is_conservative() -> None:
    mesh = mixed()
    values = np.random.default_rng(0).normal(size=(mesh.n_cells, 2, 3))
    nodes = cells_to_nodes(mesh, values)
    assert nodes.shape == (13, 2, 3)
    size = cell_volume(mesh)
    # The triangle on the boundary is no cell of the domain.
    expected = np.einsum("c,cij->ij", size[:-1], values[:-1])
    np.testing.assert_allclose(np.einsum("n,nij->ij", node_mass(mesh), nodes), expected, rtol=1e-12)
    np.testing.assert_allclose(cells_to_nodes(mesh, np.full(mesh.n_cells, 3)), 3, rtol=1e-14)
    with pytest.raises(MeshError, match=r"expected 6 cells, got shape \(5,\)"):
        cells_to_nodes(mesh, np.zeros(5))


def test_cells_to_nodes_gives_nothing_to_nodes_without_mass() -> None:
    mesh = Mesh(np.array([[0.0, 0], [1, 0], [0, 1], [9, 9]]), (CellBlock("triangle", np.array([[0, 1, 2]])),))
    np.testing.assert_array_equal(cells_to_nodes(mesh, np.array([2.0])), [2, 2, 2, 0])
    np.testing.assert_allclose(node_mass(mesh), [1 / 6, 1 / 6, 1 / 6, 0])
    assert len(np.unique(components(mesh))) == 2


def test_random_triangulation() -> None:
    points = np.random.default_rng(3).random((200, 2))
    cells = Delaunay(points).simplices
    mesh = Mesh(np.column_stack([points, np.full(200, 7.0)]), (CellBlock("triangle", cells),))
    assert mesh.dim == 2
    assert boundary_integral(mesh) == pytest.approx(node_mass(mesh).sum(), rel=1e-12)
    # Euler: nodes - edges + cells = 1 for a disc.
    assert 200 - mesh_edges(mesh).shape[1] + len(cells) == 1


def test_surface_in_space() -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1]])
    open_surface = Mesh(points, (CellBlock("quad", np.array([[0, 1, 2, 3]])),))
    assert cell_volume(open_surface) == pytest.approx(np.sqrt(2))
    assert node_mass(open_surface) == pytest.approx(np.full(4, np.sqrt(2) / 4))
    assert boundary_facets(open_surface).tolist() == [[0, 1], [1, 2], [2, 3], [3, 0]]
    tetra = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    closed = Mesh(tetra, (CellBlock("triangle", np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])),))
    assert boundary_facets(closed).shape == (0, 2)


def test_polygons_strips_and_chains() -> None:
    angle = 2 * np.pi * np.arange(7) / 7
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    heptagon = single("polygon", ring)
    assert cell_volume(heptagon) == pytest.approx(3.5 * np.sin(2 * np.pi / 7))
    np.testing.assert_allclose(node_mass(heptagon), np.full(7, cell_volume(heptagon)[0] / 7))
    assert boundary_integral(heptagon) == pytest.approx(cell_volume(heptagon)[0])
    strip = single("triangle_strip", np.array([[0.0, 0], [0, 1], [1, 0], [1, 1], [2, 0]]))
    assert cell_volume(strip) == pytest.approx(1.5)
    assert abs(boundary_integral(strip)) == pytest.approx(1.5)
    chain = single("poly_line", np.array([[0.0, 0], [1, 0], [1, 2]]))
    np.testing.assert_allclose(node_mass(chain), [0.5, 1.5, 1.0])


def test_folded_quadrilateral_keeps_positive_masses() -> None:
    arrow = single("quad", np.array([[0.0, 0.0], [2.0, 1.0], [0.0, 2.0], [1.5, 1.0]]))
    assert cell_volume(arrow) == pytest.approx(0.5)
    assert node_mass(arrow).min() > 0
    assert node_mass(arrow).sum() == pytest.approx(0.5, rel=1e-13)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    tilted = arrow.replace(points=np.pad(arrow.points, ((0, 0), (0, 1))) @ turn)
    assert cell_volume(tilted) == pytest.approx(0.5)
    np.testing.assert_allclose(node_mass(tilted), node_mass(arrow))


def test_a_cell_with_one_node_twice_has_no_edge_to_itself() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert mesh_edges(Mesh(points, (CellBlock("quad", np.array([[0, 1, 2, 2]])),))).tolist() == [[0, 0, 1], [1, 2, 2]]


def test_point_cloud_and_flat_domain() -> None:
    cloud = Mesh(np.random.default_rng(0).random((5, 3)))
    np.testing.assert_allclose(node_mass(cloud), 1 / 5)
    assert mesh_edges(cloud).shape == (2, 0)
    assert len(boundary_facets(cloud)) == 0
    with pytest.raises(MeshError, match="expected a domain with a size"):
        node_mass(single("triangle", np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])))


def test_lines_around_a_plate_are_not_of_the_domain_and_points_alone_have_no_cells() -> None:
    plate = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    cells = (CellBlock("line", np.array([[0, 1]])), CellBlock("triangle", np.array([[0, 1, 2]])))
    assert of_domain(Mesh(plate, cells)).tolist() == [False, True]
    assert of_domain(Mesh(plate)).tolist() == []


def test_unknown_cells_are_refused() -> None:
    with pytest.raises(MeshError, match="'tetrahedroid' is not known"):
        cell_dim("tetrahedroid")
    with pytest.raises(MeshError, match="expected a complete Lagrange cell, got 7 nodes"):
        shape("tetra7", 7)


def test_millimetres_are_metres() -> None:
    mesh = mixed()
    small = mesh.replace(points=1e-3 * mesh.points)
    np.testing.assert_allclose(node_mass(small), 1e-9 * node_mass(mesh), rtol=1e-12)
    np.testing.assert_array_equal(boundary_facets(small), boundary_facets(mesh))


@pytest.mark.parametrize("largest", [9, 2**21, 2**31 - 2])
def test_rows_of_the_same_nodes_are_found_however_large_the_numbers(largest):
    rng = np.random.default_rng(0)
    rows = rng.integers(largest - 9, largest + 1, (300, 4))
    rows[rng.random(300) < 0.5, 3] = -1  # three corners
    order, same = matched(rows)
    known = [tuple(sorted(row)) for row in rows[order].tolist()]
    assert sorted(order) == list(range(300))
    assert same.tolist() == [a == b for a, b in itertools.pairwise(known)]
    assert len(set(known)) == 300 - same.sum()
