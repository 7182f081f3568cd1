"""Run: a trained operator that predicts and evaluates."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from gno.graph import MeshData, build_sample
from gno.mesh import Mesh
from gno.progress import counter
from gno.train.blueprint import Blueprint
from gno.train.device import device_of
from gno.train.evaluate import Evaluation, row_of
from gno.train.physics import with_given
from gno.train.predict import Prediction, answers, coarse_answer, level_mesh, prediction
from gno.train.rollout import Rollout, evaluate_rollouts, evolution_of, roll_out
from gno.train.sources import Source, frames_of, mesh_of, samples_of, trajectories_of, without_targets
from gno.train.time_metrics import RolloutEvaluation
from gno.uncertain import Uncertain


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
            ValueError: no run there, or no such device.
        """
        path = Path(directory) / "best.safetensors"
        if not path.is_file():
            raise ValueError(f"{directory}: expected the folder of a trained run, got no {path.name} in it")
        blueprint, parts, _ = Blueprint.load(path)
        model = blueprint.trained(parts["average"], path)
        return cls(Path(directory), blueprint, model.requires_grad_(False).eval().to(device_of(device)))

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
                mesh = mesh_of(source, self.blueprint.spec)
                start = time.perf_counter()
                sample = build_sample(without_targets(mesh, self.blueprint.spec), self.blueprint.spec)
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
        mesh = mesh_of(mesh, self.blueprint.spec)
        sample = build_sample(without_targets(mesh, self.blueprint.spec), self.blueprint.spec)
        answer = coarse_answer(self.model, self.blueprint, sample)
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
        progress: bool = False,
    ) -> Rollout:
        """Steps in time from the first frames of a series, written as they come: :func:`gno.train.rollout.roll_out`."""
        options: dict[str, Any] = {"n_steps": n_steps, "step": step, "resume": resume, "progress": progress}
        source = Path(series) if isinstance(series, str) else series
        return roll_out(self.model, self.blueprint, frames_of(source, self.blueprint.spec), path, **options)

    def evaluate_rollouts(
        self, series: Iterable[Sequence[Mesh] | str | Path], *, progress: bool = False
    ) -> RolloutEvaluation:
        """Rollouts from the first frames of series or files, against those that follow; a bar counts them if wanted.

        Raises:
            ValueError: a series without a state or a step, or no series at all.
        """
        return evaluate_series([self.model], self.blueprint, series, progress=progress)

    def evaluate(self, meshes: Iterable[Mesh | str | Path], *, progress: bool = False) -> Evaluation:
        """Errors against the fields in the meshes or files; a bar counts them if wanted.

        Raises:
            ValueError: a mesh without a target, or no mesh at all.
        """
        sources: list[Source] = [source if isinstance(source, Mesh) else Path(source) for source in meshes]
        if not sources:
            raise ValueError("meshes to evaluate: expected at least one, got none")
        self._check_steady("evaluate_rollouts")
        spec, scale = self.blueprint.spec, self.blueprint.normalisation.targets
        samples = samples_of(sources, spec, self.blueprint.case, progress)
        rows = []
        found = answers(self.model, self.blueprint, samples, costs=True)
        with counter("evaluation", len(sources), draw=progress) as advance:
            for source, sample, answer in zip(sources, samples, found, strict=True):
                name, truth = source.source if isinstance(source, Mesh) else str(source), answer.truth or []
                times = answer.seconds, answer.coarse_seconds
                rows.append(row_of(name, sample, answer.fields, truth, answer.mass, spec.targets, *times, scale))
                advance(1)
        return Evaluation(tuple(rows))


def evaluate_series(
    models: Sequence[nn.Module],
    blueprint: Blueprint,
    series: Iterable[Sequence[Mesh] | str | Path],
    *,
    progress: bool = False,
) -> RolloutEvaluation:
    """Rollouts of one or several models from the first frames of series or files, against the frames that follow.

    Raises:
        ValueError: a series without a state or a step, or no series at all.
    """
    sources = [Path(source) if isinstance(source, str) else source for source in series]
    if not sources:
        raise ValueError("series to evaluate: expected at least one, got none")
    evolution_of(models[0], blueprint)  # a steady run is told apart before anything is read
    trajectories = trajectories_of(sources, blueprint.spec, blueprint.case, progress)
    return evaluate_rollouts(models, blueprint, trajectories, progress=progress)
