"""Prediction: the operator's output as meshes, in the user's units, at every scale."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph import FieldSpec, MeshData, collate
from gno.mesh import Mesh, node_mass, write
from gno.nn import Output
from gno.train.blueprint import Blueprint
from gno.train.normalise import columns_of

# What a prediction's fields are called: the truth of the same name stays untouched beside it.
PREFIX = "predicted_"
# α of every scale at every node.
ATTENTION = "scale_attention"
# A batch for prediction holds at most this many nodes and meshes.
BATCH_NODES, BATCH_MESHES = 200_000, 16
# Formats that hold point clouds with fields; other formats get their coarse levels as VTU.
CLOUD_FORMATS = {".vtu", ".vtk", ".vtp", ".xdmf"}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the operator says about one mesh.

    Args:
        mesh: the input mesh, untouched, with ``predicted_<target>`` and ``scale_attention`` (n_nodes, n_levels) at
            its nodes; a target on cells is also given on cells (mean of its nodes), a global one as the mean.
        levels: the coarser levels as point clouds with ``mass``, ``predicted_<target>`` and ``scale_attention``.
        seconds: time of the operator itself.
        prepare_seconds: time to build the hierarchy and the features.
    """

    mesh: Mesh
    levels: tuple[Mesh, ...]
    seconds: float
    prepare_seconds: float

    def write(self, path: str | Path, *, levels: bool = True) -> list[Path]:
        """Write the mesh to ``path`` and, if wanted, level s to ``<stem>_level<s>`` beside it; returns the paths."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix if path.suffix.lower() in CLOUD_FORMATS else ".vtu"
        paths = [
            path,
            *(path.with_name(f"{path.stem}_level{s}{suffix}") for s in range(1, len(self.levels) * levels + 1)),
        ]
        for mesh, target in zip((self.mesh, *self.levels), paths, strict=levels):
            write(mesh, target)
        return paths


@dataclasses.dataclass(frozen=True)
class Answer:
    """Output for one graph on the CPU: physical fields, mass shares, positions and α per level.

    ``truth`` is the reference restricted to each level as the operator does it, where the sample has its targets.
    """

    fields: list[Float[Tensor, "n_s n_targets"]]
    mass: list[Float[Tensor, " n_s"]]
    position: list[Float[Tensor, "n_s dim"]]
    attention: list[Float[Tensor, "n_s n_levels"]] | None
    seconds: float
    truth: list[Float[Tensor, "n_s n_targets"]] | None = None


@torch.inference_mode()
def answers(model: nn.Module, blueprint: Blueprint, samples: Iterable[MeshData]) -> Iterator[Answer]:
    """The operator's answers to raw samples, in their order, computed in batches."""
    parameter = next(model.parameters())
    model.eval()

    def batch_of(group: list[MeshData]) -> Batch:
        ready = [in_precision(blueprint.normalisation.apply(sample), parameter.dtype) for sample in group]
        return collate(ready).to(parameter.device)

    for number, group in enumerate(batched(samples)):
        batch = batch_of(group)
        if number == 0:
            model(batch_of(group[:1]))  # the first call of a process pays for what is loaded lazily; it is not timed
        start = time.perf_counter()
        output = model(batch, return_attention=True)
        if parameter.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        n_nodes = sum(len(sample.mass_0) for sample in group)
        truth = output.restrict(batch.y) if all(sample.y is not None for sample in group) else None
        for g, sample in enumerate(group):
            yield _answer(output, truth, g, blueprint, seconds * len(sample.mass_0) / n_nodes, sample)


def in_precision(sample: MeshData, dtype: torch.dtype) -> MeshData:
    """A copy whose real numbers have the given precision."""
    return copy.copy(sample).apply(lambda value: value.to(dtype) if value.is_floating_point() else value)


def batched(samples: Iterable[MeshData]) -> Iterator[list[MeshData]]:
    """Groups of samples that fit into one batch."""
    group: list[MeshData] = []
    n_nodes = 0
    for sample in samples:
        if group and (n_nodes + len(sample.mass_0) > BATCH_NODES or len(group) == BATCH_MESHES):
            yield group
            group, n_nodes = [], 0
        group.append(sample)
        n_nodes += len(sample.mass_0)
    if group:
        yield group


