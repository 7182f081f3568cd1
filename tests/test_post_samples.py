"""What follows from samples: against the closed form of a linear functional, and of a quadratic one."""

import numpy as np
import pytest
from post_cases import grid

from gno.post.reactions import reaction
from gno.post.report import Report, report_solid
from gno.post.samples import flat, with_spread
from gno.post.stress import Elastic

MATERIAL = Elastic(100.0, 0.3, "stress")


def reports(samples, mesh):
    return [
        report_solid(Report(mesh.with_point_fields(predicted_u=u)), "predicted_u", MATERIAL, reactions=["left"])
        for u in samples
    ]


@pytest.fixture(scope="module")
def bar():
    return grid(4, 2, lambda s: s * [2, 1], "quad")


@pytest.fixture(scope="module")
def samples(bar):
    """Displacements with a long correlation: neighbours are wrong together."""
    rng = np.random.default_rng(0)
    apart = np.abs(bar.points[:, None] - bar.points[None]).sum(2)
    root = np.linalg.cholesky(np.exp(-apart / 4) + 1e-9 * np.eye(len(apart)))
    return 0.1 * bar.points + 0.01 * np.einsum("ij,kjc->kic", root, rng.normal(size=(12, len(apart), 2)))


def test_the_variance_of_a_reaction_is_that_of_its_functional(bar, samples):
    """The reaction is linear, cᵀu: Var = cᵀ Cov c, and not Σ c² Var, which neighbours that move together would make."""
    n = bar.n_nodes
    units = np.eye(2 * n).reshape(2 * n, n, 2)
    c = np.array([reaction(bar.with_point_fields(u=u), "u", MATERIAL, "left").force[0] for u in units])
    covariance = np.cov(samples.reshape(len(samples), -1).T)
    found = with_spread(reports([samples.mean(0)], bar)[0], reports(samples, bar))
    spread = found.facts["samples"]["reaction left force x"]
    assert spread["std"] == pytest.approx(np.sqrt(c @ covariance @ c), rel=1e-9)
    assert spread["mean"] == pytest.approx(c @ samples.mean(0).ravel(), rel=1e-9)
    independent = np.sqrt(c**2 @ np.diag(covariance))
    assert independent > 1.5 * spread["std"]
    assert "reaction left force x" in str(found) and "±" in str(found)


def test_the_mean_of_an_energy_is_more_than_the_energy_of_the_mean(bar, samples):
    """E = ½ uᵀKu: ⟨E⟩ = E(ū) + ½ tr(K Cov), in samples with the factor (n − 1)/n."""
    mean = samples.mean(0)
    found = with_spread(reports([mean], bar)[0], reports(samples, bar))
    deviations = [report.facts["predicted_strain_energy"] for report in reports(samples - mean, bar)]
    expected = found.facts["predicted_strain_energy"] + np.mean(deviations)
    assert found.facts["samples"]["predicted_strain_energy"]["mean"] == pytest.approx(expected)
    line = next(x for x in str(found).splitlines() if "predicted_strain_energy" in x and "±" in x)
    assert line.split()[1] == f"{found.facts['predicted_strain_energy']:.6g}"  # that of the mean is the estimate


def test_derived_fields_get_their_standard_deviation(bar, samples):
    each = reports(samples, bar)
    found = with_spread(reports([samples.mean(0)], bar)[0], each).mesh
    for store in ("point_fields", "cell_fields"):
        stress = np.stack([getattr(report.mesh, store)["predicted_stress"] for report in each])
        assert getattr(found, store)["std_stress"] == pytest.approx(stress.std(0, ddof=1))
    with pytest.raises(ValueError, match="samples: expected at least two, got 1"):
        with_spread(each[0], each[:1])


def test_places_and_counts_are_no_quantities():
    facts = {"largest s": {"value": 2.0, "node": 3, "position": [0.0, 1.0]}, "drag": 1.5}
    assert flat(facts) == {"largest s value": 2.0, "drag": 1.5}
