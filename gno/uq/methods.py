"""From a case to a sampler, and from a folder to a sampler, whatever the method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gno.train import Case, Uncertainty
from gno.train.folder import ENSEMBLE, LAPLACE
from gno.train.run import Run
from gno.train.sources import mesh_of, split_meshes
from gno.train.training import train
from gno.uq.draws import Draws, MonteCarloDropout, Variational
from gno.uq.ensemble import Ensemble, train_ensemble
from gno.uq.laplace import LastLayerLaplace
from gno.uq.sampler import Sampler

DRAWS: dict[str, type[Draws]] = {"dropout": MonteCarloDropout, "variational": Variational}


def train_uncertain(case: Case, directory: str | Path, **options: Any) -> Sampler:
    """Train what ``case.uncertainty`` asks for.

    Args:
        case: with data, model and budget; an ensemble by default.
        directory: folder of the run, or of the ensemble.
        options: of :func:`gno.train.train`: ``resume``, ``overwrite``, ``meshes``, ….

    Returns:
        What answers a mesh with samples; :func:`load_uncertain` of the folder gives it again.

    Raises:
        ValueError, FileExistsError, Interrupted: as :func:`gno.train.train`.
    """
    wanted = case.uncertainty or Uncertainty()
    if wanted.method == "ensemble":
        keys = ("members", "share", "common", "at_once")
        return train_ensemble(case, directory, **{key: getattr(wanted, key) for key in keys}, **options)
    run = train(case, directory, **options)
    if wanted.method in DRAWS:
        return DRAWS[wanted.method].load(directory)
    meshes = (mesh_of(source) for source in split_meshes(case, options.get("meshes"))["train"])
    laplace = LastLayerLaplace.fit(run, meshes, n_pairs=wanted.samples // 2)
    laplace.save()
    return laplace


def load_uncertain(directory: str | Path, *, device: str = "cpu") -> Sampler:
    """What :func:`train_uncertain` left in a folder.

    Raises:
        ValueError: nothing there that knows how sure it is.
    """
    directory = Path(directory)
    if (directory / ENSEMBLE).is_file():
        return Ensemble.load(directory, device=device)
    if (directory / LAPLACE).is_file():
        return LastLayerLaplace.load(directory, device=device)
    doubt = Run.load(directory).blueprint.case.uncertainty
    if doubt is None or doubt.method not in DRAWS:
        what = "one without" if doubt is None else f"{doubt.method} without its {ENSEMBLE} or {LAPLACE}"
        raise ValueError(f"{directory}: expected a run with [uncertainty], got {what}")
    return DRAWS[doubt.method].load(directory, device=device)
