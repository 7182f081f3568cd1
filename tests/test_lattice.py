"""Cells that are not rectangular: nothing depends on which cell of a lattice, which image, or which place is taken."""

import itertools

import numpy as np
import pytest
import torch
from graph_cases import operator_for, spec_of

from gno.graph import build_sample, collate
from gno.graph.neighbours import nearest_edges
from gno.graph.padding import Ladder
from gno.inspection import inspect
from gno.mesh import CellBlock, Lattice, Mesh, MeshError, read, torus_of, write
from gno.mesh.lattice import reduced
from gno.mesh.periodic import beside, from_rows, nearest_nodes
from gno.nn.compiled import Compiled

CELLS = {
    "dodecahedron": np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.5**0.5]]),
    "octahedron": np.array([[1.0, 0.0, 0.0], [1 / 3, 8**0.5 / 3, 0.0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]]),
    "hexagonal": np.array([[1.0, 0.0, 0.0], [-0.5, 0.75**0.5, 0.0], [0.0, 0.0, 1.3]]),
    "face-centred": np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
    "tall": np.array([[0.7, 0.0, 0.0], [0.3, 0.6, 0.0], [0.0, 0.0, 3.0]]),
    "triclinic": np.array([[1.1, 0.1, 0.0], [0.3, 0.9, -0.2], [-0.35, 0.25, 1.2]]),
    "slab": np.array([[1.0, 0.0, 0.0], [0.4, 0.9, 0.0], [0.0, 0.0, 0.0]]),
}
SLAB = np.array([0.0, 0.0, 0.7])
OPTIONS = [{"n_levels": 1}, {"n_levels": 3}, {"n_levels": 4, "graded": True}]


def full(cell: np.ndarray) -> np.ndarray:
    return np.where(cell.any(1)[:, None], cell, np.eye(3))


def cloud(cell: np.ndarray, n: int = 400, turns: np.ndarray | None = None, shift=0.0, *, graded: bool = False) -> Mesh:
    """Particles, moved and taken to other images, with fields that the lattice repeats."""
    rng = np.random.default_rng(0)
    place = rng.random((n, 3))
    if graded:
        place = place + 0.15 * np.sin(2 * np.pi * place) * cell.any(1)
    wave = np.where(cell.any(1), 2 * np.pi, 1.0)
    a = np.sin(wave[0] * place[:, 0]) + np.cos(2 * wave[1] * place[:, 1] + wave[2] * place[:, 2])
    points = place @ full(cell) + shift
    points = points if turns is None else points + turns @ cell
    return Mesh(points, point_fields={"a": a, "u": a, "w": np.stack([a] * 3, axis=1)}, period=cell)


def answer(mesh: Mesh, **options) -> np.ndarray:
    """Of an operator without training."""
    sample = build_sample(mesh, spec_of(mesh, **options), torch.float64)
    with torch.no_grad():
        return operator_for(sample)(collate([sample])).fields[0].numpy()


def other_cell(cell: np.ndarray, seed: int) -> np.ndarray:
    """Other vectors of the same lattice, with the zero row where it was."""
    rng, found, rows = np.random.default_rng(seed), cell.copy(), np.flatnonzero(cell.any(1))
    for _ in range(4):
        i, j = rng.choice(rows, 2, replace=False)
        found[i] += rng.integers(-2, 3) * found[j]
    return found[rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)[:, None] if len(rows) == 3 else found


@pytest.mark.parametrize("name", CELLS)
def test_the_reduced_cell_belongs_to_the_lattice(name: str) -> None:
    cell = CELLS[name]
    for seed in range(20):
        np.testing.assert_allclose(reduced(other_cell(cell, seed)), reduced(cell), atol=1e-12)
    assert abs(np.linalg.det(full(reduced(cell)))) == pytest.approx(abs(np.linalg.det(full(cell))))


