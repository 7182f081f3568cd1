"""Prediction: the operator's output as meshes, in the user's units, at every scale."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph import FieldSpec, MeshData, collate
from gno.mesh import Mesh, node_mass, write
from gno.mesh.geometry import bounds
from gno.mesh.periodic import beside
from gno.nn import NeuroScale, Output
from gno.post.samples import sample_files, sample_folder
from gno.train.blueprint import Blueprint
from gno.train.memory import pages_kept
from gno.train.normalise import columns_of
from gno.train.units import check_unit
from gno.uncertain import Uncertain

# What a prediction's fields are called: the truth of the same name stays untouched beside it.
PREFIX = "predicted_"
# What the standard deviation of a field is called, beside its mean, and those of its two parts.
STD_PREFIX, EPISTEMIC_PREFIX, ALEATORIC_PREFIX = "std_", "epistemic_std_", "aleatoric_std_"
# The ends of a calibrated interval around it.
LOWER_PREFIX, UPPER_PREFIX = "lower_", "upper_"
DOUBTS = (STD_PREFIX, EPISTEMIC_PREFIX, ALEATORIC_PREFIX, LOWER_PREFIX, UPPER_PREFIX)
STORES = ("point_fields", "cell_fields", "global_fields")
# α of every scale at every node.
ATTENTION = "scale_attention"
# A batch for prediction holds at most this many nodes and meshes.
BATCH_NODES, BATCH_MESHES = 200_000, 16
# On larger meshes what the first call of a process takes longer does not show.
WARM_NODES = 50_000
# Formats that hold point clouds with fields; other formats get their coarse levels as VTU.
CLOUD_FORMATS = {".vtu", ".vtk", ".vtp", ".xdmf"}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What an operator, or several, say about one mesh; read alike whatever made it.

    Args:
        mesh: the input mesh, untouched, with ``predicted_<target>`` and ``scale_attention`` (n_nodes, n_levels) at
            its nodes; a target on cells is also given on cells (mean of its nodes), a global one as the mean. Where the
            doubt is known, ``predicted_`` is the mean, with the standard deviation ``std_<target>`` beside it and, of
            methods that tell them apart, the ``epistemic_`` and ``aleatoric_`` parts of it.
        levels: the coarser levels as point clouds with ``mass`` and the same fields.
        seconds: time of the operator itself.
        prepare_seconds: time to build the hierarchy and the features.
        targets: the predicted fields.
        quantities: on every scale, finest first, all targets side by side, (n_s, n_targets): one sample per member or
            draw, one alone for a plain operator. Entries of one sample belong together, over nodes, fields and scales.
    """

    mesh: Mesh
    levels: tuple[Mesh, ...]
    seconds: float
    prepare_seconds: float
    targets: tuple[FieldSpec, ...]
    quantities: tuple[Uncertain, ...]

    @property
    def has_doubt(self) -> bool:
        """Whether more is known than a single answer."""
        return self.quantities[0].has_doubt

    @property
    def n_samples(self) -> int:
        return self.quantities[0].n_samples

    def field(self, name: str, *, level: int = 0) -> Uncertain:
        """A target at the nodes of a level, 0 being the mesh: samples, mean, variances, quantiles.

        Raises:
            ValueError: no such target or level.
        """
        columns = {field.name: (columns, field) for columns, field in columns_of(self.targets)}
        if name not in columns:
            raise ValueError(f"field: expected one of {', '.join(columns)}, got '{name}'")
        if not 0 <= level <= len(self.levels):
            raise ValueError(f"level: expected 0 to {len(self.levels)}, got {level}")
        return _shaped(self.quantities[level][:, columns[name][0]], columns[name][1], None if level else self.mesh)

    def map(self, function: Callable[[Mesh], np.ndarray]) -> Uncertain:
        """What follows from the predicted fields (stress, a reaction, an energy), from each sample as a whole; its mean
        is what follows from the mean of the samples, as :meth:`gno.uncertain.Uncertain.map` has it.

        Args:
            function: a mesh that holds the targets, as one that a solver left, to whatever follows from them.
        """
        mass = node_mass(self.mesh)
        return self.quantities[0].map(lambda values: function(self._solved(values, mass)))

    def solved(self) -> Iterator[Mesh]:
        """For each sample the mesh with the targets under their own names, as if a solver had left them."""
        mass = node_mass(self.mesh)
        return (self._solved(values, mass) for values in self.quantities[0].samples)

    def _solved(self, values: Float[np.ndarray, "n_nodes n_targets"], mass: Float[np.ndarray, " n_nodes"]) -> Mesh:
        return with_values(self.mesh, Uncertain(values[None]), mass, self.targets, "")

    def write(self, path: str | Path, *, levels: bool = True) -> list[Path]:
        """Write the mesh to ``path`` and, if wanted, level s to ``<stem>_level<s>`` beside it; returns the paths."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix if path.suffix.lower() in CLOUD_FORMATS else ".vtu"
        paths = [
            path,
            *(path.with_name(f"{path.stem}_level{s}{suffix}") for s in range(1, len(self.levels) * levels + 1)),
        ]
        pairs = list(zip((self.mesh, *self.levels), paths, strict=levels))
        for mesh, target in reversed(pairs):  # the mesh last: where it is, all of the prediction is
            write(mesh, target)
        for old in sample_files(path):  # of a prediction that is no more
            old.unlink()
        return paths

    def write_samples(self, path: str | Path) -> list[Path]:
        """Write the mesh with each sample's fields as ``<stem>_samples/<k>.vtu``; returns the paths.

        The fields have the names of :attr:`mesh`, so that whatever is done with ``path`` can be done with each of them.
        """
        folder, mass, paths = sample_folder(Path(path)), node_mass(self.mesh), []
        folder.mkdir(parents=True, exist_ok=True)
        unwanted = {prefix + field.name for prefix in DOUBTS for field in self.targets}
        kept = {kind: {n: v for n, v in getattr(self.mesh, kind).items() if n not in unwanted} for kind in STORES}
        for k, values in enumerate(self.quantities[0].samples):
            mesh = with_values(self.mesh.replace(**kept), Uncertain(values[None]), mass, self.targets, PREFIX)
            paths.append(folder / f"{k}.vtu")
            write(mesh, paths[-1])
        return paths


@dataclasses.dataclass(frozen=True)
class Answer:
    """Output for one graph on the CPU: physical fields, mass shares, positions and α per level.

    ``truth`` is the reference restricted to each level as the operator does it, where the sample has its targets;
    ``coarse_seconds`` the time of the coarse levels alone, where it was asked for.
    """

    fields: list[Float[Tensor, "n_s n_targets"]]
    mass: list[Float[Tensor, " n_s"]]
    position: list[Float[Tensor, "n_s dim"]]
    attention: list[Float[Tensor, "n_s n_levels"]] | None
    seconds: float
    truth: list[Float[Tensor, "n_s n_targets"]] | None = None
    coarse_seconds: float | None = None


@torch.inference_mode()
def answers(
    model: nn.Module, blueprint: Blueprint, samples: Iterable[MeshData], *, costs: bool = False
) -> Iterator[Answer]:
    """The operator's answers to raw samples, in their order, computed in batches.

    Args:
        model: the operator.
        blueprint: its.
        samples: raw.
        costs: whether the fields alone are asked for, without α, and then the coarse levels again, for their time.
    """
    parameter = next(model.parameters())
    model.eval()

    def batch_of(group: list[MeshData]) -> Batch:
        ready = [in_precision(blueprint.normalisation.apply(sample), parameter.dtype) for sample in group]
        return collate(ready).to(parameter.device)

    for number, group in enumerate(batched(samples)):
        batch = batch_of(group)
        if number == 0 and len(group[0].mass_0) <= WARM_NODES:
            model(batch_of(group[:1]))  # the first call of a process pays for what is loaded lazily; it is not timed
        output, seconds = _timed(lambda x: model(x, return_attention=not costs), batch)
        coarse = _timed(model.coarse, batch)[1] if costs and scales_stand_alone(model, blueprint) else None
        n_nodes = sum(len(sample.mass_0) for sample in group)
        truth = output.restrict(batch.y) if all(sample.y is not None for sample in group) else None
        for g, sample in enumerate(group):
            share = len(sample.mass_0) / n_nodes
            answer = _answer(output, truth, g, blueprint, seconds * share, sample)
            yield answer if coarse is None else dataclasses.replace(answer, coarse_seconds=coarse * share)


def scales_stand_alone(model: nn.Module, blueprint: Blueprint) -> TypeGuard[NeuroScale]:
    """Whether there are coarse fields that do not follow from the one on the mesh."""
    physics = blueprint.case.physics
    follow = physics is not None and (physics.consistent or physics.conservative)
    return isinstance(model, NeuroScale) and model.config.n_levels > 1 and model.law is None and not follow


def _timed(call: Callable[[Batch], Output], batch: Batch) -> tuple[Output, float]:
    start = time.perf_counter()
    with pages_kept(batch.mass_0):
        output = call(batch)
    if batch.mass_0.is_cuda:
        torch.cuda.synchronize()
    return output, time.perf_counter() - start


@torch.inference_mode()
def coarse_answer(model: nn.Module, blueprint: Blueprint, sample: MeshData) -> Answer:
    """The operator's answer on the levels above the mesh alone, level 1 first.

    Raises:
        ValueError: an operator without anchors, or one whose coarse fields follow from the field on the mesh.
    """
    if not scales_stand_alone(model, blueprint):
        raise ValueError(
            "coarse: expected scales that stand alone, got a run with one level, model.n_substeps, physics.consistent "
            "or .conservative"
        )
    parameter = next(model.parameters())
    ready = in_precision(blueprint.normalisation.apply(sample), parameter.dtype)
    output, seconds = _timed(model.eval().coarse, collate([ready]).to(parameter.device))
    fields = [blueprint.normalisation.targets.decode(u.cpu()) for u in output.fields]
    mass, position = ([x.double().cpu() for x in values] for values in (output.mass, output.position))
    return Answer(fields, mass, position, None, seconds)


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


def prediction(
    mesh: Mesh,
    answer: Answer,
    blueprint: Blueprint,
    prepare_seconds: float,
    quantities: Sequence[Uncertain] | None = None,
) -> Prediction:
    """The answer as meshes, with the samples that it is the mean of; itself alone by default."""
    spec = blueprint.spec
    low, high = bounds(mesh)
    check_unit(float((high - low).max()), 2 * spec.unit, mesh.source)
    known = tuple(quantities or (Uncertain(fields.numpy()[None]) for fields in answer.fields))
    full = with_values(without_earlier(mesh, spec.targets), known[0], answer.mass[0].numpy(), spec.targets, PREFIX)
    if answer.attention is not None:
        full = full.with_point_fields(**{ATTENTION: answer.attention[0].numpy()})
    levels = tuple(level_mesh(mesh, known[s], answer, s, blueprint) for s in range(1, len(answer.fields)))
    return Prediction(full, levels, answer.seconds, prepare_seconds, spec.targets, known)


def without_earlier(mesh: Mesh, targets: Sequence[FieldSpec]) -> Mesh:
    """The mesh without the doubt of an earlier prediction in it, which is not that of the next one."""
    old = [field.name for field in targets if PREFIX + field.name in mesh.point_fields]
    gone = {prefix + name for prefix in DOUBTS for name in old}
    kept = {kind: {n: v for n, v in getattr(mesh, kind).items() if n not in gone} for kind in STORES}
    return mesh.replace(**kept) if old else mesh


def with_values(
    mesh: Mesh, quantity: Uncertain, mass: Float[np.ndarray, " n_nodes"], targets: Sequence[FieldSpec], prefix: str
) -> Mesh:
    """The mesh with all targets at its nodes, also on cells or as a whole where they belong there, and their doubt.

    Noise of nodes is taken as common to the nodes of a cell, or of the mesh: averages do not make it smaller.

    Args:
        quantity: all targets side by side, (n_nodes, n_targets).
        prefix: of the names of the mean.
    """
    stores = {name: dict(getattr(mesh, name)) for name in STORES}
    for columns, field in columns_of(targets):
        values = _shaped(quantity[:, columns], field, mesh)
        stores["point_fields"] |= _with_doubt(field.name, values, prefix)
        if field.location == "cell":
            cells = values.averaged(lambda u: nodes_to_cells(mesh, u))
            stores["cell_fields"] |= _with_doubt(field.name, cells, prefix)
        elif field.location == "global":
            whole = values.averaged(lambda u: np.tensordot(mass / mass.sum(), u, 1))
            stores["global_fields"] |= _with_doubt(field.name, whole, prefix)
    return mesh.replace(**stores)


def _with_doubt(name: str, values: Uncertain, prefix: str) -> dict[str, np.ndarray]:
    found = {prefix + name: values.mean}
    if values.has_doubt:
        found[STD_PREFIX + name] = values.std
    if values.noise is not None and values.n_samples > 1:
        found[EPISTEMIC_PREFIX + name] = np.sqrt(values.epistemic)
        found[ALEATORIC_PREFIX + name] = np.sqrt(values.aleatoric)
    return found


def nodes_to_cells(mesh: Mesh, values: Float[np.ndarray, "n_nodes ..."]) -> Float[np.ndarray, "n_cells ..."]:
    """The mean over the nodes of each cell."""
    blocks = [values[block.nodes].mean(1) for block in mesh.cells if len(block)]
    return np.concatenate(blocks) if blocks else values[:0]


def _shaped(values: Uncertain, field: FieldSpec, mesh: Mesh | None) -> Uncertain:
    """Values with the shape of the truth where the mesh has it; scalars as vectors of length n, others as columns."""
    stores = {} if mesh is None else {"point": mesh.point_fields, "cell": mesh.cell_fields}
    truth = stores.get(field.location, {}).get(field.name)
    tail = (field.n_components,) if truth is None else truth.shape[1:]
    if truth is None and field.n_components == 1:
        tail = ()
    return values.reshape(values.shape[0], *tail)


def level_mesh(mesh: Mesh, quantity: Uncertain, answer: Answer, s: int, blueprint: Blueprint) -> Mesh:
    """Entry s of an answer as a point cloud with masses, in the user's units."""
    spec = blueprint.spec
    low, high = bounds(mesh)
    points = np.tile(mesh.points[:1].astype(np.float64), (len(answer.position[s]), 1))  # a plane may lie at any height
    points[:, : spec.dim] = (low + high) / 2 + answer.position[s].numpy() * spec.unit
    points[:, : spec.dim] = beside(points[:, : spec.dim], mesh.points[:, : spec.dim].astype(np.float64), mesh.period)
    fields = {"mass": answer.mass[s].numpy() * float(node_mass(mesh).sum())}
    for columns, field in columns_of(spec.targets):
        fields |= _with_doubt(field.name, _shaped(quantity[:, columns], field, None), PREFIX)
    if answer.attention is not None:
        fields[ATTENTION] = answer.attention[s].numpy()
    source = f"{mesh.source}, level {s}"
    return Mesh(points, point_fields=fields, time=mesh.time, source=source, period=mesh.period)
