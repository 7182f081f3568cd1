"""Uncertain quantities and the metrics, against closed forms and scipy."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy import integrate, stats

from gno.uq import Reliability, Scores, Uncertain, draw_reliability, reliability
from gno.uq import metrics as m


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_law_of_total_variance(rng):
    u, noise = rng.normal(size=40), rng.uniform(0.1, 2, size=40)
    quantity = Uncertain(u[:, None], noise[:, None])
    drawn = rng.normal(u[:, None], np.sqrt(noise)[:, None], size=(40, 50_000))
    assert quantity.variance[0] == pytest.approx(drawn.var(), rel=0.03)
    assert quantity.epistemic[0] == pytest.approx(u.var(ddof=1)) and quantity.aleatoric[0] == pytest.approx(
        noise.mean()
    )


def test_quantiles_of_a_mixture(rng):
    u, noise = rng.normal(size=(5, 3)), rng.uniform(0, 2, size=(5, 3))
    noise[1, 0] = 0.0  # a step among Gaussians
    quantity = Uncertain(u, noise)
    drawn = rng.normal(u[..., None], np.sqrt(noise)[..., None], size=(5, 3, 200_000)).swapaxes(1, 2).reshape(-1, 3)
    for p in (0.05, 0.5, 0.9):
        assert quantity.quantile(p) == pytest.approx(np.quantile(drawn, p, axis=0), abs=0.02)
    one = Uncertain(np.array([[2.0]]), np.array([[9.0]]))
    assert one.quantile(0.975)[0] == pytest.approx(2 + 3 * stats.norm.ppf(0.975), rel=1e-12)
    assert one.interval(0.95)[1] == pytest.approx(one.quantile(0.975))
    assert Uncertain(np.array([[0.0], [1.0]])).quantile(0.25) == pytest.approx(0.25)


def test_what_follows_keeps_correlations(rng):
    shift = rng.normal(size=(50, 1))
    u = Uncertain(shift + np.arange(4.0))
    assert u.std == pytest.approx(np.full(4, shift.std(ddof=1)))
    assert u.map(np.diff).std == pytest.approx(0, abs=1e-12)
    assert u.map(np.sum).std == pytest.approx(4 * shift.std(ddof=1)) and u.map(np.sum).shape == ()


def test_parts_and_several_meshes(rng):
    u = Uncertain(rng.normal(size=(5, 7, 2)), np.ones((5, 7, 2)))
    both = Uncertain.concatenate([u[:3], u[3:]])
    assert np.array_equal(both.samples, u.samples) and both.shape == (7, 2) and both.aleatoric.shape == (7, 2)
    assert u[:, 1].std == pytest.approx(u.std[:, 1])
    assert Uncertain(np.zeros((1, 4))).std.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uncertain(np.zeros((0, 3))), r"samples: expected \(n_samples ≥ 1, …\), got shape \(0, 3\)"),
        (lambda: Uncertain(np.zeros((2, 3)), np.zeros(3)), r"noise: expected the shape of the samples \(2, 3\)"),
        (lambda: Uncertain(np.zeros((2, 1)), -np.ones((2, 1))), "noise: expected variances ≥ 0, got -1"),
        (lambda: Uncertain(np.zeros((2, 1))).interval(1.0), "coverage: expected a number between 0 and 1, got 1.0"),
        (lambda: Uncertain(np.zeros((2, 1))).quantile(-1), "quantile: expected a number between 0 and 1, got -1"),
        (
            lambda: Uncertain.concatenate([Uncertain(np.zeros((2, 1))), Uncertain(np.zeros((3, 1)))]),
            "expected equally many samples",
        ),
        (lambda: Scores.of(Uncertain(np.zeros((2, 3))), np.zeros(4), np.ones(4)), r"truth: expected .* \(3,\)"),
        (lambda: Scores.of(Uncertain(np.zeros((2, 3))), np.zeros(3), np.zeros(3)), "mass: expected .* not all zero"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_crps_of_a_gaussian_is_the_integral(rng):
    for y, mean, std in ((0.3, 0.0, 1.0), (-2.0, 1.0, 0.4), (5.0, 5.0, 3.0)):
        below = integrate.quad(lambda x: stats.norm.cdf(x, mean, std) ** 2, -40, y)[0]  # noqa: B023
        above = integrate.quad(lambda x: stats.norm.sf(x, mean, std) ** 2, y, 40)[0]  # noqa: B023
        got = m.gaussian_crps(np.array([y]), np.array([mean]), np.array([std]), np.ones(1))
        assert got == pytest.approx(below + above, rel=1e-6)
    assert m.gaussian_crps(np.array([3.0]), np.zeros(1), np.zeros(1), np.ones(1)) == 3.0


def test_crps_of_samples_is_its_definition_and_tends_to_the_gaussian(rng):
    x, y = rng.normal(size=(6, 4)), rng.normal(size=4)
    pairs = np.abs(x[:, None] - x[None]).sum((0, 1)) / (6 * 5)
    assert m.sample_crps(y, x, np.ones(4)) == pytest.approx((np.abs(x - y).mean(0) - pairs / 2).mean())
    many = m.sample_crps(y, rng.normal(size=(20_000, 4)), np.ones(4))
    assert many == pytest.approx(m.gaussian_crps(y, np.zeros(4), np.ones(4), np.ones(4)), rel=0.02)
    assert m.sample_crps(y, x[:1], np.ones(4)) == pytest.approx(np.abs(x[0] - y).mean())


def test_nll_is_scipys(rng):
    y, mean, std, w = rng.normal(size=9), rng.normal(size=9), rng.uniform(0.1, 2, 9), rng.uniform(size=9)
    expected = -np.average(stats.norm.logpdf(y, mean, std), weights=w)
    assert m.gaussian_nll(y, mean, std, w) == pytest.approx(expected)
    assert m.gaussian_nll(np.ones(1), np.zeros(1), np.zeros(1), np.ones(1)) == math.inf
    prescribed = (np.append(y, 1.0), np.append(mean, 1.0), np.append(std, 0.0), np.append(w, 5.0))
    assert m.gaussian_nll(*prescribed) == pytest.approx(expected)  # certain and right


def test_correlations_are_scipys_and_weights_are_repetitions(rng):
    x, y = rng.integers(0, 8, 50).astype(float), rng.integers(0, 8, 50).astype(float)
    assert m.pearson(x, y, np.ones(50)) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert m.spearman(x, y, np.ones(50)) == pytest.approx(stats.spearmanr(x, y).statistic)
    w = rng.integers(1, 5, 50)
    twice = np.repeat(x, w), np.repeat(y, w)
    assert m.pearson(x, y, w) == pytest.approx(stats.pearsonr(*twice).statistic)
    assert m.spearman(x, y, w) == pytest.approx(stats.spearmanr(*twice).statistic)


def test_auroc_is_the_rank_test(rng):
    score, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    u = stats.mannwhitneyu(score[positive], score[~positive]).statistic
    assert m.auroc(score, positive) == pytest.approx(u / (positive.sum() * (~positive).sum()))
    w = rng.integers(1, 4, 60)
    assert m.auroc(score, positive, w) == pytest.approx(m.auroc(np.repeat(score, w), np.repeat(positive, w)))
    with pytest.raises(ValueError, match="some positives and some negatives, got 60 of 60"):
        m.auroc(score, np.ones(60, dtype=bool))


def test_sparsification(rng):
    error = rng.normal(size=4000)
    assert m.ause(error, np.abs(error) * 3, np.ones(4000)) == pytest.approx(0, abs=1e-12)
    by_chance = m.ause(error, rng.random(4000), np.ones(4000))
    wrong_way = m.ause(error, -np.abs(error), np.ones(4000))
    assert 0.3 < by_chance < wrong_way
    # the best curve of a normal error: RMS of the part below the (1 − share) quantile of |e|
    shares, best = m.sparsification(error, np.abs(error), np.ones(4000))
    q = stats.norm.ppf((1 + 0.5) / 2)
    half = math.sqrt((0.5 - 2 * q * stats.norm.pdf(q)) / 0.5)
    assert best[shares == 0.5] == pytest.approx(half, rel=0.06)


def test_a_calibrated_gaussian_has_the_scores_of_one(rng):
    std = np.exp(rng.normal(size=60_000))
    mean = rng.normal(size=60_000)
    truth = rng.normal(mean, std)
    quantity = Uncertain(np.stack([mean - std, mean + std]) / 1.0, None)  # variance 2σ² with two samples
    quantity = Uncertain(mean + np.stack([-std, std]) / math.sqrt(2))
    assert quantity.std == pytest.approx(std)
    s = Scores.of(quantity, truth, np.full(60_000, 2.0))
    assert s.ece < 0.005
    for c in (0.5, 0.8, 0.9, 0.95):
        assert s.coverage[c] == pytest.approx(c, abs=0.01)
        assert s.width[c] == pytest.approx(2 * stats.norm.ppf((1 + c) / 2) * std.mean())
    assert s.error == pytest.approx(s.sharpness, rel=0.05)
    assert s.crps == pytest.approx(std.mean() / math.sqrt(math.pi), rel=0.02)
    assert s.nll == pytest.approx(np.mean(np.log(std)) + 0.5 * math.log(2 * math.pi) + 0.5, rel=0.02)
    # single nodes cannot do better: |e| = σ|z|
    assert 0.5 < s.pearson < math.sqrt(2 / math.pi)
    assert Scores.of(Uncertain(mean + 3 * (quantity.samples - mean)), truth, np.ones(60_000)).ece > 0.1


def test_weights_are_repetitions_and_vectors_count_by_component(rng):
    samples, truth = rng.normal(size=(4, 30, 2)), rng.normal(size=(30, 2))
    w = rng.integers(1, 4, 30)
    weighted = Scores.of(Uncertain(samples), truth, w.astype(float))
    repeated = Scores.of(Uncertain(np.repeat(samples, w, 1)), np.repeat(truth, w, 0), np.ones(w.sum()))
    for name in ("error", "sharpness", "nll", "crps", "sample_crps", "ece", "pearson", "spearman"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name)), name
    assert weighted.coverage == pytest.approx(repeated.coverage) and weighted.width == pytest.approx(repeated.width)
    assert weighted.ause == pytest.approx(repeated.ause, abs=0.02)
    extra = Uncertain(np.concatenate([samples, 9 + samples[:, :1]], 1))  # a node without mass
    assert Scores.of(extra, np.vstack([truth, truth[:1]]), np.append(w, 0.0)) == weighted


def test_reliability_of_a_known_bias(rng):
    truth = rng.normal(1.0, 1.0, size=100_000)
    diagram = reliability(truth, np.zeros(100_000), np.ones(100_000), np.ones(100_000))
    assert diagram.observed == pytest.approx(stats.norm.cdf(stats.norm.ppf(diagram.expected) - 1), abs=0.01)


def test_picture_of_reliability(tmp_path, rng):
    y = rng.normal(size=500)
    lines = {"u": reliability(y, 0 * y, 1 + 0 * y, 1 + 0 * y), "flat": Reliability(np.array([0, 1.0]), np.ones(2) / 2)}
    path = draw_reliability(lines, tmp_path / "deep" / "reliability.png")
    assert np.ptp(np.asarray(Image.open(path).convert("L"))) > 200
    with pytest.raises(ValueError, match="diagrams: expected at least one"):
        draw_reliability({}, tmp_path / "none.png")
