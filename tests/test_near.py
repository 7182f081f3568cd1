"""The near field: who is near whom, integrals over balls, the same on every mesh, and forces between particles."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from graph_cases import operator_for, samples_of, spec_of, square
from test_graded import fan
from test_graph_hierarchy import slit_square
from test_nn_operator import difference

from gno.graph import SampleSpec, build_sample, collate
from gno.graph.near import pairs_within
from gno.graph.padding import Ladder
from gno.graph.segment import moments
from gno.mesh import CellBlock, Mesh
from gno.mesh.periodic import torus_of
from gno.nn.compiled import Compiled
from gno.nn.near import Shells
from gno.train import Case, Data, Model, Training, train

OBLIQUE = np.array([[3.0, 0.0, 0.0], [1.2, 2.5, 0.0], [0.4, -0.7, 2.0]])
PERIODS = {"free": None, "box": np.array([3.0, 2.0, 0.0]), "oblique": OBLIQUE}


@pytest.mark.parametrize("kind", PERIODS)
def test_pairs_are_those_of_all_pairs(kind):
    rng, period = np.random.default_rng(0), PERIODS[kind]
    points = 6 * rng.random((200, 3)) - 3  # some of them in other cells
    radius, senders = rng.uniform(0.4, 0.9, 200), np.sort(rng.permutation(200)[:150])
    offset = points[senders] - points[:, None]
    offset = offset if period is None else torus_of(period).nearest(offset)
    receiver, found = (np.linalg.norm(offset, axis=2) <= radius[:, None]).nonzero()
    for chunk in (100_000, 33):
        sender, near = pairs_within(points, radius, senders, period, chunk=chunk)
        assert np.array_equal(near, receiver) and np.array_equal(sender, senders[found])


def moments_of(mesh: Mesh, spec: SampleSpec, *fields: np.ndarray) -> np.ndarray:
    """(n_fields, n, n_shells, 1 + dim)."""
    shells = Shells.of(collate([build_sample(mesh, spec, torch.float64)]), spec.n_shells)
    found = moments(torch.as_tensor(np.stack(fields, 1)), shells.weights, shells.edges)
    return found.view(mesh.n_nodes, spec.n_shells, -1, len(fields)).permute(3, 0, 1, 2).numpy()


def test_sums_over_shells_are_integrals_over_balls():
    """Of one, and of the offset along its direction, over hats of three shells; the finer the mesh the nearer."""
    spec, third = spec_of(square(25), n_near=1, n_shells=3), 1 / 3
    radius = spec.spacings[0] * spec.unit
    ones = np.pi * np.array([third**2 / 3, 2 * third**2, 4 * third**2])
    along = np.pi * np.array([third**3 / 12, third * (third**2 + third**2 / 6), third * (4 * third**2 + third**2 / 6)])
    none = np.zeros(3)
    known = np.stack([[ones, none, none], [none, along, none], [none, none, along]]).transpose(0, 2, 1)
    errors = []
    for n in (25, 97):
        mesh = square(n)
        middle = np.linalg.norm(mesh.points - 0.5, axis=1).argmin()
        offset = (mesh.points - mesh.points[middle]) / radius
        found = moments_of(mesh, spec, np.ones(mesh.n_nodes), *offset.T)[:, middle]
        errors.append(np.abs(found - known).max())
    assert errors[0] < 0.25 and errors[1] < errors[0] / 4


def test_balls_grow_with_the_cells_of_a_graded_mesh():
    mesh = fan()
    spec = spec_of(mesh, n_near=1)
    sample = build_sample(mesh, spec)
    heard = np.bincount(sample.near_index[1].numpy() // 2, minlength=mesh.n_nodes)
    radius = np.linalg.norm(mesh.points, axis=1)
    inner = (radius > 1.2) & (radius < 45)  # whole balls
    assert spec.graded_dim == 2 and sample.near_radius.max() > 30 * sample.near_radius.min()
    assert heard[inner].min() > 5 and heard[inner].max() < 50
    ones = moments_of(mesh, spec, np.ones(mesh.n_nodes))[0, inner, :, 0]
    assert np.abs(np.median(ones, 0) / (np.pi * np.array([1 / 12, 1 / 2])) - 1).max() < 0.2


def test_a_force_that_is_linear_between_shells_is_a_sum_over_them():
    rng = np.random.default_rng(1)
    points, box = 4 * rng.random((60, 3)), (4.0, 4.0, 4.0)
    mesh = Mesh(points, point_fields={"a": np.ones(60), "u": np.ones(60)}, period=box)
    spec = SampleSpec.fit([mesh], inputs=["a"], targets=["u"], n_levels=2)
    assert (spec.n_near, spec.n_shells) == (1, 64)  # of particles, without being asked
    radius = spec.spacings[0] * spec.unit
    knots = np.arange(64) / 64
    strength = 1 / (0.2 + knots)
    offset = torus_of(np.array(box)).nearest(points - points[:, None])
    distance = np.linalg.norm(offset, axis=2)
    force = np.interp(distance / radius, [*knots, 1.0], [*strength, 0.0]) / np.where(distance > 0, distance, 1)
    known = (force[:, :, None] * offset).sum(1)
    found = 8 * (strength[:, None] * moments_of(mesh, spec, np.ones(60))[0, :, :, 1:]).sum(1)
    assert difference(torch.as_tensor(found), torch.as_tensor(known)) < 1e-9


def test_the_banks_of_a_slit_are_not_near_each_other():
    mesh = slit_square().replace(point_fields={"a": np.ones(33 * 33 + 24), "u": np.ones(33 * 33 + 24)})
    spec = SampleSpec.fit([mesh], inputs=["a"], targets=["u"], n_levels=2, n_near=1)
    sender, shell = build_sample(mesh, spec).near_index.numpy()
    receiver, x, y = shell // 2, *mesh.points.T
    left = (x < 0.5) | ((x == 0.5) & (np.arange(mesh.n_nodes) < 33 * 33))
    low = y < 0.5  # away from the tip, round which one may walk
    across = (left[sender] != left[receiver]) & low[sender] & low[receiver]
    assert not across.any() and len(sender) > 10 * mesh.n_nodes


CASES = {"plane": {}, "space": {"dim": 3}}


@pytest.mark.parametrize("kind", CASES)
def test_a_batch_is_its_meshes_and_millimetres_are_metres(kind):
    options = {"n_near": 2, "n_shells": 3}
    meshes = [square(n, seed=n, **CASES[kind]) for n in (5, 7)]
    samples = samples_of(*meshes, spec=spec_of(*meshes, **options))
    model = operator_for(samples[0], **options)
    together = model(collate(samples))
    for k, sample in enumerate(samples):
        assert difference(together.fields[0][together.batch[0] == k], model(collate([sample])).fields[0]) < 1e-11
    small, large = (square(7, scale=s, **CASES[kind]) for s in (1, 1e3))
    small, large = (samples_of(mesh, spec=spec_of(mesh, **options))[0] for mesh in (small, large))
    assert difference(model(collate([large])).fields[0], model(collate([small])).fields[0]) < 1e-10
    together.fields[0].sum().backward()
    layers = [*model.near_in.parameters(), *model.near_out.parameters()]
    assert len(layers) and all(p.grad is not None and p.grad.abs().max() > 0 for p in layers)


def test_no_field_depends_on_the_order_of_nodes_or_on_the_cell_that_a_particle_is_in():
    rng = np.random.default_rng(2)
    points = rng.random((80, 3)) @ OBLIQUE
    fields = {"a": rng.random(80), "u": rng.random(80)}
    mesh = Mesh(points, point_fields=fields, period=tuple(map(tuple, OBLIQUE)))
    spec = SampleSpec.fit([mesh], inputs=["a"], targets=["u"], n_levels=2, coordinates=False, n_shells=8)
    moved = mesh.replace(points=points + rng.integers(-1, 2, (80, 3)) @ OBLIQUE)
    order = rng.permutation(80)
    mixed = mesh.replace(points=points[order], point_fields={name: values[order] for name, values in fields.items()})
    samples = [build_sample(x, spec, torch.float64) for x in (mesh, moved, mixed)]
    model = operator_for(samples[0], n_near=1, n_shells=8)
    one, two, three = (model(collate([sample])).fields[0] for sample in samples)
    assert difference(two, one) < 1e-9 and difference(three, one[order]) < 1e-9


def even_square(n: int) -> Mesh:
    """A grid without jitter, with smooth fields."""
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * 2, indexing="ij"), -1).reshape(-1, 2)
    i = np.arange(n * n).reshape(n, n)
    quads = np.stack([i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]], -1).reshape(-1, 4)
    a = np.sin(3 * points[:, 0]) + points[:, 1] ** 2
    return Mesh(points, (CellBlock("quad", quads),), {"a": a, "u": a, "w": np.stack([a, a], 1)})


def test_a_layer_does_the_same_on_a_finer_mesh():
    """Every second node of the finer one is a node of the other; what remains are sums over nodes for integrals."""
    meshes = [even_square(n) for n in (17, 33, 65)]
    spec = spec_of(meshes[0], n_near=1, n_shells=2)
    layer = operator_for(build_sample(meshes[0], spec), n_near=1, n_shells=2).near_in[0]
    found = []
    for mesh, n in zip(meshes, (17, 33, 65), strict=True):
        values = torch.as_tensor(np.cos(mesh.points @ np.linspace(1, 4, 64).reshape(2, 32)))
        shells = Shells.of(collate([build_sample(mesh, spec, torch.float64)]), 2)
        found.append((layer(values, shells) - values).view(n, n, -1)[1:-1, 1:-1])
    first, second = (difference(fine[1::2, 1::2], coarse) for coarse, fine in itertools.pairwise(found))
    assert first < 0.1 and second < first / 1.8


def test_a_probe_hears_what_is_near_and_changes_nothing():
    mesh = square(7)
    spec = spec_of(mesh, n_near=1)
    plain, probed = (build_sample(mesh, spec, torch.float64, probes=p) for p in (None, mesh.points[[3, 8]]))
    model = operator_for(plain, n_near=1, n_shells=2)
    without, beside = model(collate([plain])).fields[0], model(collate([probed])).fields[0]
    assert difference(beside[: mesh.n_nodes], without) < 1e-11
    assert difference(beside[mesh.n_nodes :], without[[3, 8]]) < 1e-9


def test_filled_up_batches_say_the_same(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    meshes = [square(n, seed=n) for n in (6, 7, 8)]
    samples = samples_of(*meshes, spec=spec_of(*meshes, n_near=1))
    model = operator_for(samples[0], n_near=1, n_shells=2)
    batch, ladder = collate(samples[:2]), Ladder.fit(samples, 3)
    found = Compiled(model)(ladder.pad(copy.copy(batch))).fields[0]
    assert difference(found, model(batch).fields[0]) < 1e-10


def test_what_does_not_go_together_is_said():
    mesh, cloud = square(5), square(5).replace(cells=(), point_sets={})
    (sample,) = samples_of(mesh)
    with pytest.raises(ValueError, match="expected samples of a spec with n_near"):
        operator_for(sample, n_near=1, n_shells=2)(collate([sample]))
    with pytest.raises(ValueError, match="n_near: expected 0 or more, and 0 with n_levels = 1, got 1"):
        spec_of(mesh, n_near=1, n_levels=1)
    with pytest.raises(ValueError, match="n_shells: expected at least 1, got 0"):
        spec_of(mesh, n_near=1, n_shells=0)
    assert spec_of(cloud, n_levels=1).n_near == 0 and spec_of(cloud).n_near == 1 and spec_of(mesh).n_near == 0


def pair_forces(seed: int) -> Mesh:
    """Particles in a box that push each other apart within a distance of one, and the force on each."""
    rng = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.5
    points = (lattice + rng.normal(0, 0.2, lattice.shape)) % 4
    offset = torus_of(np.full(3, 4.0)).nearest(points[:, None] - points)
    distance = np.linalg.norm(offset, axis=2) + np.eye(64)
    force = ((np.maximum(1.2 - distance, 0) / distance)[:, :, None] * offset).sum(1)
    return Mesh(points, point_fields={"kind": np.ones(64), "f": force}, period=(4.0, 4.0, 4.0))


def test_forces_between_particles_are_learned_by_those_alone_who_see_where_others_are(tmp_path):
    meshes = {name: [pair_forces(seed) for seed in seeds] for name, seeds in (("train", range(16)), ("test", [99]))}
    errors = []
    for n_near in (1, 0):
        case = Case(
            data=Data(inputs=["kind"], targets=["f"]),
            model=Model(width=16, n_blocks=1, n_heads=1, n_levels=2, coordinates=False, n_near=n_near, n_shells=16),
            training=Training(epochs=12, batch_size=2, lr=0.01, device="cpu"),
        )
        run = train(case, tmp_path / str(n_near), meshes=meshes, progress=False)
        errors.append(run.evaluate(meshes["test"]).mean["f"])
    assert errors[0] < 0.5 and errors[1] > 0.9
