"""Global parameters: they begin without effect, then reach every scale; an operator without them is as it was."""

import dataclasses

import pytest
import torch
from graph_cases import operator_for, samples_of, square

from gno.graph import collate
from gno.nn import NeuroScale


def with_parameters(samples, *values):
    for sample, value in zip(samples, values, strict=True):
        sample.parameters = torch.tensor([value], dtype=torch.float64)
    return samples


def conditioned(samples):
    torch.manual_seed(0)
    return NeuroScale(dataclasses.replace(operator_for(samples[0]).config, n_globals=2)).double().eval()


def test_parameters_begin_without_effect_and_then_reach_every_scale():
    samples = samples_of(square(7), square(9, seed=1))
    model = conditioned(samples)
    one, two = ([0.0, 1.0], [2.0, -1.0])
    first, second = (model(collate(with_parameters(samples, a, b))).fields for a, b in ((one, one), (two, one)))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for name, weight in model.named_parameters():
        if "film.2" in name:
            torch.nn.init.normal_(weight, std=0.1)
    outputs = [model(collate(with_parameters(samples, a, b))) for a, b in ((one, one), (two, one))]
    for s, (a, b) in enumerate(zip(outputs[0].fields, outputs[1].fields, strict=True)):
        mesh = outputs[0].batch[s]
        assert not torch.allclose(a[mesh == 0], b[mesh == 0], atol=1e-4)
        torch.testing.assert_close(a[mesh == 1], b[mesh == 1])  # a mesh hears its own parameters alone


def test_without_parameters_no_weight_is_added_and_a_batch_without_them_is_refused():
    samples = samples_of(square(7))
    plain = operator_for(samples[0])
    assert not any("film" in name for name in plain.state_dict())
    with pytest.raises(ValueError, match=r"batch\.parameters: expected the parameters that this operator was made for"):
        conditioned(samples)(collate(samples))
