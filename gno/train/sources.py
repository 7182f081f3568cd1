"""Where samples come from: files or meshes in memory, split, read, and cached."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gno.graph import MeshData, SampleSpec, build_sample
from gno.mesh import Mesh, read, read_series
from gno.progress import counter
from gno.train.case import Case
from gno.train.mirror import check_fields, check_physics
from gno.train.normalise import columns_of
from gno.train.physics import is_labelled, target_specs, with_given, with_physics
from gno.train.physics_in_time import with_given_in_time, with_step_physics
from gno.train.samples import load_samples
from gno.train.splits import SPLITS, split_items
from gno.train.trajectory import Trajectory, build_trajectory, load_trajectories
from gno.train.units import check_rounding, check_unit

# A file, a mesh, or, in time, the frames of a series.
Source = Path | Mesh | Sequence[Mesh]
# Fields, sets and lengths of a case are read off at most this many training meshes.
MESHES_FOR_SPEC = 32


class CacheWarning(UserWarning):
    """Prepared samples cannot be kept."""


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
    meshes: Sequence[Mesh] | Mapping[str, Sequence[Source]] | None = None,
    *,
    spec: SampleSpec | None = None,
    progress: bool = True,
) -> Prepared:
    """Read and prepare the meshes of a case.

    Args:
        case, meshes, progress: as for :func:`gno.train.train`; a mapping may name files, too.
        spec: how meshes are seen; found on the training meshes by default.

    Raises:
        ValueError: data or fields that do not fit; one line.
    """
    sources = split_meshes(case, meshes)
    spec = spec or fit_spec(case, sources["train"])
    if case.training.curriculum:  # nodes are joined along edges
        spec = dataclasses.replace(spec, edges=True)
    samples: dict[str, Sequence[Any]] = {
        key: trajectories_of(sources[key], spec, case, progress, to_train=key == "train")
        if case.time
        else samples_of(sources[key], spec, case, progress, to_train=True)
        for key in ("train", "validation")
    }
    if not case.time:
        labelled = [sample for sample in samples["train"] if is_labelled(sample)]
        check_no_leak(labelled, spec)
        check_no_zero(labelled, spec)
    if case.data.mirror:
        check_fields(samples["train"], spec, case)
        if case.physics:
            check_physics(mesh_of(sources["train"][0], spec), spec, case)
    check_held_out(sources["test"], spec, case, progress)
    return Prepared(spec, samples)


def split_meshes(case: Case, meshes: Sequence[Mesh] | Mapping[str, Sequence[Source]] | None) -> dict[str, list[Source]]:
    """Files or meshes of each split.

    Raises:
        ValueError: no training data, an unknown split, or a series in a case without [time].
    """
    if meshes is None:
        return {key: list(paths) for key, paths in case.paths().items()}
    if not isinstance(meshes, Mapping):
        splits = split_items(meshes, case.data.split, case.data.seed, "meshes")
        return {key: [_source(item, case) for item in items] for key, items in splits.items()}
    if unknown := set(meshes) - set(SPLITS):
        raise ValueError(f"meshes: expected keys {', '.join(SPLITS)}, got '{min(unknown)}'")
    splits = {key: [_source(item, case) for item in meshes.get(key, ())] for key in SPLITS}
    if not splits["train"]:
        raise ValueError("meshes['train']: expected at least one mesh, got none")
    return splits


def _source(item: Source | str, case: Case) -> Source:
    if not (case.time or isinstance(item, str | Path | Mesh)):
        raise ValueError("meshes: expected single meshes or files, since the case has no [time], got a series")
    return Path(item) if isinstance(item, str) else item


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
        period=case.data.period,
        **case.model.hierarchy,
    )
    if spec.spacings:
        check_rounding(meshes[0].points, spec.spacings[0] * spec.unit, meshes[0].source)
    return dataclasses.replace(spec, targets=target_specs(case, spec, meshes)) if case.physics else spec


def check_held_out(sources: Sequence[Source], spec: SampleSpec, case: Case, bar: bool = False) -> None:
    """Files that are held out can be read and have the fields, of a series its first frame; nothing is kept of them.

    Raises:
        ValueError: a file that an evaluation would stop at, hours later.
    """
    fields = spec.inputs if case.physics else (*spec.inputs, *spec.targets)
    with counter("held-out files", len(sources), draw=bar) as advance:
        for source in sources:
            try:
                mesh = frames_of(source, spec)[0] if case.time else mesh_of(source, spec)
                for field in fields:
                    field.values(mesh)
            except ValueError as error:
                raise ValueError(f"data.test: {error}") from None
            advance(1)


def without_targets(mesh: Mesh, spec: SampleSpec) -> Mesh:
    """What a prediction is asked of: the mesh without the fields to predict, whatever it has there."""
    names = {field.name for field in spec.targets}
    kinds = ("point_fields", "cell_fields", "global_fields")
    return mesh.replace(**{kind: {n: x for n, x in getattr(mesh, kind).items() if n not in names} for kind in kinds})


def mesh_of(source: Source | str, spec: SampleSpec | None = None) -> Mesh:
    """The mesh itself, or read from its file; the first frame of a series in memory, or of numbered files.

    With a spec it is the mesh as the case sees it.
    """
    if isinstance(source, Mesh):
        mesh = source
    elif isinstance(source, Sequence) and not isinstance(source, str):
        mesh = source[0]
    else:
        mesh = read_series(source)[0] if "*" in Path(source).name else read(source)
    return spec.seen(mesh) if spec else mesh


def name_of(source: Source) -> str:
    """What messages call a mesh or a file."""
    return source.source if isinstance(source, Mesh) else str(source)


def samples_of(
    sources: Sequence[Source], spec: SampleSpec, case: Case, bar: bool = False, *, to_train: bool = False
) -> list[MeshData]:
    """Raw samples with targets, of files (cached as the case says) or meshes; ``to_train`` adds the physics.

    With physics, meshes to train on need no targets.

    Raises:
        ValueError: a mesh without one of the targets.
    """
    files = [source for source in sources if isinstance(source, Path)]
    built = iter(load_samples(files, spec, cache=cache_of(case), bar=bar))
    samples = [build_sample(source, spec) if isinstance(source, Mesh) else next(built) for source in sources]
    for source, sample in zip(sources, samples, strict=True):
        check_range(sample, spec, source)
        place = sample.pos_0[sample.mass_0 > 0]
        extent = float((place.amax(0) - place.amin(0)).max()) * spec.unit
        check_unit(extent, 2 * spec.unit, name_of(source))
    if case.physics and to_train:
        pairs = zip(samples, sources, strict=True)
        return [with_physics(sample, mesh_of(source, spec), case, spec) for sample, source in pairs]
    for source, sample in zip(sources, samples, strict=True):
        if sample.y is None:
            for field in spec.targets:
                field.values(mesh_of(source, spec))  # raises, and says what is there
        if case.physics:
            with_given(sample, mesh_of(source, spec), case, spec)
    return samples


def cache_of(case: Case) -> Path | None:
    """Where prepared samples are kept; nowhere where that cannot be written, as beside results on a shared disk, and
    where the folder of the case is not there, as that of a run that was moved.

    Warns:
        CacheWarning: the folder of the case cannot be written.
    """
    folder = case.data.folder / case.data.cache / "samples"
    if not case.data.cache or not (case.data.folder.is_dir() or Path(case.data.cache).is_absolute()):
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "may not be written"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    if reason:
        text = f"{folder}: {reason}; meshes are prepared again each time, unless data.cache names another folder"
        warnings.warn(text, CacheWarning, stacklevel=2)
    return None if reason else folder


def check_range(sample: MeshData, spec: SampleSpec, source: Source) -> None:
    """Values of single precision, in which samples are kept, reach to 3.4e38.

    Raises:
        ValueError: a field with larger ones.
    """
    for values, fields in ((sample.x, spec.inputs), (sample.y, spec.targets)):
        for columns, field in columns_of(fields) if values is not None else ():
            if not torch.isfinite(values[:, columns]).all():
                got = "larger ones; choose another unit"
                raise ValueError(f"field '{field.name}': expected values up to 3.4e38, got {got} ({name_of(source)})")


def trajectories_of(
    sources: Sequence[Source], spec: SampleSpec, case: Case, bar: bool = False, *, to_train: bool = False
) -> list[Trajectory]:
    """Raw trajectories of series in files (cached as the case says) or in memory; ``to_train`` adds the physics.

    Raises:
        ValueError: a series that does not fit the case.
    """
    time = case.time
    assert time is not None
    files = [source for source in sources if isinstance(source, Path)]
    options: dict[str, Any] = {"stride": time.stride, "step": time.step, "cache": cache_of(case), "bar": bar}
    found = iter(load_trajectories(files, spec, time.forcing, **options))
    trajectories = [
        next(found)
        if isinstance(source, Path)
        else build_trajectory(frames_of(source, spec)[:: time.stride], spec, time.forcing, step=time.step)
        for source in sources
    ]
    if case.physics is None:
        return trajectories
    ready = []
    with counter("physics", len(sources), draw=bar and to_train) as advance:
        for source, trajectory in zip(sources, trajectories, strict=True):
            frames = frames_of(source, spec)[:: time.stride]
            trajectory = with_given_in_time(trajectory, frames, case, spec)
            ready.append(with_step_physics(trajectory, frames, case, spec) if to_train else trajectory)
            advance(1)
    return ready


@dataclasses.dataclass(frozen=True)
class Seen(Sequence[Mesh]):
    """Frames as a case sees them."""

    frames: Sequence[Mesh]
    spec: SampleSpec

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index):
        found = self.frames[index]
        return Seen(found, self.spec) if isinstance(index, slice) else self.spec.seen(found)


def frames_of(source: Source | str, spec: SampleSpec) -> Sequence[Mesh]:
    """The frames of a series as the case sees them, read when asked for; a mesh is a series of one."""
    if isinstance(source, Mesh):
        return [spec.seen(source)]
    frames = source if isinstance(source, Sequence) and not isinstance(source, str) else read_series(source)
    return Seen(frames, spec) if spec.period else frames


def check_no_zero(samples: Sequence[MeshData], spec: SampleSpec) -> None:
    """No target may be zero in all training meshes, as a component is that a problem does not have.

    Raises:
        ValueError: one that is; errors relative to it would be infinite.
    """
    for columns, field in columns_of(spec.targets):
        if samples and not any(sample.y[:, columns].any() for sample in samples):
            raise ValueError(f"data.targets: expected fields to learn, got '{field.name}', which is 0 in every mesh")


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
