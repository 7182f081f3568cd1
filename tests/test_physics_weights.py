"""Adaptive weights: each keeps its promise on two losses of very different size."""

import dataclasses

import pytest
import torch
from test_physics_losses import grid

from gno.physics.weights import Fixed, GradientNorm, Gradients, InverseDirichlet, ReLoBRaLo, gradients_of
from gno.train import Case, Data, Model, Training, train
from gno.train.case import Physics

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


def looks(weighting, sizes):
    """Weights after looks at gradients of these sizes."""
    state = weighting.start(2, CPU)
    for pair in sizes:
        size = torch.tensor(pair)
        state = weighting.update(state, torch.ones(2), Gradients(size, size))
    return state["weights"]


@pytest.mark.parametrize("weighting", [GradientNorm(), InverseDirichlet()])
def test_the_first_look_counts_in_full_and_a_batch_without_labels_says_little(weighting):
    assert looks(weighting, [(1.0, 3.0)]).tolist() == pytest.approx([1.5, 0.5])
    # three batches of four have no labels: the mean gradient of the first term is 1, as that of the second
    silent = looks(weighting, [(0.0, 1.0), (0.0, 1.0), (4.0, 1.0), (0.0, 1.0)] * 20)
    assert silent.tolist() == pytest.approx([1.0, 1.0], abs=0.25)


def test_labels_of_few_meshes_do_not_pull_like_the_physics_of_all(tmp_path):
    mesh = grid(4)
    labelled = mesh.with_point_fields(u=mesh.points[:, 0] / 20)  # about what the load gives
    meshes = {"train": [labelled, *[mesh.replace(source=f"bare {k}") for k in range(3)]]}
    weights = {}
    for share in (0.25, 1.0):

        def compose(terms, blueprint, share=share):
            assert [term.share for term in terms] == [0.25, 1.0]
            return [dataclasses.replace(terms[0], share=share), terms[1]]

        seen = Recorder()
        train(wanted(), tmp_path / str(share), meshes=meshes, progress=False, weighting=seen, terms=compose)
        weights[share] = seen.norms[0]
    assert weights[0.25][0] == pytest.approx(4 * weights[1.0][0], rel=1e-4)
    assert weights[0.25][1] == pytest.approx(weights[1.0][1], rel=1e-4)


class Recorder(GradientNorm):
    """Keeps what it is shown."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "norms", [])

    def update(self, state, losses, gradients):
        if gradients is not None:
            self.norms.append(gradients.norm.tolist())
        return super().update(state, losses, gradients)


def wanted():
    return Case(
        data=Data(inputs=["k"], targets=["u"]),
        model=Model(width=16, n_blocks=1, n_heads=1),
        training=Training(epochs=1, batch_size=4, device="cpu"),
        physics=Physics(
            equation="diffusion", parameters={"conductivity": "k", "source": 1.0}, dirichlet={"boundary": 0.0}
        ),
    )


def test_a_loss_that_is_zero_now_and_then_is_no_improvement():
    weighting, state = ReLoBRaLo(), ReLoBRaLo().start(2, CPU)
    torch.manual_seed(0)
    for step in range(400):
        state = weighting.update(state, torch.tensor([0.0 if step % 4 else 1.0, 0.5]), None)
    assert state["weights"].tolist() == pytest.approx([1.0, 1.0], abs=0.1)
