"""Evaluation: how far predictions are from the fields in the files."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph import FieldSpec, MeshData, collate
from gno.nn import Output
from gno.train.losses import mean_square
from gno.train.normalise import Scale, columns_of

# Fields smaller than this, against their usual size, are zero: normalised and back they are no longer so to the bit.
ROUND_OFF = 1e-6


@dataclasses.dataclass(frozen=True)
class ScaleRow:
    """One coarser scale of a mesh: its anchors, relative L2 error by field against the restricted reference, and the
    time of the operator up to the coarse scales; of all of it, where coarse fields follow from the one on the mesh."""

    nodes: int
    errors: dict[str, float]
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One mesh: relative L2 error by field, its size, the time of the operator, and the same of each coarser scale."""

    file: str
    nodes: int
    errors: dict[str, float]
    seconds: float
    scales: tuple[ScaleRow, ...] = ()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Relative L2 errors, √(Σ_i m_i |u_i − y_i|² / Σ_i m_i |y_i|²), per file and field.

    >>> e = Evaluation((Row("a", 10, {"u": 0.1}, 0.2), Row("b", 10, {"u": 0.3}, 0.2)))
    >>> e.mean["u"], e.worst["u"]
    (0.2, 0.3)
    """

    rows: tuple[Row, ...]

    @property
    def fields(self) -> list[str]:
        """Names of the targets."""
        return list(self.rows[0].errors)

    @property
    def mean(self) -> dict[str, float]:
        """Mean over files, per field."""
        return {name: statistics.fmean(self._column(name)) for name in self.fields}

    @property
    def median(self) -> dict[str, float]:
        """Median over files, per field."""
        return {name: statistics.median(self._column(name)) for name in self.fields}

    @property
    def worst(self) -> dict[str, float]:
        """Largest over files, per field."""
        return {name: max(self._column(name)) for name in self.fields}

    @property
    def scales(self) -> list[ScaleRow]:
        """Of each coarser scale, mean number of anchors, mean error and median time over files."""
        return [
            ScaleRow(
                round(statistics.fmean(row.nodes for row in rows)),
                {name: statistics.fmean(row.errors[name] for row in rows) for name in self.fields},
                statistics.median(row.seconds for row in rows),
            )
            for rows in zip(*(row.scales for row in self.rows), strict=True)
        ]

    @property
    def seconds(self) -> float:
        """Median time of the operator for one mesh."""
        return statistics.median(row.seconds for row in self.rows)

    def to_json(self) -> str:
        """Everything, for machines."""
        document: dict[str, Any] = {
            "metric": "relative L2, weighted by node mass",
            "files": [dataclasses.asdict(row) for row in self.rows],
            "mean": self.mean,
            "median": self.median,
            "worst": self.worst,
            "seconds": self.seconds,
            "scales": [dataclasses.asdict(scale) for scale in self.scales],
        }
        return json.dumps(document, indent=2)

    def __str__(self) -> str:
        width = max(10, *(len(name) for name in self.fields))
        first = max(len("median"), *(len(row.file) for row in self.rows))
        head = f"{'file':{first}} {'nodes':>9} {'ms':>8} " + " ".join(f"{name:>{width}}" for name in self.fields)
        lines = [head, "-" * len(head)]
        for row in self.rows:
            errors = " ".join(f"{row.errors[name]:>{width}.2%}" for name in self.fields)
            lines.append(f"{row.file:{first}} {row.nodes:9,d} {1e3 * row.seconds:8.1f} {errors}")
        lines.append("-" * len(head))
        for label, values in (("mean", self.mean), ("median", self.median), ("worst", self.worst)):
            errors = " ".join(f"{values[name]:>{width}.2%}" for name in self.fields)
            lines.append(f"{label:{first}} {'':9} {'':8} {errors}")
        if self.scales:
            lines.append("-" * len(head))
        for s, scale in enumerate(self.scales, start=1):
            errors = " ".join(f"{scale.errors[name]:>{width}.2%}" for name in self.fields)
            lines.append(f"{f'scale {s}':{first}} {scale.nodes:9,d} {1e3 * scale.seconds:8.1f} {errors}")
        return "\n".join(lines)

    def _column(self, name: str) -> list[float]:
        return [row.errors[name] for row in self.rows]


def row_of(
    name: str,
    sample: MeshData,
    fields: Sequence[Float[Tensor, "n_s n_targets"]],
    truth: Sequence[Float[Tensor, "n_s n_targets"]],
    mass: Sequence[Float[Tensor, " n_s"]],
    targets: tuple[FieldSpec, ...],
    seconds: float,
    coarse_seconds: float | None = None,
) -> Row:
    """Errors of one mesh on every scale, finest first; physical units, the sample raw."""
    coarse = zip(fields[1:], truth[1:], mass[1:], strict=True)
    cost = seconds if coarse_seconds is None else coarse_seconds
    scales = tuple(ScaleRow(len(u), errors_by_field(u, y, m, targets), cost) for u, y, m in coarse)
    return Row(name, len(sample.mass_0), relative_errors(fields[0], sample, targets), seconds, scales)


def relative_errors(
    predicted: Float[Tensor, "n_nodes n_targets"], sample: MeshData, fields: tuple[FieldSpec, ...]
) -> dict[str, float]:
    """Relative L2 of a prediction in physical units against the targets of a raw sample, by field."""
    return errors_by_field(predicted, sample.y.double(), sample.mass_0.double(), fields)


def errors_by_field(
    predicted: Float[Tensor, "n n_targets"],
    truth: Float[Tensor, "n n_targets"],
    mass: Float[Tensor, " n"],
    fields: tuple[FieldSpec, ...],
) -> dict[str, float]:
    """Relative L2 on any scale."""
    one, errors = torch.zeros(len(predicted), dtype=torch.long), {}
    for columns, field in columns_of(fields):
        error2 = mean_square((predicted - truth)[:, columns], mass, one, 1)
        size2 = mean_square(truth[:, columns], mass, one, 1)
        errors[field.name] = float((error2 / size2).sqrt()) if error2 > 0 else 0.0
    return errors


def level_errors(output: Output, batch: Batch, fields: tuple[FieldSpec, ...], scale: Scale) -> list[dict[str, Tensor]]:
    """Relative L2 in physical units, per level: by field, one number per graph of a normalised batch.

    Where a field is zero all over a mesh, as without a load, relative to its usual size in training.
    """
    targets = output.restrict(batch.y)
    levels = []
    for s, target in enumerate(targets):
        truth = scale.decode(target.cpu())
        difference = scale.decode(output.fields[s].cpu()) - truth
        errors = {}
        for columns, field in columns_of(fields):
            mass, graph = output.mass[s].cpu().double(), output.batch[s].cpu()
            error2 = mean_square(difference[:, columns], mass, graph, batch.num_graphs)
            size2 = mean_square(truth[:, columns], mass, graph, batch.num_graphs)
            usual2 = scale.rms[columns][0].to(size2) ** 2
            size2 = torch.where(size2 > ROUND_OFF**2 * usual2, size2, usual2)
            errors[field.name] = (error2 / size2).sqrt()
        levels.append(errors)
    return levels


@torch.inference_mode()
def validation_scores(
    model: nn.Module, samples: list[MeshData], fields: tuple[FieldSpec, ...], scale: Scale, batch_size: int
) -> dict[str, float]:
    """Mean errors over normalised samples: by field on the mesh, ``field@s`` on level s, their mean as ``score``."""
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    model.eval()
    for k in range(0, len(samples), batch_size):
        batch = collate(samples[k : k + batch_size]).to(device)
        for s, errors in enumerate(level_errors(model(batch), batch, fields, scale)):
            for name, values in errors.items():
                key = f"{name}@{s}" if s else name
                sums[key] = sums.get(key, 0.0) + float(values.sum())
    scores = {name: total / len(samples) for name, total in sums.items()}
    return {"score": statistics.fmean(scores[field.name] for field in fields), **scores} if samples else {}


def score_names(fields: tuple[FieldSpec, ...], n_levels: int) -> list[str]:
    """The keys of :func:`validation_scores`."""
    return ["score", *(f"{f.name}@{s}" if s else f.name for s in range(n_levels) for f in fields)]
