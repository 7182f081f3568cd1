"""SampleSpec: how a case sees a mesh, fitted on the training meshes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gno.graph.features import in_units
from gno.graph.fields import FieldSpec, find_field
from gno.graph.grading import is_graded, node_sizes
from gno.graph.neighbours import edges_of
from gno.mesh import Mesh, laplacian, nearest_image, repeats, torus_of
from gno.mesh.geometry import bounds, domain_dim
from gno.mesh.laplacian import even, steepest

# Spacing of level 1 in median edge lengths, and of each further level in spacings of the one before.
FIRST_STEP = 2.5
# The same on graded meshes of triangles and quads: a dozen nodes to an anchor, as in 3-D with the other.
GRADED_FIRST_STEP = 3.5
NEXT_STEP = 2.0
# Distances that are told apart near a node of a mesh, where fields are smooth, and near a particle.
SHELLS, CLOUD_SHELLS = 2, 64


@dataclasses.dataclass(frozen=True)
class SampleSpec:
    """How a mesh becomes a sample; fitted on the training meshes and stored with the weights.

    Args:
        dim: dimension of space.
        unit: the case's unit of length (half the median extent), in the user's unit.
        inputs: fields that the operator reads.
        targets: fields that it predicts.
        sets: point sets whose distance and direction every node knows.
        spacings: spacing of levels 1, 2, …, in ``unit``. Fixed by the case, so a finer mesh keeps its anchors.
        n_candidates: anchors of the next level that a node can lean on.
        coordinates: whether a node knows where it is; without, the operator is the same wherever a mesh lies.
        n_stencils, n_substeps: of the operator; both read the Laplacian on the mesh, which samples then have.
        n_near, n_shells: of the operator; with them samples have the near field.
        period: of all meshes, in the user's unit, see :class:`gno.mesh.Mesh`; if empty meshes have their own, or none.
        steepest: with n_substeps, the largest row of the Laplacian on the training meshes, in one over the square of
            the user's unit; a mesh that has larger ones needs more steps.
        graded_dim: dimension of the cells where spacings follow their size, and are those above where it is the median;
            0 where spacings are the same everywhere.
        edges: whether samples have the edges of the mesh, which most operators do not read.
    """

    dim: int
    unit: float
    inputs: tuple[FieldSpec, ...]
    targets: tuple[FieldSpec, ...]
    sets: tuple[str, ...]
    spacings: tuple[float, ...]
    n_candidates: int = 5
    coordinates: bool = True
    n_stencils: int = 0
    n_substeps: int = 0
    n_near: int = 0
    n_shells: int = SHELLS
    period: tuple[float, ...] = ()
    steepest: float = 0.0
    graded_dim: int = 0
    edges: bool = False

    @staticmethod
    def fit(
        meshes: Sequence[Mesh],
        *,
        inputs: Sequence[str],
        targets: Sequence[str],
        log: Sequence[str] = (),
        sets: Sequence[str] | None = None,
        n_levels: int | None = None,
        first_step: float | None = None,
        next_step: float = NEXT_STEP,
        n_candidates: int = 5,
        coordinates: bool = True,
        n_stencils: int = 0,
        n_substeps: int = 0,
        n_near: int | None = None,
        n_shells: int | None = None,
        period: Sequence[float] = (),
        graded: bool | None = None,
        edges: bool = False,
    ) -> SampleSpec:
        """Resolve fields, unit and spacings from the training meshes.

        Args:
            meshes: training meshes.
            inputs: names of fields or sets to read.
            targets: names of fields to predict.
            log: those inputs whose logarithm is read: coefficients that vary by factors.
            sets: point sets whose distance is a feature; by default those that every mesh has; none of a point
                cloud, whose sets are kinds, as elements are, and not places.
            n_levels: number of levels, the mesh included; by default as many as leave about four anchors across, at
                least 3.
            first_step: spacing of level 1 in median edge lengths; by default 2.5, and 3.5 where they are graded in 2-D.
            next_step: spacing of each further level in spacings of the one before.
            n_candidates: anchors that a node can lean on.
            coordinates: whether a node knows where it is. False suits what is the same everywhere, as reaction and
                diffusion are, and shapes that lie elsewhere than those of the training.
            n_stencils: layers at the entrance and at the exit that read the Laplacian on the mesh, for reaction and
                diffusion.
            n_substeps: in time, steps of a local law within each step from frame to frame, for reaction and diffusion
                between frames that lie far apart; 0 for none.
            n_near: layers at the entrance and at the exit that read the near field by distance and direction; by
                default one of point clouds, such as particles, and none of meshes.
            n_shells: distances that these tell apart within the spacing of level 1; by default 64 of point clouds, and
                2 of meshes, whose nodes are no more than where a field is known.
            period: length after which each coordinate repeats, 0 where it does not; for meshes that do not say.
            graded: whether spacings follow the size of the cells; by default where that differs by more than a factor
                of 4.
            edges: whether samples have the edges of the mesh, for convolutions on it; an operator
                without anchors reads them, and its samples have them in any case.

        Raises:
            ValueError: a field is missing, or is both input and target; no mesh has one of the sets, or one does not
                fit the period.
        """
        if not meshes:
            raise ValueError("training meshes: expected at least one, got none")
        both = sorted(set(inputs) & set(targets))
        if both:
            raise ValueError(f"field '{both[0]}': expected to be input or target, got both")
        dim = meshes[0].dim
        other = next((m for m in meshes if m.dim != dim), None)
        if other is not None:
            raise ValueError(
                f"meshes: expected all {dim}-D like {meshes[0].source}, got {other.dim}-D ({other.source})"
            )
        meshes = [m.replace(period=period) for m in meshes] if period else meshes
        extent = [_extent(m) for m in meshes]
        unit = float(np.median(extent)) / 2 or 1.0
        graded_dim = (domain_dim(meshes[0]) or dim) if (_graded(meshes) if graded is None else graded) else 0
        first_step = first_step or (GRADED_FIRST_STEP if graded_dim == 2 else FIRST_STEP)
        spacings = _spacings(meshes, unit, n_levels, first_step, next_step, graded_dim)
        n_near, n_shells = _near(meshes, spacings, n_near, n_shells)
        return SampleSpec(
            dim,
            unit,
            tuple(dataclasses.replace(_found(meshes, name), log=name in log) for name in inputs),
            tuple(find_field(meshes[0], name) for name in targets),
            tuple(common_sets(meshes) if sets is None else _known_sets(meshes, sets)),
            spacings,
            n_candidates,
            coordinates,
            n_stencils,
            n_substeps,
            n_near,
            n_shells,
            tuple(map(float, period)),
            max(steepest(even(laplacian(mesh))) for mesh in meshes) if n_substeps else 0.0,
            graded_dim,
            edges,
        )

    def seen(self, mesh: Mesh) -> Mesh:
        """The mesh as the case sees it: with the period of the case, if that has one."""
        return mesh.replace(period=self.period) if self.period and self.period != mesh.period else mesh

    @property
    def n_inputs(self) -> int:
        return sum(f.n_components for f in self.inputs)

    @property
    def n_targets(self) -> int:
        return sum(f.n_components for f in self.targets)

    @property
    def n_levels(self) -> int:
        return 1 + len(self.spacings)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> SampleSpec:
        fields = {name: tuple(FieldSpec(**f) for f in values[name]) for name in ("inputs", "targets")}
        rest = {name: tuple(values.get(name, ())) for name in ("sets", "spacings", "period")}
        return SampleSpec(**{**values, **fields, **rest})


def _found(meshes: Sequence[Mesh], name: str) -> FieldSpec:
    """Where an input lives in the first mesh; a kind of particle in the first that has some."""
    return find_field(next((mesh for mesh in meshes if mesh.is_cloud and name in mesh.point_sets), meshes[0]), name)


def common_sets(meshes: Sequence[Mesh]) -> list[str]:
    """Point sets that every mesh has and that are not empty, by name; those of a cloud are kinds and not places."""
    names = [{k for k, v in m.point_sets.items() if len(v) and not m.is_cloud} for m in meshes]
    return sorted(set.intersection(*names))


def _known_sets(meshes: Sequence[Mesh], sets: Sequence[str]) -> Sequence[str]:
    known = sorted({name for mesh in meshes for name in mesh.point_sets})
    if odd := sorted(set(sets) - set(known)):
        there = ", ".join(known) or "none"
        raise ValueError(f"sets: expected point sets that a training mesh has ({there}), got '{odd[0]}'")
    return sets


def _extent(mesh: Mesh) -> float:
    """Largest extent of a mesh; of points in a box that repeats, that of the box."""
    low, high = bounds(mesh)
    width = high - low
    if not mesh.period:
        return float(width.max())
    length = np.asarray(mesh.period) if np.ndim(mesh.period) == 1 else np.linalg.norm(mesh.period, axis=1)
    return float(np.where(length > 0, length, width).max())


def _graded(meshes: Sequence[Mesh]) -> bool:
    return is_graded([_sizes(mesh, 1.0) for mesh in meshes[:20]])


def _sizes(mesh: Mesh, unit: float) -> np.ndarray:
    """Of the cells around each node, in the unit; of nodes that repeat each other only one is there."""
    points, edges = in_units(mesh, unit), edges_of(mesh)
    if not mesh.period:
        return node_sizes(points, edges)
    return node_sizes(points, edges, np.array(mesh.period) / unit)[np.unique(repeats(mesh))]


def _spacings(meshes, unit, n_levels, first_step, next_step, graded_dim) -> tuple[float, ...]:
    first = first_step * float(np.median([_usual_size(mesh, unit, graded_dim > 0) for mesh in meshes[:20]]))
    if n_levels is None:
        across = 2.0 / first  # anchors of level 1 along the longest side
        if graded_dim:  # as many as there would be if cells were even
            across = float(np.median([m.n_nodes for m in meshes])) ** (1 / graded_dim) / first_step
        n_levels = max(3, 2 + int(np.floor(np.log(max(across / 4, 1)) / np.log(next_step) + 1e-9)))
    return tuple(first * next_step**s for s in range(n_levels - 1))


def _near(meshes, spacings, n_near: int | None, n_shells: int | None) -> tuple[int, int]:
    """Layers that read the near field, and the distances that they tell apart."""
    cloud = all(mesh.is_cloud for mesh in meshes)
    n_near = int(cloud and len(spacings) > 0) if n_near is None else n_near
    n_shells = (CLOUD_SHELLS if cloud else SHELLS) if n_shells is None else n_shells
    if n_near < 0 or (n_near and not spacings):
        raise ValueError(f"n_near: expected 0 or more, and 0 with n_levels = 1, got {n_near}")
    if n_shells < 1:
        raise ValueError(f"n_shells: expected at least 1, got {n_shells}")
    return n_near, n_shells


def _usual_size(mesh: Mesh, unit: float, graded: bool) -> float:
    """Median length of the edges, in the unit; of a graded mesh the median over its nodes."""
    if graded:
        return float(np.median(_sizes(mesh, unit)))
    edges, points = edges_of(mesh), in_units(mesh, unit)
    torus = torus_of(np.array(mesh.period) / unit) if mesh.period else None
    offset = nearest_image(points[edges[0]] - points[edges[1]], torus)
    length = np.linalg.norm(offset, axis=1)
    return float(np.median(length[length > 0])) if length.any() else 1.0  # points may lie on one another
