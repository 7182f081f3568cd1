"""Conductors between anchors: the solve and its gradients, what is known of networks, and the operator with them."""

import dataclasses

import pytest
import torch
from graph_cases import operator_for, samples_of, spec_of, square

from gno.graph import build_sample, collate
from gno.graph.padding import Ladder
from gno.graph.segment import Edges
from gno.nn import OperatorConfig, conduction
from gno.nn.attention import Tokens
from gno.nn.compiled import Compiled
from gno.nn.conduction import Conduction, Lattice, solve

# Two meshes: a triangle, and a square with a diagonal.
PAIRS = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 6), (6, 3), (3, 5)]
MESH = torch.tensor([0, 0, 0, 1, 1, 1, 1])


def both_ways(pairs: list[tuple[int, int]], n: int) -> tuple[Edges, torch.Tensor]:
    """Edges in both directions, and the pair that each belongs to."""
    (a, b), pair = torch.tensor(pairs).T, torch.arange(len(pairs))
    sender, receiver, pair = torch.cat([a, b]), torch.cat([b, a]), torch.cat([pair, pair])
    order = torch.argsort(receiver, stable=True)
    return Edges.build(sender[order], receiver[order], n, n), pair[order]


def tokens_of(mesh: torch.Tensor, n_meshes: int, longest: int) -> Tokens:
    n = len(mesh)
    return Tokens.build(torch.zeros(n, 1), torch.ones(n), torch.zeros(n, dtype=torch.long), mesh, n_meshes, longest)


def test_a_solve_is_that_of_the_whole_matrix_and_so_is_its_gradient():
    edges, pair = both_ways(PAIRS, len(MESH))
    tokens = tokens_of(MESH, 2, 4)
    values = [torch.rand(n, c, dtype=torch.float64) for n, c in ((len(PAIRS), 2), (len(MESH), 2), (len(MESH), 6))]
    u = solve(values[0][pair], *values[1:], edges, tokens)
    for k in range(2):
        matrix = torch.diag(values[1][:, k])
        for c, (i, j) in zip(values[0][:, k], PAIRS, strict=True):
            matrix[[i, j, i, j], [i, j, j, i]] += torch.stack([c, c, -c, -c])
        torch.testing.assert_close(matrix @ u[:, 3 * k : 3 * k + 3], values[2][:, 3 * k : 3 * k + 3])
    leaves = [x.requires_grad_() for x in values]
    assert torch.autograd.gradcheck(lambda c, g, f: solve(c[pair], g, f, edges, tokens), leaves)


def test_a_node_on_its_own_keeps_what_it_is_given():
    edges, pair = both_ways([(0, 1)], 3)
    load = torch.tensor([[1.0], [2.0], [3.0]])
    u = solve(torch.ones(1, 1)[pair], torch.tensor([[1.0], [1.0], [0.0]]), load, edges, tokens_of(MESH[:3], 1, 3))
    torch.testing.assert_close(u, torch.tensor([[4 / 3], [5 / 3], [3.0]]))


def test_conductors_in_series_carry_the_harmonic_mean(monkeypatch):
    monkeypatch.setattr(conduction, "LEAST", 1e-9)
    n = 8  # around a ring, neighbours one spacing apart
    edges, _ = both_ways([(i, (i + 1) % n) for i in range(n)], n)
    ahead = (edges.sender - edges.receiver) % n == 1
    offset = torch.where(ahead, 1.0, -1.0).double()[:, None]
    near = torch.full((2 * n,), 0.5, dtype=torch.float64)
    mass = torch.ones(n, dtype=torch.float64)
    lattice = Lattice(slice(0, n), edges, offset, near, mass, tokens_of(torch.zeros(n, dtype=torch.long), 1, n))
    layer = Conduction(OperatorConfig(1, 1, 1, 1, 2, width=8, n_blocks=1, n_heads=1)).double()
    with torch.no_grad():
        for weight in (layer.conductivity.weight, layer.leak.weight, layer.source.weight):
            weight.zero_()
        layer.leak.bias.fill_(-100)
        layer.conductivity.weight[:2, 0] = 1.0  # of both networks
        values = torch.zeros(n, 8, dtype=torch.float64)
        values[:, 0] = torch.randn(n)
        u, current = layer._answer(values, lattice).chunk(2, dim=1)
    kappa = (conduction.BOUND * (values[:, 0] / conduction.BOUND).tanh()).exp()
    resistance = (1 / kappa + 1 / kappa.roll(-1)) / (2 * 0.5)
    torch.testing.assert_close(current, (2 * layer.gradient / resistance.mean()).expand(n, -1), rtol=1e-6, atol=0)
    drop = u.roll(-1, 0) - u + layer.gradient
    torch.testing.assert_close(drop, layer.gradient * (resistance / resistance.mean())[:, None], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_ragged_batch_equals_the_singles_and_every_weight_learns(dim):
    samples = samples_of(*(square(n, seed=n, dim=dim) for n in ((5, 7, 9) if dim == 2 else (6, 7))))
    model = operator_for(samples[0], conduction=True)
    batch = collate(samples)
    together = model(batch)
    for i, sample in enumerate(samples):
        for field, alone, mesh in zip(together.fields, model(collate([sample])).fields, together.batch, strict=True):
            torch.testing.assert_close(field[mesh == i], alone, rtol=1e-11, atol=1e-12)
    (together.fields[0] - batch.y).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.conduction.parameters())
    model.conduction = None
    assert (model(batch).fields[0] - together.fields[0]).abs().max() > 1e-3


def test_probes_hear_and_are_not_heard():
    mesh = square(9)
    spec, probes = spec_of(mesh), torch.rand(20, 2, dtype=torch.float64).numpy()
    plain, probed = (build_sample(mesh, spec, torch.float64, probes=p) for p in (None, probes))
    model = operator_for(plain, conduction=True)
    there, n = model(collate([probed])).fields[0], mesh.n_nodes
    torch.testing.assert_close(there[:n], model(collate([plain])).fields[0], rtol=1e-11, atol=1e-12)
    assert there[n:].std() > 0


def test_meshes_that_fill_a_batch_up_change_nothing(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    meshes = [square(n, seed=n) for n in (6, 7, 9)]
    samples = samples_of(*meshes, spec=spec_of(*meshes))
    model, batch = operator_for(samples[0], conduction=True), collate(samples[:2])
    filled = Compiled(model)(Ladder.fit(samples, 3).pad(batch))
    torch.testing.assert_close(filled.fields[0], model(batch).fields[0], rtol=1e-11, atol=1e-12)


def test_an_operator_from_before_has_none():
    config = OperatorConfig(2, 1, 1, 1, 3)
    before = {key: value for key, value in config.to_dict().items() if key != "conduction"}
    assert OperatorConfig.from_dict(before) == config
    assert dataclasses.replace(config, conduction=True) != config
