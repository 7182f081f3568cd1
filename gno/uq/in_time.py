"""Intervals and flags in time: what is exchangeable is the series, rolled out from its first frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gno.mesh import Mesh
from gno.train.normalise import columns_of
from gno.train.sources import frames_of
from gno.uncertain import Uncertain
from gno.uq.conformal import Conformal
from gno.uq.evaluate import FLOOR
from gno.uq.novelty import Detector, Look
from gno.uq.rollout import follow
from gno.uq.sampler import Sampler

# What is usual is read off at most so many steps of the training series.
MOST_STEPS = 400

Series = Sequence[Mesh] | Mesh | Path


def calibrate_in_time(
    sampler: Sampler,
    training: Sequence[Series],
    held_out: Sequence[Series],
    *,
    false_alarms: float,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[dict[str, Conformal], Detector | None]:
    """Intervals of every field at every step that all held-out series have, and a detector.

    A series is scored by the largest score of its steps: one like the held-out ones is flagged in any of so many steps
    with at most the stated probability. Training series are rolled out as others are, for what a rollout feeds the
    operator is not what a solver would.

    Args:
        sampler: of a case with [time].
        training: series that it was trained on. held_out: others, with all states.
        false_alarms: rate. advance: is told of each series.

    Raises:
        ValueError: a series without a state or a step, or too few for the rate.
    """
    detector = None
    if training:
        looks, owner = _looks(sampler, training, advance)
        detector = Detector.of(sampler, looks, owner)
    scores, series = [], []
    for source in held_out:
        largest, known = 0.0, []
        for step in follow(sampler, frames_of(source)):
            known.append((step.quantity, step.truth, step.mass))
            if detector is not None:
                largest = max(largest, detector.judge(detector.squares(step.look)).score)
        scores.append(largest)
        series.append(known)
        advance(1)
    return _intervals(sampler, series), detector and detector.with_threshold(scores, false_alarms)


def _looks(
    sampler: Sampler, training: Sequence[Series], advance: Callable[[int], None]
) -> tuple[list[Look], list[int]]:
    """Looks at some steps of every series, and the number of the series of each."""
    most, looks, owner = max(1, MOST_STEPS // len(training)), [], []
    for number, source in enumerate(training):
        frames = frames_of(source)
        stride = -(-len(frames) // most)
        some = [step.look for k, step in enumerate(follow(sampler, frames)) if k % stride == 0]
        looks += some
        owner += [number] * len(some)
        advance(1)
    return looks, owner


def _intervals(
    sampler: Sampler, series: Sequence[Sequence[tuple[Uncertain, np.ndarray, np.ndarray]]]
) -> dict[str, Conformal]:
    scale, found = sampler.operator.blueprint.normalisation.states, {}
    assert scale is not None
    for k, step in enumerate(zip(*series, strict=False), start=1):
        quantities, truths, masses = zip(*step, strict=True)
        for columns, field in columns_of(sampler.operator.blueprint.spec.targets):
            floor = FLOOR * float(scale.std[columns].square().mean().sqrt())
            parts = ([u[:, columns] for u in quantities], [y[:, columns] for y in truths])
            found[f"{field.name}#{k}"] = Conformal.fit(*parts, masses, floor=floor)
    return found
