"""`gno calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gno.commands.options import Device, each_frame
from gno.progress import status

if TYPE_CHECKING:
    from gno.uq import Calibrated


def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `gno train` made, of any method.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Meshes with all targets, held out.", callback=each_frame)
    ],
    coverage: Annotated[float, typer.Option(min=0.01, max=0.999, help="Of the intervals beside predictions.")] = 0.9,
    false_alarms: Annotated[
        float, typer.Option(min=0.001, max=0.99, help="Largest share of files like these that are flagged.")
    ] = 0.05,
    device: Device = None,
) -> None:
    """Calibrate a run on files that it was not trained on, so that intervals cover as often as they say.

    `gno train` does so with the validation files where the case has [uncertainty]. Others are better, since the
    validation files chose the weights. n files allow intervals up to n/(n + 1): 9 for 90 %, 19 for 95 %. In time each
    file is a series.

    \b
    Examples:
      gno calibrate runs/case held_out/*.vtu
      gno calibrate runs/case held_out/*.vtu --coverage 0.95 --false-alarms 0.02
    """
    from gno.train.splits import load_splits, series_files

    with status("loading"):
        from gno.uq import Calibrated
        from gno.uq.calibrated import load_sampler
        from gno.uq.conformal import meshes_needed

        sampler = load_sampler(run, device=device or "cpu")
    case = sampler.operator.blueprint.case
    training = load_splits(run)["train"] or case.paths()["train"]
    files = files if case.time is None else series_files(files)
    if both := sorted({file.resolve() for file in files} & set(training)):
        raise ValueError(f"gno calibrate: expected files that are not trained on, got {both[0]}")
    options = {"coverage": coverage, "false_alarms": false_alarms}
    calibrated = Calibrated.fit(sampler, training, list(files), progress=True, **options)
    if not calibrated.conformal:
        needed = meshes_needed(coverage)
        raise ValueError(f"gno calibrate: expected at least {needed} files for {coverage:.0%}, got {len(files)}")
    calibrated.save(run)
    typer.echo(describe(calibrated, "held out"))


def describe(calibrated: Calibrated, source: str) -> str:
    """What a calibration allows, in one or two lines."""
    from gno.uq.conformal import meshes_needed

    n, coverage = calibrated.n_held_out, calibrated.coverage
    if not calibrated.conformal:
        needed = meshes_needed(coverage)
        return (
            f"not calibrated: {coverage:.0%} intervals need {needed} held-out files, there are {n}; "
            "`gno calibrate RUN FILE...` makes it good"
        )
    in_time = calibrated.sampler.operator.blueprint.case.time is not None
    steps = max(int(name.rpartition("#")[2]) for name in calibrated.conformal) if in_time else 0
    until = f", to step {steps} of a rollout" if steps else ""
    lines = [f"calibrated on {n} files ({source}):", f"  {coverage:.0%} intervals beside every predicted field{until}"]
    if widened := _widened(calibrated, steps):
        lines.append(f"  standard deviations: {widened}")
    if calibrated.detector is not None:
        rate, when = calibrated.detector.false_alarms, " in these steps" if steps else ""
        lines.append(
            f"  out of range is flagged; of files like those of training at most {rate:.1%} are{when}, wrongly"
        )
    return "\n".join(lines)


def _widened(calibrated: Calibrated, steps: int) -> str:
    """By how much samples and noise were too narrow, field by field; in time in the first and in the last step."""
    spreads = {name: s for name, s in calibrated.spreads.items() if not steps or name.endswith(("#1", f"#{steps}"))}
    parts = []
    for name, spread in spreads.items():
        where = " in step ".join(name.rsplit("#", 1)) if steps else name
        noise = "" if spread.noise == 1 else f", its noise by {spread.noise:.2g}"
        parts.append(f"spread of {where} widened by {spread.samples:.2g}{noise}")
    return "; ".join(parts)
