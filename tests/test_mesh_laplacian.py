"""The Laplacian of linear elements: exact on quadratics, of any cells, on surfaces, and in operators."""

import numpy as np
import pytest
import torch
from graph_cases import operator_for, samples_of, spec_of, square

from gno.graph import build_sample, collate
from gno.mesh import CellBlock, Mesh, boundary_facets, laplacian
from gno.train import Case, Data, Model, Training


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def grid(n: int, kind: str) -> Mesh:
    """The unit square of quads, or of triangles whose diagonals alternate: nodes have four or eight neighbours."""
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    points, k = np.stack([i, j], -1).reshape(-1, 2) / n, i * (n + 1) + j
    a, b, c, d = (x.ravel() for x in (k[:-1, :-1], k[1:, :-1], k[1:, 1:], k[:-1, 1:]))
    if kind == "quad":
        return Mesh(points, (CellBlock("quad", np.stack([a, b, c, d], 1)),))
    rising = ((i + j)[:-1, :-1] % 2 == 0).ravel()[:, None]
    first = np.where(rising, np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(rising, np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return Mesh(points, (CellBlock("triangle", np.concatenate([first, second])),))


def inside(mesh: Mesh) -> np.ndarray:
    return np.setdiff1d(np.arange(mesh.n_nodes), boundary_facets(mesh))


@pytest.mark.parametrize("kind", ["triangle", "quad"])
def test_quadratics_have_their_laplacian_whatever_the_diagonals(kind):
    mesh = grid(6, kind)
    x, y = mesh.points.T
    found = laplacian(mesh) @ (x**2 + 3 * y**2 + x * y + 2 * x)
    assert np.allclose(found[inside(mesh)], 8, atol=1e-10)


@pytest.mark.parametrize("dim", [2, 3])
def test_linear_fields_have_none(dim):
    mesh = square(6, dim=dim)
    found = laplacian(mesh) @ mesh.points
    assert np.abs(found[inside(mesh)]).max() < 1e-9
    assert np.abs(laplacian(mesh) @ np.ones(mesh.n_nodes)).max() < 1e-9


def test_nothing_flows_through_a_wall():
    mesh = grid(32, "triangle")
    v = np.cos(np.pi * mesh.points[:, 0])
    assert np.abs(laplacian(mesh) @ v + np.pi**2 * v).max() < 0.01 * np.pi**2


def test_a_sphere_has_that_of_laplace_and_beltrami():
    import pyvista as pv

    ball = pv.Icosphere(radius=2.0, nsub=3)
    mesh = Mesh(np.asarray(ball.points, float), (CellBlock("triangle", ball.regular_faces.astype(np.int64)),))
    z = mesh.points[:, 2]
    assert np.abs(laplacian(mesh) @ z + z / 2).max() < 0.01


def test_points_without_cells_or_mass_have_empty_rows():
    mesh = square(4)
    stray = mesh.replace(points=np.concatenate([mesh.points, [[9.0, 9.0]]]), point_fields={})
    assert laplacian(stray)[-1].nnz == 0
    assert laplacian(Mesh(mesh.points)).nnz == 0


def test_stencils_treat_a_batch_as_its_meshes_and_millimetres_as_metres():
    meshes = [square(n, seed=n) for n in (5, 7)]
    spec = spec_of(*meshes, n_stencils=2)
    samples = samples_of(*meshes, spec=spec)
    model = operator_for(samples[0], n_stencils=2)
    together = model(collate(samples))
    for k, sample in enumerate(samples):
        assert difference(together.fields[0][together.batch[0] == k], model(collate([sample])).fields[0]) < 1e-12
    small, large = (samples_of(square(7, scale=s), spec=spec_of(square(7, scale=s), n_stencils=2))[0] for s in (1, 1e3))
    assert difference(model(collate([large])).fields[0], model(collate([small])).fields[0]) < 1e-11
    together.fields[0].sum().backward()
    assert all(p.grad is not None for p in [*model.stencils_in.parameters(), *model.stencils_out.parameters()])


def test_stencils_ask_for_samples_that_have_a_laplacian():
    (sample,) = samples_of(square(5))
    with pytest.raises(ValueError, match="n_stencils"):
        operator_for(sample, n_stencils=1)(collate([sample]))


def test_stencils_are_not_compiled():
    with pytest.raises(ValueError, match=r"training.compile: expected false with model.n_stencils"):
        Case(data=Data(targets=["u"]), model=Model(n_stencils=2), training=Training(epochs=1, compile=True))


def test_a_probe_hears_the_laplacian_at_its_place_and_changes_nothing():
    mesh = square(7)
    spec = spec_of(mesh, n_stencils=2)
    plain, probed = (build_sample(mesh, spec, torch.float64, probes=p) for p in (None, mesh.points[[3, 8]]))
    model = operator_for(plain, n_stencils=2)
    without, beside = model(collate([plain])).fields[0], model(collate([probed])).fields[0]
    assert difference(beside[: mesh.n_nodes], without) < 1e-11
    assert difference(beside[mesh.n_nodes :], without[[3, 8]]) < 1e-9


def test_without_coordinates_an_operator_is_the_same_where_other_meshes_end():
    """Two squares that know where they are differ; those that do not are told apart by nothing in the middle."""
    mesh = square(9)
    for known in (True, False):
        sample = samples_of(mesh, spec=spec_of(mesh, coordinates=known))[0]
        columns = sample.geometry.T
        middle = torch.as_tensor(mesh.points[:, 0] - 0.5)
        aligned = max(float(torch.corrcoef(torch.stack([c, middle]))[0, 1].abs()) for c in columns if c.std() > 0)
        assert (aligned > 0.999) == known
