"""Variance through the scales: the law of total variance, exactly, and against sums over the edges."""

import json

import numpy as np
import pytest
import torch
from train_cases import square, untrained

from gno.uq import draw_scales, evaluate, scale_variances
from gno.uq.scales import restricted


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Untrained operators: the law holds for any."""
    return untrained(tmp_path_factory.mktemp("run"))


def test_variance_lost_is_the_variance_within_the_anchors(ensemble):
    answered = ensemble.answer(square(9))
    found = scale_variances(ensemble, answered)["u"]
    pooling = answered.outputs[0].transfers
    levels = list(restricted(answered.outputs[0], answered.sample.y[None, :, :2].double().numpy()))
    for s, transfer in enumerate(pooling):
        (mass, (fine,)), (_, (coarse,)) = levels[s], levels[s + 1]
        child, parent = transfer.edges.receiver.numpy(), transfer.edges.sender.numpy()
        weight = mass[child] * transfer.weights.numpy()
        within = weight @ ((fine[child] - coarse[parent]) ** 2).sum(1)
        assert within > 1e-4 and found[s].minus(found[s + 1]).reference == pytest.approx(within, rel=1e-4)


def test_what_is_followed_is_what_it_says(ensemble):
    mesh = square(9)
    found = scale_variances(ensemble, ensemble.answer(mesh))["heat"]
    mass = np.full(81, 1.0)
    mass[[k for k, p in enumerate(mesh.points) if p[0] in (0, 1)]] *= 0.5
    mass[[k for k, p in enumerate(mesh.points) if p[1] in (0, 1)]] *= 0.5
    mass /= mass.sum()
    quantity = ensemble.predict(mesh).field("heat")
    flat = quantity.samples.reshape(3, -1)
    variance = [mass @ (u - mass @ u) ** 2 for u in (*flat, flat.mean(0))]
    assert found[0].samples == pytest.approx(np.mean(variance[:3])) and found[0].mean == pytest.approx(variance[3])
    assert found[0].doubt == pytest.approx(mass @ flat.var(0, ddof=1))
    # what all nodes have in common stays at every scale, and only that is left where there is one anchor
    assert [x.doubt for x in found] == sorted((x.doubt for x in found), reverse=True)
    assert found[-1].doubt >= np.var(flat @ mass, ddof=1) * (1 - 1e-6)
    # the mean of samples varies less than they do, by their doubt: Var(u_k) = Var(ū) + … on average
    assert found[0].mean < found[0].samples


def test_table_json_and_picture(ensemble, tmp_path):
    found = evaluate(ensemble, [square(9), square(10)])
    assert list(found.scales) == ["u", "heat"] and len(found.scales["u"]) == 3
    assert "u, mesh" in str(found) and "lost" in str(found) and "Spearman" in str(found)
    assert json.loads(found.to_json())["scales"]["u"][0]["doubt"] == found.scales["u"][0].doubt
    assert draw_scales(found.scales, tmp_path / "scales.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="scales: expected at least one field, got none"):
        draw_scales({}, tmp_path / "none.png")
    bare = square(1).replace(point_fields={"wave": square(1).point_fields["wave"]}, cell_fields={})
    with pytest.raises(ValueError, match="mesh: expected one with the targets"):
        scale_variances(ensemble, ensemble.answer(bare))


def test_members_pool_differently_but_are_followed_by_one_pooling(ensemble):
    answered = ensemble.answer(square(9))
    weights = [output.transfers[0].weights for output in answered.outputs]
    assert not torch.allclose(weights[0], weights[1])
    alone = scale_variances(ensemble, answered)["u"][1]
    first = answered.outputs[0].transfers[0]
    truth = answered.sample.y[:, :2].double()
    coarse = first.restrict(truth.float()).numpy()
    mass = first.coarse_mass.numpy() / first.coarse_mass.numpy().sum()
    assert alone.reference == pytest.approx(mass @ ((coarse - mass @ coarse) ** 2).sum(1), rel=1e-4)
