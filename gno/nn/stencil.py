"""Reaction and diffusion: layers that read the Laplacian on the mesh."""

from __future__ import annotations

import dataclasses

from jaxtyping import Float
from torch import nn
from torch_geometric.data import Batch

from gno.graph.batch import stencil_edges
from gno.graph.segment import Edges, moments, segment_sum
from gno.nn.condition import Condition, Norm
from gno.nn.config import OperatorConfig
from gno.nn.mlp import side_by_side
from gno.nn.precision import shortened


@dataclasses.dataclass(frozen=True)
class MeshLaplacian:
    """The Laplacian on the mesh, ``L v = Σ_j w_ij (v_j − v_i)``, in units of 4 / h₁², h₁ the spacing of level 1.

    With this unit L v is about as large as v where v varies over some eight nodes of the training meshes.
    """

    edges: Edges
    weights: Float[Tensor, " n_edges"]
    total: Float[Tensor, "n 1"]
    condition: Condition | None

    @staticmethod
    def of(batch: Batch) -> MeshLaplacian:
        edges = stencil_edges(batch)
        total = segment_sum(batch.stencil[:, None], edges.ptr)
        return MeshLaplacian(edges, batch.stencil, total, Condition.of(batch, [batch.pos_0_batch]))

    def __call__(self, v: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        return moments(v, [self.weights], self.edges) - self.total * v


class Stencil(nn.Module):
    """Reaction and diffusion: ``v_i ← v_i + W (A z_i ⊙ silu(B z_i))``, z_i = (v̂_i, L v̂_i), L the Laplacian on the mesh.

    Here are the details of the size of the cells, which a kernel through anchors cannot see, and the products of values
    that reactions are made of. L belongs to the domain where v is smooth and has no direction, so the weights mean the
    same on a finer mesh and on a surface. Diffusion and a network at each node are enough for learning on surfaces:
    Sharp et al. 2022, DiffusionNet. The gate: Dauphin et al. 2017, Language modeling with gated convolutional networks.
    """

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm = Norm(c)
        self.split, self.join = nn.Linear(2 * c.width, 2 * c.width), nn.Linear(c.width, c.width)

    def forward(self, v: Float[Tensor, "n width"], laplacian: MeshLaplacian) -> Float[Tensor, "n width"]:
        n = shortened(self.norm(v, laplacian.condition))
        value, gate = side_by_side(self.split, n, laplacian(n)).chunk(2, dim=1)
        return v + self.join(value * nn.functional.silu(gate))
