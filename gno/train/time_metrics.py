"""How far a rollout is from the truth, step by step: errors, correlation, statistics of patterns, drift of integrals.

A field that is chaotic, or right but late, is far from the truth in L2 while its patterns are right; therefore the
statistics: the energy on each scale, and the distribution of values.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gno.graph import FieldSpec, MeshData
from gno.train.evaluate import ROUND_OFF, mean_of_known, without_nan
from gno.train.normalise import columns_of

# Windows of steps, as The Well reports them (Ohana et al. 2024, section 5): the first step, 6 to 12, 13 to 30.
WINDOWS = ((1, 1), (6, 12), (13, 30))
# Below this correlation with the truth a rollout is taken to have lost it.
LOST = 0.8
# What VRMSE adds to the variance, as The Well does; the unit of a field is its usual size.
SMALL = 1e-7

Values = Float[Tensor, "n_nodes c"]
# Distance of a prediction from the truth on a mesh, both in units of the field's usual size in training; any may be
# given to the evaluation of rollouts.
Metric = Callable[[Values, Values, MeshData], Float[Tensor, ""]]


def relative_l2(u: Values, truth: Values, sample: MeshData) -> Float[Tensor, ""]:
    """``√(Σ m |u − y|² / Σ m |y|²)``; NaN where the truth is zero."""
    error2, size2 = _square(u - truth, sample), _square(truth, sample)
    return torch.where(size2 > ROUND_OFF**2, (error2 / size2).sqrt(), torch.nan)


def vrmse(u: Values, truth: Values, sample: MeshData) -> Float[Tensor, ""]:
    """``√(⟨|u − y|²⟩ / (⟨|y − ȳ|²⟩ + ε))``: 1 is what the mean of the truth would score.

    >>> sample = MeshData(mass_0=torch.tensor([0.5, 0.5]))
    >>> round(float(vrmse(torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]]), sample)), 3)
    1.0
    """
    return relative_size(u - truth, truth, sample)


def relative_size(u: Values, truth: Values, sample: MeshData) -> Float[Tensor, ""]:
    """``√(⟨|u|²⟩ / (⟨|y − ȳ|²⟩ + ε))``: of an error it is :func:`vrmse`, of a standard deviation as large as that."""
    return (_square(u, sample) / (_square(truth - _mean(truth, sample), sample) + SMALL)).sqrt()


def correlation(u: Values, truth: Values, sample: MeshData) -> Float[Tensor, ""]:
    """Pearson's, over nodes by mass and all components."""
    a, b = u - _mean(u, sample), truth - _mean(truth, sample)
    product = (sample.mass_0.to(a) @ (a * b).sum(1)) / sample.mass_0.to(a).sum()
    return product / (_square(a, sample) * _square(b, sample)).sqrt().clamp(min=torch.finfo(a.dtype).tiny)


def spectrum_distance(u: Values, truth: Values, sample: MeshData) -> Float[Tensor, ""]:
    """Mean over the scales of ``|log₁₀ e_s(u) / e_s(y)|``, e_s the energy of :func:`scale_energy`."""
    a, b = scale_energy(u, sample), scale_energy(truth, sample)
    floor = 1e-6 * b.sum().clamp(min=SMALL)
    return ((a + floor) / (b + floor)).log10().abs().mean()


def distribution_distance(u: Values, truth: Values, sample: MeshData) -> Float[Tensor, ""]:
    """Wasserstein distance of the values at nodes, by mass, in spreads of the truth; mean over components."""
    spread = _square(truth - _mean(truth, sample), sample).sqrt().clamp(min=SMALL)
    levels = (torch.arange(200, device=u.device, dtype=u.dtype) + 0.5) / 200
    distance = [
        (_quantiles(u[:, k], sample, levels) - _quantiles(truth[:, k], sample, levels)).abs().mean()
        for k in range(u.shape[1])
    ]
    return torch.stack(distance).mean() / spread


def drift(u: Values, truth: Values, sample: MeshData) -> Float[Tensor, ""]:
    """``|∫u − ∫y| / ∫|y|``, largest over components: what should be conserved, or change as the truth does. Components
    that are zero have none; NaN where all are."""
    size, gap = _mean(truth.abs(), sample), _mean(u - truth, sample).abs()
    known = size > ROUND_OFF
    return torch.where(known.any(), torch.where(known, gap / size, 0.0).max(), torch.nan)


