"""Rollouts with doubt: every sample goes its own way through time, and the frames hold mean and standard deviation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gno.graph import FieldSpec
from gno.mesh import Mesh, node_mass, read_series, write
from gno.mesh.pvd import write_collection
from gno.post.samples import sample_folder
from gno.train.predict import PREFIX, with_values
from gno.train.rollout import DIGITS, Rollout
from gno.train.rollout import roll_out as roll_out_one
from gno.train.trajectory import values_of
from gno.uncertain import Uncertain

if TYPE_CHECKING:
    from gno.uq.sampler import Sampler


def roll_out(
    sampler: Sampler,
    frames: Sequence[Mesh],
    path: Path,
    *,
    advance: Callable[[int], None] = lambda n: None,
    **options: Any,
) -> Rollout:
    """Roll out each sample from the same first frames, then write mean and standard deviation frame by frame.

    The samples are joint through time: frame n of sample k follows from frame n − 1 of sample k. They lie in
    ``<stem>_samples/<k>.pvd``; an interrupted rollout goes on from them.

    Args:
        sampler: of a case with [time].
        frames, path, options: as for :func:`gno.train.rollout.roll_out`.
        advance: is told how many frames were written, over all samples.

    Returns:
        What became of it; where samples diverged, as many frames as all of them have.
    """
    start, parts = time.monotonic(), []
    for k, model in enumerate(sampler.models):
        target = sample_folder(path) / f"{k}.pvd"
        options["advance"] = advance
        parts.append(roll_out_one(model, sampler.operator.blueprint, frames, target, **options))
    n_frames = _write_mean(path, [part.path for part in parts], sampler)
    lost = [f"sample {k} {part.diverged}" for k, part in enumerate(parts) if part.diverged]
    said = f"{len(lost)} of {len(parts)} samples diverged; {lost[0]}" if lost else None
    return Rollout(path, n_frames, time.monotonic() - start, said)


def _write_mean(path: Path, paths: Sequence[Path], sampler: Sampler) -> int:
    targets = sampler.operator.blueprint.spec.targets
    predicted = [FieldSpec(PREFIX + field.name, "point", field.n_components) for field in targets]
    series = [read_series(source) for source in paths]
    n_frames, files = min(map(len, series)), []
    for j in range(n_frames):
        meshes = [frames[j] for frames in series]
        known = Uncertain(np.stack([values_of(mesh, predicted).double().numpy() for mesh in meshes]))
        files.append(path.with_name(f"{path.stem}_{j:0{DIGITS}d}.vtu"))
        write(with_values(meshes[0], known, node_mass(meshes[0]), targets, PREFIX), files[-1])
    write_collection(path, files, list(series[0].times[:n_frames]))
    return n_frames
