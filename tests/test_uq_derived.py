"""Intervals of what follows from predictions, each from its own errors."""

import numpy as np
import pytest

from gno.post.report import Report
from gno.uq.derived import Derived, with_intervals


def derived(rng, mesh, truth=True):
    """Samples a tenth as wide as the errors of a force, ten times as wide as those of an energy."""
    force, energy = rng.normal(size=2)
    numbers = lambda f, e, prefix: Report(mesh).add("", **{f"{prefix}energy": e, "left": {"force": [f, 0.0]}})  # noqa: E731
    samples = [numbers(force + 0.1 * s, energy + 10 * s, "predicted_") for s in rng.normal(size=4)]
    real = numbers(force + rng.normal(), energy + rng.normal(), "") if truth else None
    return Derived(numbers(force, energy, "predicted_"), samples, real)


def test_every_number_is_as_wide_as_its_own_errors():
    rng, inside, wide = np.random.default_rng(0), [], []
    for _ in range(400):
        held = [derived(rng, None) for _ in range(9)]
        new = derived(rng, None)
        found = with_intervals(new.report, new, held, 0.9).facts["intervals"]
        truth = {"energy": new.truth.facts["energy"], "left force x": new.truth.facts["left"]["force"][0]}
        inside.append([found[name][0] <= x <= found[name][1] for name, x in truth.items()])
        wide.append([np.ptp(found[name]) for name in truth])
    # above the largest of nine scores one of ten to come
    assert np.mean(inside, axis=0) == pytest.approx(0.9, abs=3 * np.sqrt(0.09 / 400))
    assert np.median(wide, axis=0) == pytest.approx(6, rel=0.7)  # errors have a deviation of one, samples 0.1 and 10


def test_it_says_so_and_what_is_missing():
    rng = np.random.default_rng(1)
    new, held = derived(rng, None, truth=False), [derived(rng, None) for _ in range(9)]
    found = with_intervals(new.report, new, held, 0.9)
    low, high = found.facts["intervals"]["energy"]
    assert (low + high) / 2 == pytest.approx(new.report.facts["predicted_energy"])
    assert "inside with 90%, by 9 held-out files:" in str(found) and f"{low:.6g} to {high:.6g}" in str(found)
    with pytest.raises(ValueError, match=r"coverage 0\.9: expected at least 9 calibration meshes, got 8"):
        with_intervals(new.report, new, held[1:], 0.9)
