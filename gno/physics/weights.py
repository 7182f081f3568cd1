"""Weights of the terms of a loss: fixed, or adapted while the training goes.

A weighting is a small object with two functions and a number: ``start`` makes its state, ``update`` the state of the
next step, ``every`` says at which steps it wants to see the gradients of the single terms (0: never). The state is a
dictionary of tensors, ``"weights"`` among them, which the training keeps in its checkpoints. Weights multiply those
that the user gave the terms; their mean is one. Nothing here waits for the device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

State = dict[str, Tensor]

# Below this share of the largest, a gradient counts as this share: a term that is met must not weigh without bound.
LEAST = 1e-3


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Of each term, over all weights of the network: norm of the gradient, and standard deviation of its entries.

    Of a term that only some of the meshes have they are those it would have if all meshes had it, so that what a mesh
    says counts the same: ten labels must not pull like the physics of a thousand meshes.
    """

    norm: Float[Tensor, " n_terms"]
    deviation: Float[Tensor, " n_terms"]


class Weighting(Protocol):
    """How the weights of the terms follow the training."""

    @property
    def every(self) -> int:
        """Steps between looks at the gradients; 0 for never."""

    def start(self, n_terms: int, device: torch.device) -> State:
        """The state before the first step."""

    def update(self, state: State, losses: Float[Tensor, " n_terms"], gradients: Gradients | None) -> State:
        """The state after a step with these losses; ``gradients`` at every ``every``-th step only."""


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The weights that the user gave.

    >>> Fixed().start(2, torch.device("cpu"))["weights"]
    tensor([1., 1.])
    """

    every: int = 0

    def start(self, n_terms: int, device: torch.device) -> State:
        return {"weights": torch.ones(n_terms, device=device)}

    def update(self, state: State, losses: Tensor, gradients: Gradients | None) -> State:
        return state


@dataclasses.dataclass(frozen=True)
class GradientNorm:
    """``λ_i ∝ 1 / ⟨‖∇L_i‖⟩``, ⟨⟩ a running mean: every term pulls with the same force.

    S. Wang, S. Sankaran, H. Wang, P. Perdikaris, An expert's guide to training physics-informed neural networks,
    arXiv:2308.08468 (2023), section 5.1. There a step sees all the data, and the mean is of the weights. Here a step
    sees a few meshes, of which perhaps none has labels, so the mean is of the gradients: the mean of what is inverse to
    a small number, or to none, is noise. It counts the looks there have been, so that the first one counts in full.

    Args:
        every: steps between looks at the gradients. decay: of the running mean, per look.
    """

    every: int = 25
    decay: float = 0.8

    def start(self, n_terms: int, device: torch.device) -> State:
        return {**Fixed().start(n_terms, device), **_nothing_yet("size", n_terms, device)}

    def update(self, state: State, losses: Tensor, gradients: Gradients | None) -> State:
        return state if gradients is None else _against(state, gradients.norm, self.decay)


@dataclasses.dataclass(frozen=True)
class InverseDirichlet:
    """``λ_i ∝ 1 / ⟨std ∇L_i⟩``, ⟨⟩ a running mean: the entries of all gradients are spread alike.

    S. Maddu, D. Sturm, C. L. Müller, I. F. Sbalzarini, Inverse Dirichlet weighting enables reliable training of physics
    informed neural networks, Mach. Learn.: Sci. Technol. 3 (2022) 015026. The mean is that of :class:`GradientNorm`.

    Args:
        every: steps between looks at the gradients. decay: of the running mean, per look.
    """

    every: int = 25
    decay: float = 0.8

    def start(self, n_terms: int, device: torch.device) -> State:
        return GradientNorm().start(n_terms, device)

    def update(self, state: State, losses: Tensor, gradients: Gradients | None) -> State:
        return state if gradients is None else _against(state, gradients.deviation, self.decay)


@dataclasses.dataclass(frozen=True)
class ReLoBRaLo:
    """Relative loss balancing with random lookback: who has improved least weighs most; needs no gradients.

        λ̂_i(t, t′) = n softmax_i( L_i(t) / (T L_i(t′)) )
        λ(t) = α (ρ λ(t−1) + (1−ρ) λ̂(t, 0)) + (1−α) λ̂(t, t−1),      ρ = 1 with probability ``keep``, else 0

    R. Bischof, M. A. Kraus, Multi-objective loss balancing for physics-informed deep learning, arXiv:2110.09813 (2021).
    There a step sees all the data. Here it sees a few meshes, of which perhaps none has labels, so L is a running mean
    with α too: the ratio of two single losses, either of them zero now and then, is noise.

    Args:
        temperature: T; small: winner takes all, large: equal weights.
        decay: α, of the running means, per step.
        keep: how often the weights of the last step are remembered rather than those since the beginning.
    """

    temperature: float = 1.0
    decay: float = 0.99
    keep: float = 0.99
    every: int = 0

    def start(self, n_terms: int, device: torch.device) -> State:
        known = {name: torch.zeros(n_terms, device=device) for name in ("first", "last")}
        return {**Fixed().start(n_terms, device), **known, **_nothing_yet("sum", n_terms, device)}

    def update(self, state: State, losses: Tensor, gradients: Gradients | None) -> State:
        running, mean = _running(state, "sum", losses, self.decay)
        young = running["count"] * (1 - self.decay) <= 1  # the mean has not yet seen what it is a mean of
        first = torch.where(young | (state["first"] == 0), mean, state["first"])
        last = torch.where(state["last"] > 0, state["last"], mean)
        keep = (torch.rand((), device=losses.device) < self.keep).to(mean)
        before = keep * state["weights"] + (1 - keep) * self._balance(mean, first)
        weights = self.decay * before + (1 - self.decay) * self._balance(mean, last)
        return {"weights": weights, "first": first, "last": mean, **running}

    def _balance(self, losses: Tensor, earlier: Tensor) -> Tensor:
        ratio = losses / earlier.abs().clamp(min=torch.finfo(losses.dtype).tiny)
        return len(losses) * (ratio / self.temperature).clamp(-50, 50).softmax(0)


def gradients_of(losses: Float[Tensor, " n_terms"], parameters: Sequence[Tensor]) -> Gradients:
    """Norm and deviation of the gradient of each loss; the graph is kept for the backward pass to come.

    >>> w = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> gradients_of(torch.stack([w.square().sum() / 2, w.sum()]), [w]).norm
    tensor([5.0000, 1.4142])
    """
    norms, deviations = [], []
    n = sum(parameter.numel() for parameter in parameters)
    for loss in losses.unbind():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        present = [g.float() for g in found if g is not None]
        if not present:  # a term that no weight has a say in
            norms.append(loss.detach() * 0)
            deviations.append(loss.detach() * 0)
            continue
        square = torch.stack(torch._foreach_norm(present)).square().sum()
        total = torch.stack([g.sum() for g in present]).sum()
        norms.append(square.sqrt())
        deviations.append((square / n - (total / n) ** 2).clamp(min=0).sqrt())
    return Gradients(torch.stack(norms).float(), torch.stack(deviations).float())


def _inverse(size: Tensor) -> Tensor:
    """Weights in inverse proportion to the sizes, with mean one; terms without a gradient keep one."""
    largest = size.max()
    inverse = largest / size.clamp(min=LEAST * largest).clamp(min=torch.finfo(size.dtype).tiny)
    inverse = torch.where(size > 0, inverse, torch.ones_like(inverse))
    return inverse * len(size) / inverse.sum()


def _against(state: State, size: Tensor, decay: float) -> State:
    """The state with weights in inverse proportion to the running means of the sizes."""
    running, mean = _running(state, "size", size, decay)
    return {"weights": _inverse(mean), **running}


def _nothing_yet(name: str, n_terms: int, device: torch.device) -> State:
    """The state of a running mean before its first value."""
    return {name: torch.zeros(n_terms, device=device), "count": torch.zeros((), device=device)}


def _running(state: State, name: str, values: Tensor, decay: float) -> tuple[State, Tensor]:
    """The state of a running mean with one value more, and the mean: as if the values seen were all there are.

    D. P. Kingma, J. L. Ba, Adam: a method for stochastic optimization, ICLR 2015, section 3.
    """
    count = state["count"] + 1
    total = decay * state[name] + (1 - decay) * values.to(state[name])
    return {name: total, "count": count}, total / (1 - decay**count)
