"""Coordinates that repeat: nothing depends on where a torus is cut open, and both sides of a cut are one place."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from graph_cases import operator_for, samples_of, spec_of, square

from gno.graph import SampleSpec, build_sample, collate
from gno.graph.neighbours import edges_of, nearest_edges
from gno.graph.segment import Edges
from gno.inspection import inspect
from gno.mesh import (
    Mesh,
    MeshError,
    boundary_facets,
    cells_to_nodes,
    interpolation,
    laplacian,
    node_mass,
    read,
    repeats,
    write,
)
from gno.nn.kernel import kernel_sum
from gno.physics import Dirichlet, build_problem, diffusion, solve
from gno.train import Data, Run, load_case, train
from gno.train.samples import content_key

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "gray_scott"))
periodic_square = importlib.import_module("domains").periodic_square

OPTIONS = [{"n_levels": 1}, {"n_levels": 2, "n_stencils": 1}, {"n_levels": 3}, {"n_levels": 4, "coordinates": False}]
BOX = np.array([1.0, 1.5])


def torus(n: int = 13, seed: int = 0, dim: int = 2) -> Mesh:
    """A jittered square or cube whose sides are identified, with fields that repeat."""
    mesh = square(n, seed=seed, dim=dim)
    a = np.sin(2 * np.pi * mesh.points[:, 0]) + np.cos(4 * np.pi * mesh.points[:, -1] + 1.0)
    w = np.stack([a] * dim, axis=1)
    return mesh.replace(period=(1.0,) * dim, point_fields={"a": a, "u": a**2, "w": w}, point_sets={})


def grid(n: int, side: float = 1.0, value=lambda x, y: x) -> Mesh:
    """The periodic square of the Gray–Scott example, with n nodes around."""
    mesh = periodic_square(0, side / n, side).mesh
    f = value(*mesh.points.T)
    return mesh.replace(point_fields={"a": f, "u": f, "w": np.stack([f, f], axis=1)})


def cloud(shift=(0.0, 0.0), n: int = 300) -> Mesh:
    """Points in a box, moved and put back into it."""
    points = np.random.default_rng(0).random((n, 2)) * BOX
    a = np.sin(2 * np.pi * points[:, 0]) + np.cos(4 * np.pi * points[:, 1] / BOX[1])
    fields = {"a": a, "u": a, "w": np.stack([a, a], axis=1)}
    return Mesh((points + shift) % BOX, point_fields=fields, period=tuple(BOX))


def answer(mesh: Mesh, spec: SampleSpec | None = None, **options) -> np.ndarray:
    """Of an operator without training."""
    spec = spec or spec_of(mesh, **options)
    sample = build_sample(mesh, spec, torch.float64)
    with torch.no_grad():
        return operator_for(sample, n_stencils=spec.n_stencils)(collate([sample])).fields[0].numpy()


@pytest.mark.parametrize("options", OPTIONS)
def test_an_answer_does_not_depend_on_where_the_box_lies(options):
    reference = answer(cloud(), **{**options, "n_stencils": 0})
    for shift in ([0.3, 0.0], [0.77, 1.21], [-5.1, 0.4]):
        moved = answer(cloud(shift), **{**options, "n_stencils": 0})
        assert np.abs(moved - reference).max() < 1e-12 * np.abs(reference).max()
    far = cloud().replace(points=cloud().points + 3 * BOX * np.random.default_rng(1).integers(-1, 2, (300, 2)))
    assert np.abs(answer(far, **{**options, "n_stencils": 0}) - reference).max() < 1e-12  # atoms that left the box


@pytest.mark.parametrize("options", OPTIONS)
def test_both_sides_get_one_answer_and_the_mesh_may_lie_anywhere(options):
    mesh = torus()
    found, place = answer(mesh, **options), repeats(mesh)
    assert len(np.unique(place)) == 12**2
    assert np.abs(found - found[place]).max() < 1e-14
    moved = answer(mesh.replace(points=mesh.points + np.array([0.37, -8.2])), **options)
    assert np.abs(moved - found).max() < 1e-12
    assert np.abs(answer(mesh.replace(period=()), **options) - found).max() > 1e-3  # walls do matter


@pytest.mark.parametrize("options", OPTIONS[:3])
def test_fields_that_move_along_move_the_answer(options):
    """Half of the period is a whole number of voxels on both levels."""

    def field(shift):
        return lambda x, y: np.sin(2 * np.pi * (x - shift)) * np.cos(2 * np.pi * y) + np.cos(4 * np.pi * (x - shift))

    # nine candidates, so that none of several anchors at the same distance is left out
    options = {**options, "first_step": 2.5, "n_candidates": 9}
    still, moved = (answer(grid(20, value=field(s)), **options) for s in (0.0, 0.5))
    rolled = np.roll(still.reshape(21, 21, -1)[:-1], 10, axis=0)
    assert np.abs(moved.reshape(21, 21, -1)[:-1] - rolled).max() < 1e-12


def test_three_dimensions_and_one_axis_that_repeats():
    mesh = torus(6, dim=3)
    found = answer(mesh)
    assert np.abs(found - found[repeats(mesh)]).max() < 1e-14
    channel = torus().replace(period=(1.0, 0.0))
    found, place = answer(channel), repeats(channel)
    assert len(np.unique(place)) == 12 * 13 and np.abs(found - found[place]).max() < 1e-14
    walls = np.unique(boundary_facets(channel))
    assert set(channel.points[walls, 1]) == {0.0, 1.0} and len(boundary_facets(torus())) == 0
    geometry = samples_of(channel)[0].geometry.numpy()
    x, y = geometry[:, [0, 2, 4]], geometry[:, [1, 3, 5]]  # place, and its first waves
    assert not x.any() and (np.ptp(y, axis=0) > 0.5).all()
    # the nearest wall is straight above or below, also for nodes at the ends of the channel
    direction = geometry[:, 12:14]
    assert np.abs(direction[:, 0]).max() < 1e-12 < np.abs(direction[:, 1]).max()


def test_neighbours_are_those_of_the_nearest_images():
    points, k = cloud().points, 6
    offset = points[:, None] - points
    offset -= BOX * np.round(offset / BOX)
    distance = np.linalg.norm(offset, axis=2) + 10 * np.eye(len(points))
    near = np.argsort(distance, axis=1)[:, :k]
    pairs = {tuple(sorted((i, int(j)))) for i, row in enumerate(near) for j in row}
    assert {tuple(pair) for pair in nearest_edges(points, period=BOX).T.tolist()} == pairs
    assert {tuple(pair) for pair in nearest_edges(points).T.tolist()} != pairs
    mesh = grid(6)
    degree = np.bincount(edges_of(mesh).ravel(), minlength=mesh.n_nodes)
    alone = repeats(mesh) == np.arange(mesh.n_nodes)
    assert set(degree[alone]) == {4, 8} and not degree[~alone].any()


def test_the_laplacian_of_a_wave_converges_without_seam():
    errors = []
    for n in (16, 32, 64):
        mesh = grid(n, 0.6, lambda x, y: np.sin(2 * np.pi * x / 0.6) * np.cos(4 * np.pi * y / 0.6))
        f, operator = mesh.point_fields["a"], laplacian(mesh)
        errors.append(np.abs(operator @ f + (4 + 16) * (np.pi / 0.6) ** 2 * f).max())
        assert np.abs(operator @ np.ones(len(f))).max() < 1e-9 * np.abs(operator.data).max()
        assert np.abs((operator - operator[repeats(mesh)]).data).max(initial=0.0) == 0.0
    assert errors[0] / errors[1] > 3.8 < errors[1] / errors[2]


def test_cell_values_and_places_go_round():
    mesh = torus()
    values = np.random.default_rng(0).random(mesh.n_cells)
    found = cells_to_nodes(mesh, values)
    assert np.array_equal(found, found[repeats(mesh)])
    assert np.isclose(node_mass(mesh) @ found, node_mass(mesh) @ cells_to_nodes(mesh.replace(period=()), values))
    inside = np.random.default_rng(1).random((20, 2))
    here, there = (interpolation(mesh, inside + shift) for shift in ([0, 0], [3, -1]))
    assert np.abs((here - there).toarray()).max() < 1e-9


def test_a_batch_of_both_kinds_is_its_parts():
    spec = spec_of(torus())
    samples = [build_sample(mesh, spec, torch.float64) for mesh in (torus(), torus(9, 1).replace(period=()))]
    model = operator_for(samples[0])
    assert not any(key.startswith("torus") for key in samples[1].to_dict())
    with torch.no_grad():
        together = model(collate(samples)).fields[0]
        parts = [model(collate([sample])).fields[0] for sample in samples]
    assert (together - torch.cat(parts)).abs().max() < 1e-12


def test_gradients_pass_where_images_are_meant():
    sample = samples_of(torus(9))[0]
    model = operator_for(sample, n_blocks=1)
    model(collate([sample])).fields[0].square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    edges = Edges.build(torch.tensor([0, 2, 1, 0]), torch.tensor([0, 0, 1, 2]), 3, 3)
    a, b, x, c = (torch.randn(*n, dtype=torch.float64, requires_grad=True) for n in ((3, 5), (3, 5), (4, 2), (5, 2)))
    w = torch.rand(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b, x, c: kernel_sum(a, b, w, edges, x, c), (a, b, x, c))


def test_equations_close_on_themselves():
    mesh = grid(16, value=lambda x, y: np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y))
    channel = mesh.replace(period=(1.0, 0.0))
    problem = build_problem(channel, diffusion, {"conductivity": 1.0, "source": "a"}, [Dirichlet("boundary", 0.0)])
    u = solve(problem).values[:, 0].numpy()
    assert np.array_equal(u, u[repeats(channel)])
    assert np.abs(8 * np.pi**2 * u - mesh.point_fields["a"]).max() < 0.05
    with pytest.raises(ValueError, match="expected nodes, got none"):
        build_problem(mesh, diffusion, {"conductivity": 1.0}, [Dirichlet("boundary", 0.0)])


@pytest.mark.parametrize("suffix", [".vtu", ".xdmf"])
def test_files_keep_the_period_and_caches_tell_it_apart(tmp_path, suffix):
    mesh, spec = torus(), spec_of(torus())
    keys = set()
    for name, period in (("a", (1.0, 1.0)), ("b", (1.0, 0.0)), ("c", ())):
        path = tmp_path / f"{name}{suffix}"
        write(mesh.replace(period=period), path)
        assert read(path).period == period
        keys.add(content_key(path, spec))
    other = SampleSpec.fit([torus()], inputs=["a"], targets=["u", "w"], n_levels=3, first_step=2.0, period=[1.0, 0.0])
    keys.add(content_key(path, other))
    assert len(keys) == 4
    assert SampleSpec.from_dict(other.to_dict()) == other
    old = {key: value for key, value in spec.to_dict().items() if key != "period"}
    assert SampleSpec.from_dict(old) == spec  # of a run from before there were periods


@pytest.mark.parametrize(
    ("period", "message"),
    [
        ((0.7, 0.0), r"period: expected 1 along x, which is how far the cells reach, got 0.7 \(case.vtu\)"),
        ((0.0, 2.0), r"period: expected 1 along y, .* got 2 \(case.vtu\)"),
        ((1.0,), r"period: expected 2 lengths of a rectangular box, .* got \[1.0\] \(case.vtu\)"),
        ((1.0, -1.0), r"got \[1.0, -1.0\] \(case.vtu\)"),
        (((1.0, 0.2), (0.0, 1.0)), r"expected 2 lengths of a rectangular box"),
    ],
)
def test_periods_that_do_not_fit_are_one_clear_error(period, message):
    with pytest.raises(MeshError, match=message):
        torus().replace(period=period, source="case.vtu")


def test_sides_that_do_not_match_are_one_clear_error():
    mesh, points = torus(), torus().points.copy()
    points[(points[:, 0] == 1) & (points[:, 1] == 0.5), 1] += 0.01
    with pytest.raises(MeshError, match=r"the sides along x to match, node by node, got 13 and 13 nodes, up to 0.01 "):
        repeats(mesh.replace(points=points))
    assert torus().replace(period=(0.0, 0.0)).period == ()


def test_a_case_says_it_for_its_files(tmp_path):
    for seed in range(3):
        write(torus(9, seed).replace(period=()), tmp_path / f"{seed}.vtu")
    (tmp_path / "case.toml").write_text(
        'data = { files = "*.vtu", inputs = ["a"], targets = ["u"], split = [0.7, 0.3, 0.0], period = [1.0, 1.0] }\n'
        "training = { epochs = 1, device = 'cpu' }\nmodel = { width = 32, n_heads = 2, n_blocks = 1 }\n"
    )
    train(load_case(tmp_path / "case.toml"), tmp_path / "run", progress=False)
    run = Run.load(tmp_path / "run")
    assert run.blueprint.spec.period == (1.0, 1.0)
    prediction = run.predict(tmp_path / "0.vtu")
    u, place = prediction.mesh.point_fields["predicted_u"], repeats(prediction.mesh)
    assert prediction.mesh.period == (1.0, 1.0) and np.allclose(u, u[place], rtol=1e-5)
    for level in prediction.levels:
        assert level.points.min() >= 0 and level.points.max() <= 1
        assert np.isclose(level.point_fields["mass"].sum(), 1)
    with pytest.raises(ValueError, match=r"period: expected 2 along x.*, got 1 \(wide\)"):
        run.predict(torus(9).replace(period=(), points=torus(9).points * 2, source="wide"))
    with pytest.raises(ValueError, match="period"):
        Data(files="*.vtu", targets="u", period=[-1.0])


def test_inspect_says_what_repeats():
    assert "repeats    x after 1, y after 1" in str(inspect(grid(4)))
    assert "repeats" not in str(inspect(grid(4).replace(period=())))
