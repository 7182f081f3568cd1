"""`gno train`."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gno.commands.calibrate import describe
from gno.commands.options import Device, on_stop, quoted
from gno.progress import status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gno.train import Case
    from gno.uq import Sampler


_PURPOSE = {"train": "train", "validation": "validate", "test": "test"}


def train(
    case: Annotated[Path, typer.Argument(metavar="CASE.toml", help="Data, model and budget.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run; runs/<case> beside the case by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last save.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where a run exists.")] = False,
    device: Device = None,
    devices: Annotated[int | None, typer.Option(help="Number of devices to train on.")] = None,
    precision: Annotated[str | None, typer.Option(help="32, bf16, 16 (mixed) or 64.")] = None,
) -> None:
    """Train an operator on the files that a case names.

    Ctrl-C saves; --resume goes on, also after a crash.

    \b
    Examples:
      gno train case.toml
      gno train case.toml --resume
      gno train case.toml -o runs/wide --device cuda --precision bf16

    \b
    A case:
      [data]
      files = "results/*.vtu"         # or train = …, validation = …, test = …
      inputs = ["load", "thickness"]  # point, cell or global fields, or named sets
      targets = ["displacement"]
      [training]
      minutes = 30                    # or epochs = 200
      [uncertainty]                   # if predictions shall say how sure they are
      members = 5                     # at the same time, as many as there are cores: at_once = 2 for less memory
    """
    from gno.train import Interrupted, load_case
    from gno.train.splits import load_splits, save_splits

    changes = {"device": device, "devices": devices, "precision": precision}
    wanted = load_case(case).with_training(**{key: value for key, value in changes.items() if value is not None})
    folder = output or case.parent / "runs" / case.stem
    again = f"gno train {quoted(case)}" + (f" -o {quoted(output)}" if output else "") + " --resume"
    options: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
    files = wanted.paths()
    if resume and (moved := {*load_splits(folder)["train"]} & {*files["validation"], *files["test"]}):
        which = f"{min(moved)} was trained on and is held out now, one of {len(moved)} such files"
        typer.echo(f"gno: note: the files of the case changed: {which}", err=True)
    try:
        with on_stop(lambda: f"prepared samples and what was saved in {folder} are kept, `{again}` goes on"):
            train_it = _train_plain if wanted.uncertainty is None else _train_uncertain
            said = train_it(wanted, folder, **options)
    except Interrupted as error:
        save_splits(folder, files)
        typer.echo(f"\n{error}:\n  {again}", err=True)
        raise typer.Exit(130) from None
    except FileExistsError as error:
        raise ValueError(f"{error}; go on with `{again}`, or begin anew with --overwrite") from None
    save_splits(folder, files)
    counts = ", ".join(f"{len(files[key])} to {what}" for key, what in _PURPOSE.items())
    evaluate = f"gno evaluate {quoted(folder)}" + ("" if files["test"] else " FILE...")
    typer.echo(f"{said}\nfiles: {counts}\n\nnext:  {evaluate}\n       gno predict {quoted(folder)} FILE... -o DIR")


def _train_plain(case: Case, folder: Path, **options: Any) -> str:
    """Train; what became of it, and what would help, in a line each."""
    from gno.mesh import MeshError

    with status("loading"):
        from gno.train import train as run_training
        from gno.train.advice import advise

    files = case.paths()
    run = run_training(case, folder, **options)
    try:
        with status("comparing the errors of training and validation files"):
            return "\n".join(filter(None, (run.summary(), advise(run, files["train"], files["validation"]))))
    except MeshError:  # a file that is gone by now costs no training
        return run.summary()


def _train_uncertain(case: Case, folder: Path, **options: Any) -> str:
    """Train what [uncertainty] asks for and calibrate it on the validation files; what became of it, in a few lines."""
    from gno.train import Interrupted

    with status("loading"):
        from gno.uq import Calibrated
        from gno.uq import train_uncertain as run_training

    paths = case.paths()
    sampler = run_training(case, folder, **options)
    try:
        with status("errors on the validation files"):
            held_out = _labelled(sampler, paths["validation"])
            said = [_summary(folder, sampler, held_out)]
        calibrated = Calibrated.fit(sampler, paths["train"], held_out, progress=True)
    except (KeyboardInterrupt, ValueError, OSError) as error:
        kept = f"trained and saved in {folder}, not calibrated yet; resume to go on"
        raise Interrupted(kept) if isinstance(error, KeyboardInterrupt) else ValueError(f"{error}; {kept}") from None
    calibrated.save(folder)
    note = "the validation files, which also chose the weights; `gno calibrate` takes others"
    return "\n".join([*said, describe(calibrated, note)])


def _labelled(sampler: Sampler, files: Sequence[Path]) -> list[Path]:
    """Those that have the targets: with [physics] not all need them."""
    from gno.mesh import read

    case = sampler.operator.blueprint.case
    if case.physics is None or case.time is not None:
        return list(files)
    return [file for file in files if sampler.sample(read(file)).y is not None]


def _summary(folder: Path, sampler: Sampler, held_out: Sequence[Path]) -> str:
    """What was trained, of an ensemble each member, one line each; and the error of the mean of all samples."""
    from gno.uq import Ensemble

    ensemble, n = isinstance(sampler, Ensemble), len(sampler.models)
    lines = [run.summary() for run in (sampler.runs if isinstance(sampler, Ensemble) else (sampler.operator,))]
    what = f"{folder}: the mean of {n} {'members' if ensemble else 'samples'}"
    if not held_out:
        return "\n".join([*lines, f"{what}; no validation files to judge it by"])
    if sampler.operator.blueprint.case.time is not None:
        found = sampler.evaluate_rollouts(held_out)
        errors = {name: statistics.fmean(found.curve("relative_l2", name)) for name in found.fields}
    else:
        errors = sampler.evaluate(held_out).mean
    score = f"score on the validation files {statistics.fmean(errors.values()):.2%}"
    return "\n".join([*lines, f"{what}: {score} ({', '.join(f'{name} {x:.2%}' for name, x in errors.items())})"])
