"""Ensembles where the exact posterior is known: an operator that is linear in the weights that are learned."""

import dataclasses

import numpy as np
import pytest
import torch
from train_cases import case, square, squares

from gno.graph import build_sample, collate
from gno.train import Run
from gno.train.blueprint import Blueprint
from gno.train.sources import fit_spec
from gno.uq import Ensemble
from gno.uq.features import with_features
from gno.uq.laplace import effective_features, last_weights, with_change

N_MEMBERS, WIDTH = 40, 16


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Features Ψ of few training nodes and of an unseen mesh, under an operator with random weights below its heads."""
    spec = fit_spec(case(), squares(2))
    blueprint = Blueprint.fit(case(), spec, [build_sample(mesh, spec) for mesh in squares(2)])
    run = Run(tmp_path_factory.mktemp("run"), blueprint, blueprint.model(0).double().requires_grad_(False).eval())

    def seen(mesh):
        batch = collate([blueprint.normalisation.apply(build_sample(mesh, spec, torch.float64))])
        output, features = with_features(run.model, batch)
        return effective_features(features, output).numpy(), batch.y.numpy()

    psi, y = seen(square(0, 5))
    rows = np.random.default_rng(0).permutation(len(psi))[:12]  # fewer than weights: the data leave much open
    return run, psi[rows], y[rows], seen(square(7, 5))[0]


def members(run, weights):
    """An ensemble of the operator with each of these last weights."""
    own = last_weights(run.model)
    models = [with_change(run.model, torch.tensor(w) - own) for w in weights]
    return Ensemble(tuple(dataclasses.replace(run, model=model) for model in models))


def spread(ensemble, mesh):
    """Variance at the nodes in units of the normalised targets."""
    variance = ensemble.predict(mesh)
    columns = [variance.field("u").epistemic, variance.field("heat").epistemic.reshape(-1, 1)]
    return np.concatenate(columns, axis=1) / ensemble.operator.blueprint.normalisation.targets.std.numpy() ** 2


def starts(run):
    """Last weights as members start with them, uniform with the variance 1/(3 width): the prior."""
    return [last_weights(run.blueprint.model(seed).double()).numpy() for seed in range(100, 100 + N_MEMBERS)]


def test_members_trained_from_their_starts_sample_the_posterior_of_data_without_noise(world):
    """Descent moves weights by what the data determine, W = W₀ + Ψ⁺(y − ΨW₀): exact for a prior like the starts."""
    run, psi, y, unseen = world
    trained_from = np.stack(starts(run))
    w = torch.tensor(trained_from, requires_grad=True)
    optimiser = torch.optim.LBFGS([w], max_iter=1000, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = (torch.tensor(psi) @ w - torch.tensor(y)).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert closure() < 1e-6 * len(trained_from)
    trained = w.detach().numpy()
    found = spread(members(run, trained), square(7, 5))
    left_open = unseen @ (np.eye(psi.shape[1]) - np.linalg.pinv(psi, rtol=1e-7) @ psi)
    exact = (left_open**2).sum(1) / (3 * WIDTH)
    assert np.sqrt(found.mean() / exact.mean()) == pytest.approx(1, abs=0.15)
    assert np.corrcoef(found.mean(1), exact)[0, 1] > 0.9


def test_members_that_fit_perturbed_targets_sample_the_posterior_of_noisy_data(world):
    """Randomised maximum a posteriori: targets plus noise, and weights held at their own starts; exact when linear."""
    run, psi, y, unseen = world
    rng, noise, prior = np.random.default_rng(1), 0.3, 1 / (3 * WIDTH)
    covariance = np.linalg.inv(psi.T @ psi / noise**2 + np.eye(psi.shape[1]) / prior)
    fitted = []
    for start in starts(run):
        perturbed = y + noise * rng.normal(size=y.shape)
        fitted.append(covariance @ (psi.T @ perturbed / noise**2 + start / prior))
    found = spread(members(run, fitted), square(7, 5))
    exact = np.einsum("ij,jk,ik->i", unseen, covariance, unseen)
    assert np.sqrt(found.mean() / exact.mean()) == pytest.approx(1, abs=0.15)
    # the plain ensemble misses what noise leaves open: at most σ² |Ψ⁺ᵀψ|² of the variance at a node
    pseudo = np.linalg.pinv(psi, rtol=1e-7)
    plain = ((unseen @ (np.eye(psi.shape[1]) - pseudo @ psi)) ** 2).sum(1) * prior
    missed = noise**2 * ((unseen @ pseudo) ** 2).sum(1)
    assert (exact >= plain * (1 - 1e-6)).all() and (exact <= (plain + missed) * (1 + 1e-6)).all()