@pytest.mark.parametrize("name", CELLS)
def test_offsets_are_to_the_nearest_image(name: str) -> None:
    cell, rng = reduced(CELLS[name]), np.random.default_rng(1)
    offset = rng.normal(size=(2000, 3)) * 4
    found = Lattice.of(cell).nearest(offset)
    inside = offset - np.round(offset @ np.linalg.inv(full(cell))) * cell.any(1) @ cell
    images = np.array(list(itertools.product(range(-2, 3), repeat=3))) @ cell
    least = np.linalg.norm(inside[:, None] - images, axis=2).min(1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), least, rtol=0, atol=1e-12)
    assert (np.linalg.norm(inside, axis=1) > least + 1e-9).any()  # rounding alone would not do
    rows = torch.from_numpy(Lattice.of(cell).stacked())
    np.testing.assert_allclose(from_rows(rows).nearest(torch.from_numpy(offset)).numpy(), found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_waves_measure_what_is_near_and_repeat(name: str) -> None:
    from gno.nn.torus import _on_waves

    lattice = Lattice.of(reduced(CELLS[name]))
    lattice = from_rows(torch.from_numpy(lattice.stacked()))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 3)))
    near = x + 1e-4 * torch.from_numpy(np.random.default_rng(1).normal(size=(50, 3)))
    distance = (_on_waves(lattice, x) - _on_waves(lattice, near)).norm(dim=1)
    torch.testing.assert_close(distance, (x - near).norm(dim=1), rtol=1e-6, atol=0)
    image = x + torch.from_numpy(CELLS[name].sum(0))
    torch.testing.assert_close(_on_waves(lattice, x), _on_waves(lattice, image), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_neighbours_are_those_of_the_nearest_images(name: str) -> None:
    cell, k = reduced(CELLS[name]), 9
    points = cloud(cell, 150).points
    offset = Lattice.of(cell).nearest((points[:, None] - points).reshape(-1, 3)).reshape(150, 150, 3)
    near = np.argsort(np.linalg.norm(offset, axis=2), axis=1)[:, 1 : k + 1]
    pairs = {tuple(sorted((i, int(j)))) for i, row in enumerate(near) for j in row}
    assert {tuple(pair) for pair in nearest_edges(points, k, period=cell).T.tolist()} == pairs


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: f"levels {options['n_levels']}")
@pytest.mark.parametrize("name", CELLS)
def test_an_answer_does_not_depend_on_cell_image_or_place(name: str, options: dict) -> None:
    cell, rng, graded = CELLS[name], np.random.default_rng(2), "graded" in options
    reference = answer(cloud(cell, graded=graded), **options)
    turns = rng.integers(-2, 3, (400, 3)).astype(float)
    for mesh in (
        cloud(cell, turns=turns, graded=graded),
        cloud(cell, shift=np.array([0.37, -2.1, 5.3]), graded=graded),
        cloud(cell, graded=graded).replace(period=other_cell(cell, 3)),
    ):
        assert np.abs(answer(mesh, **options) - reference).max() < 1e-10 * np.abs(reference).max()
    assert np.abs(answer(cloud(cell, graded=graded).replace(period=()), **options) - reference).max() > 1e-4


def test_only_what_is_oblique_is_alone_together() -> None:
    mesh = cloud(CELLS["tall"])
    spec = spec_of(mesh, n_levels=3, first_step=2.0)
    sample = build_sample(mesh, spec, torch.float64)
    (two,) = from_rows(sample.torus_2).seen
    assert two.tolist() == [0.0, 0.0, 1.0] and len(sample.pos_2) >= 4
    lengths = from_rows(sample.torus_2).part(5).flatten()
    assert (lengths > 0).sum() == 1 and (from_rows(sample.torus_0).part(5).flatten() > 1e-9).sum() == 4


def test_a_rectangular_box_given_as_a_cell_is_that_box() -> None:
    box = np.diag([1.0, 1.5, 0.7])
    mesh = cloud(box)
    assert mesh.period == (1.0, 1.5, 0.7)
    skew = np.array([[1.0, 0.0, 0.0], [2.0, 1.5, 0.0], [-1.0, 3.0, 0.7]])
    assert mesh.replace(period=skew).period == (1.0, 1.5, 0.7)
    assert np.array_equal(answer(mesh, n_levels=3), answer(mesh.replace(period=(1.0, 1.5, 0.7)), n_levels=3))


@pytest.mark.parametrize("n_levels", [1, 2])
def test_a_cell_that_is_nearly_rectangular_answers_as_the_rectangular_one(n_levels: int) -> None:
    """Two ways through the operator, one limit: so the lattice says what a box says."""
    box = np.diag([1.0, 1.2, 0.9])
    mesh = cloud(box, 600)
    nearly = mesh.replace(period=box + np.array([[0, 0, 0], [3e-6, 0, 0], [0, 0, 0]]))
    assert np.ndim(nearly.period) == 2
    spec = {"n_levels": n_levels, "first_step": 1.2}
    difference = answer(nearly, **spec) - answer(mesh, **spec)
    assert np.abs(difference).max() < 1e-4 * np.abs(answer(mesh, **spec)).max()