METRICS: Mapping[str, Metric] = {
    "vrmse": vrmse,
    "relative_l2": relative_l2,
    "correlation": correlation,
    "drift": drift,
    "spectrum": spectrum_distance,
    "distribution": distribution_distance,
}


def scale_energy(values: Values, sample: MeshData) -> Float[Tensor, " n_scales"]:
    """Variance that each scale of the hierarchy adds, finest first; their sum is the variance of the field.

    ``e_s = ‖R_s u‖² − ‖R_{s+1} u‖²`` with R_s the mean over the nodes under an anchor of level s, an orthogonal
    projection: a spectrum on any mesh.
    """
    mass, u = sample.mass_0.to(values) / sample.mass_0.sum(), values - _mean(values, sample)
    energy = [mass @ u.square().sum(1)]
    for s in range(sample.n_levels - 1):
        own = sample[f"link_{s}"].long().gather(1, sample[f"log_b_{s}"].argmax(1, keepdim=True))[:, 0]
        n = sample[f"pos_{s + 1}"].shape[0]
        total = torch.zeros(n, dtype=mass.dtype, device=mass.device).index_add(0, own, mass)
        sums = torch.zeros(n, u.shape[1], dtype=u.dtype, device=u.device).index_add(0, own, mass[:, None] * u)
        u = sums / torch.where(total > 0, total, torch.ones_like(total))[:, None]
        mass = total
        energy.append(mass @ u.square().sum(1))
    return torch.stack([a - b for a, b in zip(energy, [*energy[1:], torch.zeros_like(energy[0])], strict=True)])


def correlation_time(values: Sequence[float], times: Sequence[float]) -> float:
    """When the correlation first falls below 0.8, linear in between; the end, if it never does.

    >>> round(correlation_time([1.0, 0.9, 0.7], [1.0, 2.0, 3.0]), 6)
    2.5
    """
    before, at = 1.0, 0.0
    for value, time in zip(values, times, strict=True):
        if not value >= LOST:
            share = (before - LOST) / (before - value) if before > value else 0.0
            return at + (time - at) * share
        before, at = value, time
    return at


def _mean(values: Values, sample: MeshData) -> Float[Tensor, " c"]:
    mass = sample.mass_0.to(values)
    return mass @ values / mass.sum()


def _square(values: Values, sample: MeshData) -> Float[Tensor, ""]:
    mass = sample.mass_0.to(values)
    return mass @ values.square().sum(1) / mass.sum()


