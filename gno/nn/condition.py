"""Conditioning on numbers that belong to a whole mesh: the time step, parameters of the equation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.nn.config import OperatorConfig
from gno.nn.norm import RMSNorm


@dataclasses.dataclass(frozen=True)
class Condition:
    """Parameters of each mesh, and which mesh a node belongs to as a matrix of zeros and ones.

    A product with that matrix gives nodes their mesh's row as a gather would, and its gradient is a product as well:
    the same bits on every run, where the gradient of a gather adds atomically.
    """

    parameters: Float[Tensor, "n_graphs n_globals"]
    member: Float[Tensor, "n n_graphs"]

    @staticmethod
    def of(batch: Batch, graphs: Sequence[Tensor]) -> Condition | None:
        """For nodes given by their meshes, level after level; None for a batch without parameters."""
        if "parameters" not in batch:
            return None
        graph = torch.cat(list(graphs))
        member = graph[:, None] == torch.arange(batch.num_graphs, device=graph.device)
        return Condition(batch.parameters, member.to(batch.parameters.dtype))


class Norm(RMSNorm):
    """RMSNorm; with parameters g of the mesh, FiLM: ``n (1 + γ(g)) + β(g)``, which starts as the identity.

    Perez et al. 2018, FiLM: Visual Reasoning with a General Conditioning Layer.
    """

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__(c.width)
        self.film: nn.Sequential | None = None
        if c.n_globals:
            last = nn.Linear(c.width, 2 * c.width)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.film = nn.Sequential(nn.Linear(c.n_globals, c.width), nn.SiLU(), last)

    def forward(  # type: ignore[override]
        self, v: Float[Tensor, "n width"], condition: Condition | None
    ) -> Float[Tensor, "n width"]:
        n = super().forward(v)
        if self.film is None:
            return n
        if condition is None:
            raise ValueError("batch.parameters: expected the parameters that this operator was made for, got none")
        gamma, beta = (condition.member @ self.film(condition.parameters)).chunk(2, dim=1)
        return n * (1 + gamma) + beta
