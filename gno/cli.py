"""The command line: thin commands over the same functions that Python users call.

Heavy imports happen inside the commands, so that ``gno --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gno import fem_commands, uncertainty_commands

app = typer.Typer(
    name="gno",
    help="Neural operators on the meshes you already have: inspect, train, evaluate, predict, show, post, correct.",
    epilog="Start with `gno demo`, or with `gno inspect` on a mesh of your own.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `gno train` made.")]
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Mesh files of any format.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


@app.command()
def inspect(files: Files, as_json: Json = False) -> None:
    """Say what is in a mesh: cells, fields, sets, quality, and the hierarchy it would get.

    \b
    Examples:
      gno inspect wing.vtu
      gno inspect results/*.vtu --json > facts.json
    """
    from gno.inspection import inspect as look
    from gno.mesh import read

    failed, found = 0, []
    for file in files:
        try:
            found.append(look(read(file)))
        except (ValueError, OSError) as error:
            failed += 1
            complain(error)
            continue
        if not as_json:
            typer.echo(("\n" if len(found) > 1 else "") + str(found[-1]))
    if as_json:
        typer.echo("[" + ",\n".join(inspection.to_json() for inspection in found) + "]")
    if failed:
        raise typer.Exit(2)


@app.command()
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
      members = 5
    """
    from gno.train import Interrupted, load_case
    from gno.train import train as run_training

    changes = {"device": device, "devices": devices, "precision": precision}
    wanted = load_case(case).with_training(**{key: value for key, value in changes.items() if value is not None})
    folder = output or case.parent / "runs" / case.stem
    again = f"gno train {case}" + (f" -o {output}" if output else "") + " --resume"
    options: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
    try:
        if wanted.uncertainty is None:
            said = run_training(wanted, folder, **options).summary()
        else:
            said = uncertainty_commands.train_uncertain(wanted, folder, **options)
    except Interrupted as error:
        typer.echo(f"\n{error}:\n  {again}", err=True)
        raise typer.Exit(130) from None
    except FileExistsError as error:
        raise ValueError(f"{error}; go on with `{again}`, or begin anew with --overwrite") from None
    typer.echo(f"{said}\n\nnext:  gno evaluate {folder} FILE...\n       gno predict {folder} FILE... -o DIR")


@app.command()
def evaluate(
    run: RunFolder,
    files: Files,
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
        typer.Option("-o", "--diagram", help="Reliability diagram to write, and beside it the scales (_scales)."),
    ] = None,
) -> None:
    """Compare predictions with the fields in files: relative L2 errors, weighted by node mass, and the operator's time.

    Then the same of every coarser scale: its anchors, the time of a coarse answer alone (`Run.predict_coarse`), and its
    error against the restricted reference.

    In time every file is a series: it is rolled out from its first frames, and windows of steps are compared.

    With --uncertainty: RMS error and standard deviation (sharpness), CRPS, NLL, calibration error (ECE), how often
    intervals cover and how wide they are, correlation of std and error, AUSE; on every scale (u@1 is the first coarse
    one). Then what averaging to each scale does to the variance of the field, to the error and to the doubt.

    \b
    Examples:
      gno evaluate runs/case results/test/*.vtu
      gno evaluate runs/case results/test/*.vtu --json > errors.json
      gno evaluate runs/waves test/*.pvd --curves errors.png
      gno evaluate runs/case results/test/*.vtu --uncertainty -o reliability.png
    """
    from gno.uq.calibrated import is_plain, load_sampler

    if uncertainty or diagram:
        where, picture = device or "cpu", diagram
        return uncertainty_commands.evaluate_uncertainty(run, files, device=where, as_json=as_json, diagram=picture)
    sampler = load_sampler(run, device=device or "cpu")
    loaded: Any = sampler.operator if is_plain(sampler) else sampler
    in_time = sampler.operator.blueprint.case.time is not None
    evaluation = loaded.evaluate_rollouts(series_files(files)) if in_time else loaded.evaluate(files)
    typer.echo(evaluation.to_json() if as_json else str(evaluation))
    if curves is not None:
        from gno.post import draw_rollout

        if not in_time:
            raise ValueError("--curves: expected a run in time, got a steady one")
        typer.echo(str(draw_rollout(evaluation.write_csv(curves.with_suffix(".csv")), curves)), err=True)


@app.command()
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
    from gno.train.splits import series_of
    from gno.uq import Calibrated

    calibrated = Calibrated.load(run, device=device or "cpu")
    known: Any = calibrated.sampler if calibrated.has_doubt else calibrated.sampler.operator
    if calibrated.sampler.operator.blueprint.case.time is not None:
        # a file alone may be a start as well as a frame of numbered ones
        sources = files if len(files) == 1 and series_of(files[0]) != files[0] else series_files(files)
        return predict_series(known, sources, output, suffix, steps, step, resume)
    if steps or step or resume:
        raise ValueError(f"--steps, --step, --resume: expected a run in time, got a steady one ({run})")
    targets = output_paths(files, output, suffix)
    for line in uncertainty_commands.predict(calibrated, files, targets, levels=levels, samples=samples):
        typer.echo(line)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Mesh file of any format.")],
    field: Annotated[str | None, typer.Option("-f", "--field", help="Field to show.")] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Another file with the same field, or another field of this file.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Picture to write instead of a window.")] = None,
    component: Annotated[
        str | None, typer.Option(help="Component of a vector or tensor: number, name or each.")
    ] = None,
    warp: Annotated[str | None, typer.Option(help="Vector field that moves the mesh.")] = None,
    levels: Annotated[bool, typer.Option("--levels", help="Draw FILE and its coarser levels beside it.")] = False,
    space_time: Annotated[
        bool, typer.Option("--space-time", help="Draw a series along a line through the middle, against time.")
    ] = False,
) -> None:
    """Show a field in a window, or as a picture where there is no display or -o is given.

    \b
    Examples:
      gno show plate.vtu --field von_mises
      gno show predicted/plate.vtu -f displacement --compare predicted_displacement --warp displacement -o error.png
      gno show predicted/plate.vtu -f predicted_von_mises --levels -o levels.png
      gno show predicted/wave.pvd -f u --compare predicted_u -o wave.gif
      gno show predicted/wave.pvd -f u --compare predicted_u --space-time -o wave.png
    """
    if space_time or (output is not None and output.suffix.lower() in (".gif", ".mp4")):
        return show_series(file, field, compare, component, output, space_time)
    from gno.mesh import read
    from gno.post.show import show as show_field
    from gno.post.show import show_levels

    mesh, part = read(file), int(component) if component and component.isdigit() else component
    if levels:
        coarse = [read(path) for path in level_files(file)]
        picture = show_levels(mesh, coarse, field, component=part, output=output)
    elif field is None:
        known = ", ".join([*mesh.point_fields, *mesh.cell_fields]) or "no field at all"
        raise ValueError(f"{file}: expected --field, one of those in the file, got none; there are: {known}")
    else:
        other = read(compare) if compare and Path(compare).is_file() else compare
        picture = show_field(mesh, field, compare=other, output=output, component=part, warp=warp)
    if picture:
        typer.echo(str(picture))


app.command()(uncertainty_commands.calibrate)
app.command()(fem_commands.post)
app.command()(fem_commands.correct)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for data, run and pictures.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(min=0.05, help="Training time.")] = 2.7,
    n_train: Annotated[int, typer.Option("--plates", min=4, help="Number of plates to train on.")] = 300,
) -> None:
    """Plates with holes under load: solve some, learn from them, predict plates never seen.

    \b
    Examples:
      gno demo
      gno demo -o /tmp/demo --minutes 10 --plates 600
    """
    from gno.demo.run import run_demo

    run_demo(output, minutes=minutes, n_train=n_train, say=typer.echo)


def show_series(
    file: Path, field: str | None, compare: str | None, component: str | None, output: Path | None, still: bool
) -> None:
    """A film of a series, or its picture in space and time."""
    from gno.mesh import read_series
    from gno.post import animate
    from gno.post import space_time as draw_space_time

    series, part = read_series(file), int(component) if component and component.isdigit() else component
    if field is None:
        known = ", ".join(series[0].point_fields) or "no field at all"
        raise ValueError(f"{file}: expected --field, one of those in the file, got none; there are: {known}")
    draw = draw_space_time if still else animate
    target = output or Path(f"{file.stem.replace('*', '')}-{field}-time.png")
    typer.echo(str(draw(series, field, target, compare=compare, component=part)))


def predict_series(
    run: Any, files: list[Path], folder: Path, suffix: str, steps: int | None, step: float | None, resume: bool
) -> None:
    """Rollouts from series or single meshes, one .pvd for each; another format is written from it at the end."""
    from gno.mesh import read_series
    from gno.mesh.xdmf import SUFFIXES
    from gno.mesh.xdmfwriter import write_xdmf
    from gno.train import Interrupted

    names = [file.stem.replace("*", "").rstrip("_-.") for file in files]
    if len(set(names)) < len(names):  # one folder per series, the same name in each
        names = [f"{file.resolve().parent.name}_{name}" for file, name in zip(files, names, strict=True)]
    starts = [file.with_name(f"{name}.pvd") for file, name in zip(files, names, strict=True)]
    failed = False
    for file, target in zip(files, output_paths(starts, folder, ".pvd"), strict=True):
        try:
            rollout = run.roll_out(file, target, n_steps=steps, step=step, resume=resume)
        except Interrupted as error:
            typer.echo(f"\n{error}; --resume goes on", err=True)
            raise typer.Exit(130) from None
        typer.echo(f"{target}  {rollout.n_frames} frames  {rollout.seconds:.2f} s")
        if rollout.diverged:
            failed = True
            complain(ValueError(f"{target}: {rollout.diverged}"))
        if suffix.lower() in SUFFIXES:
            write_xdmf(read_series(target), target.with_suffix(suffix))
            typer.echo(str(target.with_suffix(suffix)))
    if failed:
        raise typer.Exit(1)


def series_files(files: list[Path]) -> list[Path]:
    """The series that files belong to, each once."""
    from gno.train.splits import series_of

    return list(dict.fromkeys(series_of(file) for file in files))


def output_paths(files: list[Path], folder: Path, suffix: str) -> list[Path]:
    """Where predictions go: one path per file, none of them a file that is read."""
    suffix = suffix if suffix.startswith(".") else f".{suffix}"
    targets = [folder / f"{file.stem}{suffix}" for file in files]
    sources = {file.resolve() for file in files}
    for k, target in enumerate(targets):
        if target in targets[:k]:
            raise ValueError(f"{files[k]}: expected files of different names, got '{target.name}' twice")
        if target.resolve() in sources:
            raise ValueError(
                f"--output: expected a folder without the input files, got {folder}, which holds {target.name}"
            )
    return targets


def level_files(file: Path) -> list[Path]:
    """The coarser levels that ``gno predict`` wrote beside a file, finest first."""
    found = sorted(
        (
            path
            for path in file.parent.glob(f"{file.stem}_level*")
            if path.stem.removeprefix(f"{file.stem}_level").isdigit()
        ),
        key=lambda path: int(path.stem.rpartition("_level")[2]),
    )
    if not found:
        raise ValueError(f"{file}: expected {file.stem}_level1.vtu, … beside it, got none; `gno predict` writes them")
    return found


def complain(error: BaseException) -> None:
    """One line on stderr, whatever the message looks like."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    typer.echo(f"gno: {' '.join(message.split()) or type(error).__name__}", err=True)


def _warn(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    # libraries warn their programmers; what our own rooms have to say is for the user
    if category.__module__.startswith("gno."):
        typer.echo(f"gno: warning: {' '.join(str(message).split())}", err=True)


def main() -> NoReturn:
    """Run the command line: exit status 2 and one line for bad input, 130 for Ctrl-C, never a traceback."""
    warnings.showwarning = _warn
    try:
        status = app(standalone_mode=False, prog_name="gno")
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stdout = None  # type: ignore[assignment]
        status = 0
    except typer.Abort:
        status = 130
    except Exception as error:
        if os.environ.get("GNO_DEBUG"):
            raise
        if not (isinstance(error, ValueError | OSError) or hasattr(error, "format_message")):
            error = RuntimeError(f"{type(error).__name__}: {error} (GNO_DEBUG=1 shows where)")
        complain(error)
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
