"""Conformal intervals cover as often as they say."""

import numpy as np
import pytest

from gno.uq import Conformal, Uncertain, load_calibration, save_calibration

FLOOR = 0.01


def draw(rng, n_meshes, n_nodes=12):
    """Meshes with errors that nodes of one mesh share, of a size the method does not know."""
    x = np.linspace(0, 1, n_nodes)
    doubt = 0.5 + x * rng.uniform(size=(n_meshes, 1))
    shared = rng.standard_t(3, size=(n_meshes, 1)) + 0.5 * rng.normal(size=(n_meshes, n_nodes))
    mass = rng.uniform(0.1, 2, size=(n_meshes, n_nodes)) * np.exp(rng.normal(size=(n_meshes, 1)))
    return doubt, 2.5 * doubt * shared, mass


def quantity(std, mean=0.0):
    return Uncertain(mean + np.stack([-std, std]) / np.sqrt(2))


def fit(doubt, truth, mass, floor=FLOOR):
    return Conformal.fit([quantity(s) for s in doubt], list(truth), list(mass), floor=floor)


@pytest.mark.parametrize("simultaneous", [False, True])
def test_coverage_over_a_thousand_draws(simultaneous):
    rng, n_meshes, wanted, inside = np.random.default_rng(0), 29, 0.8, 0.0
    for _ in range(1000):
        doubt, truth, mass = draw(rng, n_meshes + 1)
        low, high = fit(doubt[:-1], truth[:-1], mass[:-1]).interval(
            quantity(doubt[-1]), wanted, simultaneous=simultaneous
        )
        hit = (truth[-1] >= low) & (truth[-1] <= high)
        inside += hit.all() if simultaneous else hit @ mass[-1] / mass[-1].sum()
    # exchangeable meshes: 1 − α of the nodes; of whole meshes up to 1/(n + 1) more; three binomial standard deviations
    slack, margin = 3 * np.sqrt(wanted * (1 - wanted) / 1000), 1 / (n_meshes + 1) if simultaneous else 0
    assert wanted - slack < inside / 1000 < wanted + margin + slack


@pytest.mark.parametrize(("shared", "varies"), [(0.0, 0.0), (0.0, 1.0), (0.7, 0.5), (0.9, 0.0)])
def test_no_margin_with_few_series(shared, varies):
    """24 meshes for 90 %, whatever their nodes have in common: a bound for certain would cover up to 93.75 %."""
    rng, n, n_nodes, inside = np.random.default_rng(4), 24, 60, []
    for _ in range(200):
        common, own = rng.normal(size=(n + 20, 1)), rng.normal(size=(n + 20, n_nodes))
        truth = np.exp(varies * rng.normal(size=(n + 20, 1))) * (shared * common + np.sqrt(1 - shared**2) * own)
        one = Uncertain(np.zeros((1, n_nodes)))
        conformal = Conformal.fit([one] * n, list(truth[:n]), [np.ones(n_nodes)] * n, floor=1.0)
        inside.append((np.abs(truth[n:]) <= conformal.factor(0.9)).mean())
    slack = 3 * np.std(inside) / np.sqrt(len(inside))
    assert abs(np.mean(inside) - 0.9) < 0.004 + slack


def test_nodes_that_are_all_alike_are_one():
    """Then coverage goes by whole meshes, and a node is inside as often as the mesh."""
    rng = np.random.default_rng(5)
    for n in (9, 12, 24, 40):
        truth = np.repeat(rng.normal(size=(n, 1)), 5, axis=1)
        conformal = fit(np.ones((n, 5)), truth, np.ones((n, 5)))
        for coverage in (0.5, 0.8, 0.9):
            assert conformal.factor(coverage) == conformal.factor(coverage, simultaneous=True)


