"""The links between two levels: how far a node is from its anchors, and the kernel integral along them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph.segment import Edges, moments
from gno.mesh import nearest_image
from gno.mesh.periodic import Images
from gno.nn.config import OperatorConfig
from gno.nn.norm import RMSNorm
from gno.nn.pooling import Transfer
from gno.nn.precision import shortened
from gno.nn.rows import expanded


class Link(nn.Module):
    """Kernel integral along the links between two levels: the transferred value with its moments of the offset."""

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(c.width)
        self.map = nn.Linear(c.width * (1 + c.dim), c.width)

    def forward(self, sender: Tensor, weights: Sequence[Tensor], edges: Edges) -> Tensor:
        return self.map(moments(shortened(self.norm(sender)), weights, edges))


class DownLink(Link):
    """The same integral from few anchors to many nodes: the linear map comes first, and only the sum is large."""

    def forward(self, sender: Tensor, weights: Sequence[Tensor], edges: Edges) -> Tensor:
        return self.rows(sender, weights, edges)(slice(None))

    def rows(self, sender: Tensor, weights: Sequence[Tensor], edges: Edges) -> Callable[[slice], Tensor]:
        """For some of the nodes at a time."""
        blocks = self.map.weight.unflatten(1, (len(weights), -1)).transpose(0, 1).flatten(0, 1)
        at = expanded(nn.functional.linear(shortened(self.norm(sender)), blocks), weights, edges)
        return lambda rows: at(rows) + self.map.bias


def spacing(batch: Batch, s: int, at: Int[Tensor, " n"]) -> Tensor:
    """Spacing of the anchors of level s, in units of the case: one for all, or where meshes are graded (n, 1), of
    those in ``at``."""
    return batch[f"size_{s}"].index_select(0, at)[:, None] if "size_0" in batch else batch[f"spacing_{s}"][0]


def offsets(
    fine: Tensor, coarse: Tensor, edges: Edges, unit: Tensor, torus: Images | None = None
) -> tuple[Float[Tensor, " n_edges"], ...]:
    """Offset of node from anchor on each link, by component, in a unit of length; the geometry carries no gradient."""
    offset = fine.detach().index_select(0, edges.receiver) - coarse.detach().index_select(0, edges.sender)
    offset = nearest_image(offset, torus)
    return (offset / unit).T.contiguous().unbind(0)


def down_weights(transfer: Transfer, offset: Sequence[Tensor]) -> list[Tensor]:
    """P, and P times each component of the offset: what :func:`~gno.graph.segment.moments` is given on the links."""
    return _with_moments(transfer.weights, offset)


def up_weights(transfer: Transfer, offset: Sequence[Tensor]) -> list[Tensor]:
    """R, and R times each component of the offset, on the links turned round."""
    perm = transfer.edges.perm
    return [w.index_select(0, perm) for w in _with_moments(transfer.restriction_weights(), offset)]


def _with_moments(weights: Tensor, offset: Sequence[Tensor]) -> list[Tensor]:
    return [weights, *(weights * component for component in offset)]
