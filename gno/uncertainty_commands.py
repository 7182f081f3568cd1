"""What the commands do where a run knows how sure it is, and `gno calibrate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gno.train import Case
    from gno.uq import Calibrated, Sampler


def train_uncertain(case: Case, folder: Path, **options: Any) -> str:
    """Train what [uncertainty] asks for and calibrate it on the validation files; what became of it, in a few lines."""
    from gno.uq import Calibrated
    from gno.uq import train_uncertain as run_training

    sampler = run_training(case, folder, **options)
    if case.time is not None:
        return summary(folder, sampler)
    paths = case.paths()
    held_out = _labelled(sampler, paths["validation"])
    calibrated = Calibrated.fit(sampler, paths["train"], held_out, progress=True)
    calibrated.save(folder)
    note = "the validation files, which also chose the weights; `gno calibrate` takes others"
    return f"{summary(folder, sampler)}\n{describe(calibrated, note)}"


def _labelled(sampler: Sampler, files: Sequence[Path]) -> list[Path]:
    """Those that have the targets: with [physics] not all need them."""
    from gno.mesh import read

    if sampler.operator.blueprint.case.physics is None:
        return list(files)
    return [file for file in files if sampler.sample(read(file)).y is not None]


def summary(folder: Path, sampler: Sampler) -> str:
    """What was trained: of an ensemble each member, one line each."""
    from gno.uq import Ensemble

    runs = sampler.runs if isinstance(sampler, Ensemble) else (sampler.operator,)
    lines = [run.summary() for run in runs]
    return "\n".join([*lines, f"{folder}: {type(sampler).__name__}, {len(sampler.models)} samples of every answer"])


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
    lines = [f"calibrated on {n} files ({source}):", f"  {coverage:.0%} intervals beside every predicted field"]
    if calibrated.detector is not None:
        rate = calibrated.detector.false_alarms
        lines.append(f"  out of range is flagged; of files like those of training at most {rate:.1%} are, wrongly")
    return "\n".join(lines)


def predict(
    calibrated: Calibrated, files: Sequence[Path], targets: Sequence[Path], *, levels: bool, samples: bool
) -> Iterator[str]:
    """Write predictions, with their doubt where it is known; one line per file, and one on what was out of range."""
    from gno.uq.calibrated import NOVELTY

    flagged, detector = 0, calibrated.detector
    for target, prediction in zip(targets, calibrated.predict_many(files), strict=True):
        written = prediction.write(target, levels=levels)
        took = f"prepared in {prediction.prepare_seconds:.3f} s, predicted in {prediction.seconds:.3f} s"
        line = f"{written[0]}  {len(written) - 1} levels  {took}"
        if samples:
            line += f"  {len(prediction.write_samples(target))} samples"
        if detector is not None:
            score = float(prediction.mesh.global_fields[NOVELTY])
            flagged += score > 1
            line += f"  {'OUT OF RANGE' if score > 1 else 'in range'} (score {score:.2f}, limit 1)"
        yield line
    if detector is not None:
        rate = f"of files like those of training at most {detector.false_alarms:.1%} are flagged"
        yield f"{flagged} of {len(targets)} out of range; {rate}"


def evaluate_uncertainty(run: Path, files: Sequence[Path], *, device: str, as_json: bool, diagram: Path | None) -> None:
    """The metrics of the doubt, and figures."""
    from gno.uq import Calibrated, draw_reliability, draw_scales, evaluate

    calibrated = Calibrated.load(run, device=device)
    if calibrated.sampler.operator.blueprint.case.time is not None:
        raise ValueError(f"--uncertainty: expected a steady run, got one in time ({run})")
    found = evaluate(calibrated.sampler, files, calibration=calibrated.conformal)
    typer.echo(found.to_json() if as_json else str(found))
    if diagram is not None:
        typer.echo(str(draw_reliability(found.reliability, diagram)), err=True)
        scales = diagram.with_name(f"{diagram.stem}_scales{diagram.suffix}")
        typer.echo(str(draw_scales(found.scales, scales)), err=True)


def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `gno train` made, of any method.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Meshes with all targets, held out.")],
    coverage: Annotated[float, typer.Option(min=0.01, max=0.999, help="Of the intervals beside predictions.")] = 0.9,
    false_alarms: Annotated[
        float, typer.Option(min=0.001, max=0.99, help="Largest share of files like these that are flagged.")
    ] = 0.05,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
) -> None:
    """Calibrate a run on files that it was not trained on, so that intervals cover as often as they say.

    `gno train` does so with the validation files where the case has [uncertainty]. Others are better, since the
    validation files chose the weights. n files allow intervals up to n/(n + 1): 9 for 90 %, 19 for 95 %.

    \b
    Examples:
      gno calibrate runs/case held_out/*.vtu
      gno calibrate runs/case held_out/*.vtu --coverage 0.95 --false-alarms 0.02
    """
    from gno.uq import Calibrated
    from gno.uq.calibrated import load_sampler
    from gno.uq.conformal import meshes_needed

    sampler = load_sampler(run, device=device or "cpu")
    case = sampler.operator.blueprint.case
    if case.time is not None:
        raise ValueError(f"gno calibrate: expected a steady run, got one in time ({run})")
    training = case.paths()["train"]
    if both := sorted({file.resolve() for file in files} & set(training)):
        raise ValueError(f"gno calibrate: expected files that are not trained on, got {both[0]}")
    options = {"coverage": coverage, "false_alarms": false_alarms}
    calibrated = Calibrated.fit(sampler, training, list(files), progress=True, **options)
    if not calibrated.conformal:
        needed = meshes_needed(coverage)
        raise ValueError(f"gno calibrate: expected at least {needed} files for {coverage:.0%}, got {len(files)}")
    calibrated.save(run)
    typer.echo(describe(calibrated, "held out"))
