"""train: from a case to a run; Run: a trained operator that predicts and evaluates."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gno.graph import MeshData, SampleSpec, build_sample
from gno.mesh import Mesh
from gno.train.blueprint import Blueprint
from gno.train.case import Case
from gno.train.evaluate import Evaluation, row_of
from gno.train.interrupt import Interrupted, Stop
from gno.train.loop import Loop, Progress
from gno.train.optimisers import Optimiser
from gno.train.physics import WEIGHTINGS, floors_of, is_labelled, with_given
from gno.train.predict import Prediction, answers, coarse_answer, level_mesh, prediction
from gno.train.report import Report
from gno.train.rollout import Rollout, evaluate_rollouts, evolution_of, roll_out
from gno.train.sources import (
    Source,
    check_no_leak,
    fit_spec,
    frames_of,
    mesh_of,
    samples_of,
    split_meshes,
    trajectories_of,
)
from gno.train.task import Terms, task_of
from gno.train.time_metrics import RolloutEvaluation
from gno.uncertain import Uncertain

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from gno.physics.weights import Weighting

PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "64": "64-true"}


def train(
    case: Case,
    directory: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    meshes: Sequence[Mesh] | Mapping[str, Sequence[Mesh]] | None = None,
    optimiser: Optimiser | None = None,
    progress: bool = True,
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
        progress: whether to draw a progress bar.
        clock: seconds that a budget of minutes is measured with; ``time.process_time`` is fair on a busy machine.
        terms: what to minimise, of the terms that the case asks for and the blueprint; these themselves by default.
        weighting: how the weights of the terms adapt; as the case says by default.
        until: share of the budget after which to stop, as an interruption would; resume to go on.
        prepared: what :func:`prepare` made of the same case and meshes, where several trainings start from it.
        title: of this training beside its progress, where it is one of several.

    Returns:
        The run, with its best weights.

    Raises:
        ValueError: data, fields or settings that do not fit; one line.
        FileExistsError: the folder holds a run, and neither resume nor overwrite was asked for.
        Interrupted: Ctrl-C; everything is saved.
    """
    directory = Path(directory)
    last = directory / "last.safetensors"
    if last.exists() and not (resume or overwrite):
        raise FileExistsError(f"{directory}: expected a folder without a run, got one")
    fabric = launch(case)
    before = Blueprint.load(last) if resume and last.exists() else None
    if before:
        check_same_case(before[0].case, case, directory)
        before[0].trained(before[1]["model"], last)
    known = before[0].spec if before else None
    if prepared is None or known not in (None, prepared.spec):
        with fabric.rank_zero_first():
            prepared = prepare(case, meshes, spec=known, progress=progress)
    if overwrite and not resume and fabric.is_global_zero:
        discard(directory)
    spec, samples = prepared.spec, prepared.samples
    fresh = Blueprint.fit(case, spec, samples["train"])
    if before:
        check_same_operator(before[0], fresh, directory)
    blueprint = dataclasses.replace(before[0], case=case) if before else fresh
    restored = (before[1], Progress(**before[2])) if before else None
    _run_loop(
        fabric, blueprint, samples, directory, restored, optimiser, progress, title, clock, terms, weighting, until
    )
    return Run.load(directory)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What the trainings of a case start from.

    Args:
        spec: how meshes are seen.
        samples: of ``train`` and ``validation``, raw; trajectories in time.
    """

    spec: SampleSpec
    samples: Mapping[str, Sequence[Any]]


def prepare(
    case: Case,
    meshes: Sequence[Mesh] | Mapping[str, Sequence[Mesh]] | None = None,
    *,
    spec: SampleSpec | None = None,
    progress: bool = True,
) -> Prepared:
    """Read and prepare the meshes of a case.

    Args:
        case, meshes, progress: as for :func:`train`.
        spec: how meshes are seen; found on the training meshes by default.

    Raises:
        ValueError: data or fields that do not fit; one line.
    """
    sources = split_meshes(case, meshes)
    spec = spec or fit_spec(case, sources["train"])
    samples: dict[str, Sequence[Any]] = {
        key: trajectories_of(sources[key], spec, case, progress, to_train=key == "train")
        if case.time
        else samples_of(sources[key], spec, case, progress, to_train=True)
        for key in ("train", "validation")
    }
    if not case.time:
        check_no_leak([sample for sample in samples["train"] if is_labelled(sample)], spec)
    return Prepared(spec, samples)


def _run_loop(
    fabric: Fabric,
    blueprint: Blueprint,
    samples: Mapping[str, Sequence[Any]],
    directory: Path,
    restored: tuple[Any, Progress] | None,
    optimiser: Optimiser | None,
    bar: bool,
    title: str,
    clock: Callable[[], float],
    compose: Terms | None,
    weighting: Weighting | None,
    until: float,
) -> None:
    settings = blueprint.case.training
    model = blueprint.model(settings.seed)
    task = task_of(blueprint, samples, model, compose)
    if weighting is None and blueprint.case.physics:
        weighting = WEIGHTINGS[blueprint.case.physics.weights]
    report = Report(
        directory if fabric.is_global_zero else None,
        settings,
        [term.name for term in task.terms],
        task.scores,
        step=restored[1].step if restored else 0,
        n_samples=len(task.samples),
        bar=bar,
        title=title,
        floors=floors_of(samples["train"], task.terms) if blueprint.case.physics else None,
    )
    with Stop() as stop, report:
        loop = Loop(
            fabric,
            model,
            task.samples,
            task.terms,
            task.validate,
            settings,
            save=lambda name, parts, state: blueprint.save(directory / f"{name}.safetensors", parts, state),
            report=report,
            stop=stop,
            optimiser=optimiser,
            clock=clock,
            weighting=weighting,
            until=until,
            objective=task.objective,
            collate=task.collate,
            coarse=task.coarse,
        )
        if restored:
            loop.restore(*restored)
        try:
            loop.run()
        except Interrupted as error:
            raise Interrupted(f"{error} and saved in {directory}; resume to go on") from None
    if fabric.is_global_zero:
        from gno.post.curves import draw_curves

        draw_curves(directory / "log.csv", directory / "curves.png")
    fabric.barrier()


def evaluate_series(
    models: Sequence[nn.Module], blueprint: Blueprint, series: Iterable[Sequence[Mesh] | str | Path]
) -> RolloutEvaluation:
    """Rollouts of one or several models from the first frames of series or files, against the frames that follow.

    Raises:
        ValueError: a series without a state or a step, or no series at all.
    """
    sources = [Path(source) if isinstance(source, str) else source for source in series]
    if not sources:
        raise ValueError("series to evaluate: expected at least one, got none")
    evolution_of(models[0], blueprint)  # a steady run is told apart before anything is read
    return evaluate_rollouts(models, blueprint, trajectories_of(sources, blueprint.spec, blueprint.case))


def launch(case: Case) -> Fabric:
    """Lightning Fabric with the device, precision and processes of a case."""
    from lightning_fabric import Fabric

    settings = case.training
    accelerator, _, number = settings.device.partition(":")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device: expected a device of this machine, got 'cuda' without a usable GPU")
    fabric = Fabric(
        accelerator=accelerator,
        devices=[int(number)] if number else settings.devices,
        precision=PRECISION[settings.precision],  # type: ignore[arg-type]
        strategy="ddp" if settings.devices > 1 else "auto",
    )
    fabric.launch()
    return fabric


def check_same_case(before: Case, now: Case, directory: Path) -> None:
    """A resumed run keeps its data and model; budget, rate and device may change.

    Raises:
        ValueError: names the key that differs.
    """
    for part in ("data", "model", "physics", "time"):
        old, new = ({} if (p := getattr(c, part)) is None else p.model_dump() for c in (before, now))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                raise ValueError(
                    f"{part}.{key}: expected {old.get(key)!r} as in the run in {directory}, got {new.get(key)!r}; "
                    "a run is resumed with the same data, model, physics and time"
                )


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
    """Remove the files of a run, and nothing else."""
    for name in ("best.safetensors", "last.safetensors", "log.csv", "curves.png"):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "tensorboard", ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained operator.

    Args:
        directory: its folder.
        blueprint: case, sample spec, sizes, normalisation.
        model: the operator with its best averaged weights.
    """

    directory: Path
    blueprint: Blueprint
    model: nn.Module

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Run:
        """Read a run from its folder.

        Raises:
            ValueError: no run there.
        """
        path = Path(directory) / "best.safetensors"
        if not path.is_file():
            raise ValueError(f"{directory}: expected the folder of a trained run, got no {path.name} in it")
        blueprint, parts, _ = Blueprint.load(path)
        model = blueprint.trained(parts["average"], path)
        return cls(Path(directory), blueprint, model.requires_grad_(False).eval().to(device))

    def summary(self) -> str:
        """What was trained, in a few lines."""
        _, _, progress = Blueprint.load(self.directory / "best.safetensors")
        n_weights = sum(p.numel() for p in self.model.parameters())
        best = progress["best"]
        score = "no validation files" if best is None else f"score on the validation files {best:.2%}"
        return (
            f"{self.directory}: {n_weights:,} weights on {self.blueprint.spec.n_levels} levels; "
            f"best after {progress['step']} steps and {progress['seconds']:.0f} s: {score}"
        )

    def _check_steady(self, instead: str) -> None:
        if self.blueprint.case.time is not None:
            raise ValueError(f"{self.directory}: expected a steady run, got one in time; use {instead}")

    def predict(self, mesh: Mesh | str | Path) -> Prediction:
        """Fields on one mesh (or file), and on its coarser levels.

        Raises:
            ValueError: the mesh lacks an input.
        """
        return next(self.predict_many([mesh]))

    def predict_many(self, meshes: Iterable[Mesh | str | Path]) -> Iterator[Prediction]:
        """Predictions in the order of the meshes, computed in batches as they are asked for."""
        self._check_steady("roll_out")
        known: list[tuple[Mesh, float]] = []

        def prepared() -> Iterator[MeshData]:
            for source in meshes:
                mesh = mesh_of(source)
                start = time.perf_counter()
                sample = build_sample(mesh, self.blueprint.spec)
                sample = with_given(sample, mesh, self.blueprint.case, self.blueprint.spec)
                known.append((mesh, time.perf_counter() - start))
                yield sample

        for answer in answers(self.model, self.blueprint, prepared()):
            mesh, seconds = known.pop(0)
            yield prediction(mesh, answer, self.blueprint, seconds)

    def predict_coarse(self, mesh: Mesh | str | Path) -> tuple[Mesh, ...]:
        """The fields of the coarse levels alone, level 1 first, as point clouds with ``mass``: the same as those of
        :meth:`predict`, for about half of the operator's time.

        Raises:
            ValueError: the mesh lacks an input, or coarse fields that follow from the one on the mesh.
        """
        self._check_steady("roll_out")
        mesh = mesh_of(mesh)
        answer = coarse_answer(self.model, self.blueprint, build_sample(mesh, self.blueprint.spec))
        known = [Uncertain(fields.numpy()[None]) for fields in answer.fields]
        return tuple(level_mesh(mesh, u, answer, s, self.blueprint) for s, u in enumerate(known))

    def roll_out(
        self,
        series: Sequence[Mesh] | Mesh | str | Path,
        path: str | Path,
        *,
        n_steps: int | None = None,
        step: float | None = None,
        resume: bool = False,
        advance: Callable[[int], None] = lambda n: None,
    ) -> Rollout:
        """Steps in time from the first frames of a series, written as they come: :func:`gno.train.rollout.roll_out`."""
        options: dict[str, Any] = {"n_steps": n_steps, "step": step, "resume": resume, "advance": advance}
        source = Path(series) if isinstance(series, str) else series
        return roll_out(self.model, self.blueprint, frames_of(source), path, **options)

    def evaluate_rollouts(self, series: Iterable[Sequence[Mesh] | str | Path]) -> RolloutEvaluation:
        """Rollouts from the first frames of series or files, against the frames that follow.

        Raises:
            ValueError: a series without a state or a step, or no series at all.
        """
        return evaluate_series([self.model], self.blueprint, series)

    def evaluate(self, meshes: Iterable[Mesh | str | Path]) -> Evaluation:
        """Errors against the fields in the meshes or files.

        Raises:
            ValueError: a mesh without a target, or no mesh at all.
        """
        sources: list[Source] = [source if isinstance(source, Mesh) else Path(source) for source in meshes]
        if not sources:
            raise ValueError("meshes to evaluate: expected at least one, got none")
        self._check_steady("evaluate_rollouts")
        spec = self.blueprint.spec
        samples = samples_of(sources, spec, self.blueprint.case)
        rows = []
        found = answers(self.model, self.blueprint, samples, costs=True)
        for source, sample, answer in zip(sources, samples, found, strict=True):
            name, truth = source.source if isinstance(source, Mesh) else str(source), answer.truth or []
            times = answer.seconds, answer.coarse_seconds
            rows.append(row_of(name, sample, answer.fields, truth, answer.mass, spec.targets, *times))
        return Evaluation(tuple(rows))
