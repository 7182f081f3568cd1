"""Reaction and diffusion: layers that read the Laplacian on the mesh."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn
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
    size: Float[Tensor, "n 1"]
    condition: Condition | None

    @staticmethod
    def of(batch: Batch) -> MeshLaplacian:
        edges = stencil_edges(batch)
        total = segment_sum(batch.stencil[:, None], edges.ptr)
        condition = Condition.of(batch, [batch.pos_0_batch])
        return MeshLaplacian(edges, batch.stencil, total, batch.stencil_size[:, None], condition)

    def __call__(self, v: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        return moments(v, [self.weights], self.edges) - self.total * v

    def smoothed(self, q: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """``q_i + (L q)_i / 2 Σ_j |w_ij|``: halfway to the mean of the neighbours."""
        return q + self(q) / (2 * self.size)


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


class LocalLaw(nn.Module):
    """A law that is the same at every node, in m steps: ``z ← z + r Δt w / m``, ``w_i = C (A y_i ⊙ silu(B y_i))``.

    y_i = (z, L z, S L z, c)_i, z the normalised state, L the Laplacian on the mesh, S halfway to the mean of the
    neighbours, and c what the scales know of the node. r Δt is the usual change over the whole step. A step that is
    long beside reaction and diffusion across a cell so has the weights of a short one. L and S L together say what L
    errs by on a mesh, to leading order: where the mesh is refined both tend to the same. S L is nowhere larger than L.
    A mesh with smaller cells than those of the training takes more steps, as explicit steps need.
    """

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm = Norm(c)
        self.split, self.scales = nn.Linear(3 * c.n_outputs, 2 * c.width), nn.Linear(c.width, 2 * c.width, bias=False)
        self.join = nn.Linear(c.width, c.n_outputs)
        nn.init.zeros_(self.scales.weight)  # at first a law of state and Laplacian alone

    def forward(self, v: Float[Tensor, "n width"], laplacian: MeshLaplacian, batch: Batch) -> Float[Tensor, "n c"]:
        """The mean of w over the steps: the rate of change, in units of r."""
        known, z = self.scales(self.norm(v, laplacian.condition)), batch.state
        here = batch.pos_0_batch
        change, n_steps = batch.change.index_select(0, here), batch.n_substeps.to(z).index_select(0, here)[:, None]
        rate = torch.zeros_like(z)
        for k in range(batch.most_substeps):
            bent = laplacian(z)
            near = torch.cat([z, bent, laplacian.smoothed(bent)], dim=1)
            value, gate = (known + self.split(near)).chunk(2, dim=1)
            part = self.join(value * nn.functional.silu(gate)).to(z) * ((k < n_steps) / n_steps)
            z, rate = z + change * part, rate + part
        return rate
