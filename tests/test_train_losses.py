"""Losses: the reported metric up to a constant, mass-weighted, per graph, without a gradient through the target."""

import pytest
import torch
from train_cases import case, squares

from gno.graph import FieldSpec, build_sample, collate
from gno.train.blueprint import Blueprint
from gno.train.evaluate import level_errors
from gno.train.losses import FLOOR, FieldLoss, data_terms, mean_square
from gno.train.normalise import fit_scale
from gno.train.sources import fit_spec


@pytest.fixture(scope="module")
def setting():
    """A blueprint, a normalised batch of three meshes, and the output of a fresh model."""
    meshes = squares(3)
    spec = fit_spec(case(), meshes)
    samples = [build_sample(mesh, spec) for mesh in meshes]
    blueprint = Blueprint.fit(case(), spec, samples)
    batch = collate([blueprint.normalisation.apply(sample) for sample in samples])
    return blueprint, batch, blueprint.model()(batch)


def test_mean_square_weighs_by_mass_within_each_graph():
    values, mass = torch.tensor([[1.0], [3.0], [2.0]]), torch.tensor([3.0, 1.0, 9.0])
    graph = torch.tensor([0, 0, 1])
    torch.testing.assert_close(mean_square(values, mass, graph, 2), torch.tensor([3.0, 4.0]))


def test_the_loss_is_the_reported_error_times_a_constant(setting):
    blueprint, batch, output = setting
    scale = blueprint.normalisation.targets
    terms = data_terms(blueprint.spec.targets, scale, coarse_weight=0.0)
    for term, field in zip(terms, blueprint.spec.targets, strict=True):
        reported = level_errors(output, batch, blueprint.spec.targets, scale)[0][field.name].mean()
        columns = term.loss.columns
        factor = float(scale.rms[columns][0] / scale.std[columns][0])
        assert term.name == field.name
        # every mesh is about of the usual size: the floor takes off at most FLOOR² / 2
        assert term.loss(batch, output).item() == pytest.approx(factor * float(reported), rel=FLOOR**2)


def test_coarse_levels_add_their_weight(setting):
    blueprint, batch, output = setting
    scale = blueprint.normalisation.targets
    none, some, more = (FieldLoss(slice(0, 2), scale, w)(batch, output).item() for w in (0.0, 0.3, 0.6))
    assert some > none and more - some == pytest.approx(some - none, rel=1e-4)


def test_no_gradient_reaches_the_target_or_the_masses(setting):
    blueprint, batch, _ = setting
    model = blueprint.model()
    output = model(batch)
    targets = output.restrict(batch.y)
    assert not any(target.requires_grad for target in targets)
    # a model whose fields are constants of the pooling learns nothing: masses and targets carry no gradient
    frozen = type(output)(**{**vars(output), "fields": tuple(u.detach().requires_grad_() for u in output.fields)})
    FieldLoss(slice(0, 2), blueprint.normalisation.targets, 1.0)(batch, frozen).backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(u.grad is not None for u in frozen.fields)


def test_a_perfect_prediction_has_a_finite_gradient(setting):
    blueprint, batch, output = setting
    targets = output.restrict(batch.y)
    perfect = type(output)(**{**vars(output), "fields": tuple(t.clone().requires_grad_() for t in targets)})
    loss = FieldLoss(slice(0, 2), blueprint.normalisation.targets, 1.0)(batch, perfect)
    loss.backward()
    assert loss.item() < 1e-4 and all(u.grad.isfinite().all() for u in perfect.fields)


def test_a_field_of_large_mean_is_as_well_conditioned_as_one_around_zero():
    wave = torch.linspace(-1, 1, 9)[:, None]
    batch = collate([build_sample(mesh, fit_spec(case(), squares(1))) for mesh in squares(1)])
    sizes = []
    for mean in (0.0, 300.0):
        sample = batch[0].clone()
        sample.y = mean + wave.repeat(9, 1)
        scale = fit_scale([sample], "y", (FieldSpec("T", "point", 1),))
        one = collate([sample])
        one.y = scale.encode(sample.y)

        class Zero:
            fields, mass, batch = (torch.zeros(81, 1),), (sample.mass_0,), (torch.zeros(81, dtype=torch.long),)

            def restrict(self, values):
                return [values]

        sizes.append(FieldLoss(slice(0, 1), scale, 0.0)(one, Zero()).item())
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-2)
