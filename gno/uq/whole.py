"""A mesh as a whole, in a few numbers, and how far these are from the training meshes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gno.graph import SampleSpec
from gno.mesh import CellBlock, Mesh, boundary_facets, cell_volume, components, node_mass
from gno.mesh.geometry import domain_dim

# A distance is the mean of those to so many of the nearest training meshes.
NEAREST = 5
# Differences below this are none: all numbers are of the order of one, in units of the case or of normalised inputs.
SMALLEST = 1e-2
# Cells of a boundary, by the dimension of the domain.
_FACET = {2: "line", 3: "triangle"}


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The training meshes as points, and the distance of others to the nearest of them.

    ``d = 1/k Σ_{j of the k nearest} √(mean_c ((x_c − x_jc)/s_c)²)``, s the spread of each number over the training
    meshes. It asks nothing of their distribution: there may be two families of shapes, and numbers that are counts.
    (Sun et al. 2022, Out-of-distribution detection with deep nearest neighbors.)

    Args:
        rows: one training mesh each. spread: s. usual: root mean square of the distances of the training meshes to each
            other.
    """

    rows: Float[Tensor, "n_meshes width"]
    spread: Float[Tensor, " width"]
    usual: float

    @staticmethod
    def fit(rows: Sequence[Float[Tensor, "1 width"]], owner: Sequence[int] | None = None) -> Neighbours:
        """From one row per training mesh, or several of one owner, which are no neighbours of each other."""
        known = torch.cat(list(rows)).double()
        spread = known.std(0, correction=0).clamp_min(SMALLEST)
        bare = Neighbours(known, spread, 1.0)
        number = torch.arange(len(known)) if owner is None else torch.tensor(owner)
        own = bare._distances(known)
        own[(number[:, None] == number).to(own.device)] = torch.inf
        nearest = own.sort(dim=1).values[:, :NEAREST]
        usual = float(nearest.where(nearest.isfinite(), torch.nan).nanmean(1).square().nanmean().sqrt())
        return dataclasses.replace(bare, usual=1.0 if math.isnan(usual) else max(usual, 0.1))

    def square(self, row: Float[Tensor, "1 width"]) -> Float[Tensor, 1]:
        """Square of the distance, 1 being usual."""
        nearest = self._distances(row.double()).sort(dim=1).values[:, :NEAREST].mean(1)
        return (nearest / self.usual).square()

    def _distances(self, rows: Float[Tensor, "n width"]) -> Float[Tensor, "n n_meshes"]:
        return torch.cdist(rows / self.spread, self.rows / self.spread) / len(self.spread) ** 0.5


def mean_and_spread(values: Float[Tensor, "n_nodes c"], mass: Float[Tensor, " n_nodes"]) -> Float[Tensor, "1 two_c"]:
    """Of node values over a mesh, by shares of mass."""
    mean = mass @ values
    return torch.cat([mean, (mass @ (values - mean).square()).sqrt()])[None]


def shape_of(mesh: Mesh, spec: SampleSpec) -> Float[Tensor, "1 width"]:
    """Size and proportions (log of the principal radii of its mass), log of the size of the boundary, and its pieces.

    Wherever the mesh lies, however it is turned, and however fine it is. Lengths in units of the case.
    """
    mass, points = node_mass(mesh), mesh.points[:, : spec.dim] / spec.unit
    offset = points - mass @ points / mass.sum()
    radii = np.linalg.eigvalsh((offset.T * mass) @ offset / mass.sum()).clip(SMALLEST**2) ** 0.5
    size, pieces = _boundary(mesh)
    size /= spec.unit ** max(0, domain_dim(mesh) - 1)
    return torch.tensor([[*np.log(radii), np.log(max(size, SMALLEST)), pieces]], dtype=torch.float64)


def _boundary(mesh: Mesh) -> tuple[float, int]:
    """Length or area of the boundary, and the number of its connected pieces: one more for every hole in a plate."""
    kind = _FACET.get(domain_dim(mesh))
    if kind is None:
        return 0.0, 0
    facets = boundary_facets(mesh)
    rim = Mesh(mesh.points, (CellBlock(kind, facets),))
    return float(cell_volume(rim).sum()), len(np.unique(components(rim)[facets]))