def test_factor_is_the_order_statistic():
    doubt, mass = np.ones((19, 3)), np.ones((19, 3))
    truth = np.arange(1.0, 20.0)[:, None] * np.array([1.0, 1.0, 1.0])
    conformal = fit(doubt, truth * (1 + FLOOR), mass)
    assert conformal.factor(0.9, simultaneous=True) == pytest.approx(18)  # ⌈0.9 · 20⌉
    assert conformal.factor(0.9) == pytest.approx(18)
    assert conformal.factor(0.95) == pytest.approx(19)
    for simultaneous in (False, True):
        assert conformal.factor(0.84, simultaneous=simultaneous) == pytest.approx(17)  # of 19 alone it would be 16
    low, high = conformal.interval(quantity(np.ones(3), mean=5.0), 0.9)
    assert (high - low) / 2 == pytest.approx(18 * (1 + FLOOR)) and (high + low) / 2 == pytest.approx(5)


def test_meshes_count_the_same_whatever_their_size():
    small = (np.ones(2), np.zeros(2), np.ones(2))
    large = (np.ones(1000), np.full(1000, 3.0), np.full(1000, 7.0))
    parts = [small] * 6 + [large] * 3
    conformal = Conformal.fit([quantity(p[0]) for p in parts], [p[1] for p in parts], [p[2] for p in parts], floor=1e-9)
    assert conformal.factor(0.5) == 0 and conformal.factor(0.7) == pytest.approx(3)


def test_no_doubt_at_all_gives_plain_residuals():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(19, 5))
    one = [Uncertain(np.zeros((1, 5)))] * 19
    conformal = Conformal.fit(one, list(truth), [np.ones(5)] * 19, floor=0.5)
    low, high = conformal.interval(one[0], 0.95, simultaneous=True)
    assert high == pytest.approx(np.abs(truth).max()) and low == pytest.approx(-high)


def test_vectors_and_nodes_without_mass():
    truth = np.zeros((3, 2))
    truth[0] = 100.0  # no mass: does not count
    parts = [Uncertain(np.zeros((1, 3, 2)))] * 9
    conformal = Conformal.fit(parts, [truth] * 9, [np.array([0.0, 1, 1])] * 9, floor=1.0)
    assert conformal.factor(0.9) == conformal.factor(0.9, simultaneous=True) == 0
    assert conformal.interval(parts[0], 0.9)[0].shape == (3, 2)


def test_kept_with_the_run(tmp_path):
    conformal = fit(*draw(np.random.default_rng(2), 20))
    save_calibration(tmp_path / "run" / "calibration.safetensors", {"u": conformal, "u@1": conformal})
    back = load_calibration(tmp_path / "run" / "calibration.safetensors")
    assert sorted(back) == ["u", "u@1"] and back["u"].floor == FLOOR
    for simultaneous in (False, True):
        assert back["u"].factor(0.9, simultaneous=simultaneous) == conformal.factor(0.9, simultaneous=simultaneous)


def test_what_cannot_be():
    conformal = fit(*draw(np.random.default_rng(3), 5))
    for simultaneous in (False, True):
        with pytest.raises(ValueError, match=r"coverage 0\.9: expected at least 9 calibration meshes, got 5"):
            conformal.factor(0.9, simultaneous=simultaneous)
    conformal.factor(5 / 6)  # just enough
    with pytest.raises(ValueError, match="coverage: expected a number between 0 and 1, got 90"):
        conformal.factor(90)
    with pytest.raises(ValueError, match="calibration meshes: expected at least one, got none"):
        Conformal.fit([], [], [], floor=1.0)
    with pytest.raises(ValueError, match="floor: expected a standard deviation > 0"):
        fit(*draw(np.random.default_rng(3), 5), floor=0.0)
    with pytest.raises(ValueError, match=r"truth: expected the shape of the prediction \(4,\), got \(3,\)"):
        Conformal.fit([quantity(np.ones(4))], [np.ones(3)], [np.ones(3)], floor=1.0)
    with pytest.raises(ValueError, match=r"none\.safetensors: expected a checkpoint"):
        load_calibration("none.safetensors")
