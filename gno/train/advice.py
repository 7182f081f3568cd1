"""What would help a trained operator most: more files, or more minutes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from gno.train.run import Run

# Files that are looked at of each kind, so that it takes seconds.
MOST = 32
# How many times worse the validation files may be than the training files. Below the first four times the minutes
# gained more than four times the files, above the second hardly anything (benchmarks/results/learning_curves.md).
CLOSE, FAR = 1.5, 3.0
# Above this error the training files themselves are not learned yet, whatever the gap.
UNLEARNED = 0.5


def advise(run: Run, train: Sequence[Path], validation: Sequence[Path]) -> str:
    """Errors on training files beside those on validation files, and what they say, in a line.

    Args:
        run: of labelled files, steady and without an equation; of others nothing is said.
        train, validation: its files.
    """
    case = run.blueprint.case
    if case.time is not None or case.physics is not None or not validation:
        return ""
    some = [_some(files) for files in (train, validation)]
    known, unseen = (statistics.fmean(run.evaluate(files).mean.values()) for files in some)
    if not known or math.isnan(known + unseen):  # fields that are zero everywhere
        return ""
    errors = f"error {known:.2%} on {len(some[0])} training files, {unseen:.2%} on {len(some[1])} validation files"
    return f"{errors}: {verdict(unseen / known if known < UNLEARNED else 1.0)}"


def verdict(gap: float) -> str:
    """What would help, by how many times worse the validation files are.

    >>> verdict(1.2)
    'more minutes would help most'
    """
    if gap < CLOSE:
        return "more minutes would help most"
    if gap < FAR:
        return "both more files and more minutes would help"
    return "more files would help, or data.mirror or [physics]; more minutes would not"


def _some(files: Sequence[Path]) -> list[Path]:
    """At most so many, from all over."""
    return [files[k * len(files) // min(MOST, len(files))] for k in range(min(MOST, len(files)))]
