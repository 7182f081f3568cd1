"""Optimisers: functions of a module and the settings, so that another one is a function away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gno.train.sections import Training

Optimiser = Callable[[nn.Module, Training], torch.optim.Optimizer]

# Muon turns a whole matrix, and moves all at one rate; one that is thinner than this (the weights of the pooling among
# them) has nothing to gain from it, and should move only as far as its gradient says.
THIN = 32


def adamw(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only: biases and gains have no reason to be small."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        _groups(parameters, settings),
        lr=settings.lr,
        betas=(0.9, 0.98),
        # the fused kernel undoes the scaling of float16 gradients itself, which would come after clipping
        fused=settings.precision != "16",
    )


def muon(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """Muon for the matrices of hidden layers, AdamW for the rest."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    hidden = [p for p in parameters if p.ndim == 2 and min(p.shape) >= THIN]
    known = {id(p) for p in hidden}
    rest = [p for p in parameters if id(p) not in known]
    if not hidden:
        return adamw(model, settings)
    return Together(
        Muon(hidden, lr=2 * settings.lr, weight_decay=settings.weight_decay),
        torch.optim.AdamW(_groups(rest, settings), lr=settings.lr, betas=(0.9, 0.98), fused=settings.precision != "16"),
    )


class Muon(torch.optim.Optimizer):
    """Steps whose matrix is orthogonal: momentum M, replaced by (M Mᵀ)^(−1/2) M.

        W ← (1 − lr·decay) W − lr · 0.2 √max(rows, columns) · orthogonal(M)

    The factor gives a step the root mean square of one of AdamW. Matrices of one shape are turned together, in
    float32: on a CPU that takes a fraction of the time of one after the other in bfloat16.

    Source: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; the factor after
    J. Liu et al., Muon is scalable for LLM training, 2025.
    """

    def __init__(
        self, parameters: list[nn.Parameter], *, lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for shape, parameters in shapes.items():
                turned = orthogonal(torch.stack([self._direction(p, group["momentum"]) for p in parameters]))
                size = 0.2 * max(shape) ** 0.5
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(turned.unbind()), alpha=-group["lr"] * size)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov's look ahead along the momentum."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum_buffer"], momentum)


def orthogonal(matrices: Float[Tensor, "n rows columns"], steps: int = 5) -> Float[Tensor, "n rows columns"]:
    """About (M Mᵀ)^(−1/2) M of every matrix: singular values go to between 0.7 and 1.2, by iteration of a quintic.

    >>> orthogonal(torch.diag(torch.tensor([3.0, 1.0]))[None]).diagonal(dim1=1, dim2=2).round(decimals=1).min() > 0.6
    tensor(True)
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Together(torch.optim.Optimizer):
    """Several optimisers of different parameters as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def step(self, closure: Any = None) -> Any:
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        # groups and slots exist once: what a schedule or a checkpoint writes here, the parts read
        groups = iter(self.param_groups)
        self.state = defaultdict(dict, self.state)
        for part in self.parts:
            part.state = self.state
            part.param_groups = [next(groups) for _ in part.param_groups]


def _groups(parameters: list[nn.Parameter], settings: Training) -> list[dict[str, Any]]:
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


OPTIMISERS: dict[str, Optimiser] = {"adamw": adamw, "muon": muon}
