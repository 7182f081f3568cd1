"""train: from a case to a run, or from where one was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gno.mesh import Mesh
from gno.train.blueprint import Blueprint
from gno.train.case import Case
from gno.train.device import device_of
from gno.train.folder import COMMON, ENSEMBLE, LAPLACE, MEMBERS, alone_in, rescued
from gno.train.interrupt import Interrupted, Stop
from gno.train.loop import Loop, Parts, Progress
from gno.train.optimisers import Optimiser
from gno.train.physics import WEIGHTINGS, floors_of
from gno.train.report import Report, Shown, shown_by
from gno.train.run import Run
from gno.train.sources import Prepared, prepare
from gno.train.task import Terms, task_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from gno.physics.weights import Weighting

PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "64": "64-true"}
# What a run is resumed from: its blueprint, the tensors of its last save, and where it stood.
Saved = tuple[Blueprint, Any, Progress]


def train(
    case: Case,
    directory: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    meshes: Sequence[Mesh] | Mapping[str, Sequence[Mesh]] | None = None,
    optimiser: Optimiser | None = None,
    progress: bool | Shown = True,
    clock: Callable[[], float] = time.monotonic,
    terms: Terms | None = None,
    weighting: Weighting | None = None,
    until: float = 1.0,
    prepared: Prepared | None = None,
    title: str = "",
) -> Run:
    """Train an operator and keep it in a folder.

    Args:
        case: data, model and budget.
        directory: folder of the run: ``best.safetensors`` (to predict with), ``last.safetensors`` (to resume
            from), ``log.csv``, ``curves.png``.
        resume: go on from the last save, if there is one; the budget may have changed since.
        overwrite: begin anew in a folder that already holds a run.
        meshes: meshes in memory instead of the files of the case; a sequence is split as ``case.data.split``
            says, a mapping has the keys ``train``, and, if wanted, ``validation`` and ``test``.
        optimiser: makes the optimiser of a module; the one that the case names by default.
        progress: whether to draw a progress bar, or what else shows how far the training is.
        clock: seconds that a budget of minutes is measured with; ``time.process_time`` is fair on a busy machine.
        terms: what to minimise, of the terms that the case asks for and the blueprint; these themselves by default.
        weighting: how the weights of the terms adapt; as the case says by default.
        until: share of the budget after which to stop, as an interruption would; resume to go on.
        prepared: what :func:`prepare` made of the same case and meshes, where several trainings start from it.
        title: of this training beside its progress, where it is one of several.

    Returns:
        The run, with its best weights.

    Raises:
        ValueError: data, fields or settings that do not fit, another training in the folder; one line.
        OSError: a folder that cannot be written any more; the line says where the training is saved.
        FileExistsError: the folder holds a run, and neither resume nor overwrite was asked for.
        Interrupted: Ctrl-C; everything is saved.
    """
    directory = Path(directory)
    last = directory / "last.safetensors"
    if (last.exists() or (directory / ENSEMBLE).exists()) and not (resume or overwrite):
        raise FileExistsError(f"{directory}: expected a folder without a run, got one")
    if resume and (directory / ENSEMBLE).exists():
        raise ValueError(f"{directory}: expected a run of one operator to resume, got an ensemble")
    fabric = launch(case)
    with alone_in(directory) if fabric.is_global_zero else contextlib.nullcontext():
        saved = _saved(last, case) if resume and last.exists() else None
        spec = saved[0].spec if saved else None
        if prepared is None or spec not in (None, prepared.spec):
            with fabric.rank_zero_first():
                prepared = prepare(case, meshes, spec=spec, progress=bool(progress))
        if fabric.is_global_zero:
            (directory / LAPLACE).unlink(missing_ok=True)  # of weights that are no more
            if overwrite and not resume:
                discard(directory)
        blueprint = Blueprint.fit(case, prepared.spec, prepared.samples["train"])
        if saved:
            check_same_operator(saved[0], blueprint, directory)
            blueprint = dataclasses.replace(saved[0], case=case)
        look = progress if fabric.is_global_zero else False, title
        options = {"optimiser": optimiser, "clock": clock, "weighting": weighting, "until": until}
        _run_loop(fabric, blueprint, prepared.samples, directory, saved, terms, look, options)
    return Run.load(directory)


def _saved(last: Path, case: Case) -> Saved:
    """What a resumed run goes on from; what does not fit is told before any mesh is read."""
    blueprint, parts, progress = Blueprint.load(last)
    check_same_case(blueprint.case, case, last.parent)
    blueprint.trained(parts["model"], last)
    if not last.with_name("best.safetensors").exists():  # as after somebody deleted the folder
        progress["best"] = None
    return blueprint, parts, Progress(**progress)


def _run_loop(
    fabric: Fabric,
    blueprint: Blueprint,
    samples: Mapping[str, Sequence[Any]],
    directory: Path,
    saved: Saved | None,
    compose: Terms | None,
    look: tuple[bool | Shown, str],
    options: dict[str, Any],
) -> None:
    """The loop with its report, shown as ``look`` says under that title, stopped by Ctrl-C, and its curves."""
    settings, physics = blueprint.case.training, blueprint.case.physics
    model = blueprint.model(settings.seed)
    task = task_of(blueprint, samples, model, compose)
    if options["weighting"] is None and physics:
        options["weighting"] = WEIGHTINGS[physics.weights]
    report = functools.partial(
        Report,
        directory if fabric.is_global_zero else None,
        settings,
        [term.name for term in task.terms],
        task.scores,
        step=saved[2].step if saved else 0,
        n_samples=len(task.samples),
        floors=floors_of(samples["train"], task.terms) if physics else None,
    )

    def save_in(folder: Path, name: str, parts: Parts, state: dict[str, Any]) -> None:
        blueprint.save(folder / f"{name}.safetensors", parts, state)

    with Stop() as stop, shown_by(*look) as shown, report(shown=shown, title=look[1]) as told:
        loop = Loop(
            fabric,
            model,
            task.samples,
            task.terms,
            task.validate,
            settings,
            save=functools.partial(save_in, directory),
            report=told,
            stop=stop,
            objective=task.objective,
            collate=task.collate,
            coarse=task.coarse,
            **options,
        )
        if saved:
            loop.restore(*saved[1:])
        devices = [fabric.device] if fabric.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):  # the caller's random numbers are left alone
                loop.run()
        except Interrupted as error:
            raise Interrupted(f"{error} and saved in {directory}; resume to go on") from None
        except OSError as error:
            raise rescued(lambda folder: loop.keep(functools.partial(save_in, folder)), directory, error) from None
    if fabric.is_global_zero:
        from gno.post.curves import draw_curves

        draw_curves(directory / "log.csv", directory / "curves.png")
    fabric.barrier()


def launch(case: Case) -> Fabric:
    """Lightning Fabric with the device, precision and processes of a case."""
    from lightning_fabric import Fabric

    settings = case.training
    accelerator, _, number = settings.device.partition(":")
    try:
        device_of(settings.device)
    except ValueError as error:
        raise ValueError(f"training.{error}") from None
    fabric = Fabric(
        accelerator=accelerator,
        devices=[int(number)] if number else settings.devices,
        precision=PRECISION[settings.precision],  # type: ignore[arg-type]
        strategy="ddp" if settings.devices > 1 else "auto",
    )
    fabric.launch()
    return fabric


def check_same_case(before: Case, now: Case, directory: Path) -> None:
    """A resumed run keeps its data, model and optimiser; budget, rate and device may change, and where moved data lie.

    Raises:
        ValueError: names the key that differs.
    """
    may_change = {"cache"} if before.data.folder.exists() else {"cache", "folder"}
    for part in ("data", "model", "physics", "time"):
        old, new = ({} if (p := getattr(c, part)) is None else p.model_dump(mode="json") for c in (before, now))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and not (part == "data" and key in may_change):
                raise ValueError(
                    f"{part}.{key}: expected {old.get(key)!r} as in the run in {directory}, got {new.get(key)!r}; "
                    "a run is resumed with the same data, model, physics and time"
                )
    if (old := before.training.optimiser) != (new := now.training.optimiser):
        raise ValueError(f"training.optimiser: expected '{old}' as in the run in {directory}, got '{new}'")


def check_same_operator(before: Blueprint, now: Blueprint, directory: Path) -> None:
    """A resumed run keeps its weights: [uncertainty] must not ask for others.

    Raises:
        ValueError: names the knob that differs.
    """
    old, new = before.config.to_dict(), now.config.to_dict()
    for key, value in old.items():
        if value != new[key]:
            raise ValueError(
                f"operator.{key}: expected {value!r} as in the run in {directory}, got {new[key]!r}; "
                "a run is resumed with the same model and the same kind of [uncertainty]"
            )


def discard(directory: Path) -> None:
    """Remove the files of a run, or of an ensemble with its members, and nothing else."""
    for name in (ENSEMBLE, "best.safetensors", "last.safetensors", "log.csv", "curves.png"):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "tensorboard", ignore_errors=True)
    for folder in (*directory.glob(MEMBERS), *directory.glob(COMMON)):
        discard(folder)
        with contextlib.suppress(OSError):  # it holds something else
            folder.rmdir()
