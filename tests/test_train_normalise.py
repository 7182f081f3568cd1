"""Normalisation: by mass, per field, invertible; constants and vectors keep their meaning."""

import pytest
import torch
from torch_geometric.data import Data

from gno.graph import FieldSpec
from gno.train.normalise import Normalisation, Scale, columns_of, fit_scale


def sample(values, mass):
    return Data(x=torch.tensor(values), mass_0=torch.tensor(mass))


def test_mean_and_spread_are_weighted_by_mass_and_every_mesh_counts_the_same():
    fields = (FieldSpec("a", "point", 1),)
    heavy = sample([[0.0], [4.0]], [3.0, 1.0])
    scale = fit_scale([heavy, sample([[2.0]] * 5, [7.0] * 5)], "x", fields)
    assert scale.mean.item() == pytest.approx((1.0 + 2.0) / 2)
    variance = ((0.75 * 1.5**2 + 0.25 * 2.5**2) + 0.5**2) / 2
    assert scale.std.item() == pytest.approx(variance**0.5)


def test_components_of_a_vector_share_one_spread():
    fields = (FieldSpec("T", "point", 1), FieldSpec("u", "point", 2))
    values = sample([[5.0, 0.0, 0.0], [7.0, 6.0, 8.0]], [1.0, 1.0])
    scale = fit_scale([values], "x", fields)
    assert scale.std[1] == scale.std[2] != scale.std[0]
    direction = scale.encode(values.x)[1, 1:]
    torch.testing.assert_close(direction / direction.norm(), torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize(("constant", "std"), [(300.0, 300.0), (0.0, 1.0)])
def test_constant_fields_become_zero_and_stay_finite(constant, std):
    values = sample([[constant]] * 4, [0.1, 0.2, 0.3, 0.4])
    scale = fit_scale([values], "x", (FieldSpec("a", "point", 1),))
    assert scale.std.item() == pytest.approx(std)
    assert scale.encode(values.x).abs().max() < 1e-6


def test_decoding_inverts_encoding_to_float32_even_on_a_large_mean():
    x = 1e6 + torch.arange(8.0)[:, None]
    scale = fit_scale([Data(x=x, mass_0=torch.ones(8))], "x", (FieldSpec("a", "point", 1),))
    torch.testing.assert_close(scale.decode(scale.encode(x)), x.double(), rtol=0, atol=1e-5)


def test_it_survives_storage():
    def some():
        return Scale(*(torch.rand(3, dtype=torch.float64) for _ in range(3)))

    stored = Normalisation(some(), some())
    again = Normalisation.from_tensors(stored.tensors())
    assert torch.equal(again.targets.std, stored.targets.std) and torch.equal(again.inputs.mean, stored.inputs.mean)


def test_columns_follow_the_order_of_the_fields():
    fields = (FieldSpec("u", "point", 3), FieldSpec("p", "cell", 1))
    assert [(columns.start, columns.stop) for columns, _ in columns_of(fields)] == [(0, 3), (3, 4)]
