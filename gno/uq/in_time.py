"""Intervals and flags in time: what is exchangeable is the series, rolled out from its first frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gno.mesh import Mesh
from gno.train.normalise import columns_of
from gno.train.sources import frames_of
from gno.uq.conformal import Conformal
from gno.uq.evaluate import FLOOR, Known
from gno.uq.novelty import Detector
from gno.uq.rollout import Step, follow
from gno.uq.sampler import Sampler
from gno.uq.spread import Widened, as_trained

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
) -> tuple[Sampler, dict[str, Conformal], Detector | None]:
    """The sampler with an honest spread, intervals of every field at every step that all held-out series have, and a
    detector.

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
    sampler = as_trained(sampler)
    detector = detector_in_time(sampler, training, advance) if training else None
    scores, series = [], []
    for source in held_out:
        largest, steps = 0.0, []
        for step in follow(sampler, frames_of(source, sampler.operator.blueprint.spec)):
            steps.append(step.without_look())
            if detector is not None and step.look is not None:
                largest = max(largest, detector.judge(detector.squares(step.look)).score)
        scores.append(largest)
        series.append(steps)
        advance(1)
    wide = widen_in_time(sampler, series)
    series = [[step.widened(wide, k) for k, step in enumerate(steps, start=1)] for steps in series]
    return wide, intervals(wide, series), detector and detector.with_threshold(scores, false_alarms)


def detector_in_time(
    sampler: Sampler, training: Sequence[Series], advance: Callable[[int], None] = lambda n: None
) -> Detector:
    """What is usual in the rollouts of training series, without a threshold yet."""
    most, looks, owner = max(1, MOST_STEPS // len(training)), [], []
    for number, source in enumerate(training):
        frames = frames_of(source, sampler.operator.blueprint.spec)
        stride = -(-len(frames) // most)
        some = [step.look for k, step in enumerate(follow(sampler, frames)) if step.look and k % stride == 0]
        looks += some
        owner += [number] * len(some)
        advance(1)
    return Detector.of(sampler, looks, owner)


def intervals(sampler: Sampler, series: Sequence[Sequence[Step]]) -> dict[str, Conformal]:
    """Of every field, as ``u#k`` for step k, from rollouts of held-out series."""
    return {name: known.conformal(floor) for name, known, floor in _fields_by_step(sampler, series)}


def widen_in_time(sampler: Sampler, series: Sequence[Sequence[Step]]) -> Sampler:
    """The sampler with the spread that rollouts of held-out series find honest, step by step."""
    fields = _fields_by_step(sampler, series)
    spreads = {name: known.spread(floor) for name, known, floor in fields if known.quantities[0].has_doubt}
    return Widened(sampler, spreads) if spreads else sampler


def _fields_by_step(sampler: Sampler, series: Sequence[Sequence[Step]]) -> Iterator[tuple[str, Known, float]]:
    """Every field at every step that all series have, as ``u#k``, with the least standard deviation that counts."""
    scale = sampler.operator.blueprint.normalisation.states
    assert scale is not None
    for columns, field in columns_of(sampler.operator.blueprint.spec.targets):
        floor = FLOOR * float(scale.std[columns].square().mean().sqrt())
        for k, known in enumerate(known_steps(series, columns), start=1):
            yield f"{field.name}#{k}", known, floor


def known_steps(series: Sequence[Sequence[Step]], columns: slice) -> list[Known]:
    """One field after every step that all series have."""
    return [
        Known([s.quantity[:, columns] for s in steps], [s.truth[:, columns] for s in steps], [s.mass for s in steps])
        for steps in zip(*series, strict=False)
    ]
