"""Last-layer Laplace against exact answers of the linear-Gaussian model."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from train_cases import case, square, squares

from gno.graph import build_sample, collate
from gno.train import Run
from gno.train.blueprint import Blueprint
from gno.train.sources import fit_spec
from gno.uq import LastLayerLaplace
from gno.uq.features import with_features
from gno.uq.laplace import Posterior, effective_features, last_weights, log_evidence


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An operator with random weights in float64: its features are as good as any."""
    spec = fit_spec(case(), squares(4))
    blueprint = Blueprint.fit(case(), spec, [build_sample(mesh, spec) for mesh in squares(4)])
    model = blueprint.model(0).double().requires_grad_(False).eval()
    return Run(tmp_path_factory.mktemp("run"), blueprint, model)


def batch_of(run, mesh):
    sample = build_sample(mesh, run.blueprint.spec, torch.float64)
    return collate([run.blueprint.normalisation.apply(sample)])


def test_the_output_is_linear_in_the_last_weights_through_all_scales(run):
    output, features = with_features(run.model, batch_of(run, square(7)))
    psi = effective_features(features, output)
    assert (psi @ last_weights(run.model)).numpy() == pytest.approx(output.fields[0].numpy(), abs=1e-12)
    assert not any(head._forward_pre_hooks for head in run.model.modules())


@pytest.fixture
def regression():
    """y = ΨW + noise with known sizes of both; several outputs share the features."""
    rng = np.random.default_rng(0)
    psi = rng.normal(size=(3000, 60)) * rng.uniform(0.1, 2, size=60)
    w = rng.normal(size=(60, 8)) / math.sqrt(4.0)
    return psi, psi @ w + 0.3 * rng.normal(size=(3000, 8)), rng


def fit(psi, y, noise, precision):
    mode = np.linalg.solve(psi.T @ psi / noise + precision * np.eye(psi.shape[1]), psi.T @ y / noise)
    residual = ((y - psi @ mode) ** 2).sum(0)
    return mode, Posterior.fit(*(torch.tensor(x) for x in (psi.T @ psi, residual, mode)), n_observations=len(y))


def test_evidence_is_the_marginal_likelihood(regression):
    psi, y, _ = regression
    psi, y, noise, precision = psi[:80], y[:80, 0], 0.2, 1.7
    mode = np.linalg.solve(psi.T @ psi / noise + precision * np.eye(60), psi.T @ y / noise)
    values = np.linalg.eigvalsh(psi.T @ psi).clip(0)
    got = log_evidence(noise, precision, values, ((y - psi @ mode) ** 2).sum(), mode @ mode, 80)
    exact = stats.multivariate_normal(cov=noise * np.eye(80) + psi @ psi.T / precision).logpdf(y)
    assert got == pytest.approx(exact, rel=1e-10)


def test_noise_and_prior_are_recovered(regression):
    psi, y, _ = regression
    _, posterior = fit(psi, y, 0.09, 4.0)
    assert posterior.noise.sqrt().numpy() == pytest.approx(0.3, rel=0.04)
    assert posterior.precision.mean().item() == pytest.approx(4.0, rel=0.2)  # 480 weights: about 6 %


def test_draws_have_the_exact_posterior(regression):
    psi, y, _ = regression
    _, posterior = fit(psi, y, 0.09, 4.0)
    draws = posterior.draw(1500, seed=1)
    noise, precision = posterior.noise[2].item(), posterior.precision[2].item()
    exact = np.linalg.inv(psi.T @ psi / noise + precision * np.eye(60))
    assert draws.mean(0).abs().max() < 1e-12
    at = np.random.default_rng(3).normal(size=(20, 60))
    predicted = (draws[:, :, 2].numpy() @ at.T).var(0, ddof=1)
    assert predicted == pytest.approx(np.einsum("ij,jk,ik->i", at, exact, at), rel=0.15)
    assert torch.equal(draws, posterior.draw(1500, seed=1))


def linear_world(run, rng, n_meshes, weights, noise):
    """Squares whose targets are the operator with other last weights, plus noise of its own at every node."""
    meshes, scale = [], run.blueprint.normalisation.targets
    for seed in range(n_meshes):
        mesh = square(100 + seed)
        output, features = with_features(run.model, batch_of(run, mesh))
        y = scale.decode(effective_features(features, output) @ weights).numpy()
        y = y + noise * scale.std.numpy() * rng.normal(size=y.shape)
        meshes.append(mesh.replace(point_fields={**mesh.point_fields, "u": y[:, :2], "heat": y[:, 2]}, cell_fields={}))
    return meshes


