"""The next solver run, against brute force on problems that are linear and Gaussian."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from train_cases import case, square, squares

from gno.graph import build_sample, collate
from gno.train import Run
from gno.train.blueprint import Blueprint
from gno.train.sources import fit_spec
from gno.uq import Ensemble, LastLayerLaplace, Sampler, choose_runs
from gno.uq.active import greedy
from gno.uq.features import with_features
from gno.uq.laplace import effective_features


def remaining_by_hand(rows, chosen, wanted, noise):
    """Σ Var over the wanted points, given noisy observations at the chosen ones; by Gaussian conditioning."""
    x = np.concatenate([rows[c] for c in chosen])
    gain = wanted @ x.T @ np.linalg.inv(x @ x.T + noise * np.eye(len(x)))
    return np.trace(wanted @ wanted.T - gain @ x @ wanted.T)


@pytest.fixture
def linear():
    """Nine candidates with five points each, in twelve unknown directions of different size; what is wanted."""
    rng = np.random.default_rng(3)
    size = rng.uniform(0.1, 2, 12)
    return [rng.normal(size=(5, 12)) * size * rng.uniform(0, 1, 12) for _ in range(9)], rng.normal(size=(30, 12)) * size


def test_greedy_is_brute_force(linear):
    rows, wanted = linear
    noise = 0.3
    gain = torch.tensor(np.stack([x.T @ x / noise for x in rows]))[:, None]
    found = greedy(gain, torch.tensor(wanted.T @ wanted)[None], 4)
    chosen = []
    for pick, share in zip(found.indices, found.remaining, strict=True):
        left = {c: remaining_by_hand(rows, [*chosen, c], wanted, noise) for c in range(9) if c not in chosen}
        assert pick == min(left, key=left.get)
        assert share == pytest.approx(left[pick] / np.trace(wanted @ wanted.T), rel=1e-9)
        chosen.append(pick)
    best = min(remaining_by_hand(rows, pair, wanted, noise) for pair in itertools.combinations(range(9), 2))
    assert found.remaining[1] * np.trace(wanted @ wanted.T) <= 1.1 * best


def test_two_that_show_the_same_are_not_both_chosen():
    """Spread alone would take the first two."""
    gain = torch.diag_embed(torch.tensor([[[9.0, 0, 0]], [[8.9, 0, 0]], [[0, 2.0, 0]], [[0, 0, 0]]]).double())
    found = greedy(gain, torch.eye(3).double()[None], 4)
    assert found.indices[:2] == (0, 2) and set(found.indices) == {0, 1, 2, 3}
    assert found.remaining[-1] == pytest.approx(found.remaining[-2])  # the last shows nothing


def test_blocks_add(linear):
    rows, wanted = linear
    gain, goal = torch.tensor(np.stack([x.T @ x for x in rows]))[:, None], torch.tensor(wanted.T @ wanted)[None]
    once, twice = greedy(gain, goal, 3), greedy(gain.expand(-1, 2, -1, -1), goal.expand(2, -1, -1), 3)
    assert once.indices == twice.indices and once.remaining == pytest.approx(twice.remaining)


@pytest.fixture(scope="module")
def laplace(tmp_path_factory):
    """The posterior of an operator with random weights."""
    spec = fit_spec(case(), squares(4))
    blueprint = Blueprint.fit(case(), spec, [build_sample(mesh, spec) for mesh in squares(4)])
    model = blueprint.model(0).double().requires_grad_(False).eval()
    return LastLayerLaplace.fit(Run(tmp_path_factory.mktemp("run"), blueprint, model), squares(4))


def test_expected_is_what_the_posterior_becomes(laplace):
    """The run is made, its mesh joins the data of the posterior, and the variance is what was expected."""
    candidates, wanted = [square(seed, n=6) for seed in range(20, 26)], [square(30, n=6)]
    found = choose_runs(laplace, candidates, 1, wanted=wanted)

    def moments(mesh):
        sample = laplace.run.blueprint.normalisation.apply(
            build_sample(mesh, laplace.run.blueprint.spec, torch.float64)
        )
        batch = collate([sample])
        output, features = with_features(laplace.run.model, batch)
        psi = effective_features(features, output) * batch.mass_0[:, None].sqrt()
        return psi.T @ psi, len(batch.pos_1)

    p = laplace.posterior
    gram = p.vectors @ torch.diag(p.values) @ p.vectors.T

    goal = moments(wanted[0])[0]

    def total(extra):
        one = torch.eye(len(gram))
        inverses = [torch.linalg.inv((gram + extra) / s + d * one) for s, d in zip(p.noise, p.precision, strict=True)]
        return sum(float((goal @ inverse).diagonal().sum()) for inverse in inverses)

    left = [total(n * g) / total(0 * gram) for g, n in map(moments, candidates)]
    assert found.indices == (int(np.argmin(left)),)
    assert found.remaining[0] == pytest.approx(min(left), rel=1e-6)


def test_samples_say_what_the_posterior_says(laplace):
    candidates = [square(seed, n=4) for seed in range(40, 43)]
    exact = choose_runs(laplace, candidates, 2)

    many = dataclasses.replace(laplace, n_pairs=120)

    class Sampled(Sampler):  # the same samples, without the closed form
        operator, models, outputs = laplace.run, (), many.outputs

    found = choose_runs(Sampled(), candidates, 2)
    assert found.remaining == pytest.approx(exact.remaining, rel=0.25)


def test_ensembles_choose_too_and_what_cannot_be_chosen(laplace, tmp_path):
    models = [laplace.run.blueprint.model(seed).requires_grad_(False).eval() for seed in range(3)]
    ensemble = Ensemble(tuple(Run(tmp_path, laplace.run.blueprint, model) for model in models))
    candidates = [square(seed, n=5) for seed in range(3)]
    found = choose_runs(ensemble, candidates, 3)
    assert sorted(found.indices) == [0, 1, 2] and 1 > found.remaining[0] > found.remaining[2] > 0
    bare = [mesh.replace(point_fields={"wave": mesh.point_fields["wave"]}, cell_fields={}) for mesh in candidates]
    assert choose_runs(ensemble, bare, 3) == found  # answers are not looked at
    with pytest.raises(ValueError, match="n: expected 1 to 3 runs, as many as there are candidates, got 4"):
        choose_runs(ensemble, candidates, 4)
