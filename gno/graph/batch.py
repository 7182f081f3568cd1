"""Ragged batches of samples by torch_geometric, and the edges in them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Batch, Data

from gno.graph.sample import MeshData
from gno.graph.segment import Edges
from gno.mesh.lattice import ROWS


def collate(samples: Sequence[MeshData]) -> Batch:
    """A ragged batch; ``pos_s_batch`` says which mesh a node of level s belongs to.

    What a sample carries besides tensors becomes one if it says how, ``type(value).join(values)``.
    """
    n_levels = samples[0].n_levels
    samples = _alike(samples)
    batch = Batch.from_data_list(list(samples), follow_batch=[f"pos_{s}" for s in range(n_levels)])
    for key, value in samples[0].to_dict().items():
        if not isinstance(value, str) and hasattr(value, "join"):
            batch[key] = type(value).join(batch[key])
    # Sizes known on the host, so that padding needs no look at the device: the most nodes of a mesh on each level, and
    # on the levels from s up.
    sizes = np.array([[d[f"pos_{s}"].shape[0] for s in range(n_levels)] for d in samples])
    batch.longest = [int(n) for n in sizes.max(0)]
    if "n_substeps" in batch:
        batch.most_substeps = int(max(d.n_substeps for d in samples))
    batch.longest_from = [int(sizes[:, s:].sum(1).max()) for s in range(n_levels)]
    return batch


def _alike(samples: Sequence[MeshData]) -> Sequence[MeshData]:
    """Meshes whose coordinates do not repeat, beside others whose do, say so: no length, no shift. Rectangular boxes
    beside cells that are none are lattices like these."""
    names = {key for sample in samples for key in sample.to_dict() if key.startswith("torus_")}
    sizes = {sample[name].shape[1] if name in sample else 0 for sample in samples for name in names}
    if len(sizes) <= 1:
        return samples
    dim = samples[0].pos_0.shape[1]
    straight = samples[0].pos_0.new_tensor([0.0, 0.0, 1.0])[None, :, None].repeat(1, 1, dim)

    def rows(sample: MeshData, name: str) -> Tensor:
        n = len(sample[f"pos_{name.removeprefix('torus_')}"]) if "size_0" in sample else 1
        found = sample[name] if name in sample else straight.expand(n, -1, -1)
        return as_lattice(found) if ROWS in sizes and found.shape[1] != ROWS else found

    return [copy.copy(sample).update({name: rows(sample, name) for name in names}) for sample in samples]


def as_lattice(torus: Float[Tensor, "n 3 dim"]) -> Float[Tensor, "n rows dim"]:
    """The rows of a rectangular box as those of :class:`gno.mesh.Lattice`."""
    length, wave, seen = torus.unbind(1)
    box, dual, none = length.diag_embed(), wave.diag_embed(), torch.zeros_like(torus)
    four = torch.cat([none, none[:, :1]], dim=1)
    radius = torch.stack([length, none[:, 0]], dim=1)
    return torch.cat([box, four, dual, four, box, dual, dual, none, radius, seen[:, None]], dim=1)


def measure(batch: Data, s: int, mass: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """What the nodes of level s weigh where all places are to count alike: their masses, and where meshes are graded
    masses times ``size^−d``, so that a place counts by how fine it was thought worth to be meshed."""
    return mass * batch[f"density_{s}"] if f"density_{s}" in batch else mass


def level_edges(batch: Batch, s: int) -> Edges:
    """Edges of level s of a batch.

    Raises:
        ValueError: those of the mesh, of samples without them.
    """
    if f"edge_index_{s}" not in batch:
        raise ValueError("batch.edge_index_0: expected samples of a spec with edges=True, got some without edges")
    return _edges(batch[f"edge_index_{s}"], batch[f"edge_perm_{s}"], batch[f"pos_{s}"].shape[0])


def stencil_edges(batch: Batch) -> Edges:
    """Edges on which the Laplacian of a batch has entries.

    Raises:
        ValueError: samples without it.
    """
    if "stencil" not in batch:
        raise ValueError(
            "batch.stencil: expected samples of a spec with n_stencils or n_substeps, got some without a Laplacian"
        )
    return _edges(batch.stencil_index, batch.stencil_perm, batch.pos_0.shape[0])


def near_edges(batch: Batch, n_shells: int) -> Edges:
    """Edges from nodes to the shells of the nodes that they are near to, shell k of node i being number ``i K + k``.

    Raises:
        ValueError: samples without a near field.
    """
    if "near_index" not in batch:
        raise ValueError("batch.near_index: expected samples of a spec with n_near, got some without a near field")
    n = batch.pos_0.shape[0]
    sender, shell = batch.near_index.long()
    return Edges.from_perm(sender, shell, batch.near_perm.long(), n, n * n_shells)


def _edges(index: Tensor, perm: Tensor, n: int) -> Edges:
    sender, receiver = index.long()
    return Edges.from_perm(sender, receiver, perm.long(), n, n)


def link_edges(batch: Batch, s: int) -> Edges:
    """Links as edges from the anchors of level s + 1 to the nodes of level s."""
    link, perm = batch[f"link_{s}"].long(), batch[f"link_perm_{s}"].long()
    n, k = link.shape
    receiver = torch.arange(n, device=link.device).repeat_interleave(k)
    return Edges.from_perm(link.flatten(), receiver, perm, batch[f"pos_{s + 1}"].shape[0], n)
