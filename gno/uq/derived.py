"""Numbers that follow from predictions (`gno post`), each in an interval that predictions of known truth calibrate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from gno.post.report import Report
from gno.post.samples import PREDICTED, flat
from gno.uncertain import Uncertain
from gno.uq.conformal import Conformal
from gno.uq.evaluate import FLOOR


@dataclasses.dataclass(frozen=True)
class Derived:
    """What follows from one prediction.

    Args:
        report: of the mean. samples: the same of each sample.
        truth: the same of the solver's fields, where they are known.
    """

    report: Report
    samples: Sequence[Report]
    truth: Report | None = None

    @property
    def numbers(self) -> dict[str, Uncertain]:
        """Every number with its doubt, (1,) each, by the name that it has of a solver's field."""
        value, known = flat(self.report.facts), [flat(sample.facts) for sample in self.samples]
        return {
            name.replace(PREDICTED, ""): Uncertain(np.array([[facts[name]] for facts in known])).centred(np.array([x]))
            for name, x in value.items()
        }


def with_intervals(report: Report, found: Derived, held_out: Sequence[Derived], coverage: float) -> Report:
    """The report with an interval of every number: ``value ∓ factor · std``, the factor of each from its own errors.

    Args:
        report: what is known already. found: what follows from the new prediction.
        held_out: of predictions by the same method, with their truth.
        coverage: probability inside.

    Raises:
        ValueError: too few held-out predictions for this coverage.
    """
    truths = [flat(known.truth.facts) for known in held_out if known.truth]
    numbers, lines, ends = [known.numbers for known in held_out], [], {}
    for name, number in found.numbers.items():
        truth = [np.array([facts[name]]) for facts in truths]
        floor = FLOOR * (math.sqrt(np.mean(np.square(truth))) or 1.0) if truth else 1.0
        one = [np.ones(1)] * len(truth)
        conformal = Conformal.fit([known[name] for known in numbers], truth, one, floor=floor)
        ends[name] = [float(end) for (end,) in conformal.interval(number, coverage)]
        lines.append(f"{'':2}{name:<32} {ends[name][0]:.6g} to {ends[name][1]:.6g}")
    title = f"inside with {coverage:.0%}, by {len(held_out)} held-out files:"
    return report.add(title, intervals=ends).add("\n".join(lines))
