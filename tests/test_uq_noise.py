"""Noise of known size is recovered, by likelihood and by CRPS; trained, kept and loaded as any run."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from train_cases import case, square, squares

from gno.graph import build_sample, collate
from gno.train import Run, Uncertainty
from gno.train.blueprint import Blueprint
from gno.train.likelihood import NoiseLoss, beta_nll, crps
from gno.train.sources import fit_spec
from gno.uq import Ensemble, load_uncertain, train_uncertain
from gno.uq.features import with_features


def noisy(score="beta_nll", method="ensemble", **training):
    return case(**training).model_copy(update={"uncertainty": Uncertainty(method=method, members=2, noise=score)})


@pytest.fixture
def world(tmp_path):
    """A frozen operator whose own output is the truth, with noise whose logarithm is linear in its last features."""
    meshes = squares(16)
    spec = fit_spec(case(), meshes)
    samples = [build_sample(mesh, spec) for mesh in meshes]
    blueprint = Blueprint.fit(noisy(), spec, samples)
    model = blueprint.model(0).requires_grad_(False)
    batch = collate([blueprint.normalisation.apply(sample) for sample in samples])
    output, (features, *_) = with_features(model, batch)
    generator = torch.Generator().manual_seed(1)
    log_std = features @ torch.randn(features.shape[1], 3, generator=generator)
    true = 0.3 * (0.5 * (log_std - log_std.mean(0)) / log_std.std(0)).exp()  # e-fold between ± one spread
    batch.y = output.fields[0] + true * torch.randn(true.shape, generator=generator)
    return Run(tmp_path, blueprint, model), batch, true


@pytest.mark.parametrize("score", [lambda u, v, y: beta_nll(u, v, y, beta=0.0), beta_nll, crps])
def test_noise_of_known_size_is_found_node_by_node(world, score):
    run, batch, true = world
    loss, last = NoiseLoss(slice(0, 3), score, coarse_weight=0.0), run.model.heads[0][1][2]
    output, (features, *_) = with_features(run.model, batch)
    head = torch.nn.Linear(last.in_features, 3)  # the rows of log σ²
    head.weight.data, head.bias.data = last.weight[3:].clone(), last.bias[3:].clone()
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1)
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 400)
        optimiser.zero_grad()
        loss(batch, dataclasses.replace(output, variance=(head(features).exp(), *output.variance[1:]))).backward()
        optimiser.step()
    last.weight[3:], last.bias[3:] = head.weight.detach(), head.bias.detach()
    found = run.model(batch).variance[0].detach().sqrt()
    # 17 numbers from 1,296 nodes: about √(17/2·1296) = 8 % by likelihood
    assert (found / true).log().square().mean().sqrt() < 0.12
    assert (found.mean(0) / true.mean(0)).numpy() == pytest.approx(1, rel=0.06)
    quantity = Ensemble((run,)).predict(square(20)).field("u")
    scale = float(run.blueprint.normalisation.targets.std[0])
    assert quantity.epistemic.max() == 0 and np.sqrt(quantity.aleatoric).mean() == pytest.approx(0.3 * scale, rel=0.5)


def test_scores_are_those_of_a_gaussian():
    rng = np.random.default_rng(0)
    u, y, variance = rng.normal(size=50), rng.normal(size=50), rng.uniform(0.1, 4, 50)
    tensors = [torch.tensor(x[:, None]) for x in (u, variance, y)]
    exact = -stats.norm(u, np.sqrt(variance)).logpdf(y) - 0.5 * np.log(2 * np.pi)
    assert beta_nll(*tensors, beta=0.0)[:, 0].numpy() == pytest.approx(exact)
    x = np.linspace(-30, 30, 200_001)
    step = (stats.norm.cdf(x, u[:5, None], np.sqrt(variance[:5, None])) - (x >= y[:5, None])) ** 2
    assert crps(*tensors)[:5, 0].numpy() == pytest.approx(np.trapezoid(step, x, axis=1), abs=1e-3)


def test_beta_one_trains_the_mean_as_least_squares_do(world):
    run, batch, _ = world
    output = run.model(batch)
    output.variance[0].mul_(torch.rand_like(output.variance[0]) + 0.5)  # σ must not matter to the mean
    field = output.fields[0].requires_grad_()
    loss = NoiseLoss(slice(0, 3), lambda u, v, y: beta_nll(u, v, y, beta=1.0), coarse_weight=0.0)
    (got,) = torch.autograd.grad(loss(batch, output), field, retain_graph=True)
    square_error = (field - batch.y).square().mean(1) / 2
    (expected,) = torch.autograd.grad((square_error * batch.mass_0).sum() / batch.num_graphs, field)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("score", ["beta_nll", "crps"])
def test_members_with_noise_are_trained_kept_and_loaded(score, tmp_path, monkeypatch):
    monkeypatch.setattr("gno.post.curves.draw_curves", lambda *_: None)
    options = {"meshes": {"train": squares(3)}, "progress": False}
    trained = train_uncertain(noisy(score, epochs=2), tmp_path, **options)
    first, again = (s.predict(square(9)).field("u") for s in (trained, load_uncertain(tmp_path)))
    assert first.aleatoric.min() > 0 and first.epistemic.min() > 0
    assert np.array_equal(first.variance, again.variance)
    moved = [run.model.heads[0][1][2].weight[3:].abs().max() for run in trained.runs]
    assert min(moved) > 0  # log σ² started as zero everywhere, and was learned


def test_what_cannot_be(world):
    run, batch, _ = world
    plain = Blueprint.fit(case(), run.blueprint.spec, [build_sample(mesh, run.blueprint.spec) for mesh in squares(2)])
    with pytest.raises(ValueError, match=r"output: expected one with a variance \(noise_head\), got Output"):
        NoiseLoss(slice(0, 3), crps, 0.3)(batch, plain.model(0)(batch))
    with pytest.raises(ValueError, match="noise: expected none with laplace"):
        Uncertainty(method="laplace", noise="crps")
