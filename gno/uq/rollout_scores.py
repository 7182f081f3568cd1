"""How good the doubt of rollouts is: every series counts the same, step by step and in windows of steps."""

from __future__ import annotations

import csv
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gno.train.normalise import columns_of
from gno.train.sources import frames_of
from gno.train.time_metrics import WINDOWS, window_name
from gno.uq.conformal import Conformal
from gno.uq.evaluate import AcrossMeshes, CalibratedScores, Judged, score_tables, text_table
from gno.uq.in_time import Series, known_steps
from gno.uq.metrics import COVERAGES, Reliability, Scores
from gno.uq.rollout import Step, follow
from gno.uq.sampler import Sampler

T = TypeVar("T", Scores, AcrossMeshes, CalibratedScores)


@dataclasses.dataclass(frozen=True)
class RolloutUncertainty:
    """Metrics of every field after each step that all series have, from the first on.

    A window is the mean over its steps. So a correlation is that within a step, and does not gain from errors that
    grow with the steps.

    Args:
        n_series: how many. steps: by field. diverged: what became of series that were not followed to their end.
    """

    n_series: int
    steps: Mapping[str, Sequence[Judged]]
    diverged: Sequence[str] = ()

    @property
    def n_steps(self) -> int:
        return len(next(iter(self.steps.values())))

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Those of :data:`gno.train.time_metrics.WINDOWS` that begin before the end."""
        return [(first, min(last, self.n_steps)) for first, last in WINDOWS if first <= self.n_steps]

    def window(self, field: str, first: int, last: int) -> Judged:
        """Mean over the steps first … last, counted from 1; calibrated over those that were."""
        some = self.steps[field][first - 1 : last]
        calibrated = [step.calibrated for step in some if step.calibrated]
        observed = np.mean([step.reliability.observed for step in some], axis=0)
        return Judged(
            _mean([step.scores for step in some]),
            Reliability(some[0].reliability.expected, observed),
            _mean([step.across for step in some]),
            _mean(calibrated) if calibrated else None,
        )

    def named_windows(self) -> dict[str, Judged]:
        """By field and window, as ``u, steps 6:12``."""
        return {
            f"{field}, {in_words(window)}": self.window(field, *window)
            for field in self.steps
            for window in self.windows
        }

    def to_json(self) -> str:
        """Everything but the diagrams, for machines."""
        document: dict[str, Any] = {"series": self.n_series, "diverged": list(self.diverged)}
        document["windows"] = {name: _plain(window) for name, window in self.named_windows().items()}
        document["steps"] = {field: [_plain(step) for step in steps] for field, steps in self.steps.items()}
        return json.dumps(document, indent=2)

    def __str__(self) -> str:
        windows = self.named_windows()
        calibrated = {name: x.calibrated for name, x in windows.items() if x.calibrated}
        parts = score_tables("mean over steps", {name: x.scores for name, x in windows.items()}, calibrated)
        if calibrated:
            whole = {name: [x.simultaneous.get(c) for c in COVERAGES] for name, x in calibrated.items()}
            title = "states wholly inside bands of"
            parts.append(text_table(title, [f"{c:.0%}" for c in COVERAGES], whole, "{:.1%}"))
        if self.n_series > 2:  # of two it is one or minus one
            across = {name: (x.across.pearson, x.across.spearman) for name, x in windows.items()}
            parts.append(text_table("std against error, over series", ("Pearson", "Spearman"), across))
        parts.append("\n".join([f"{self.n_series} series of {self.n_steps} steps", *self.diverged]))
        return "\n\n".join(parts)

    def write_csv(self, path: str | Path) -> Path:
        """One row per field and step: the scores, coverage and width at 90 %, correlation over series."""
        rows = [
            {"field": field, "step": k, **_row(step)}
            for field, steps in self.steps.items()
            for k, step in enumerate(steps, start=1)
        ]
        path = Path(path)
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return path


def in_words(window: tuple[int, int]) -> str:
    """
    >>> in_words((1, 1)), in_words((6, 12))
    ('step 1', 'steps 6:12')
    """
    return f"step{'s' if window[0] < window[1] else ''} {window_name(window)}"


def evaluate_in_time(
    sampler: Sampler,
    series: Iterable[Series],
    *,
    calibration: Mapping[str, Conformal] | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> RolloutUncertainty:
    """Roll out all samples from the first frames of each series, and judge their doubt after every step.

    Args:
        sampler: of a case with [time].
        series: with all states.
        calibration: of the same sampler, on other series, by field and step as ``u#3``.
        advance: is told of each series.

    Raises:
        ValueError: a series without a state or a step, none at all, or one that diverges in its first step.
    """
    followed: list[list[Step]] = []
    diverged: list[str] = []
    for source in series:
        frames = frames_of(source, sampler.operator.blueprint.spec)
        steps: list[Step] = []
        for step in follow(sampler, frames):
            if not np.isfinite(step.quantity.samples).all():
                diverged.append(f"{frames[0].source}: diverged in step {len(steps) + 1}; later steps are not judged")
                break
            steps.append(step.without_look())
        if not steps:
            raise ValueError(f"{frames[0].source}: diverged in its first step: not finite any more")
        followed.append(steps)
        advance(1)
    if not followed:
        raise ValueError("series to evaluate: expected at least one, got none")
    return judge_rollouts(sampler, followed, calibration=calibration, diverged=diverged)


def judge_rollouts(
    sampler: Sampler,
    followed: Sequence[Sequence[Step]],
    *,
    calibration: Mapping[str, Conformal] | None = None,
    diverged: Sequence[str] = (),
) -> RolloutUncertainty:
    """The same of series that were followed already."""
    calibration, found = calibration or {}, {}
    for columns, field in columns_of(sampler.operator.blueprint.spec.targets):
        known = known_steps(followed, columns)
        found[field.name] = [Judged.of(x, calibration.get(f"{field.name}#{k}")) for k, x in enumerate(known, start=1)]
    return RolloutUncertainty(len(followed), found, diverged)


def _plain(judged: Judged) -> dict[str, Any]:
    calibrated = dataclasses.asdict(judged.calibrated) if judged.calibrated else None
    return {
        "scores": dataclasses.asdict(judged.scores),
        "across": dataclasses.asdict(judged.across),
        "calibrated": calibrated,
    }


def _row(step: Judged, nominal: float = 0.9) -> dict[str, str]:
    scores, known, whole = step.scores, step.calibrated, f"{nominal:.0%}".rstrip("%")
    row = {
        **{name: value for name, value in vars(scores).items() if isinstance(value, float)},
        f"inside_{whole}": scores.coverage[nominal],
        f"width_{whole}": scores.width[nominal],
        f"calibrated_inside_{whole}": known.coverage.get(nominal) if known else None,
        f"calibrated_width_{whole}": known.width.get(nominal) if known else None,
        **{f"{name}_over_series": value for name, value in vars(step.across).items()},
    }
    return {name: "" if value is None else f"{value:.6g}" for name, value in row.items()}


def _mean(parts: Sequence[T]) -> T:
    """Number by number."""
    found: dict[str, Any] = {}
    for name, first in vars(parts[0]).items():
        values = [getattr(part, name) for part in parts]
        if isinstance(first, dict):
            found[name] = {key: statistics.fmean(value[key] for value in values) for key in first}
        else:
            found[name] = statistics.fmean(values)
    return type(parts[0])(**found)
