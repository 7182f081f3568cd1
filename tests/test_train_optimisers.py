"""Optimisers: Muon turns matrices, AdamW takes the rest, and both obey one schedule and one checkpoint."""

import pytest
import torch
from torch import nn

from gno.train import Training
from gno.train.checkpoint import optimiser_state, restore_optimiser
from gno.train.optimisers import Muon, Together, adamw, muon, orthogonal

SETTINGS = Training(epochs=1, lr=1e-2)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2))


def descend(model, optimiser, n_steps):
    x = torch.linspace(-1, 1, 100).reshape(5, 20)
    for _ in range(n_steps):
        loss = (model(x) - x[:, :2].sin()).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return loss.item()


def matrix(rows, columns):
    """Singular values between 1 and 3."""
    u, _, v = torch.linalg.svd(
        torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)), full_matrices=False
    )
    return u @ torch.diag(torch.linspace(1, 3, min(rows, columns))) @ v


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_singular_values_go_to_one_and_directions_stay(shape):
    one = matrix(*shape)
    turned = orthogonal(torch.stack([one, 100 * one]))
    values = torch.linalg.svdvals(turned)
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, v = torch.linalg.svd(one, full_matrices=False)
    assert (turned[0] * (u @ v)).sum() / turned[0].norm() / (u @ v).norm() > 0.97
    torch.testing.assert_close(turned[0], turned[1], rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon of its own")
def test_steps_are_those_of_torch():
    one, two = (nn.Parameter(torch.ones(24, 32)) for _ in range(2))
    mine = Muon([one], lr=0.02, weight_decay=0.1)
    theirs = torch.optim.Muon([two], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for k in range(3):
        one.grad = two.grad = matrix(24, 32) * (1 + k)
        mine.step()
        theirs.step()
    assert (one - two).norm() < 0.03 * (two - 1).norm()  # theirs is computed in bfloat16


@pytest.mark.parametrize("make", [adamw, muon])
def test_they_descend_and_go_on_from_a_checkpoint_to_the_bit(make):
    whole, first, second = network(), network(), network()
    optimisers = [make(model, SETTINGS) for model in (whole, first, second)]
    start = descend(network(), make(network(), SETTINGS), 1)
    assert descend(whole, optimisers[0], 40) < 0.05 * start
    descend(first, optimisers[1], 15)
    second.load_state_dict(first.state_dict())
    restore_optimiser(optimisers[2], {key: value.clone() for key, value in optimiser_state(optimisers[1]).items()})
    descend(second, optimisers[2], 25)
    for one, two in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)


def test_hidden_matrices_go_to_muon_and_the_rate_reaches_all():
    model = network()
    optimiser = muon(model, SETTINGS)
    assert isinstance(optimiser, Together) and isinstance(optimiser.parts[0], Muon)
    hidden = {id(p) for group in optimiser.parts[0].param_groups for p in group["params"]}
    assert hidden == {id(model[2].weight)}  # the first one, 32 × 20, is thin
    before = [p.detach().clone() for p in model.parameters()]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    descend(model, optimiser, 1)
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))


def test_biases_do_not_decay():
    for make in (adamw, muon):
        for group in make(network(), SETTINGS).param_groups:
            decays = group["weight_decay"] > 0
            assert all((p.ndim >= 2) == decays for p in group["params"])
