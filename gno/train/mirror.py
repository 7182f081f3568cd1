"""Mirror images in training: whether what a case learns from is the same in its mirrors, and their equation."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Batch

from gno.graph import MeshData, SampleSpec
from gno.graph.mirror import check_vectors, image_of_mesh, signs_of
from gno.mesh import Mesh
from gno.nn import Output
from gno.physics.problem import Problem
from gno.physics.stepping import at_step
from gno.train.case import Case
from gno.train.losses import Loss
from gno.train.physics import problem_of, turned_back, unknown_columns
from gno.train.physics_in_time import step_problem
from gno.train.trajectory import Trajectory

# Residuals that are the same but for round-off differ by less, relative to the largest.
SAME = 1e-6


@dataclasses.dataclass(frozen=True)
class OnMesh:
    """A loss of the physics, also on mirror images: their fields, and in time the state that a step starts from and its
    forcing, are turned back and asked of the problem of the mesh.

    Args:
        loss: of (batch, output).
    """

    loss: Loss

    def __call__(self, batch: Batch, output: Output) -> Float[Tensor, ""]:
        levels = zip(output.fields, output.batch, strict=True)
        fields = (turned_back(u, batch, graph) for u, graph in levels)
        ready, graph = copy.copy(batch), batch.pos_0_batch
        if "state" in batch:
            ready.state = turned_back(batch.state, batch, graph)
            ready.forcing = batch.forcing * batch.turn_forcing.index_select(0, graph)[:, None]
        return self.loss(ready, dataclasses.replace(output, fields=tuple(fields)))


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
    problem, columns = _problem(mesh, case, spec), unknown_columns(case, spec)
    place = problem.points - problem.points.mean(0)
    extent = float(np.ptp(mesh.points, axis=0).max())
    angle = place @ torch.linspace(1, 3, spec.dim * len(columns)).to(place).reshape(spec.dim, -1) / extent
    for axis, signs in zip(case.data.mirror_axes, signs_of(spec, case.data.mirror_axes), strict=False):
        image, sign = _problem(image_of_mesh(mesh, axis), case, spec), signs["y"][columns].to(place)
        for u in (torch.zeros_like(angle), 0.01 * extent * angle.sin()):  # small: a solid must not fold over
            residual, there = problem.residual(problem.lift(u)), image.residual(image.lift(sign * u))
            if (there - sign * residual).abs().max() > SAME * residual.abs().max():
                raise ValueError(
                    f"data.mirror: expected [physics] that is the same in a mirror, got another residual on the image "
                    f"in {'xyz'[axis]} of {mesh.source}; numbers for a vector have one direction on every mesh: give "
                    "what has a direction as a field, and as an input"
                )


def _problem(mesh: Mesh, case: Case, spec: SampleSpec) -> Problem:
    """What a case states on a mesh; in time of a step from rest."""
    if case.time is None:
        return problem_of(mesh, case)
    rest = torch.zeros(mesh.n_nodes, len(unknown_columns(case, spec)), dtype=torch.float64)
    return at_step(step_problem(mesh, case), rest, torch.ones(1, dtype=torch.float64))
