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
    """Of each term, over all weights of the network: norm of the gradient, and standard deviation of its entries."""

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
    """``λ_i ∝ 1 / ‖∇L_i‖``, as a running mean: every term pulls with the same force.

    S. Wang, S. Sankaran, H. Wang, P. Perdikaris, An expert's guide to training physics-informed neural networks,
    arXiv:2308.08468 (2023), section 5.1.

    Args:
        every: steps between looks at the gradients. decay: of the running mean, per look.
    """

    every: int = 10
    decay: float = 0.9

    def start(self, n_terms: int, device: torch.device) -> State:
        return Fixed().start(n_terms, device)

    def update(self, state: State, losses: Tensor, gradients: Gradients | None) -> State:
        return state if gradients is None else _towards(state, _inverse(gradients.norm), self.decay)


@dataclasses.dataclass(frozen=True)
class InverseDirichlet:
    """``λ_i ∝ 1 / std(∇L_i)``, as a running mean: the entries of all gradients are spread alike.

    S. Maddu, D. Sturm, C. L. Müller, I. F. Sbalzarini, Inverse Dirichlet weighting enables reliable training of physics
    informed neural networks, Mach. Learn.: Sci. Technol. 3 (2022) 015026.

    Args:
        every: steps between looks at the gradients. decay: of the running mean, per look.
    """

    every: int = 10
    decay: float = 0.5

    def start(self, n_terms: int, device: torch.device) -> State:
        return Fixed().start(n_terms, device)

    def update(self, state: State, losses: Tensor, gradients: Gradients | None) -> State:
        return state if gradients is None else _towards(state, _inverse(gradients.deviation), self.decay)


@dataclasses.dataclass(frozen=True)
class ReLoBRaLo:
    """Relative loss balancing with random lookback: who has improved least weighs most; needs no gradients.

        λ̂_i(t, t′) = n softmax_i( L_i(t) / (T L_i(t′)) )
        λ(t) = α (ρ λ(t−1) + (1−ρ) λ̂(t, 0)) + (1−α) λ̂(t, t−1),      ρ = 1 with probability ``keep``, else 0

    R. Bischof, M. A. Kraus, Multi-objective loss balancing for physics-informed deep learning, arXiv:2110.09813 (2021).

    Args:
        temperature: T; small: winner takes all, large: equal weights.
        decay: α, of the running mean per step.
        keep: how often the weights of the last step are remembered rather than those since the beginning.
    """

    temperature: float = 1.0
    decay: float = 0.99
    keep: float = 0.99
    every: int = 0

    def start(self, n_terms: int, device: torch.device) -> State:
        nothing = torch.full((n_terms,), torch.nan, device=device)
        return {**Fixed().start(n_terms, device), "first": nothing, "last": nothing.clone()}

    def update(self, state: State, losses: Tensor, gradients: Gradients | None) -> State:
        losses = losses.to(state["weights"])
        first, last = (torch.where(state[key].isnan(), losses, state[key]) for key in ("first", "last"))
        keep = (torch.rand((), device=losses.device) < self.keep).to(losses)
        before = keep * state["weights"] + (1 - keep) * self._balance(losses, first)
        weights = self.decay * before + (1 - self.decay) * self._balance(losses, last)
        return {"weights": weights, "first": first, "last": losses}

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


def _towards(state: State, weights: Tensor, decay: float) -> State:
    return {"weights": decay * state["weights"] + (1 - decay) * weights.to(state["weights"])}
