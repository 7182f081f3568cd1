"""`gno evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gno.commands.options import Device, Json, RunFolder, each_frame
from gno.progress import counter, status


def evaluate(
    run: RunFolder,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Mesh files of any format; the test files of the case by default.",
            callback=each_frame,
        ),
    ] = None,
    as_json: Json = False,
    device: Device = None,
    curves: Annotated[
        Path | None,
        typer.Option("--curves", help="Picture of the errors over time to write; the numbers go beside it."),
    ] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Judge the doubt instead: calibration, sharpness, correlation.")
    ] = False,
    diagram: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--diagram",
            help="Reliability diagram to write, and beside it the scales (_scales); in time a table of the steps.",
        ),
    ] = None,
) -> None:
    """Compare predictions with the fields in files: relative L2 errors, weighted by node mass, and the operator's time.

    Then the same of every coarser scale: its anchors, the time of a coarse answer alone (`Run.predict_coarse`), and its
    error against the restricted reference.

    In time every file is a series: it is rolled out from its first frames, and windows of steps are compared.

    With --uncertainty: RMS error and standard deviation (sharpness), CRPS, NLL, calibration error (ECE), how often
    intervals cover and how wide they are, correlation of std and error, AUSE; on every scale (u@1 is the first coarse
    one). Then what averaging to each scale does to the variance of the field, to the error and to the doubt. In time
    the same after every step, printed for windows of steps; the diagram shows error and std step by step.

    \b
    Examples:
      gno evaluate runs/case
      gno evaluate runs/case new/*.vtu
      gno evaluate runs/case --json > errors.json
      gno evaluate runs/waves test/*.pvd --curves errors.png
      gno evaluate runs/case --uncertainty -o reliability.png
      gno evaluate runs/waves test/*.pvd --uncertainty -o doubt.png
    """
    from gno.train.splits import series_files

    files = files or _test_files(run)
    if uncertainty or diagram:
        if curves:
            raise ValueError("--curves: expected it without --uncertainty and -o, which draw the doubt over time")
        _evaluate_doubt(run, files, device=device or "cpu", as_json=as_json, diagram=diagram)
        return _say_what_was_seen(run, files)
    with status("loading"):
        from gno.uq import Calibrated
        from gno.uq.calibrated import is_plain

        sampler = Calibrated.load(run, device=device or "cpu").sampler
    loaded: Any = sampler.operator if is_plain(sampler) else sampler
    look = {"progress": True} if is_plain(sampler) else {}
    in_time = sampler.operator.blueprint.case.time is not None
    if curves and not in_time:
        raise ValueError("--curves: expected a run in time, got a steady one")
    evaluation = loaded.evaluate_rollouts(series_files(files), **look) if in_time else loaded.evaluate(files, **look)
    typer.echo(evaluation.to_json() if as_json else str(evaluation))
    if curves:
        from gno.post import draw_rollout

        typer.echo(str(draw_rollout(evaluation.write_csv(curves.with_suffix(".csv")), curves)), err=True)
    _say_what_was_seen(run, files)


def _test_files(run: Path) -> list[Path]:
    """The files that a run kept for tests."""
    from gno.train.splits import load_splits

    found = load_splits(run)["test"]
    if not found and (run / "best.safetensors").is_file():
        raise ValueError(f"gno evaluate: expected files, since {run} has none for tests, got none")
    return found


def _say_what_was_seen(run: Path, files: Sequence[Path]) -> None:
    """Who judges a run by files that it was trained on is told so."""
    from gno.train.splits import load_splits, series_of

    known = load_splits(run)
    trained = {*known["train"], *known["validation"]}
    if seen := [file for file in files if {file.resolve(), series_of(file.resolve())} & trained]:
        note = f"{len(seen)} of {len(files)} files were there in training; expect larger errors on others"
        typer.echo(f"gno: note: {note}", err=True)


def _evaluate_doubt(run: Path, files: Sequence[Path], *, device: str, as_json: bool, diagram: Path | None) -> None:
    """The metrics of the doubt, and figures."""
    from gno.train.splits import series_files

    with status("loading"):
        from gno.uq import Calibrated, draw_reliability, draw_rollout_doubt, draw_scales, evaluate, evaluate_in_time

        calibrated = Calibrated.load(run, device=device)
    if calibrated.sampler.operator.blueprint.case.time is not None:
        series = series_files(files)
        with counter("rolling out", len(series), draw=True) as advance:
            rolled = evaluate_in_time(calibrated.sampler, series, calibration=calibrated.conformal, advance=advance)
        typer.echo(rolled.to_json() if as_json else str(rolled))
        if diagram is not None:
            typer.echo(str(rolled.write_csv(diagram.with_suffix(".csv"))), err=True)
            typer.echo(str(draw_rollout_doubt(rolled, diagram)), err=True)
        return
    if not calibrated.has_doubt:
        note = f"{run} says nothing of its doubt: it has no [uncertainty], and `gno calibrate` did not see it"
        typer.echo(f"gno: note: {note}", err=True)
    with status(f"judging {len(files)} files"):
        found = evaluate(calibrated.sampler, files, calibration=calibrated.conformal)
    typer.echo(found.to_json() if as_json else str(found))
    if diagram is not None:
        typer.echo(str(draw_reliability(found.reliability, diagram)), err=True)
        scales = diagram.with_name(f"{diagram.stem}_scales{diagram.suffix}")
        typer.echo(str(draw_scales(found.scales, scales)), err=True)
