"""Evaluation: how far predictions are from the fields in the files."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Sequence
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
    """One coarser scale of a mesh: its anchors, relative L2 error by field against the restricted reference (NaN where
    that is zero), and the time of the operator up to the coarse scales; of all of it, where coarse fields follow from
    the one on the mesh."""

    nodes: int
    errors: dict[str, float]
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One mesh: its size, relative L2 error by field (NaN where the true field is zero), the time of the operator, the
    same of each coarser scale, and the RMS error by field in the field's own unit."""

    file: str
    nodes: int
    errors: dict[str, float]
    seconds: float
    scales: tuple[ScaleRow, ...] = ()
    rms: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Relative L2 errors, √(Σ_i m_i |u_i − y_i|² / Σ_i m_i |y_i|²), per file and field.

    Where a field is zero all over a file, as without a load, there is no such error: it is NaN, the table shows the RMS
    error in the field's own unit in its place, and mean, median and worst are those of the other files.

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
        return {name: mean_of_known(self._column(name)) for name in self.fields}

    @property
    def median(self) -> dict[str, float]:
        """Median over files, per field."""
        return {name: statistics.median(self._column(name) or [math.nan]) for name in self.fields}

    @property
    def worst(self) -> dict[str, float]:
        """Largest over files, per field."""
        return {name: max(self._column(name), default=math.nan) for name in self.fields}

    @property
    def zero(self) -> dict[str, int]:
        """In how many files a field is zero, for fields of which there are any."""
        counts = {name: len(self.rows) - len(self._column(name)) for name in self.fields}
        return {name: count for name, count in counts.items() if count}

    @property
    def scales(self) -> list[ScaleRow]:
        """Of each coarser scale, mean number of anchors, mean error and median time over files."""
        return [
            ScaleRow(
                round(statistics.fmean(row.nodes for row in rows)),
                {name: mean_of_known(row.errors[name] for row in rows) for name in self.fields},
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
        return json.dumps(without_nan(document), indent=2)

    def __str__(self) -> str:
        width = max(10, *(len(name) for name in self.fields))
        first = max(len("median"), *(len(row.file) for row in self.rows))
        head = f"{'file':{first}} {'nodes':>9} {'ms':>8} " + " ".join(f"{name:>{width}}" for name in self.fields)
        rule = "-" * len(head)

        def line(label: str, size: str, cells: Iterable[str]) -> str:
            return f"{label:{first}} {size:>18} " + " ".join(f"{cell:>{width}}" for cell in cells)

        def sized(row: Row | ScaleRow) -> str:
            return f"{row.nodes:9,d} {1e3 * row.seconds:8.1f}"

        lines = [head, rule]
        for row in self.rows:
            lines.append(
                line(row.file, sized(row), (_cell(row.errors[name], row.rms.get(name)) for name in self.fields))
            )
        lines.append(rule)
        for label, values in (("mean", self.mean), ("median", self.median), ("worst", self.worst)):
            lines.append(line(label, "", map(_cell, values.values())))
        if self.scales:
            lines.append(rule)
        for s, scale in enumerate(self.scales, start=1):
            lines.append(line(f"scale {s}", sized(scale), map(_cell, scale.errors.values())))
        return "\n".join([*lines, *self._legend()])

    def _legend(self) -> list[str]:
        """What stands for the relative errors that do not exist."""
        if not self.zero:
            return []
        where = ", ".join(f"{name} in {count} of {len(self.rows)} files" for name, count in self.zero.items())
        return [
            f"\nrms: the true field is zero ({where}) and has no relative error: RMS error in the field's own unit;",
            "     mean, median, worst and scales are those of the other files",
        ]

    def _column(self, name: str) -> list[float]:
        return [row.errors[name] for row in self.rows if not math.isnan(row.errors[name])]


def mean_of_known(values: Iterable[float]) -> float:
    """Of those that are numbers; NaN if none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return statistics.fmean(numbers) if numbers else math.nan


def _cell(error: float, rms: float | None = None) -> str:
    """A relative error; where there is none the absolute one, if that is known."""
    if not math.isnan(error):
        return f"{error:.2%}"
    return "-" if rms is None else f"{rms:.2g} rms"


def without_nan(document: Any) -> Any:
    """The same with null for NaN, which JSON does not have."""
    if isinstance(document, dict):
        return {key: without_nan(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [without_nan(value) for value in document]
    return None if isinstance(document, float) and math.isnan(document) else document


def row_of(
    name: str,
    sample: MeshData,
    fields: Sequence[Float[Tensor, "n_s n_targets"]],
    truth: Sequence[Float[Tensor, "n_s n_targets"]],
    mass: Sequence[Float[Tensor, " n_s"]],
    targets: tuple[FieldSpec, ...],
    seconds: float,
    coarse_seconds: float | None = None,
    scale: Scale | None = None,
) -> Row:
    """Errors of one mesh on every scale, finest first; physical units, the sample raw. A field is zero that is so
    beside its usual size, where that is known from its scale in training."""
    coarse = zip(fields[1:], truth[1:], mass[1:], strict=True)
    cost = seconds if coarse_seconds is None else coarse_seconds
    scales = tuple(ScaleRow(len(u), errors_by_field(u, y, m, targets, scale), cost) for u, y, m in coarse)
    y, m = sample.y.double(), sample.mass_0.double()
    errors, rms = errors_by_field(fields[0], y, m, targets, scale), rms_by_field(fields[0] - y, m, targets)
    return Row(name, len(m), errors, seconds, scales, rms)


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
    scale: Scale | None = None,
) -> dict[str, float]:
    """Relative L2 on any scale; NaN where the truth is zero."""
    error, size = rms_by_field(predicted - truth, mass, fields), rms_by_field(truth, mass, fields)
    usual = {field.name: 0.0 if scale is None else float(scale.rms[c][0]) for c, field in columns_of(fields)}
    return {n: error[n] / size[n] if size[n] > ROUND_OFF * usual[n] else math.nan for n in error}


def rms_by_field(
    values: Float[Tensor, "n n_targets"], mass: Float[Tensor, " n"], fields: tuple[FieldSpec, ...]
) -> dict[str, float]:
    """``√(Σ_i m_i |u_i|² / Σ_i m_i)`` of each field, in its own unit."""
    one = torch.zeros(len(values), dtype=torch.long)
    return {f.name: float(mean_square(values[:, c], mass, one, 1).sqrt()) for c, f in columns_of(fields)}


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
    return with_mean(scores, statistics.fmean(scores[field.name] for field in fields)) if samples else {}


def with_mean(scores: dict[str, float], mean: float) -> dict[str, float]:
    """The scores behind their mean, which chooses the weights, also where a field is called ``score``."""
    return {"score": mean} | scores | {"score": mean}


def score_names(fields: tuple[FieldSpec, ...], n_levels: int) -> list[str]:
    """The keys of :func:`validation_scores`."""
    names = ("score", *(f"{f.name}@{s}" if s else f.name for s in range(n_levels) for f in fields))
    return list(dict.fromkeys(names))
