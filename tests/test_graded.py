"""Graded meshes: anchors follow the size of the cells, and everything else is as on even ones."""

import numpy as np
import pytest
import torch
from graph_cases import operator_for, spec_of, square

from gno.graph import SampleSpec, build_sample, collate, hierarchy_of
from gno.graph.batch import measure
from gno.graph.coarsen import clusters, coarsened
from gno.graph.grading import is_graded, node_sizes
from gno.graph.neighbours import edges_of
from gno.graph.padding import Ladder
from gno.mesh import CellBlock, Mesh
from gno.nn.anchor_block import AnchorGraph
from gno.nn.compiled import Compiled
from gno.nn.mesh_layer import Surroundings
from gno.nn.operator import Fine
from gno.train import Case, Data, Model, Run, Training, train


def fan(n: int = 48, *, seed: int = 0, growth: float = 4.0, scale: float = 1.0) -> Mesh:
    """Jittered triangles around a hole, n on a circle, e^growth times as large at the outer one as at the hole."""
    rng = np.random.default_rng(seed)
    rings = round(growth * n / (2 * np.pi)) + 1
    ring, step = np.divmod(np.arange(rings * n), n)
    inside = (ring > 0) & (ring < rings - 1)
    shift = 0.2 * inside * rng.uniform(-1, 1, (2, ring.size))
    radius, angle = np.exp(growth * (ring + shift[0]) / (rings - 1)), 2 * np.pi * (step + shift[1]) / n
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    a = np.flatnonzero(ring < rings - 1)
    b = ring[a] * n + (step[a] + 1) % n
    cells = np.concatenate([np.stack([a, a + n, b], 1), np.stack([b, a + n, b + n], 1)])
    f = np.cos(angle + 0.3 * seed) / radius
    fields = {"a": f, "u": f**2, "w": np.stack([f, radius * 0 + 1], axis=1)}
    return Mesh(points * scale, (CellBlock("triangle", cells),), fields, source=f"fan {seed}")


def answer(mesh: Mesh, spec: SampleSpec, **options) -> np.ndarray:
    """Of an operator without training."""
    sample = build_sample(mesh, spec, torch.float64, **options)
    with torch.no_grad():
        return operator_for(build_sample(fan(), spec, torch.float64))(collate([sample])).fields[0].numpy()


def test_what_is_graded():
    assert spec_of(fan()).graded_dim == 2 and spec_of(square(13)).graded_dim == 0
    assert spec_of(fan(), graded=False).graded_dim == 0 and spec_of(square(13), graded=True).graded_dim == 2
    mesh = fan(growth=2.5)
    size = node_sizes(mesh.points, edges_of(mesh))
    radius = np.linalg.norm(mesh.points, axis=1)
    inner = (radius > 1.5) & (radius < 8)
    assert np.ptp(np.log(size / radius)[inner]) < 0.4  # cells grow as the radius does
    assert is_graded([size]) and not is_graded([np.ones(9), np.ones(9), size[:9]])
    assert SampleSpec.from_dict(spec_of(fan()).to_dict()) == spec_of(fan())


def test_anchors_are_as_dense_as_nodes_and_stay_where_a_mesh_is_refined():
    spec = spec_of(fan(48), n_levels=None, first_step=None)
    assert spec.n_levels == 3
    coarse, fine = hierarchy_of(fan(48), spec).levels, hierarchy_of(fan(96, seed=1), spec).levels
    for level, finer in zip(coarse[1:], fine[1:], strict=True):
        assert abs(len(level.mass) - len(finer.mass)) < 0.15 * len(level.mass)
    even = hierarchy_of(fan(48), spec_of(fan(48), n_levels=3, first_step=3.5, graded=False)).levels
    # of the hole, 2.7 % of the width, anchors of one size know nothing
    near = [
        (np.linalg.norm(level.position * spec.unit, axis=1) < 3.0).sum() for level in (coarse[1], even[1], coarse[0])
    ]
    assert near[0] > 0.07 * near[2] and near[1] < 0.5 * near[0]
    for level in coarse:
        assert level.mass.sum() == pytest.approx(1, rel=1e-12)
        assert level.mass @ level.density == pytest.approx(1, rel=1e-12)
        radius = np.linalg.norm(level.position, axis=1)
        assert np.corrcoef(np.log(radius), np.log(level.size))[0, 1] > 0.8


def test_anchors_resolve_a_boundary_layer():
    y = np.concatenate([[0.0], 1e-4 * np.cumsum(1.25 ** np.arange(30))])
    x = np.linspace(0, 2, 50)
    points = np.stack([c.ravel() for c in np.meshgrid(x, y, indexing="ij")], axis=1)
    i = np.arange(len(points)).reshape(len(x), len(y))
    quads = np.stack([i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]], -1).reshape(-1, 4)
    mesh = Mesh(points, (CellBlock("quad", quads),))
    spec = SampleSpec.fit([mesh], inputs=(), targets=())
    owner = hierarchy_of(mesh, spec).levels[0].link[:, 0]
    assert spec.graded_dim == 2
    members = np.bincount(owner)[owner]
    assert members.max() < 40 and 5 < np.median(members[points[:, 1] < 1e-3]) < 20