def _answer(
    output: Output, truth: list[Tensor] | None, graph: int, blueprint: Blueprint, seconds: float, sample: MeshData
) -> Answer:
    rows = [batch == graph for batch in output.batch]
    decode = blueprint.normalisation.targets.decode
    alpha = output.attention
    fields = [decode(u[r].cpu()) for u, r in zip(output.fields, rows, strict=True)]
    if "fixed" in sample:  # to the bit, which no change of units keeps
        fields[0] = torch.where(sample.fixed, sample.given, fields[0])
    return Answer(
        fields,
        [m[r].double().cpu() for m, r in zip(output.mass, rows, strict=True)],
        [p[r].double().cpu() for p, r in zip(output.position, rows, strict=True)],
        None if alpha is None else [a[r].double().cpu() for a, r in zip(alpha, rows, strict=True)],
        seconds,
        None if truth is None else [decode(y[r].cpu()) for y, r in zip(truth, rows, strict=True)],
    )


def prediction(mesh: Mesh, answer: Answer, blueprint: Blueprint, prepare_seconds: float) -> Prediction:
    """The answer as meshes."""
    spec = blueprint.spec
    point, cell, whole = dict(mesh.point_fields), dict(mesh.cell_fields), dict(mesh.global_fields)
    for columns, field in columns_of(spec.targets):
        values = _shaped(answer.fields[0][:, columns], field, mesh)
        point[PREFIX + field.name] = values
        if field.location == "cell":
            cell[PREFIX + field.name] = nodes_to_cells(mesh, values)
        elif field.location == "global":
            whole[PREFIX + field.name] = np.tensordot(answer.mass[0].numpy(), values, 1)
    if answer.attention is not None:
        point[ATTENTION] = answer.attention[0].numpy()
    full = mesh.replace(point_fields=point, cell_fields=cell, global_fields=whole)
    levels = tuple(_level(mesh, answer, s, blueprint) for s in range(1, len(answer.fields)))
    return Prediction(full, levels, answer.seconds, prepare_seconds)


def nodes_to_cells(mesh: Mesh, values: Float[np.ndarray, "n_nodes ..."]) -> Float[np.ndarray, "n_cells ..."]:
    """The mean over the nodes of each cell."""
    blocks = [values[block.nodes].mean(1) for block in mesh.cells if len(block)]
    return np.concatenate(blocks) if blocks else values[:0]


def _shaped(values: Tensor, field: FieldSpec, mesh: Mesh) -> np.ndarray:
    """Values with the shape of the truth where the mesh has it; scalars as vectors of length n, others as columns."""
    truth = {"point": mesh.point_fields, "cell": mesh.cell_fields}.get(field.location, {}).get(field.name)
    tail = (field.n_components,) if truth is None else truth.shape[1:]
    if truth is None and field.n_components == 1:
        tail = ()
    return values.numpy().reshape(len(values), *tail)


def _level(mesh: Mesh, answer: Answer, s: int, blueprint: Blueprint) -> Mesh:
    spec = blueprint.spec
    low, high = mesh.points.min(0), mesh.points.max(0)
    points = np.broadcast_to((low + high) / 2, (len(answer.position[s]), mesh.points.shape[1])).astype(np.float64)
    points[:, : spec.dim] += answer.position[s].numpy() * spec.unit
    fields = {"mass": answer.mass[s].numpy() * float(node_mass(mesh).sum())}
    for columns, field in columns_of(spec.targets):
        values = answer.fields[s][:, columns].numpy()
        fields[PREFIX + field.name] = values[:, 0] if field.n_components == 1 else values
    if answer.attention is not None:
        fields[ATTENTION] = answer.attention[s].numpy()
    return Mesh(points, point_fields=fields, time=mesh.time, source=f"{mesh.source}, level {s}")
