"""gno's own loop without its folder, files and bar: how benchmarks train what `gno.train.train` does not make."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from gno.graph import MeshData
from gno.train import Case
from gno.train.interrupt import Stop
from gno.train.loop import Loop, Progress, Save
from gno.train.losses import Term
from gno.train.report import Report
from gno.train.training import launch


def training(job: Any, batch_size: int) -> dict[str, Any]:
    """[training] of a short one: the budget, seed and rate of a job, and averages that forget soon."""
    asked = {"minutes": job.minutes, "seed": job.seed, "lr": job.lr}
    return {**asked, "batch_size": batch_size, "ema": 0.99, "device": "cpu"}


def train_quietly(
    case: Case,
    model: nn.Module,
    samples: Sequence[MeshData],
    terms: Sequence[Term],
    *,
    clock: Callable[[], float] = time.process_time,
    validate: Callable[[nn.Module], dict[str, float]] = lambda model: {},
    save: Save = lambda name, parts, progress: None,
    **options: Any,
) -> tuple[nn.Module, Progress]:
    """The averaged weights when the budget is spent, and how far it came; nothing is kept but by what is passed.

    Args:
        case: budget and settings.
        model, samples, terms: what :class:`gno.train.loop.Loop` takes, as further options are.
        clock: seconds of the budget.
        validate, save: as the loop calls them.
    """
    names = [term.name for term in terms]
    with Stop() as stop, Report(None, case.training, names, [], step=0, n_samples=0) as report:
        loop = Loop(
            launch(case),
            model,
            samples,
            terms,
            validate,
            case.training,
            save=save,
            report=report,
            stop=stop,
            clock=clock,
            **options,
        )
        average = loop.run()
    return average.eval(), loop.progress