def test_transfers_keep_integrals_and_each_anchor_counts():
    mesh = fan()
    sample = build_sample(mesh, spec_of(mesh), torch.float64)
    batch = collate([sample, sample])
    output = operator_for(sample)(batch)
    for mass, field in zip(output.mass[1:], output.fields[1:], strict=True):
        assert torch.allclose(mass @ field, output.mass[0] @ output.fields[0], atol=1e-12)
    weight = [measure(batch, s, mass) for s, mass in enumerate(output.mass)]
    assert weight[0].sum() == pytest.approx(2)
    for w, m in zip(weight[1:], output.mass[1:], strict=True):
        assert w.sum().item() == pytest.approx(2, rel=0.25)
        assert w.max() / w.min() < 40 < 0.02 * m.max() / m.min()


def test_offsets_are_in_spacings_of_their_place():
    sample = build_sample(fan(), spec_of(fan()), torch.float64)
    batch, operator = collate([sample]), operator_for(sample)
    around = Surroundings.of(batch, sample.n_levels)
    offset = torch.stack([w / around.spread[0] for w in around.spread[1:]], dim=1).norm(dim=1)
    assert offset.median() > 0.3 and offset.max() < 4
    levels = operator._encode(batch, Fine.of(batch, operator.config, edges=False))
    apart = AnchorGraph.of(levels, batch, operator.config).offset.norm(dim=1)
    assert 0.7 < apart.median() < 2 and apart.max() < 4
    near = sample.pos_0[:, None] - sample.pos_1[sample.link_0]
    assert near.norm(dim=2).max() / near.norm(dim=2).min() > 100  # in units of the case


def test_order_unit_batch_and_padding_do_not_matter(monkeypatch):
    mesh = fan()
    spec = spec_of(mesh)
    found = answer(mesh, spec)
    order = np.random.default_rng(0).permutation(mesh.n_nodes)
    rank = np.argsort(order)
    cells = (CellBlock("triangle", rank[mesh.cells[0].nodes]),)
    fields = {name: values[order] for name, values in mesh.point_fields.items()}
    shuffled = mesh.replace(points=mesh.points[order], cells=cells, point_fields=fields)
    assert np.abs(answer(shuffled, spec)[rank] - found).max() < 1e-9
    millimetres = fan(scale=1e3)
    assert np.abs(answer(millimetres, spec_of(millimetres)) - found).max() < 1e-9

    samples = [build_sample(m, spec, torch.float64) for m in (mesh, fan(40, seed=1))]
    operator = operator_for(samples[0])
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    singles, both = [operator(collate([s])) for s in samples], operator(collate(samples))
    filled = Compiled(operator)(Ladder.fit(samples, 3).pad(collate(samples)))
    gradients = [torch.autograd.grad(x.fields[0].square().sum(), operator.encode[0].weight)[0] for x in (both, filled)]
    assert torch.allclose(*gradients, rtol=1e-9)
    for s in range(3):
        single = torch.cat([one.fields[s] for one in singles])
        assert torch.allclose(both.fields[s], single, atol=1e-10)
        assert torch.allclose(filled.fields[s], single, atol=1e-10)


def test_probes_hear_and_are_not_heard():
    mesh = fan()
    spec = spec_of(mesh)
    places = mesh.points[mesh.cells[0].nodes[::17]].mean(1)
    found = answer(mesh, spec, probes=places)
    assert np.abs(found[: mesh.n_nodes] - answer(mesh, spec)).max() < 1e-12
    nodes = np.arange(0, mesh.n_nodes, 7)
    again = answer(mesh, spec, probes=mesh.points[nodes])[mesh.n_nodes :]
    assert np.abs(again - found[nodes]).max() < 0.05 * np.abs(found).max()


def test_coarser_samples_have_the_same_integrals():
    mesh = fan()
    spec = spec_of(mesh, edges=True)
    sample = build_sample(mesh, spec, torch.float64)
    coarse = coarsened(sample, spec, clusters(sample))
    assert len(coarse.mass_0) < 0.4 * len(sample.mass_0)
    assert torch.allclose(coarse.mass_0 @ coarse.y, sample.mass_0 @ sample.y, atol=1e-12)
    assert torch.corrcoef(torch.stack([coarse.pos_0.norm(dim=1).log(), coarse.size_0.log()]))[0, 1] > 0.8


def test_it_learns_near_the_hole_and_goes_on_from_its_file(tmp_path):
    case = Case(
        data=Data(inputs=["a"], targets=["u"]),
        model=Model(width=16, n_blocks=1, n_heads=1),
        training=Training(epochs=25, batch_size=2, device="cpu"),
    )
    meshes = {"train": [fan(32, seed=s) for s in range(6)]}
    train(case, tmp_path / "run", meshes=meshes, progress=False)
    run = Run.load(tmp_path / "run")
    assert run.blueprint.spec.graded_dim == 2
    mesh = fan(32, seed=7)
    found, truth = run.predict(mesh).mesh.point_fields["predicted_u"], mesh.point_fields["u"]
    hole = np.linalg.norm(mesh.points, axis=1) < 1.01
    assert np.linalg.norm((found - truth)[hole]) < 0.5 * np.linalg.norm(truth[hole])
