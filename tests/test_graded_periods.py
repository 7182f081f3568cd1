"""Graded meshes whose coordinates repeat: spacings follow the cells, and nothing depends on where a torus is cut."""

import itertools

import numpy as np
import pytest
import torch
from graph_cases import operator_for, spec_of, square

from gno.graph import SampleSpec, build_sample, collate, hierarchy_of
from gno.graph.batch import level_edges, link_edges
from gno.graph.box import LEAST_AROUND, Box
from gno.graph.padding import Ladder
from gno.mesh import CellBlock, Mesh, repeats
from gno.nn.compiled import Compiled
from gno.nn.torus import between, torus_on
from gno.train import Case, Data, Model, Run, Training, train

BOX = np.array([1.0, 1.5])


def crowded(t: np.ndarray) -> np.ndarray:
    """Places on a circle of length one, 19 times as near to each other at 0.5 as opposite of it."""
    return t + 0.9 * np.sin(2 * np.pi * t) / (2 * np.pi)


def fields_at(points: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    angle = 2 * np.pi * points / BOX
    a = np.exp(2 * np.cos(angle[:, 0] - np.pi)) * (1.5 + np.cos(angle[:, 1] + 1 + seed))
    return {"a": a, "u": a**2, "w": np.stack([a, a], axis=1)}


def dense(n: int = 24, *, cut: int = 0, seed: int = 0, period=tuple(BOX)) -> Mesh:
    """Triangles of a box with n by n nodes whose sides are one; lines of nodes are crowded, and y is shaken.

    Args:
        cut: number of the line of nodes where the box begins in x.
    """
    t = np.arange(n + 1)
    line = (t + cut) % n
    x = crowded((t + cut + 0.5) / n)  # of the gaps one is the widest
    shake = np.random.default_rng(seed).uniform(-0.2, 0.2, (n, n))
    y = np.stack([crowded((t + shake[k, t % n] * (t % n > 0)) / n) for k in line])
    points = np.stack([np.repeat(x, n + 1), y.ravel()], axis=1) * BOX
    i = np.arange(len(points)).reshape(n + 1, n + 1)
    a, b, c, d = (part.ravel() for part in (i[:-1, :-1], i[1:, :-1], i[:-1, 1:], i[1:, 1:]))
    cells = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
    return Mesh(points, (CellBlock("triangle", cells),), fields_at(points), period=period, source=f"dense {cut}")


def cloud(shift=(0.0, 0.0), n: int = 900) -> Mesh:
    """Points that crowd in the middle of a box, moved and put back into it."""
    points = crowded(np.random.default_rng(0).random((n, 2))) * BOX
    return Mesh((points + shift) % BOX, point_fields=fields_at(points), period=tuple(BOX))


def answer(mesh: Mesh, spec: SampleSpec | None = None, **options) -> np.ndarray:
    """Of an operator without training."""
    sample = build_sample(mesh, spec or spec_of(mesh, **options), torch.float64)
    with torch.no_grad():
        return operator_for(sample)(collate([sample])).fields[0].numpy()


def test_graded_by_itself_and_as_dense_as_the_nodes():
    spec = spec_of(dense())
    assert spec.graded_dim == 2 and spec_of(square(13).replace(period=(1.0, 1.0))).graded_dim == 0
    for level in hierarchy_of(dense(), spec).levels[:2]:
        away = np.linalg.norm(level.position[level.mass > 0], axis=1)
        assert np.corrcoef(away, np.log(level.size[level.mass > 0]))[0, 1] > 0.6
        assert level.mass.sum() == pytest.approx(1, rel=1e-12)
        assert level.mass @ level.density == pytest.approx(1, rel=1e-12)
    # both sides know the same size, which is that of the cells around the seam and not of those at one side
    size, place = hierarchy_of(dense(), spec).levels[0].size, repeats(dense())
    assert np.array_equal(size, size[place])


def test_grids_fit_into_each_other_and_around():
    """A whole number of the coarsest voxels, each of which is cut into halves."""
    nodes = np.random.default_rng(0).random((5000, 2)) * BOX
    box = Box(np.zeros(2), BOX, np.array([BOX[0], 0.0]), step=0.013)
    spacings = 0.013 * 2.0 ** np.arange(-2, 5)
    around = [int(box.shape(spacing)[0]) for spacing in spacings]
    assert LEAST_AROUND <= around[-1] < 2 * LEAST_AROUND
    assert all(fine == 2 * coarse for fine, coarse in itertools.pairwise(around))
    assert all(abs(n * spacing - 1) < 0.15 for n, spacing in zip(around, spacings, strict=True))
    assert int(box.shape(0.5)[0]) == 1  # too few to tell one side from the other
    for fine, coarse in itertools.pairwise(spacings):
        column = [box.voxels(nodes, float(s)) // box.shape(float(s))[1] for s in (fine, coarse)]
        assert np.array_equal(column[0] // 2, column[1])


@pytest.mark.parametrize("n_levels", [2, 3, 4])
def test_an_answer_does_not_depend_on_where_the_box_lies(n_levels):
    reference = answer(cloud(), n_levels=n_levels)
    assert spec_of(cloud()).graded_dim == 2
    for shift in ([0.3, 0.0], [0.77, 1.21], [-5.1, 0.4]):
        moved = answer(cloud(shift), n_levels=n_levels)
        assert np.abs(moved - reference).max() < 1e-11 * np.abs(reference).max()


@pytest.mark.parametrize("n_levels", [1, 3, 4])
def test_an_answer_does_not_depend_on_where_the_mesh_is_cut(n_levels):
    mesh, n = dense(), 24
    spec = spec_of(mesh, n_levels=n_levels)
    found = answer(mesh, spec).reshape(n + 1, n + 1, -1)
    assert np.abs(found[0] - found[-1]).max() < 1e-13 > np.abs(found[:, 0] - found[:, -1]).max()
    for cut in (5, 12):
        moved = answer(dense(cut=cut), spec).reshape(n + 1, n + 1, -1)
        assert np.abs(moved[:-1] - np.roll(found[:-1], -cut, axis=0)).max() < 1e-11
    walls = mesh.replace(period=())
    assert np.abs(answer(walls, spec).reshape(found.shape) - found).max() > 1e-3  # walls do matter


def test_a_large_anchor_fills_the_circle_and_small_ones_do_not():
    """Far from the crowd one anchor goes round; it is as near to all places around, whichever image is meant."""
    spec = spec_of(dense(), n_levels=4)
    sample = build_sample(dense(), spec, torch.float64)
    seen = [sample[f"torus_{s}"][:, 2] for s in range(4)]
    assert (seen[0] == 1).all() and (seen[1] == 1).any()
    assert any(0 < level.mean() < 1 for level in seen)
    for s in (1, 2):
        alone = (sample[f"size_{s}"] > sample[f"torus_{s}"][:, 0].amax() / 3.5) & (seen[s][:, 0] == 1)
        assert not alone.any()
    batch, one_sided = collate([sample]), 0
    for s, fine, edges in ((1, 1, level_edges(batch, 1)), (2, 1, link_edges(batch, 1)), (2, 2, level_edges(batch, 2))):
        place = [batch[f"pos_{level}"] for level in (fine, s)]
        offset = between(*place, edges, torus_on(batch, edges, s, fine))
        ends = seen[s].index_select(0, edges.sender), seen[fine].index_select(0, edges.receiver)
        one_sided += int((ends[0] != ends[1]).sum())
        assert not offset[ends[0] * ends[1] == 0].any() and offset.any()
    assert one_sided


def test_a_mesh_refined_as_a_whole_keeps_its_anchors():
    spec = spec_of(dense(48))
    coarse, fine = (hierarchy_of(dense(n), spec).levels for n in (48, 96))
    for level, finer in zip(coarse[1:], fine[1:], strict=True):
        assert abs(len(level.mass) - len(finer.mass)) < 0.05 * len(level.mass)


def test_batch_padding_and_units_do_not_matter(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    mesh = dense()
    spec = spec_of(mesh)
    wall = mesh.replace(period=(), source="walls")
    channel = dense(20, period=(BOX[0], 0.0))
    samples = [build_sample(m, spec, torch.float64) for m in (mesh, wall, channel)]
    operator = operator_for(samples[0])
    with torch.no_grad():
        singles, both = [operator(collate([s])) for s in samples], operator(collate(samples))
        filled = Compiled(operator)(Ladder.fit(samples, 3).pad(collate(samples)))
    for s in range(3):
        single = torch.cat([one.fields[s] for one in singles])
        assert torch.allclose(both.fields[s], single, atol=1e-10)
        assert torch.allclose(filled.fields[s], single, atol=1e-10)
    millimetres = mesh.replace(points=mesh.points * 1e3, period=tuple(1e3 * BOX))
    assert np.abs(answer(millimetres, spec_of(millimetres)) - singles[0].fields[0].numpy()).max() < 1e-9


def test_transfers_keep_integrals_and_gradients_flow():
    sample = build_sample(dense(), spec_of(dense()), torch.float64)
    operator = operator_for(sample)
    output = operator(collate([sample]))
    for mass, field in zip(output.mass[1:], output.fields[1:], strict=True):
        assert torch.allclose(mass @ field, output.mass[0] @ output.fields[0], atol=1e-12)
    output.fields[0].square().sum().backward()
    gradients = [p.grad for p in operator.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    assert operator.encode[0].weight.grad.abs().max() > 0


def test_probes_hear_their_surroundings_across_the_seam():
    mesh = dense()
    spec = spec_of(mesh)
    nodes = np.array([0, 7, 24, 300])
    beyond = mesh.points[nodes] + BOX * [[1, 0], [0, -2], [3, 1], [0, 0]]
    sample = build_sample(mesh, spec, torch.float64, probes=beyond)
    with torch.no_grad():
        found = operator_for(build_sample(mesh, spec, torch.float64))(collate([sample])).fields[0].numpy()
    assert np.abs(found[: mesh.n_nodes] - answer(mesh, spec)).max() < 1e-12
    assert np.abs(found[mesh.n_nodes :] - found[nodes]).max() < 0.05 * np.abs(found).max()


def test_it_learns_and_goes_on_from_its_file(tmp_path):
    case = Case(
        data=Data(inputs=["a"], targets=["u"]),
        model=Model(width=16, n_blocks=1, n_heads=1),
        training=Training(epochs=12, batch_size=2, device="cpu"),
    )
    meshes = [dense(12, seed=s).replace(point_fields=fields_at(dense(12, seed=s).points, s)) for s in range(5)]
    train(case, tmp_path / "run", meshes={"train": meshes[:4]}, progress=False)
    run = Run.load(tmp_path / "run")
    assert run.blueprint.spec.graded_dim == 2
    prediction = run.predict(meshes[4]).mesh
    found, truth = prediction.point_fields["predicted_u"], meshes[4].point_fields["u"]
    assert np.linalg.norm(found - truth) < 0.4 * np.linalg.norm(truth)
    assert np.allclose(found, found[repeats(meshes[4])], atol=1e-4 * truth.max())