def _quantiles(values: Float[Tensor, " n"], sample: MeshData, levels: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    order = values.argsort()
    share = sample.mass_0.to(values)[order].cumsum(0)
    return values[order[torch.searchsorted(share / share[-1], levels).clamp(max=len(values) - 1)]]


@dataclasses.dataclass(frozen=True)
class RolloutRow:
    """One trajectory: time since the last given frame, and each metric at each step, by field."""

    file: str
    nodes: int
    times: list[float]
    metrics: dict[str, dict[str, list[float]]]
    seconds: float
    diverged: str | None = None


@dataclasses.dataclass(frozen=True)
class RolloutEvaluation:
    """Metrics of rollouts over time, per file, field and step."""

    rows: tuple[RolloutRow, ...]

    @property
    def fields(self) -> list[str]:
        """Names of the states."""
        return list(next(iter(self.rows[0].metrics.values())))

    def curve(self, metric: str, field: str) -> list[float]:
        """Mean over the files at each step that all of them have; over those in which it is defined."""
        columns = [row.metrics[metric][field] for row in self.rows]
        return [mean_of_known(step) for step in zip(*columns, strict=False)]

    def window(self, metric: str, field: str, first: int, last: int) -> float | None:
        """Mean over files and over steps first … last, counted from 1; None where no rollout is so long, or the metric
        is defined nowhere, as a relative error of a field that is zero."""
        mean = mean_of_known(value for row in self.rows for value in row.metrics[metric][field][first - 1 : last])
        return None if math.isnan(mean) else mean

    def correlation_times(self, field: str) -> list[float]:
        """Per file, when the correlation with the truth is lost."""
        return [correlation_time(row.metrics["correlation"][field], row.times) for row in self.rows]

    @property
    def seconds(self) -> float:
        """Mean time of one step of one mesh."""
        return statistics.fmean(row.seconds / max(1, len(row.times)) for row in self.rows)

    def to_json(self) -> str:
        """Everything, for machines."""
        windows = {
            metric: {f: {window_name(w): self.window(metric, f, *w) for w in WINDOWS} for f in self.fields}
            for metric in self.rows[0].metrics
        }
        document: dict[str, Any] = {
            "windows": windows,
            "correlation_time": {field: self.correlation_times(field) for field in self.fields},
            "seconds_per_step": self.seconds,
            "files": [dataclasses.asdict(row) for row in self.rows],
        }
        return json.dumps(without_nan(document), indent=2)

    def __str__(self) -> str:
        titles = ["field", *(f"VRMSE {window_name(w)}" for w in WINDOWS), *(f"L2 {window_name(w)}" for w in WINDOWS)]
        titles += ["correlated", "drift", "spectrum", "values"]
        titles += [f"std {window_name(w)}" for w in WINDOWS if "spread" in self.rows[0].metrics]
        table = [titles, *(self._line(field) for field in self.fields)]
        widths = [max(len(row[k]) for row in table) for k in range(len(titles))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        lines.insert(1, "-" * len(lines[0]))
        steps = [len(row.times) for row in self.rows]
        length = f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
        lines.append(
            f"\n{len(self.rows)} rollouts of {length} steps, {1e3 * self.seconds:.1f} ms per step; at the end: drift"
        )
        lines[-1] += " of the integral, log10 of the energy per scale, distance of the values in spreads"
        if "spread" in self.rows[0].metrics:
            lines.append("std: of the samples, in the unit of VRMSE: where it is calibrated the two are equal")
        lines += [f"{row.file}: {row.diverged}" for row in self.rows if row.diverged]
        return "\n".join(lines)

    def _line(self, field: str) -> list[str]:
        cells = [field]
        for metric, look in (("vrmse", "{:.4f}"), ("relative_l2", "{:.2%}")):
            values = [self.window(metric, field, *window) for window in WINDOWS]
            cells += ["–" if value is None else look.format(value) for value in values]
        last = {name: mean_of_known(row.metrics[name][field][-1] for row in self.rows) for name in self.rows[0].metrics}
        until = statistics.fmean(self.correlation_times(field))
        whole = all(t >= row.times[-1] for t, row in zip(self.correlation_times(field), self.rows, strict=True))
        cells += [
            ("≥ " if whole else "") + f"{until:.3g}",
            "–" if math.isnan(last["drift"]) else f"{last['drift']:.2e}",
        ]
        cells += [f"{last['spectrum']:.3f}", f"{last['distribution']:.3f}"]
        spread = [self.window("spread", field, *w) for w in WINDOWS if "spread" in last]
        return cells + ["–" if value is None else f"{value:.4f}" for value in spread]

    def write_csv(self, path: str | Path) -> Path:
        """Mean curves over the files, one row per step: what :func:`gno.post.draw_rollout` draws."""
        path = Path(path)
        names = [(metric, field) for metric in self.rows[0].metrics for field in self.fields]
        columns = [self.curve(*name) for name in names]
        times = [statistics.fmean(step) for step in zip(*(row.times for row in self.rows), strict=False)]
        lines = [",".join(["step", "time", *(f"{metric} {field}" for metric, field in names)])]
        for k, values in enumerate(zip(times, *columns, strict=True)):
            lines.append(",".join([str(k + 1), *(f"{value:.6g}" for value in values)]))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


def window_name(window: tuple[int, int]) -> str:
    """
    >>> window_name((1, 1)), window_name((6, 12))
    ('1', '6:12')
    """
    return str(window[0]) if window[0] == window[1] else f"{window[0]}:{window[1]}"


def measured(
    u: Float[Tensor, "n_nodes c"],
    truth: Float[Tensor, "n_nodes c"],
    sample: MeshData,
    fields: Sequence[FieldSpec],
    metrics: Mapping[str, Metric] = METRICS,
) -> Float[Tensor, "n_metrics n_fields"]:
    """All metrics of one step, by field; they stay on the device. Values are in units of the usual size."""
    columns = [columns for columns, _ in columns_of(fields)]
    return torch.stack(
        [torch.stack([metric(u[:, c], truth[:, c], sample) for c in columns]) for metric in metrics.values()]
    )
