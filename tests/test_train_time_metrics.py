"""Metrics over time: values known by hand, and what each of them must not see."""

import math

import pytest
import torch
from time_cases import decay

from gno.graph import SampleSpec, build_sample
from gno.train.time_metrics import (
    METRICS,
    RolloutEvaluation,
    RolloutRow,
    correlation,
    correlation_time,
    distribution_distance,
    drift,
    relative_l2,
    scale_energy,
    spectrum_distance,
    vrmse,
)


@pytest.fixture(scope="module")
def sample():
    mesh = decay(0, [0.0], n=16)[0]
    return build_sample(mesh, SampleSpec.fit([mesh], inputs=["k"], targets=["u"]), torch.float64)


def wave(sample, shift=0.0, number=3):
    return 1 + torch.sin(number * math.pi * sample.pos_0[:, :1] + shift)


def test_values_known_by_hand(sample):
    y = wave(sample)
    assert float(relative_l2(y, y, sample)) == 0 and float(vrmse(y, y, sample)) == 0
    assert float(relative_l2(1.1 * y, y, sample)) == pytest.approx(0.1)
    mean = (sample.mass_0 @ y) / sample.mass_0.sum()
    assert float(vrmse(mean.expand_as(y), y, sample)) == pytest.approx(1.0, abs=1e-6)
    assert float(correlation(3 * y - 1, y, sample)) == pytest.approx(1.0)
    assert float(correlation(-y, y, sample)) == pytest.approx(-1.0)
    assert float(drift(y + 0.2, y, sample)) == pytest.approx(0.2 / float(sample.mass_0 @ y.abs()))


def test_patterns_that_are_late_are_right_in_their_statistics(sample):
    y, late, other = wave(sample), wave(sample, math.pi), wave(sample, number=9)
    assert relative_l2(late, y, sample) > 1 > 10 * distribution_distance(late, y, sample)
    assert spectrum_distance(late, y, sample) < 0.2 < spectrum_distance(other, y, sample)
    assert float(distribution_distance(y + 0.3, y, sample)) == pytest.approx(0.3 / 0.7, rel=0.1)


def test_energies_of_the_scales_sum_to_the_variance(sample):
    y = wave(sample)
    mean = (sample.mass_0 @ y) / sample.mass_0.sum()
    variance = sample.mass_0 @ (y - mean).square().sum(1) / sample.mass_0.sum()
    energy = scale_energy(y, sample)
    assert len(energy) == sample.n_levels and (energy >= -1e-12).all()
    torch.testing.assert_close(energy.sum(), variance)
    fine = scale_energy(wave(sample, number=9), sample)
    assert fine[0] / fine.sum() > energy[0] / energy.sum()


def row(values, name="a"):
    metrics = {metric: {"u": list(values)} for metric in METRICS}
    return RolloutRow(name, 10, [0.1 * (k + 1) for k in range(len(values))], metrics, 1.0)


def test_windows_count_steps_from_one_and_end_where_the_rollout_does():
    evaluation = RolloutEvaluation((row([k + 1.0 for k in range(12)]), row([k + 1.0 for k in range(8)])))
    assert evaluation.window("vrmse", "u", 1, 1) == 1.0
    assert evaluation.window("vrmse", "u", 6, 12) == pytest.approx((sum(range(6, 13)) + 6 + 7 + 8) / 10)
    assert evaluation.window("vrmse", "u", 13, 30) is None
    assert "–" in str(evaluation) and len(evaluation.curve("vrmse", "u")) == 8
    assert '"6:12"' in evaluation.to_json()


def test_what_is_relative_to_a_field_of_zero_is_not_defined_and_spoils_no_mean(sample):
    zero = torch.zeros_like(wave(sample))
    for metric in (relative_l2, drift):
        assert metric(wave(sample), zero, sample).isnan() and metric(zero, zero, sample).isnan()
    half = torch.cat([wave(sample), zero], dim=1)  # of a vector, one component
    assert float(drift(half + 0.2, half, sample)) == pytest.approx(
        float(drift(wave(sample) + 0.2, wave(sample), sample))
    )
    evaluation = RolloutEvaluation((row([math.nan, 0.2]), row([0.4, math.nan])))
    assert evaluation.window("relative_l2", "u", 1, 1) == 0.4 and evaluation.curve("relative_l2", "u") == [0.4, 0.2]
    metrics = {name: {"u": [math.nan if name in ("relative_l2", "drift") else 0.5]} for name in METRICS}
    alone = RolloutEvaluation((RolloutRow("a", 10, [0.1], metrics, 1.0),))
    assert alone.window("relative_l2", "u", 1, 1) is None and "nan" not in f"{alone}{alone.to_json()}".lower()


def test_the_correlation_time_is_where_it_first_falls_below():
    assert correlation_time([0.9, 0.9], [1.0, 2.0]) == 2.0
    assert correlation_time([0.9, 0.7, 0.95], [1.0, 2.0, 3.0]) == pytest.approx(1.5)
    assert correlation_time([float("nan")], [1.0]) == 0.0