def test_an_operator_that_is_linear_in_truth_is_calibrated(run):
    """Truth inside the model, noise known: the predicted variances are those of the errors, on meshes never seen."""
    rng, noise = np.random.default_rng(0), 0.1
    targets = tuple(dataclasses.replace(field, location="point") for field in run.blueprint.spec.targets)
    spec = dataclasses.replace(run.blueprint.spec, targets=targets)
    run = dataclasses.replace(run, blueprint=dataclasses.replace(run.blueprint, spec=spec))
    true = torch.tensor(rng.normal(size=last_weights(run.model).shape))
    train, test = np.split(np.array(linear_world(run, rng, 14, true, noise), dtype=object), [7])
    # the mode for this noise and prior becomes the operator's weights
    psi, y = [], []
    for mesh in train:
        batch = batch_of(run, mesh)
        output, features = with_features(run.model, batch)
        psi.append(effective_features(features, output))
        y.append(batch.y)
    psi, y = torch.cat(psi), torch.cat(y)
    mode = torch.linalg.solve(psi.T @ psi / noise**2 + torch.eye(psi.shape[1]), psi.T @ y / noise**2)
    model = run.blueprint.model(0).double().eval()
    rows = iter(mode.split([17] * 3))
    with torch.no_grad():
        for head in model.heads:
            block = next(rows)
            head[1][2].weight.copy_(block[:-1].T)
            head[1][2].bias.copy_(block[-1])
    laplace = LastLayerLaplace.fit(dataclasses.replace(run, model=model), train, n_eff=81)
    assert laplace.posterior.noise.sqrt().numpy() == pytest.approx(noise, rel=0.1)
    squares_of_z, epistemic_z = [], []
    for mesh in test:
        sample = build_sample(mesh, spec, torch.float64)
        level = laplace.levels(sample)[0]
        squares_of_z.append((level.truth - level.quantity.mean) ** 2 / level.quantity.variance)
        output, features = with_features(run.model, batch_of(run, mesh))
        clean = run.blueprint.normalisation.targets.decode(effective_features(features, output) @ true).numpy()
        epistemic_z.append((clean - level.quantity.mean) ** 2 / level.quantity.epistemic)
    assert np.mean(squares_of_z) == pytest.approx(1, rel=0.1)
    # without the noise of the data: errors of the mean against the epistemic variance alone, one draw of weights
    assert 0.5 < np.mean(epistemic_z) < 2


def test_predictions_and_files(run, tmp_path):
    run = dataclasses.replace(run, directory=tmp_path)
    run.blueprint.save(tmp_path / "best.safetensors", {"average": run.model.state_dict()}, {"step": 0})
    laplace = LastLayerLaplace.fit(run, squares(4), n_pairs=3)
    prediction = laplace.predict(square(9))
    assert prediction.field("u").n_samples == 6
    assert prediction.field("u").mean == pytest.approx(run.predict(square(9)).mesh.point_fields["predicted_u"])
    for level in range(3):
        quantity = prediction.field("heat", level=level)
        assert quantity.epistemic.min() > 0 and quantity.aleatoric.min() > 0
    laplace.save()
    again = LastLayerLaplace.load(tmp_path).predict(square(9))
    assert np.array_equal(again.mesh.point_fields["std_u"], prediction.mesh.point_fields["std_u"])


def test_what_cannot_be(run, tmp_path):
    bare = square(1).replace(point_fields={"wave": square(1).point_fields["wave"]}, cell_fields={})
    with pytest.raises(ValueError, match="expected training meshes with targets, got 1, 1 without"):
        LastLayerLaplace.fit(run, [bare])
    with pytest.raises(ValueError, match="expected training meshes with targets, got 0"):
        LastLayerLaplace.fit(run, [])
    with pytest.raises(ValueError, match="model: expected an operator with heads, got Linear"):
        LastLayerLaplace.fit(dataclasses.replace(run, model=torch.nn.Linear(1, 1)), squares(1))
