"""Optimisers: functions of a module and the settings, so that another one is a function away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gno.train.case import Training

Optimiser = Callable[[nn.Module, Training], torch.optim.Optimizer]

# Muon turns a whole matrix; one that is thinner than this has nothing to gain from it.
THIN = 16


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
    """Muon for the matrices of hidden layers, AdamW for the rest.

    Muon replaces the momentum M of a matrix by the nearest orthogonal one, (M Mᵀ)^(−1/2) M, scaled so that its root
    mean square is that of a step of AdamW. Source: K. Jordan et al., Muon: an optimizer for hidden layers, 2024.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    hidden = [p for p in parameters if p.ndim == 2 and min(p.shape) >= THIN]
    known = {id(p) for p in hidden}
    rest = [p for p in parameters if id(p) not in known]
    parts = [
        torch.optim.Muon(
            hidden, lr=2 * settings.lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(_groups(rest, settings), lr=settings.lr, betas=(0.9, 0.98), fused=settings.precision != "16"),
    ]
    return Together(*parts)


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
