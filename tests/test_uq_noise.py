"""Noise of known size is recovered."""

import numpy as np
import pytest
import torch
from train_cases import case, square

from gno.graph import build_sample, collate
from gno.train import Run
from gno.train.blueprint import Blueprint
from gno.train.run import fit_spec
from gno.uq import BetaNll, Ensemble, Heteroscedastic


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A frozen operator whose own output, with noise that grows fivefold from left to right, is the truth."""
    meshes = [square(seed) for seed in range(8)]
    spec = fit_spec(case(), meshes)
    samples = [build_sample(mesh, spec) for mesh in meshes]
    blueprint = Blueprint.fit(case(), spec, samples)
    torch.manual_seed(0)
    model = Heteroscedastic(blueprint.model(0))
    batch = collate([blueprint.normalisation.apply(sample) for sample in samples])
    with torch.no_grad():
        clean = model(batch).fields[0]
    true = 0.2 * (1 + 4 * torch.tensor(np.concatenate([mesh.points[:, :1] for mesh in meshes])).float())
    batch.y = clean + true * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    run = Run(tmp_path_factory.mktemp("run"), blueprint, model)
    return run, batch, true


def test_size_and_place_of_noise(world):
    run, batch, true = world
    loss = BetaNll(slice(0, 3), beta=0.0, coarse_weight=0.0)
    run.model.operator.requires_grad_(False)
    head = run.model.log_variance[0]
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=40, line_search_fn="strong_wolfe")  # convex in the head

    def closure():
        optimiser.zero_grad()
        value = loss(batch, run.model(batch))
        value.backward()
        return value

    optimiser.step(closure)
    found = run.model(batch).variance[0].detach().sqrt()
    assert found.square().mean().sqrt().item() == pytest.approx(true.square().mean().sqrt().item(), rel=0.1)
    assert torch.corrcoef(torch.stack([found.mean(1), true[:, 0]]))[0, 1] > 0.9
    left, right = (found[mask].mean().item() for mask in (true[:, 0] < 0.35, true[:, 0] > 0.85))
    assert left == pytest.approx(0.25, rel=0.35) and right == pytest.approx(0.94, rel=0.25)
    quantity = Ensemble((run,)).predict(square(20)).field("u")
    scale = float(run.blueprint.normalisation.targets.std[0])
    assert quantity.epistemic.max() == 0 and 0.2 * scale < np.sqrt(quantity.aleatoric).mean() < 1.0 * scale


def test_beta_one_trains_the_mean_as_least_squares_do(world):
    run, batch, _ = world
    with torch.no_grad():
        output = run.model(batch)
    output.variance[0].mul_(torch.rand_like(output.variance[0]) + 0.5)  # σ must not matter to the mean
    field = output.fields[0].requires_grad_()
    loss = BetaNll(slice(0, 3), beta=1.0, coarse_weight=0.0)
    (got,) = torch.autograd.grad(loss(batch, output), field, retain_graph=True)
    square_error = (field - batch.y).square().mean(1) / 2
    (expected,) = torch.autograd.grad((square_error * batch.mass_0).sum() / 8, field)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-8)


def test_what_cannot_be(world):
    run, batch, _ = world
    with pytest.raises(ValueError, match="beta: expected a number from 0 to 1, got 2"):
        BetaNll(slice(0, 3), beta=2)
    with pytest.raises(ValueError, match=r"output: expected one with a variance \(Heteroscedastic\), got Output"):
        BetaNll(slice(0, 3))(batch, run.model.operator(batch))
