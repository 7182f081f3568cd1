"""Deep ensembles: the same training from several seeds, in several processes or one after another, resumable."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gno.mesh.files import atomic
from gno.train import Case, Training
from gno.train.blueprint import Blueprint
from gno.train.folder import COMMON, ENSEMBLE
from gno.train.loop import mix
from gno.train.run import Run
from gno.train.sources import Prepared, prepare
from gno.train.training import discard, train
from gno.uq.at_once import Member, how_many, train_at_once, with_cache
from gno.uq.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Ensemble(Sampler):
    """Operators trained alike from different seeds; each is a sample (Lakshminarayanan et al. 2017).

    Members have the same data, and so the same sample spec and normalisation; their initial weights and the order of
    their batches differ. An ensemble of one is the plain operator, without doubt.

    Args:
        runs: the members.

    Raises:
        ValueError: no member, or members that see meshes or units differently.
    """

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("members: expected at least one, got none")
        first = self.runs[0]
        for run in self.runs[1:]:
            if run.blueprint.spec != first.blueprint.spec or not _same_units(run, first):
                raise ValueError(f"members: expected the data of {first.directory}, got others in {run.directory}")

    @property
    def operator(self) -> Run:
        return self.runs[0]

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Ensemble:
        """The complete members in a folder.

        Raises:
            ValueError: no ensemble there.
        """
        names = _complete(Path(directory))
        if not names:
            raise ValueError(f"{directory}: expected the folder of an ensemble, got no complete member ({ENSEMBLE})")
        return cls(tuple(Run.load(Path(directory) / name, device=device) for name in names))

    @property
    def models(self) -> tuple[nn.Module, ...]:
        return tuple(run.model for run in self.runs)


def train_ensemble(
    case: Case,
    directory: str | Path,
    *,
    members: int = 5,
    share: float = 1.0,
    common: float = 0.0,
    at_once: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> Ensemble:
    """Train the members, each in its folder ``member_<k>`` with a seed of its own.

    Several train at the same time, each in a process of its own, where the case and its files say all; one after
    another where meshes or functions are given, and on several devices. Members are the same to the bit either way, for
    a budget of epochs and as many threads.

    With a common share c of the budget, the members go on from one training that stopped there, with its weights, its
    optimiser and the rate of that moment, and see the meshes in another order from then on. M members cost
    ``1 + (M − 1)(1 − c)`` times one. They are much alike, and too sure: a smaller share for each saves as much.
    With a share of one the first member is the run that one would have trained alone, either way.

    Args:
        case: data, model and budget of every member.
        directory: folder of the ensemble.
        members: how many; an ensemble may be given more of them later, with ``resume``.
        share: of the budget that each member trains for.
        common: share of the budget that members have in common; 0 for independent ones.
        at_once: members that train at the same time; 0 for as many as there are cores, and for one on an accelerator,
            whose memory they would share. Each has its share of the threads, and its own copy of the samples.
        resume: go on where the training stopped; complete members are kept.
        overwrite: begin anew in a folder that already holds an ensemble.
        options: further ones of :func:`gno.train.train`.

    Returns:
        The ensemble of all members.

    Raises:
        ValueError: fewer than one member, a share outside (0, 1], a common one outside [0, 1), or whatever the training
            says.
        FileExistsError: the folder holds members, and neither resume nor overwrite was asked for.
        ChildProcessError: a member's process was killed; what it and the others had saved is there to resume from.
        Interrupted: Ctrl-C; everything is saved.
    """
    if members < 1:
        raise ValueError(f"members: expected at least 1, got {members}")
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a part of the budget above 0 and up to 1, got {share}")
    if not 0 <= common < 1:
        raise ValueError(f"common: expected a share from 0 to below 1, got {common}")
    directory, seed = Path(directory), case.training.seed
    case = case.with_training(**_part(case.training, share))
    if overwrite and not resume:
        discard(directory)
    folders = [directory / f"member_{k}" for k in range(members)]
    new = [folder for folder in folders if not (folder / "last.safetensors").exists()]
    if not (resume or overwrite) and len(new) < members:
        raise FileExistsError(f"{directory}: expected a folder without an ensemble, got one")
    todo = [
        Member(str(folder), member_seed(seed, k), resume or common > 0, f"member {k + 1} of {members}")
        for k, folder in enumerate(folders)
    ]
    with with_cache(case) as stored:
        prepared = prepare(stored, options.get("meshes"), progress=options.get("progress", True))
        if common and new:
            start = {"resume": resume, "overwrite": overwrite, "title": f"common to {members} members", **options}
            train(case, directory / COMMON, until=common, prepared=prepared, **start)
            for folder in new:
                _branch(directory / COMMON, folder)
        _train_members(case, todo, how_many(case, at_once, options), prepared, stored.data.cache, options)
    return Ensemble.load(directory)


def _train_members(
    case: Case, members: Sequence[Member], n: int, prepared: Prepared, cache: str, options: Mapping[str, Any]
) -> None:
    """Train those that are not complete, n at the same time, and write each down that is complete."""

    def done(member: Member) -> None:
        folder = Path(member.folder)
        _write_manifest(folder.parent, sorted({*_complete(folder.parent), folder.name}, key=_number))

    todo = [member for member in members if not _is_complete(case, member)]
    for member in members:
        if member not in todo:
            done(member)
    if min(n, len(todo)) > 1:
        train_at_once(
            case, todo, n=n, spec=prepared.spec, cache=cache, progress=options.get("progress", True), done=done
        )
        return
    for member in todo:
        own = case.with_training(seed=member.seed)
        train(own, member.folder, resume=member.resume, title=member.title, prepared=prepared, **options)
        done(member)


def _is_complete(case: Case, member: Member) -> bool:
    """Whether a member has spent its budget, with all settings as they are asked for now."""
    last, settings = Path(member.folder) / "last.safetensors", case.training
    if not (member.resume and last.exists()):
        return False
    blueprint, _, progress = Blueprint.load(last)
    if settings.minutes is not None:
        spent = progress["seconds"] >= 60 * settings.minutes
    else:
        spent = progress["epoch"] >= (settings.epochs or 1)
    others = {"uncertainty": {"members", "at_once"}}
    now, then = (c.model_dump(exclude=others) for c in (case.with_training(seed=member.seed), blueprint.case))
    return spent and now == then


def member_seed(seed: int, member: int) -> int:
    """The case's own seed for the first member, so that it is the run one would have trained alone.

    >>> member_seed(7, 0), member_seed(7, 1) == member_seed(8, 1)
    (7, False)
    """
    return mix(seed, member) % 2**31 if member else seed


def _branch(common: Path, folder: Path) -> None:
    """Lay what the members have in common into the folder of a new one, the file that says so last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("log.csv", "best.safetensors", "last.safetensors"):
        with atomic(folder / name) as temporary:
            shutil.copyfile(common / name, temporary)


def _part(settings: Training, share: float) -> dict[str, float]:
    """Part of a budget.

    >>> _part(Training(epochs=10), 0.7), _part(Training(minutes=2), 0.25)
    ({'epochs': 7}, {'minutes': 0.5})
    """
    if settings.minutes is not None:
        return {"minutes": share * settings.minutes}
    return {"epochs": max(1, round(share * (settings.epochs or 1)))}


def _same_units(one: Run, other: Run) -> bool:
    mine, theirs = (run.blueprint.normalisation.tensors() for run in (one, other))
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def _complete(directory: Path) -> list[str]:
    path = directory / ENSEMBLE
    if not path.is_file():
        return []
    try:
        return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["members"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a list of members, got {type(error).__name__}: {error}") from None


def _write_manifest(directory: Path, names: Sequence[str]) -> None:
    with atomic(directory / ENSEMBLE) as temporary:
        temporary.write_text(json.dumps({"members": list(names)}, indent=2), encoding="utf-8")
