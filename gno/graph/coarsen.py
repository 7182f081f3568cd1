"""A sample with fewer nodes: clusters of its nodes in their place, with the means of all that nodes carry."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gno.graph.hierarchy import build_hierarchy, centroids, cluster
from gno.graph.sample import MeshData, add_levels
from gno.graph.spec import SampleSpec

# Spacing of the clusters, in median edges of the mesh.
STEP = 2.0


def clusters(sample: MeshData) -> Int[Tensor, " n_0"]:
    """Which of the coarse nodes, about two edges apart, each node of a sample belongs to.

    Raises:
        ValueError: coordinates that repeat, or a near field.
    """
    if "near_index" in sample:
        raise ValueError("training.curriculum: expected 0 with model.n_near (1 by default of points), got more")
    if "torus_0" in sample:
        raise ValueError("training.curriculum: expected 0 where coordinates repeat, got more")
    points, mass = (sample[key].double().numpy() for key in ("pos_0", "mass_0"))
    size, density = float(sample.spacing_0), 1.0
    if "size_0" in sample:
        size, density = (sample[key].double().numpy() for key in ("size_0", "density_0"))
    return torch.as_tensor(cluster(points, mass, _undirected(sample), STEP * size, density=density))


def cluster_mean(
    values: Float[Tensor, "*batch n c"], owner: Int[Tensor, " n"], mass: Float[Tensor, " n"]
) -> Float[Tensor, "*batch n_clusters c"]:
    """Means by mass, ``Σ m u / Σ m``, of the nodes of each cluster.

    >>> owner, mass = torch.tensor([0, 0, 1]), torch.tensor([1.0, 3.0, 2.0])
    >>> cluster_mean(torch.tensor([[0.0], [4.0], [5.0]]), owner, mass).flatten().tolist()
    [3.0, 5.0]
    """
    n = int(owner.max()) + 1
    weight = mass.to(values)
    total = weight.new_zeros(n).index_add(0, owner, weight)
    sums = values.new_zeros(*values.shape[:-2], n, values.shape[-1])
    return sums.index_add(-2, owner, values * weight[:, None]) / total[:, None]


def coarsened(sample: MeshData, spec: SampleSpec, owner: Int[Tensor, " n_0"]) -> MeshData:
    """The sample whose nodes are clusters of nodes: masses are summed, inputs, targets and geometry averaged.

    Its anchors have the spacings of the case, as those of any mesh of the same domain.

    Args:
        sample: of a mesh, raw or normalised, with its edges.
        spec: how the case sees a mesh.
        owner: of :func:`clusters`.
    """
    mass, dtype = sample.mass_0, sample.mass_0.dtype
    position, sums = centroids(sample.pos_0.double().numpy(), mass.double().numpy(), owner.numpy())
    coarse = MeshData(**{k: cluster_mean(sample[k], owner, mass) for k in ("x", "y", "geometry") if k in sample})
    pairs = np.sort(owner.numpy()[_undirected(sample)], axis=0)
    edges = np.unique(pairs[:, pairs[0] < pairs[1]], axis=1)
    size = None
    if "size_0" in sample:
        size = STEP * cluster_mean(sample.size_0.double().log()[:, None], owner, mass)[:, 0].exp().numpy()
    build = partial(build_hierarchy, n_candidates=spec.n_candidates, size=size, cell_dim=spec.graded_dim)
    levels = build(position, sums, edges, spec.spacings).levels
    coarse.mass_0 = torch.as_tensor(levels[0].mass, dtype=dtype)
    add_levels(coarse, levels, spec, dtype)
    return coarse


def _undirected(sample: MeshData) -> np.ndarray:
    edges = sample.edge_index_0.numpy()
    return edges[:, edges[0] < edges[1]]
