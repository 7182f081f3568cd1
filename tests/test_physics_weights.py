"""Adaptive weights: each keeps its promise on two losses of very different size."""

import pytest
import torch

from gno.physics.weights import Fixed, GradientNorm, InverseDirichlet, ReLoBRaLo, gradients_of

CPU = torch.device("cpu")


def two_losses(w):
    return torch.stack([100 * w.square().sum(), (w - 1).square().sum()])


def after(weighting, steps, decay=0.9):
    """Weights after steps of gradient descent on the sum of two losses."""
    w = torch.tensor([3.0, -2.0, 0.5], requires_grad=True)
    state = weighting.start(2, CPU)
    for step in range(steps):
        losses = two_losses(w)
        seen = gradients_of(losses, [w]) if weighting.every and step % weighting.every == 0 else None
        state = weighting.update(state, losses.detach(), seen)
    return w, state


def test_gradients_are_those_of_autograd_and_the_graph_is_kept():
    a, b = torch.randn(4, requires_grad=True), torch.randn(3, requires_grad=True)
    losses = torch.stack([a.square().sum() + b.sum(), b.prod()])
    seen = gradients_of(losses, [a, b])
    for k, loss in enumerate(losses):
        flat = torch.cat(
            [
                torch.zeros_like(p) if g is None else g
                for p, g in zip(
                    [a, b], torch.autograd.grad(loss, [a, b], retain_graph=True, allow_unused=True), strict=True
                )
            ]
        )
        assert seen.norm[k].item() == pytest.approx(flat.norm().item(), rel=1e-5)
        assert seen.deviation[k].item() == pytest.approx(flat.std(correction=0).item(), rel=1e-4)
    losses.sum().backward()


def test_fixed_weights_stay():
    assert after(Fixed(), 5)[1]["weights"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("weighting", "size"), [(GradientNorm(every=1), "norm"), (InverseDirichlet(every=1), "deviation")]
)
def test_weighted_gradients_become_alike(weighting, size):
    w, state = after(weighting, 200)
    weighted = state["weights"] * getattr(gradients_of(two_losses(w), [w]), size)
    assert weighted[0].item() == pytest.approx(weighted[1].item(), rel=1e-3)
    assert state["weights"].mean().item() == pytest.approx(1, rel=1e-5)


def test_gradients_are_looked_at_now_and_then_only():
    state = GradientNorm().start(2, CPU)
    assert GradientNorm().update(state, torch.ones(2), None) is state


def test_a_term_without_a_gradient_does_not_take_all():
    seen = gradients_of(
        torch.stack([torch.tensor(2.0, requires_grad=True), torch.zeros((), requires_grad=True)]),
        [torch.ones(1, requires_grad=True)],
    )
    state = GradientNorm().update(GradientNorm().start(2, CPU), torch.ones(2), seen)
    assert state["weights"].tolist() == [1, 1]


def test_who_improves_least_weighs_most_and_the_mean_stays_one():
    weighting, state = ReLoBRaLo(decay=0.5), ReLoBRaLo().start(2, CPU)
    torch.manual_seed(0)
    for step in range(20):
        state = weighting.update(state, torch.tensor([100 * 0.5**step, 1.0]), None)
    assert state["weights"][1] > 1.2 > 0.8 > state["weights"][0]
    assert state["weights"].mean().item() == pytest.approx(1, rel=1e-5)
