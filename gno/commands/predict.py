"""`gno predict`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gno.commands.options import Device, Files, RunFolder, complain, on_stop
from gno.progress import status

if TYPE_CHECKING:
    from gno.uq import Calibrated
    from gno.uq.rollout import SampledRollout


def predict(
    run: RunFolder,
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the predictions.")],
    suffix: Annotated[str, typer.Option("--format", help="Format by extension: .vtu, .vtk, .xdmf, …")] = ".vtu",
    levels: Annotated[bool, typer.Option(help="Also write the coarse levels, as point clouds.")] = True,
    device: Device = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps in time; by default to the last frame of a series.")
    ] = None,
    step: Annotated[float | None, typer.Option(min=0, help="Time step, where the frames do not say.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the frames that are written.")] = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="Also write each sample, for `gno post` to work with (_sample0, …).")
    ] = False,
) -> None:
    """Write each mesh again with the predicted fields beside the old ones, and the prediction at every scale.

    DIR/<name>.vtu holds the cells, sets and fields of the input, predicted_<target> and scale_attention (how much
    each scale mattered at a node); DIR/<name>_level1.vtu, … hold the coarser levels with their masses.

    \b
    Examples:
      gno predict runs/case new/*.vtu -o predicted
      gno predict runs/case part.inp -o predicted --format .xdmf
      gno predict runs/waves start.vtu -o predicted --steps 500
      gno predict runs/case new/*.vtu -o predicted --samples

    Of a run with [uncertainty], predicted_<target> is the mean and std_<target> the standard deviation. Where enough
    files were held out, lower_<target> and upper_<target> are the ends of a calibrated interval, novelty is how far a
    node is out of range (above 1), and each file is said to be in range or not.

    In time DIR/<name>.pvd lists the frames, which are written as they come; Ctrl-C stops, --resume goes on.
    """
    from gno.mesh.writer import WRITABLE
    from gno.train.splits import load_splits, series_files, series_of

    with status("loading"):
        from gno.uq import Calibrated

        calibrated = Calibrated.load(run, device=device or "cpu")
    if calibrated.sampler.operator.blueprint.case.time is not None:
        # a file alone may be a start as well as a frame of numbered ones
        if samples:
            raise ValueError("--samples: expected a steady run, got one in time, whose frames have mean and deviation")
        sources = files if len(files) == 1 and series_of(files[0]) != files[0] else series_files(files)
        return _predict_series(calibrated, sources, output, suffix, steps, step, resume)
    if steps or step or resume:
        raise ValueError(f"--steps, --step, --resume: expected a run in time, got a steady one ({run})")
    suffix = _dotted(suffix)
    if suffix.lower() not in WRITABLE:
        raise ValueError(f"--format: expected one of {', '.join(WRITABLE)}, got '{suffix}'")
    learned = itertools.chain(*load_splits(run).values())
    targets, done = _output_paths(files, output, suffix, learned), 0
    with on_stop(lambda: f"{done} of {len(files)} files predicted" + (f", they are in {output}" if done else "")):
        lines = _predict_files(calibrated, files, targets, levels=levels, samples=samples)
        for file in files:
            with status(f"predicting {file.name}"):
                line = next(lines)
            done += 1
            typer.echo(line)
        typer.echo("".join(f"{line}\n" for line in lines), nl=False)


def _predict_files(
    calibrated: Calibrated, files: Sequence[Path], targets: Sequence[Path], *, levels: bool, samples: bool
) -> Iterator[str]:
    """Write predictions, with their doubt where it is known; one line per file, and one on what was out of range."""
    from gno.uq.novelty import NOVELTY, SIGNS, cause

    flagged, detector = 0, calibrated.detector
    for target, prediction in zip(targets, calibrated.predict_many(files), strict=True):
        written = prediction.write(target, levels=levels)
        took = f"prepared in {prediction.prepare_seconds:.3f} s, predicted in {prediction.seconds:.3f} s"
        line = f"{written[0]}  {len(written) - 1} levels  {took}"
        if samples:
            line += f"  {len(prediction.write_samples(target))} samples"
        if detector is not None:
            found = prediction.mesh.global_fields
            score, signs = float(found[NOVELTY]), {name: float(found.get(f"{NOVELTY}_{name}", 0)) for name in SIGNS}
            flagged += score > 1
            where = f"OUT OF RANGE by {cause(signs)}" if score > 1 else "in range"
            line += f"  {where} (score {score:.2f}, limit 1)"
        yield line
    if detector is not None:
        rate = f"of files like those of training at most {detector.false_alarms:.1%} are flagged"
        yield f"{flagged} of {len(targets)} out of range; {rate}"


def _predict_series(
    run: Calibrated, files: list[Path], folder: Path, suffix: str, steps: int | None, step: float | None, resume: bool
) -> None:
    """Rollouts from series or single meshes, one .pvd for each; another format is written from it at the end."""
    from gno.mesh import read_series
    from gno.mesh.xdmf import SUFFIXES
    from gno.mesh.xdmfwriter import write_xdmf
    from gno.uq.rollout import SampledRollout

    suffix = _dotted(suffix)
    if suffix.lower() not in (".vtu", *SUFFIXES):
        raise ValueError(f"--format: expected .vtu or {' or '.join(SUFFIXES)} for a rollout, got '{suffix}'")
    names = [file.stem.replace("*", "").rstrip("_-.") for file in files]
    if len(set(names)) < len(names):  # one folder per series, the same name in each
        names = [f"{file.resolve().parent.name}_{name}" for file, name in zip(files, names, strict=True)]
    starts = [file.with_name(f"{name}.pvd") for file, name in zip(files, names, strict=True)]
    failed = False
    for file, target in zip(files, _output_paths(starts, folder, ".pvd"), strict=True):
        rollout = run.roll_out(file, target, n_steps=steps, step=step, resume=resume, progress=True)
        line = f"{target}  {rollout.n_frames} frames  {rollout.seconds:.2f} s"
        if isinstance(rollout, SampledRollout) and rollout.found:
            line += f"  {_where_in_time(rollout)}"
        typer.echo(line)
        if rollout.diverged:
            failed = True
            complain(ValueError(f"{target}: {rollout.diverged}"))
        if suffix.lower() in SUFFIXES:
            write_xdmf(read_series(target), target.with_suffix(suffix))
            typer.echo(str(target.with_suffix(suffix)))
    if failed:
        raise typer.Exit(1)


def _where_in_time(rollout: SampledRollout) -> str:
    """From which step on a rollout is out of range."""
    from gno.uq.novelty import cause

    first = next((k for k, found in enumerate(rollout.found, start=1) if found.flag), None)
    worst = max(found.score for found in rollout.found)
    if first is None:
        return f"in range (largest score {worst:.2f}, limit 1)"
    why = cause(rollout.found[first - 1].signs)
    return f"OUT OF RANGE from step {first} by {why} (largest score {worst:.2f}, limit 1)"


def _dotted(suffix: str) -> str:
    return suffix if suffix.startswith(".") else f".{suffix}"


def _output_paths(files: list[Path], folder: Path, suffix: str, learned: Iterable[Path] = ()) -> list[Path]:
    """Where predictions go: one path per file, none of them a file that is read, or was in training."""
    from gno.mesh.address import stem

    if folder.is_file():
        raise ValueError(f"--output: expected a folder, got the file {folder}")
    targets = [folder / f"{stem(file)}{suffix}" for file in files]
    sources = {file.resolve() for file in (*files, *learned)}
    for k, target in enumerate(targets):
        if target in targets[:k]:
            raise ValueError(f"{files[k]}: expected files of different names, got '{target.name}' twice")
        if target.resolve() in sources:
            raise ValueError(
                f"--output: expected a folder without files of the input or of the training, got {folder}, which "
                f"holds {target.name}"
            )
    return targets
