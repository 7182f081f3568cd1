"""train: from a case to a run; Run: a trained operator that predicts and evaluates."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gno.graph import MeshData, SampleSpec, build_sample
from gno.mesh import Mesh, read
from gno.train.blueprint import Blueprint
from gno.train.case import SPLITS, Case, split_items
from gno.train.evaluate import Evaluation, Row, relative_errors, score_names, validation_scores
from gno.train.interrupt import Interrupted, Stop
from gno.train.loop import Loop, Progress
from gno.train.losses import Term, data_terms
from gno.train.optimisers import Optimiser
from gno.train.physics import (
    WEIGHTINGS,
    is_labelled,
    physics_scores,
    physics_terms,
    target_specs,
    with_given,
    with_physics,
)
from gno.train.predict import Prediction, answers, in_precision, prediction
from gno.train.report import Report
from gno.train.samples import load_samples

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from gno.physics.weights import Weighting

Terms = Callable[[Sequence[Term], Blueprint], Sequence[Term]]
Source = Path | Mesh
# Fields, sets and lengths of a case are read off at most this many training meshes.
MESHES_FOR_SPEC = 32
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
    sources = split_meshes(case, meshes)
    fabric = launch(case)
    if overwrite and not resume and fabric.is_global_zero:
        discard(directory)
    before = Blueprint.load(last) if resume and last.exists() else None
    if before:
        check_same_case(before[0].case, case, directory)
        before[0].trained(before[1]["model"], last)
    spec = before[0].spec if before else fit_spec(case, sources["train"])
    with fabric.rank_zero_first():
        samples = {
            key: samples_of(sources[key], spec, case, progress, to_train=True) for key in ("train", "validation")
        }
    check_no_leak([sample for sample in samples["train"] if is_labelled(sample)], spec)
    fresh = Blueprint.fit(case, spec, samples["train"])
    blueprint = dataclasses.replace(before[0], case=case) if before else fresh
    restored = (before[1], Progress(**before[2])) if before else None
    _run_loop(fabric, blueprint, samples, directory, restored, optimiser, progress, clock, terms, weighting)
    return Run.load(directory)


def _run_loop(
    fabric: Fabric,
    blueprint: Blueprint,
    samples: Mapping[str, Sequence[MeshData]],
    directory: Path,
    restored: tuple[Any, Progress] | None,
    optimiser: Optimiser | None,
    bar: bool,
    clock: Callable[[], float],
    compose: Terms | None,
    weighting: Weighting | None,
) -> None:
    settings = blueprint.case.training
    dtype = torch.float64 if settings.precision == "64" else torch.float32
    ready = {
        key: [in_precision(blueprint.normalisation.apply(sample), dtype) for sample in values]
        for key, values in samples.items()
    }
    terms = terms_of(blueprint, samples["train"])
    terms = list(compose(terms, blueprint)) if compose else terms
    if weighting is None and blueprint.case.physics:
        weighting = WEIGHTINGS[blueprint.case.physics.weights]
    validate, scores = validation(blueprint, ready["validation"], terms)
    report = Report(
        directory if fabric.is_global_zero else None,
        settings,
        [term.name for term in terms],
        scores,
        step=restored[1].step if restored else 0,
        n_samples=len(ready["train"]),
        bar=bar,
    )
    with Stop() as stop, report:
        loop = Loop(
            fabric,
            blueprint.model(settings.seed),
            ready["train"],
            terms,
            validate,
            settings,
            save=lambda name, parts, state: blueprint.save(directory / f"{name}.safetensors", parts, state),
            report=report,
            stop=stop,
            optimiser=optimiser,
            clock=clock,
            weighting=weighting,
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


def terms_of(blueprint: Blueprint, samples: Sequence[MeshData]) -> list[Term]:
    """The losses that a case asks for: of the data, where there are any, and of the physics."""
    case, spec, scale = blueprint.case, blueprint.spec, blueprint.normalisation.targets
    labelled = any(is_labelled(sample) for sample in samples)
    data = data_terms(spec.targets, scale, coarse_weight=case.training.coarse_weight) if labelled else []
    return [*data, *physics_terms(case, spec, scale)]


def validation(
    blueprint: Blueprint, samples: Sequence[MeshData], terms: Sequence[Term]
) -> tuple[Callable[[nn.Module], dict[str, float]], list[str]]:
    """What scores a model, and the names of its scores: errors on labelled meshes, else the losses of the physics."""
    spec, batch_size = blueprint.spec, blueprint.case.training.batch_size
    labelled = [sample for sample in samples if is_labelled(sample)]
    if samples and not labelled:
        physical = [term for term in terms if term.name not in blueprint.case.data.targets]
        score = functools.partial(physics_scores, samples=samples, terms=physical, batch_size=batch_size)
        return score, ["score", *(term.name for term in physical)]
    errors = functools.partial(
        validation_scores,
        samples=labelled,
        fields=spec.targets,
        scale=blueprint.normalisation.targets,
        batch_size=batch_size,
    )
    return errors, score_names(spec.targets, spec.n_levels) if labelled else []


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


def split_meshes(case: Case, meshes: Sequence[Mesh] | Mapping[str, Sequence[Mesh]] | None) -> dict[str, list[Source]]:
    """Files or meshes of each split.

    Raises:
        ValueError: no training data, or an unknown split.
    """
    if meshes is None:
        return {key: list(paths) for key, paths in case.data.paths().items()}
    if not isinstance(meshes, Mapping):
        return split_items(meshes, case.data.split, case.data.seed)
    if unknown := set(meshes) - set(SPLITS):
        raise ValueError(f"meshes: expected keys {', '.join(SPLITS)}, got '{min(unknown)}'")
    splits: dict[str, list[Source]] = {key: list(meshes.get(key, ())) for key in SPLITS}
    if not splits["train"]:
        raise ValueError("meshes['train']: expected at least one mesh, got none")
    return splits


def fit_spec(case: Case, sources: Sequence[Source]) -> SampleSpec:
    """Fields, unit and spacings, from some of the training meshes at even distances in the list."""
    stride = -(-len(sources) // MESHES_FOR_SPEC)
    meshes = [mesh_of(source) for source in sources[::stride]]
    spec = SampleSpec.fit(
        meshes,
        inputs=case.data.inputs,
        targets=() if case.physics else case.data.targets,
        log=case.data.log,
        sets=case.data.sets,
        **case.model.hierarchy,
    )
    return dataclasses.replace(spec, targets=target_specs(case, spec, meshes)) if case.physics else spec


def mesh_of(source: Source | str) -> Mesh:
    """The mesh itself, or read from its file."""
    return source if isinstance(source, Mesh) else read(source)


def samples_of(
    sources: Sequence[Source], spec: SampleSpec, case: Case, bar: bool = False, *, to_train: bool = False
) -> list[MeshData]:
    """Raw samples with targets, of files (cached as the case says) or meshes; ``to_train`` adds the physics.

    With physics, meshes to train on need no targets.

    Raises:
        ValueError: a mesh without one of the targets.
    """
    files = [source for source in sources if isinstance(source, Path)]
    cache = case.data.folder / case.data.cache / "samples" if case.data.cache else None
    built = iter(load_samples(files, spec, cache=cache, bar=bar))
    samples = [build_sample(source, spec) if isinstance(source, Mesh) else next(built) for source in sources]
    if case.physics and to_train:
        pairs = zip(samples, sources, strict=True)
        return [with_physics(sample, mesh_of(source), case, spec) for sample, source in pairs]
    for source, sample in zip(sources, samples, strict=True):
        if sample.y is None:
            for field in spec.targets:
                field.values(mesh_of(source))  # raises, and says what is there
        if case.physics:
            with_given(sample, mesh_of(source), case, spec)
    return samples


def check_no_leak(samples: Sequence[MeshData], spec: SampleSpec) -> None:
    """No input may be a copy of a target under another name.

    Raises:
        ValueError: an input column equals a target column in every training mesh, and is not constant.
    """
    inputs = [field.name for field in spec.inputs for _ in range(field.n_components)]
    targets = [field.name for field in spec.targets for _ in range(field.n_components)]
    for i, source in enumerate(inputs):
        for j, target in enumerate(targets):
            same = all(torch.equal(sample.x[:, i], sample.y[:, j]) for sample in samples)
            if same and any(sample.y[:, j].min() < sample.y[:, j].max() for sample in samples):
                raise ValueError(
                    f"data.inputs: expected no target, got '{source}', which equals '{target}' in every mesh"
                )


def check_same_case(before: Case, now: Case, directory: Path) -> None:
    """A resumed run keeps its data and model; budget, rate and device may change.

    Raises:
        ValueError: names the key that differs.
    """
    for part in ("data", "model", "physics"):
        old, new = ({} if (p := getattr(c, part)) is None else p.model_dump() for c in (before, now))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                raise ValueError(
                    f"{part}.{key}: expected {old.get(key)!r} as in the run in {directory}, got {new.get(key)!r}; "
                    "a run is resumed with the same data, model and physics"
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
        score = "no validation files" if best is None else f"mean relative L2 on the validation files {best:.2%}"
        return (
            f"{self.directory}: {n_weights:,} weights on {self.blueprint.spec.n_levels} levels; "
            f"best after {progress['step']} steps and {progress['seconds']:.0f} s: {score}"
        )

    def predict(self, mesh: Mesh | str | Path) -> Prediction:
        """Fields on one mesh (or file), and on its coarser levels.

        Raises:
            ValueError: the mesh lacks an input.
        """
        return next(self.predict_many([mesh]))

    def predict_many(self, meshes: Iterable[Mesh | str | Path]) -> Iterator[Prediction]:
        """Predictions in the order of the meshes, computed in batches as they are asked for."""
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

    def evaluate(self, meshes: Iterable[Mesh | str | Path]) -> Evaluation:
        """Errors against the fields in the meshes or files.

        Raises:
            ValueError: a mesh without a target, or no mesh at all.
        """
        sources: list[Source] = [source if isinstance(source, Mesh) else Path(source) for source in meshes]
        if not sources:
            raise ValueError("meshes to evaluate: expected at least one, got none")
        spec = self.blueprint.spec
        samples = samples_of(sources, spec, self.blueprint.case)
        rows = []
        for source, sample, answer in zip(sources, samples, answers(self.model, self.blueprint, samples), strict=True):
            name = source.source if isinstance(source, Mesh) else str(source)
            errors = relative_errors(answer.fields[0], sample, spec.targets)
            rows.append(Row(name, len(sample.mass_0), errors, answer.seconds))
        return Evaluation(tuple(rows))
