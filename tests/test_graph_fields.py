"""Fields by name: a value that cannot be learned from is named with its field, place and file."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from gno.graph import FieldSpec, SampleSpec, build_sample, features
from gno.graph.features import nearest_on_facets
from gno.graph.fields import find_field
from gno.mesh import CellBlock, Mesh, boundary_facets


def square(**fields) -> Mesh:
    points = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    return Mesh(points, (CellBlock("triangle", np.array([[0, 1, 2], [1, 3, 2]])),), source="square.vtu", **fields)


def test_a_value_that_is_not_finite_is_named():
    mesh = square(point_fields={"u": np.array([0.0, np.nan, np.inf, 1])}, cell_fields={"k": np.array([1.0, np.nan])})
    with pytest.raises(ValueError, match=r"point field 'u': .*got \[nan\] at node 1 \(2 of 4 rows, square.vtu\)"):
        FieldSpec("u", "point", 1).values(mesh)
    with pytest.raises(ValueError, match=r"cell field 'k': .* at cell 1 \(1 of 2 rows"):
        FieldSpec("k", "cell", 1).values(mesh)


def test_a_logarithm_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"'k': expected values > 0 for log, got 0 \(square.vtu\)"):
        FieldSpec("k", "cell", 1, log=True).values(square(cell_fields={"k": np.array([1.0, 0.0])}))


def test_a_missing_field_comes_with_those_there_are():
    with pytest.raises(ValueError, match=r"field 'v': expected in the file, got point: u \(square.vtu\)"):
        find_field(square(point_fields={"u": np.zeros(4)}), "v")


def test_a_set_that_no_mesh_has_is_named():
    mesh = square(point_fields={"u": np.zeros(4)}, point_sets={"left": np.array([0, 2])})
    with pytest.raises(ValueError, match=r"sets: expected point sets that a training mesh has \(left\), got 'lefft'"):
        SampleSpec.fit([mesh], inputs=[], targets=["u"], sets=["lefft"])
    assert SampleSpec.fit([mesh, square(point_fields={"u": np.zeros(4)})], inputs=[], targets=["u"], sets=["left"]).sets


def test_the_boundary_of_a_curve_is_its_ends():
    angle = np.linspace(0, 2, 9)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    curve = Mesh(points, (CellBlock("line", np.stack([np.arange(8), np.arange(1, 9)], axis=1)),))
    offset, normal = nearest_on_facets(points, points, boundary_facets(curve))
    ends = np.linalg.norm(points[:, None] - points[[0, 8]], axis=2)
    assert np.allclose(np.linalg.norm(offset, axis=1), ends.min(1)) and not normal.any()
    assert build_sample(curve, SampleSpec.fit([curve], inputs=(), targets=())).geometry.isfinite().all()


@pytest.mark.parametrize(("kind", "shape"), [("vertex", (60, 1)), ("poly_vertex", (1, 60))])
def test_points_that_are_drawn_by_vertices_are_a_cloud(kind, shape):
    """As ParaView and PyVista write points: a cell for each, or one for all."""
    rng, block = np.random.default_rng(0), CellBlock(kind, np.arange(60).reshape(shape))
    points = rng.random((60, 3))
    bare = Mesh(points, point_fields={"u": points[:, 0]}, point_sets={"left": np.arange(5)}, period=(0.0, 2.0, 0.0))
    drawn = bare.replace(cells=(block,), cell_fields={"k": rng.random(len(block))})
    specs = [SampleSpec.fit([mesh], inputs=["left"], targets=["u"]) for mesh in (bare, drawn)]
    assert specs[0] == specs[1]
    one, other = (build_sample(mesh, specs[0]).to_dict() for mesh in (bare, drawn))
    assert one.keys() == other.keys() and one["pos_1"].shape[0] < 60 / 4
    assert all(np.array_equal(one[key], other[key]) for key in one)
    k = FieldSpec("k", "cell", 1).values(drawn)
    np.testing.assert_allclose(k, np.broadcast_to(drawn.cell_fields["k"][:, None], (60, 1)))


@pytest.mark.parametrize("n", [1, 2])
def test_points_that_lie_on_one_another_have_spacings(n):
    mesh = Mesh(np.repeat(np.arange(2.0 * n).reshape(n, 2), 20, axis=0), point_fields={"u": np.arange(20.0 * n)})
    spec = SampleSpec.fit([mesh], inputs=[], targets=["u"])
    assert min(spec.spacings) > 0 and build_sample(mesh, spec).num_nodes == 20 * n


@pytest.mark.parametrize("shape", ["tetrahedron", "square"])
def test_the_nearest_place_on_the_boundary_is_that_of_a_dense_sample_of_it(shape, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 7)  # parts that do not divide the number of points
    rng = np.random.default_rng(0)
    corners = np.eye(4, 3) if shape == "tetrahedron" else np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    cell = CellBlock("tetra" if shape == "tetrahedron" else "quad", np.arange(4)[None])
    facets, dim = boundary_facets(Mesh(corners, (cell,))), corners.shape[1]
    points = rng.uniform(-0.5, 1.5, (100, dim))
    share = rng.dirichlet(np.full(dim, 0.5), (len(facets), 40_000))
    dense = np.einsum("fsk,fkd->fsd", share, corners[facets])
    distance = np.stack([cKDTree(side).query(points)[0] for side in dense])
    offset, normal = nearest_on_facets(points, corners, facets)
    np.testing.assert_allclose(np.linalg.norm(offset, axis=1), distance.min(0), atol=2e-3)
    clear = np.sort(distance, axis=0)[1] - distance.min(0) > 1e-2
    side = corners[facets[distance.argmin(0)]]
    away = np.einsum("nd,nd->n", normal, side[:, 0] - corners.mean(0))
    along = np.ptp(np.einsum("nd,nkd->nk", normal, side), axis=1)
    assert clear.sum() > 10 and (away[clear] > 0).all() and along[clear].max() < 1e-12


def test_normals_at_edges_and_corners_are_means_however_nodes_are_numbered_and_faces_cut():
    axis, index = np.linspace(0, 1, 4), np.arange(64).reshape(4, 4, 4)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    around = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]
    cells = np.stack([index[i : i + 3, j : j + 3, k : k + 3].ravel() for i, j, k in around], axis=1)
    faces = (points == 1).astype(float) - (points == 0)
    outer = faces.any(1)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(64)  # quadrilaterals are cut through their lowest numbers
        there = points[order]
        facets = boundary_facets(Mesh(there, (CellBlock("hexahedron", np.argsort(order)[cells]),)))
        offset, normal = (x[np.argsort(order)][outer] for x in nearest_on_facets(there, there, facets))
        assert not offset.any()
        np.testing.assert_allclose(normal, faces[outer] / abs(faces[outer]).sum(1, keepdims=True), atol=1e-12)


def test_each_side_of_a_slit_has_its_own_normal():
    """Two squares, one above the other, that share places on a line and none of its inner nodes."""
    x = np.linspace(0, 1, 5)
    rows = [np.stack([x, np.full(5, y)], axis=1) for y in (-0.5, 0.0, 0.0, 0.5)]
    low, high = (np.array([[i, i + 1, i + 6, i + 5] for i in range(first, first + 4)]) for first in (0, 10))
    mesh = Mesh(np.concatenate(rows), (CellBlock("quad", np.concatenate([low, high])),))
    _, normal = nearest_on_facets(mesh.points, mesh.points, boundary_facets(mesh))
    np.testing.assert_allclose(normal[6:9], np.tile([0.0, 1.0], (3, 1)))
    np.testing.assert_allclose(normal[11:14], np.tile([0.0, -1.0], (3, 1)))
