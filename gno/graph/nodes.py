"""The nodes of a sample and their levels, before they are tensors: what looks at a mesh needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy.sparse import csr_matrix

from gno.graph.features import in_units
from gno.graph.fields import FieldSpec
from gno.graph.grading import node_sizes
from gno.graph.hierarchy import Hierarchy, build_hierarchy
from gno.graph.neighbours import edges_of
from gno.graph.spec import SampleSpec
from gno.mesh import Mesh, interpolation, node_mass, repeats


@dataclasses.dataclass(frozen=True)
class Nodes:
    """The nodes of a sample in units of the case: the mesh's, and behind them the probes, which have no mass.

    Args:
        at: interpolation from the mesh's nodes to the probes.
        repeats: node that each node repeats, itself where it is alone; None where coordinates do not repeat.
        period: of the coordinates.
        size: of the cells around each node; None where spacings do not follow it.
    """

    points: np.ndarray
    mass: np.ndarray
    edges: np.ndarray
    at: csr_matrix
    repeats: np.ndarray | None = None
    period: np.ndarray | None = None
    size: np.ndarray | None = None

    @staticmethod
    def of(mesh: Mesh, spec: SampleSpec, probes: np.ndarray | None = None) -> Nodes:
        points, mass, edges = in_units(mesh, spec.unit), node_mass(mesh), edges_of(mesh)
        place, period = np.arange(mesh.n_nodes), None
        if mesh.period:
            place, period = repeats(mesh), np.array(mesh.period) / spec.unit
            points, mass = points[place], np.bincount(place, mass, mesh.n_nodes)
        at = csr_matrix((0, mesh.n_nodes))
        size = node_sizes(points, edges, period)[place] if spec.graded_dim else None
        if probes is not None:
            at = interpolation(mesh, np.asarray(probes))
            points = np.concatenate([points, in_units(mesh, spec.unit, probes)])
            size = None if size is None else np.concatenate([size, np.exp(at @ np.log(size))])
            mass = np.concatenate([mass, np.zeros(len(probes))])
            row, column = at.nonzero()
            edges = np.concatenate([edges, np.stack([place[column], mesh.n_nodes + row]).astype(np.int64)], axis=1)
            place = np.concatenate([place, mesh.n_nodes + np.arange(len(probes))])
        return Nodes(points, mass, edges, at, None if period is None else place, period, size)

    def values(self, fields: Sequence[FieldSpec], mesh: Mesh) -> np.ndarray:
        columns = np.concatenate([np.empty((mesh.n_nodes, 0)), *(field.values(mesh) for field in fields)], axis=1)
        return np.concatenate([columns, self.at @ columns])

    def hierarchy(self, spec: SampleSpec) -> Hierarchy:
        build = partial(
            build_hierarchy, spacings=spec.spacings, n_candidates=spec.n_candidates, cell_dim=spec.graded_dim
        )
        mass = self.mass / self.mass.sum()
        if self.repeats is None:
            return build(self.points, mass, self.edges, size=self.size)
        first, place = np.unique(self.repeats, return_inverse=True)
        size = None if self.size is None else self.size[first]
        mesh, *anchors = build(self.points[first], mass[first], place[self.edges], period=self.period, size=size).levels
        return Hierarchy((mesh.copied(place, first), *anchors))


def hierarchy_of(mesh: Mesh, spec: SampleSpec) -> Hierarchy:
    """The levels that the operator will see, in units of the case; masses sum to one."""
    return Nodes.of(spec.seen(mesh), spec).hierarchy(spec)
