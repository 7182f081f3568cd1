"""Draws of weights: samples are whole fields, alike on every mesh, and Gaussians find the posterior that they can."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from train_cases import case, square, squares

from gno.graph import build_sample, collate
from gno.mesh import CellBlock
from gno.nn.stochastic import Gaussian, divergence, draw
from gno.train import Model, Run, Training, train
from gno.train.blueprint import Blueprint
from gno.train.optimisers import muon
from gno.train.sources import fit_spec
from gno.uq import Ensemble, MonteCarloDropout, Variational

KNOBS = {"dropout": {"dropout": 0.1}, "variational": {"variational": "all"}}
KINDS = {"dropout": MonteCarloDropout, "variational": Variational}


def drawn_case(method, width=16, **training):
    return case(**training).model_copy(update={"model": Model(width=width, n_blocks=1, n_heads=1, **KNOBS[method])})


@pytest.fixture(params=KINDS)
def sampler(request, tmp_path):
    """An operator with fresh weights: what its draws are does not depend on what it has learned."""
    wanted = drawn_case(request.param)
    spec = fit_spec(wanted, squares(4))
    blueprint = Blueprint.fit(wanted, spec, [build_sample(mesh, spec) for mesh in squares(4)])
    run = Run(tmp_path, blueprint, blueprint.model(0).double().requires_grad_(False).eval())
    return KINDS[request.param](run, 6)


def deviations(sampler, mesh):
    """Of the samples from the operator's own prediction, (n_samples, n_nodes, 2)."""
    plain = Ensemble((sampler.run,)).predict(mesh).field("u").mean
    return sampler.predict(mesh).field("u").samples - plain


def test_a_sample_is_one_field_on_every_mesh(sampler):
    coarse, fine = (deviations(sampler, square(5, n)).reshape(6, n + 1, n + 1, 2) for n in (8, 16))
    for k in range(6):
        assert np.corrcoef(coarse[k].ravel(), fine[k, ::2, ::2].ravel())[0, 1] > 0.95
    # noise of its own at every node would differ from one node to the next as much as from any other
    roughness = np.diff(fine, axis=1).std() / fine.std()
    assert roughness < 0.3


def test_samples_follow_the_nodes_and_not_their_order(sampler):
    rng = np.random.default_rng(0)
    mesh, order = square(5), rng.permutation(81)
    mesh = mesh.replace(points=mesh.points + 0.02 * rng.uniform(-1, 1, (81, 2)))  # no ties between candidates
    place = np.argsort(order)
    shuffled = mesh.replace(
        points=mesh.points[order],
        cells=tuple(CellBlock(block.type, place[block.nodes]) for block in mesh.cells),
        point_fields={name: value[order] for name, value in mesh.point_fields.items()},
        point_sets={name: np.sort(place[nodes]) for name, nodes in mesh.point_sets.items()},
    )
    assert deviations(sampler, shuffled) == pytest.approx(deviations(sampler, mesh)[:, order], abs=1e-5)


def test_a_batch_answers_as_its_meshes_do(sampler):
    normalise, spec = sampler.run.blueprint.normalisation.apply, sampler.run.blueprint.spec
    samples = [normalise(build_sample(square(k, n), spec, torch.float64)) for k, n in ((5, 8), (6, 11))]
    for model in sampler.models[:2]:
        together = model(collate(samples)).fields[0]
        alone = torch.cat([model(collate([sample])).fields[0] for sample in samples])
        assert torch.allclose(together, alone, atol=1e-10)


def test_draws_are_those_of_their_seed(sampler):
    state = torch.random.get_rng_state()
    first, again, other = (deviations(type(sampler)(sampler.run, 2, seed), square(5)) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and np.abs(first - other).min(axis=(1, 2)).max() > 0
    assert not np.allclose(first[0], first[1])
    assert torch.equal(state, torch.random.get_rng_state())
    shared = dict(sampler.models[0].named_parameters())
    assert shared["scale"] is sampler.run.model.scale and not any("parametrizations" in name for name in shared)


def test_training_draws_and_evaluation_does_not(sampler):
    blueprint, model = sampler.run.blueprint, sampler.run.model
    batch = collate([blueprint.normalisation.apply(build_sample(square(5), blueprint.spec, torch.float64))])
    assert torch.equal(model(batch).fields[0], model(batch).fields[0])
    model.train()
    assert not torch.equal(model(batch).fields[0], model(batch).fields[0])


def test_what_is_computed_again_on_the_way_back_has_the_same_draw(sampler):
    blueprint = sampler.run.blueprint
    batch, gradients = collate([blueprint.normalisation.apply(build_sample(square(5), blueprint.spec))]), []
    for checkpoint in (False, True):
        config = dataclasses.replace(blueprint.config, checkpoint=checkpoint)
        model = dataclasses.replace(blueprint, config=config).model(0)
        torch.manual_seed(3)
        model(batch).fields[0].square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-8) and gradients[0].abs().max() > 0