@pytest.mark.parametrize("graded", [False, True])
def test_kinds_of_boxes_in_one_batch(graded: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    cells = (CELLS["triclinic"], np.diag([1.0, 1.5, 0.7]), CELLS["slab"], np.zeros((3, 3)))
    meshes = [cloud(cell, graded=graded) for cell in cells]
    spec = spec_of(meshes[0], n_levels=3, graded=graded)
    samples = [build_sample(mesh, spec, torch.float64) for mesh in meshes]
    operator = operator_for(samples[0])
    with torch.no_grad():
        together = operator(collate(samples)).fields[0]
        filled = Compiled(operator)(Ladder.fit(samples, 4).pad(collate(samples))).fields[0]
        alone = torch.cat([operator(collate([sample])).fields[0] for sample in samples])
    assert (together - alone).abs().max() < 1e-12 * alone.abs().max()
    assert (filled - alone).abs().max() < 1e-12 * alone.abs().max()


def test_units_of_length_do_not_matter() -> None:
    mesh = cloud(CELLS["octahedron"])
    angstrom = mesh.replace(points=10 * mesh.points, period=10 * CELLS["octahedron"])
    assert np.abs(answer(angstrom, n_levels=3) - answer(mesh, n_levels=3)).max() < 1e-12


@pytest.mark.parametrize("name", CELLS)
def test_anchors_are_shown_where_atoms_are(name: str) -> None:
    """However the atoms fill the lattice: here a cell that is not the reduced one, far from the origin."""
    mesh = cloud(CELLS[name], shift=np.array([7.3, -2.1, 5.3]))
    turns = np.random.default_rng(4).integers(-2, 3, (400, 3)) @ CELLS[name]
    places = beside(mesh.points + turns, mesh.points, mesh.period)
    np.testing.assert_allclose(places, mesh.points, rtol=0, atol=1e-12)


def test_files_keep_the_cell_and_inspection_says_it(tmp_path) -> None:
    mesh = cloud(CELLS["triclinic"])
    for name in ("a.vtu", "a.xdmf"):
        write(mesh, tmp_path / name)
        assert read(tmp_path / name).period == mesh.period
    assert "repeats    by (" in str(inspect(mesh))


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (
            [[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0]],
            "three vectors that span a volume, or fewer in the span of as many axes",
        ),
        ([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]], "three vectors that span a volume, .*axes"),
        ([[1.0, 0, 0.1], [0, 1.0, 0], [0, 0, 0]], "fewer in the span of as many axes"),
        ([[1.0, 0], [0.5, 1.0]], "of 3-D points without cells three vectors"),
    ],
)
def test_what_is_no_cell(period, expected: str) -> None:
    with pytest.raises(MeshError, match=f"period: expected .*{expected}, got"):
        Mesh(np.random.default_rng(0).random((9, 3)), period=np.array(period))


def test_meshes_with_cells_have_rectangular_periods() -> None:
    tetra = CellBlock("tetra", np.array([[0, 1, 2, 3]]))
    with pytest.raises(MeshError, match="3 lengths of a rectangular box, or of 3-D points without cells three vectors"):
        Mesh(np.concatenate([np.zeros((1, 3)), np.eye(3)]), (tetra,), period=CELLS["triclinic"])
    assert isinstance(torus_of(CELLS["triclinic"]), Lattice)


def test_neighbours_in_a_thin_cell_are_other_nodes_and_not_images_of_one():
    points = np.random.default_rng(0).random((60, 3)) * [10.0, 10.0, 0.0]
    box, oblique = np.array([10.0, 10.0, 0.2]), np.array([[10.0, 0.0, 0.0], [0.0, 10.0, 0.0], [0.01, 0.0, 0.2]])
    found = nearest_nodes(points, 7, oblique)
    assert [len(set(row)) for row in found.tolist()] == [7] * len(points)
    assert np.mean(np.sort(found, 1) == np.sort(nearest_nodes(points, 7, box), 1)) > 0.95
