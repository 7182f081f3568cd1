"""Whether what a case learns from is the same in its mirrors: checked before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gno.graph import MeshData, SampleSpec
from gno.graph.mirror import check_vectors, image_of_mesh, signs_of
from gno.mesh import Mesh
from gno.train.case import Case
from gno.train.physics import problem_of, unknown_columns
from gno.train.trajectory import Trajectory

# Residuals that are the same but for round-off differ by less, relative to the largest.
SAME = 1e-6


def check_fields(samples: Sequence[MeshData] | Sequence[Trajectory], spec: SampleSpec, case: Case) -> None:
    """All inputs and targets must be known in a mirror.

    Raises:
        ValueError: one that may be a vector or not, or meshes without one of the axes.
    """
    forcing = case.time.forcing if case.time else ()
    signs_of(spec, case.data.mirror_axes, forcing)
    forced = [field for field in spec.inputs if field.name in forcing]
    for sample in samples:
        if isinstance(sample, Trajectory):
            check_vectors(spec.inputs, spec.dim, [mesh.x for mesh in sample.samples])
            check_vectors(spec.targets, spec.dim, sample.states)
            check_vectors(forced, spec.dim, sample.forcing)
        else:
            check_vectors(spec.inputs, spec.dim, [sample.x])
            check_vectors(spec.targets, spec.dim, [sample.y])


def check_physics(mesh: Mesh, spec: SampleSpec, case: Case) -> None:
    """The equation with all that is given must ask of the image of a field what it asks of the field: the loads, and
    the residual of some field, are compared on a mesh and on its image.

    Raises:
        ValueError: it does not.
    """
    problem, columns = problem_of(mesh, case), unknown_columns(case, spec)
    place = problem.points - problem.points.mean(0)
    extent = float(np.ptp(mesh.points, axis=0).max())
    angle = place @ torch.linspace(1, 3, spec.dim * len(columns)).to(place).reshape(spec.dim, -1) / extent
    for axis, signs in zip(case.data.mirror_axes, signs_of(spec, case.data.mirror_axes), strict=False):
        image, sign = problem_of(image_of_mesh(mesh, axis), case), signs["y"][columns].to(place)
        for u in (torch.zeros_like(angle), 0.01 * extent * angle.sin()):  # small: a solid must not fold over
            residual, there = problem.residual(problem.lift(u)), image.residual(image.lift(sign * u))
            if (there - sign * residual).abs().max() > SAME * residual.abs().max():
                raise ValueError(
                    f"data.mirror: expected [physics] that is the same in a mirror, got another residual on the image "
                    f"in {'xyz'[axis]} of {mesh.source}; numbers for a vector have one direction on every mesh: give "
                    "what has a direction as a field, and as an input"
                )