@pytest.mark.parametrize("method", KINDS)
def test_an_interrupted_training_goes_on_to_the_bit(method, tmp_path, monkeypatch):
    monkeypatch.setattr("gno.post.curves.draw_curves", lambda *_: None)
    wanted, options = drawn_case(method, epochs=2), {"meshes": {"train": squares(3)}, "progress": False}
    straight = train(wanted, tmp_path / "a", **options).model.state_dict()
    train(wanted, tmp_path / "b", until=0.5, **options)
    resumed = train(wanted, tmp_path / "b", resume=True, **options).model.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
    fresh = Blueprint.load(tmp_path / "a" / "best.safetensors")[0].model(0).state_dict()
    deviating = [name for name in straight if name.endswith("log_std")]
    assert bool(deviating) == (method == "variational")
    assert all(not torch.equal(straight[name], fresh[name]) for name in deviating)


def test_optimisers_take_a_mean_for_a_matrix_and_a_deviation_for_a_vector():
    wanted = drawn_case("variational", width=32)
    spec = fit_spec(wanted, squares(2))
    model = Blueprint.fit(wanted, spec, [build_sample(mesh, spec) for mesh in squares(2)]).model(0)
    names = {id(p): name for name, p in model.named_parameters()}
    turned, decayed, plain = ([names[id(p)] for p in g["params"]] for g in muon(model, Training(epochs=1)).param_groups)
    assert "blocks.0.mlp.0.parametrizations.weight.original" in turned
    assert all(name in plain for name in names.values() if name.endswith("log_std"))
    assert not [name for name in (*turned, *decayed) if name.endswith("log_std")]


@pytest.mark.parametrize("orthogonal", [True, False])
def test_gaussians_find_the_posterior_of_a_linear_model(orthogonal):
    """Mean field: variances are 1/diag(precision), which are those of the posterior where it factorises."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(60, 5)), 0.5
    x = np.linalg.qr(x)[0] * [8, 4, 2, 1, 0.5] if orthogonal else x @ np.linalg.cholesky(0.6 + 0.4 * np.eye(5))
    y = x @ rng.normal(size=5) + noise * rng.normal(size=60)
    layer = nn.Linear(5, 64, bias=False)  # every row is the same regression, with draws of its own
    parametrize.register_parametrization(layer, "weight", Gaussian(layer.weight))
    inputs, truth = torch.tensor(x).float(), torch.tensor(y).float()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    torch.manual_seed(0)
    for step in range(800):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 800)
        optimiser.zero_grad()
        error = layer(inputs) - truth[:, None]
        (error.square().sum() / (2 * noise**2) + divergence(layer)).backward()
        optimiser.step()
    weight = layer.parametrizations["weight"]
    means, variances = weight.original.detach().numpy(), (2 * weight[0].log_std).exp().detach().numpy().reshape(64, 5)
    mean, variance, prior = means.mean(0), variances.mean(0), (means**2 + variances).mean()  # the prior that fits best
    precision = x.T @ x / noise**2 + np.eye(5) / prior
    covariance = np.linalg.inv(precision)
    assert variance == pytest.approx(1 / np.diag(precision), rel=0.1)
    assert mean == pytest.approx(covariance @ x.T @ y / noise**2, abs=0.3 * np.sqrt(np.diag(covariance)).min())
    ratio = variance / np.diag(covariance)
    if orthogonal:
        assert ratio == pytest.approx(1, rel=0.15)
    else:  # known to be too sure, by as much as the closed form says
        assert ratio.max() < 0.9 and ratio == pytest.approx(1 / (np.diag(precision) * np.diag(covariance)), rel=0.15)
    draws = draw(nn.Sequential(layer), 0)[0].weight.numpy() - means
    assert draws.var(0) == pytest.approx(variance, rel=0.5) and np.abs(draws.mean(0)).max() < np.sqrt(variance).max()


def test_what_cannot_be(sampler, tmp_path):
    plain = case()
    spec = sampler.run.blueprint.spec
    run = Run(tmp_path, Blueprint.fit(plain, spec, [build_sample(mesh, spec) for mesh in squares(2)]), nn.Linear(1, 1))
    with pytest.raises(ValueError, match="expected an operator with"):
        type(sampler)(run)
    with pytest.raises(ValueError, match="model: expected Gaussian weights, got none"):
        divergence(run.model)
