"""Weights that are drawn: one draw of the whole operator at a time, by dropout or from a Gaussian.

A draw belongs to the operator, not to a node. All nodes of a mesh, all scales and all meshes of a step see the same
weights, so a sample is a field as smooth as any prediction, correlated over nodes and scales, and it neither knows the
number of nodes nor their order: on a finer mesh the same draw gives the same field. Noise of its own at every node
(per-node dropout masks, local reparameterisation per row) would be white noise over the mesh that averages out under
refinement.

While training, every pass draws anew from torch's generator; in evaluation the weights are their mean. :func:`draw`
makes a plain operator of one draw.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gno.nn.config import OperatorConfig

# Linear maps whose weights are drawn, by name: those of the heads; of all networks at a node; all there are.
_HEADS = r"heads\.\d+\.1"
_NODES = rf"encode|mesh_in\.mlp|mesh_out\.mlp|near_(?:in|out)\.\d+\.mlp|blocks\.\d+\.mlp|{_HEADS}"
GAUSSIAN = {"heads": rf"({_HEADS})\.[02]", "nodes": rf"({_NODES})\.[02]", "all": ".*"}
# Channels are left out behind the activation of the networks at a node.
DROPPED = rf"({_NODES})\.2"
# Standard deviation of a Gaussian weight at the start, in those of the initial weights.
START = 0.1


class Dropped(nn.Module):
    """``W diag(m)/(1 − p)``, m_c ~ Bernoulli(1 − p): whole channels of what a layer is given are left out.

    Gal & Ghahramani 2016, Dropout as a Bayesian approximation, eq. 4: dropout as a distribution of weights.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, weight: Float[Tensor, "n_out n_in"]) -> Float[Tensor, "n_out n_in"]:
        return self.draw(weight) if self.training else weight

    def draw(self, weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
        where = weight.device if generator is None else generator.device
        kept = torch.rand(weight.shape[1], generator=generator, device=where) >= self.rate
        return weight * (kept / (1 - self.rate)).to(weight)


class Gaussian(nn.Module):
    """``W = μ + σ ε``, ε ~ N(0, 1) for every weight: mean field (Blundell et al. 2015, Weight uncertainty in NNs).

    log σ is a vector, so that optimisers do not take it for a matrix to turn or to decay.
    """

    def __init__(self, mean: Float[Tensor, "n_out n_in"]) -> None:
        super().__init__()
        start = math.log(START * float(mean.detach().std()))
        self.log_std = nn.Parameter(torch.full((mean.numel(),), start, dtype=mean.dtype))

    def forward(self, mean: Float[Tensor, "n_out n_in"]) -> Float[Tensor, "n_out n_in"]:
        return self.draw(mean) if self.training else mean

    def draw(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        where = mean.device if generator is None else generator.device
        normal = torch.randn(mean.shape, generator=generator, device=where, dtype=mean.dtype)
        return mean + self.log_std.exp().view_as(mean) * normal.to(mean.device)

    def divergence(self, mean: Float[Tensor, "n_out n_in"]) -> Float[Tensor, ""]:
        """KL(N(μ, σ²) ‖ N(0, s²)) of the layer with the best s² = ⟨μ² + σ²⟩: ``½ Σ log s²/σ²``."""
        prior = mean.square().mean() + (2 * self.log_std).exp().mean()
        return 0.5 * (prior.log() - 2 * self.log_std).sum()


def let_draw(model: nn.Module, config: OperatorConfig) -> None:
    """Make those weights of an operator drawn ones that the configuration names; others stay as they are."""
    rules: list[tuple[str, Callable[[Tensor], nn.Module]]] = []
    if config.dropout:
        rules.append((DROPPED, lambda weight: Dropped(config.dropout)))
    if config.variational != "none":
        rules.append((GAUSSIAN[config.variational], Gaussian))
    for pattern, rule in rules:
        for name, layer in list(model.named_modules()):
            if isinstance(layer, nn.Linear) and re.fullmatch(pattern, name):
                parametrize.register_parametrization(layer, "weight", rule(layer.weight))


def divergence(model: nn.Module) -> Float[Tensor, ""]:
    """KL of all Gaussian weights from their priors, in nats.

    Raises:
        ValueError: there are none.
    """
    found = [rule.divergence(mean) for rule, mean in _gaussians(model)]
    if not found:
        raise ValueError("model: expected Gaussian weights, got none")
    return torch.stack(found).sum()


@torch.no_grad()
def draw(model: nn.Module, seed: int) -> nn.Module:
    """The operator with one draw of its weights: plain and in evaluation mode; the same for one seed on any device.

    What is not drawn is shared with ``model``.
    """
    generator, drawn = torch.Generator().manual_seed(seed), shared_copy(model)
    for name, layer in list(drawn.named_modules()):
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight"):
            weight: Any = layer.parametrizations["weight"]  # type: ignore[index,union-attr]
            drawn.set_submodule(name, linear(weight[0].draw(weight.original, generator), layer.bias))
    return drawn.eval()


def shared_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules on the same parameters and buffers."""
    return copy.deepcopy(model, {id(x): x for x in (*model.parameters(), *model.buffers())})


def linear(weight: Float[Tensor, "n_out n_in"], bias: Float[Tensor, " n_out"] | None) -> nn.Linear:
    """A linear map of given weights."""
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = bias if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer


def _gaussians(model: nn.Module) -> Iterator[tuple[Gaussian, Tensor]]:
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], Gaussian):
            yield module[0], module.original
