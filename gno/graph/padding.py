"""Padding: ragged batches filled up to a few recurring sizes, for compiled code and CUDA graphs, which want the same
shapes again and again.

What is filled up belongs to further meshes, and the meshes of a batch never touch. So no layer needs a mask, and what
the operator says of the real meshes stays what it was, to round-off.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch_geometric.data import Batch

from gno.graph.sample import MeshData

# Sizes grow by this factor from rung to rung, so about a tenth of a usual batch is padding at most.
STEP = 1.1
# The lowest rung, in powers of STEP from the usual batch: smaller ones, as at the end of an epoch, are filled up to it.
LOWEST = -2
# Values of the nodes that an operator may read besides x.
NODE_VALUES = ("geometry", "fixed", "given", "near_mass")


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The sizes that batches are filled up to: those of the usual batch times a whole power of ``STEP``.

    All sizes of a batch take the same power, so there are as many shapes as powers that occur.

    Args:
        batch_size: meshes in a batch.
        nodes, edges: mean number in a mesh, by level; behind the edges those of the near field.
        longest: most nodes of a mesh, by level. longest_from: the same for the levels from s up together; as in
            ``collate``.
    """

    batch_size: int
    nodes: tuple[float, ...]
    edges: tuple[float, ...]
    longest: tuple[int, ...]
    longest_from: tuple[int, ...]

    @staticmethod
    def fit(samples: Iterable[MeshData], batch_size: int) -> Ladder:
        """From the training samples."""
        nodes, edges = map(torch.tensor, zip(*map(_sizes, samples), strict=True))  # (samples, levels)
        longest, longest_from = (tuple(n.amax(0).tolist()) for n in (nodes, nodes.flip(1).cumsum(1).flip(1)))
        mean_nodes, mean_edges = (tuple(n.double().mean(0).tolist()) for n in (nodes, edges))
        return Ladder(batch_size, mean_nodes, mean_edges, longest, longest_from)

    def pad(self, batch: Batch) -> Batch:
        """The batch with ``padded``: what an operator reads of it, filled up to ``batch_size + 1`` meshes."""
        nodes, edges = _sizes(batch)
        n_fillers = self.batch_size + 1 - batch.num_graphs
        # one node for each mesh on every level, besides the usual ones: where these are few, numbers vary
        usual = [self.batch_size * (n + 1) for n in self.nodes] + [self.batch_size * e + 1 for e in self.edges]
        sizes = [*nodes, *edges]
        least = [*(n + n_fillers for n in nodes), *edges]
        power = max(_power(size / unit) for size, unit in zip(least, usual, strict=True))
        missing = [math.ceil(unit * STEP**power) - size for unit, size in zip(usual, sizes, strict=True)]
        more_nodes, more_edges = missing[: len(nodes)], missing[len(nodes) :]
        batch = copy.copy(batch)
        batch.padded = _filled(batch, more_nodes, more_edges, n_fillers)
        # The tables of the attention are as wide as the largest mesh. Now and then that is one to fill up with; then
        # they are twice as wide, which is one more shape and not several.
        each = [math.ceil(n / n_fillers) for n in more_nodes]
        batch.padded.longest = [most * math.ceil(n / most) for n, most in zip(each, self.longest, strict=True)]
        batch.padded.longest_from = [most * math.ceil(sum(each[s:]) / most) for s, most in enumerate(self.longest_from)]
        return batch


def _power(ratio: float) -> int:
    """The smallest power of ``STEP`` that is not below the ratio, from the lowest rung on."""
    return max(LOWEST, math.ceil(math.log(ratio, STEP) - 1e-9)) if ratio > 0 else LOWEST


def _sizes(data: MeshData | Batch) -> tuple[list[int], list[int]]:
    """Number of nodes and of edges by level, and behind the edges of entries of the near field."""
    levels = range(data.n_levels)
    indices = (*(f"edge_index_{s}" for s in levels), "near_index")
    return [data[f"pos_{s}"].shape[0] for s in levels], [data[x].shape[1] if x in data else 0 for x in indices]


def _filled(batch: Batch, nodes: Sequence[int], edges: Sequence[int], n_fillers: int) -> Batch:
    """What an operator reads of a batch, with so many nodes and edges more by level; they are all at one place."""
    filled, (*edges, n_near) = Batch(), edges
    for s, (n, e) in enumerate(zip(nodes, edges, strict=True)):
        number, position = torch.arange(n), batch[f"pos_{s}"]
        filled[f"pos_{s}"] = with_rows(position, len(position) + n)
        if f"torus_{s}" in batch:
            rows = batch.num_graphs + n_fillers if f"size_{s}" not in batch else len(position) + n
            filled[f"torus_{s}"] = with_rows(batch[f"torus_{s}"], rows)
        filled[f"spacing_{s}"] = batch[f"spacing_{s}"][:1]
        for key in (f"size_{s}", f"density_{s}"):
            if key in batch:
                filled[key] = torch.cat([batch[key], batch[key].new_ones(n)])
        filled[f"pos_{s}_batch"] = torch.cat([batch[f"pos_{s}_batch"], batch.num_graphs + number * n_fillers // n])
        if f"edge_index_{s}" in batch:
            edge, loops = batch[f"edge_index_{s}"], len(position) + torch.arange(e) * n // max(e, 1)
            filled[f"edge_index_{s}"] = torch.cat([edge, loops.to(edge).expand(2, -1)], dim=1)
            filled[f"edge_perm_{s}"] = _counted_on(batch[f"edge_perm_{s}"], e)
        if s + 1 < len(nodes):
            link, n_anchors = batch[f"link_{s}"], len(batch[f"pos_{s + 1}"])
            anchor = n_anchors + number * nodes[s + 1] // n
            filled[f"link_{s}"] = torch.cat([link, anchor.to(link)[:, None].expand(-1, link.shape[1])])
            filled[f"log_b_{s}"] = with_rows(batch[f"log_b_{s}"], len(link) + n)
            filled[f"link_perm_{s}"] = _counted_on(batch[f"link_perm_{s}"], n * link.shape[1])
    mass = batch.mass_0
    filled.mass_0 = torch.cat([mass, mass.new_full((nodes[0],), 1 / nodes[0])])
    for key in NODE_VALUES:
        if key in batch:
            filled[key] = with_rows(batch[key], len(filled.mass_0))
    if "near_index" in batch:
        node = len(mass) + torch.arange(n_near) * nodes[0] // max(n_near, 1)
        first = torch.stack([node, node * int(batch.near_shells[0])])
        filled.near_index = torch.cat([batch.near_index, first.to(batch.near_index)], dim=1)
        filled.near_perm = _counted_on(batch.near_perm, n_near)
        filled.near_radius = torch.cat([batch.near_radius, batch.near_radius.new_ones(nodes[0])])
    filled._num_graphs = batch.num_graphs + n_fillers
    return filled


def _counted_on(numbers: Tensor, n: int) -> Tensor:
    return torch.cat([numbers, torch.arange(len(numbers), len(numbers) + n).to(numbers)])


def with_rows(values: Shaped[Tensor, "n ..."], n: int) -> Shaped[Tensor, "m ..."]:
    """Zeros below the values, up to n rows.

    >>> with_rows(torch.ones(1, 2), 2)
    tensor([[1., 1.],
            [0., 0.]])
    """
    return torch.cat([values, values.new_zeros(n - len(values), *values.shape[1:])])
