import numpy as np
import pytest

from gno.mesh import CellBlock, Mesh, MeshError, interpolation


def test_linear_fields_are_exact_in_every_cell_type():
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 4)] * 2, indexing="ij"), -1).reshape(-1, 2)
    i = np.arange(16).reshape(4, 4)
    quads = np.stack([i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]], -1).reshape(-1, 4)
    blocks = (
        CellBlock("quad", quads[:4]),
        CellBlock("triangle", np.concatenate([quads[4:, :3], quads[4:, [0, 2, 3]]])),
    )
    points = np.random.default_rng(0).uniform(size=(200, 2))
    matrix = interpolation(Mesh(grid, blocks), points)
    np.testing.assert_allclose(matrix @ grid, points, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)


def test_points_outside_get_a_value_of_the_mesh():
    mesh = Mesh(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), (CellBlock("triangle", np.array([[0, 1, 2]])),))
    matrix = interpolation(mesh, np.array([[-1.0, -1.0], [2.0, 0.0]])).toarray()
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_errors():
    cloud = Mesh(np.zeros((3, 2)) + np.arange(3)[:, None])
    with pytest.raises(MeshError, match="point cloud"):
        interpolation(cloud, np.zeros((1, 2)))
    mesh = Mesh(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), (CellBlock("triangle", np.array([[0, 1, 2]])),))
    with pytest.raises(MeshError, match=r"expected shape \(n, 2\)"):
        interpolation(mesh, np.zeros((1, 1)))
