"""Task: what a training learns from, its losses and its scores; of a steady case, or of one in time."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Batch

from gno.graph import MeshData, collate
from gno.graph.coarsen import clusters, coarsened
from gno.graph.mirror import WithImages, signs_of
from gno.graph.padding import Ladder
from gno.nn.compiled import Compiled
from gno.train.blueprint import Blueprint
from gno.train.dynamics import Evolution, RolloutScores, Unrolled, longest_horizon
from gno.train.evaluate import score_names, validation_scores
from gno.train.likelihood import Divergence, n_observations, noise_terms
from gno.train.loop import Objective
from gno.train.losses import Term, data_terms
from gno.train.mirror import OnMesh
from gno.train.physics import is_labelled, physics_scores, physics_terms
from gno.train.physics_in_time import step_terms
from gno.train.predict import in_precision
from gno.train.trajectory import Windows, state_columns

# What is minimised, of the terms that a case asks for.
Terms = Callable[[Sequence[Term], Blueprint], Sequence[Term]]


@dataclasses.dataclass(frozen=True)
class Task:
    """One training without its loop.

    Args:
        samples: normalised; windows of trajectories in time.
        terms: the losses; their weighted sum is minimised.
        objective: all losses of a batch, for the share of the budget that is spent.
        validate: scores of a model by name.
        scores: these names.
        collate: makes a batch of samples.
        coarse: the samples on coarser meshes, where the case wants a curriculum.
    """

    samples: Sequence[MeshData]
    terms: Sequence[Term]
    objective: nn.Module
    validate: Callable[[nn.Module], dict[str, float]]
    scores: Sequence[str]
    collate: Callable[[Sequence[MeshData]], Batch] = collate
    coarse: Sequence[MeshData] = ()


def task_of(blueprint: Blueprint, samples: Mapping[str, Any], model: nn.Module, compose: Terms | None = None) -> Task:
    """What a case asks for.

    Args:
        samples: raw samples, or trajectories in time, of ``train`` and ``validation``.
        model: the operator to train.
        compose: what to minimise, of the terms that the case asks for; these themselves by default.
    """
    wanted, settings = terms_of(blueprint, samples["train"], model), blueprint.case.training
    terms = list(compose(wanted, blueprint)) if compose else wanted
    dtype = torch.float64 if settings.precision == "64" else torch.float32
    # where there are no CUDA graphs to record, this mode is the usual one
    operator = Compiled(model, mode="reduce-overhead") if settings.compile else model
    task = (_in_time if blueprint.case.time else _steady)(blueprint, samples, operator, terms, dtype)
    if settings.compile:
        ladder = Ladder.fit(task.samples, settings.batch_size // settings.devices)
        task = dataclasses.replace(task, collate=lambda samples: ladder.pad(collate(samples)))
    return _mirrored(task, blueprint) if blueprint.case.data.mirror else task


def _mirrored(task: Task, blueprint: Blueprint) -> Task:
    """Learning also from mirror images."""
    case = blueprint.case
    mirrors = signs_of(blueprint.spec, case.data.mirror_axes, case.time.forcing if case.time else ())
    samples, coarse = (WithImages(samples, mirrors) for samples in (task.samples, task.coarse))
    return dataclasses.replace(task, samples=samples, coarse=coarse)


def _steady(
    blueprint: Blueprint, samples: Mapping[str, Any], model: nn.Module, terms: Sequence[Term], dtype: torch.dtype
) -> Task:
    normalise = blueprint.normalisation.apply
    ready = {key: [in_precision(normalise(sample), dtype) for sample in values] for key, values in samples.items()}
    again = ready["train"] if blueprint.case.training.curriculum else []
    coarse = [coarsened(sample, blueprint.spec, clusters(sample)) for sample in again]
    scores = validation(blueprint, ready["validation"], terms)
    return Task(ready["train"], terms, Objective(model, terms), *scores, coarse=coarse)


def _in_time(
    blueprint: Blueprint, samples: Mapping[str, Any], model: nn.Module, terms: Sequence[Term], dtype: torch.dtype
) -> Task:
    spec, normalisation, time = blueprint.spec, blueprint.normalisation, blueprint.case.time
    assert time is not None
    forced = state_columns(spec, time.forcing)
    ready = {key: [t.normalised(normalisation, forced, dtype) for t in values] for key, values in samples.items()}
    longest = longest_horizon(ready["train"], time)
    floors = tuple(ready["train"][0].floors)
    objective = Unrolled(
        Evolution(model, normalisation, spec, time.forcing, time.conserve), terms, time, longest, floors
    )
    scores = RolloutScores(ready["validation"], normalisation, spec, time)
    coarse = [t.coarsened(spec) for t in ready["train"]] if blueprint.case.training.curriculum else []
    windows = (Windows(trajectories, time.history, longest) for trajectories in (ready["train"], coarse))
    return Task(next(windows), terms, objective, scores, scores.names, coarse=next(windows))


def terms_of(blueprint: Blueprint, samples: Sequence[Any], model: nn.Module) -> list[Term]:
    """The losses that a case asks for: of the data, where there are any, and of the physics."""
    case, spec, scale = blueprint.case, blueprint.spec, blueprint.normalisation.targets
    labelled = [s for s in samples if case.time is not None or is_labelled(s)]
    share = len(labelled) / len(samples)
    data = [
        dataclasses.replace(term, share=share) if term.name in case.data.targets else term
        for term in learned_terms(blueprint, labelled, model)
    ]
    if case.time and case.physics:
        physical = step_terms(case, spec, blueprint.normalisation)
    else:
        physical = physics_terms(case, spec, scale)
    if case.data.mirror:
        physical = [dataclasses.replace(term, loss=OnMesh(term.loss)) for term in physical]
    return [*data, *physical]


def learned_terms(blueprint: Blueprint, labelled: Sequence[Any], model: nn.Module) -> list[Term]:
    """The losses of the data, and of Gaussian weights.

    Raises:
        ValueError: noise or such weights are to be learned without any data.
    """
    case, spec, gaussian = blueprint.case, blueprint.spec, blueprint.config.variational != "none"
    noise, coarse = case.uncertainty.noise if case.uncertainty else "none", case.training.coarse_weight
    if not labelled:
        if noise != "none" or gaussian:
            what = f"uncertainty.noise {noise}" if noise != "none" else "Gaussian weights"
            raise ValueError(f"data.train: expected meshes with targets for {what}, got none")
        return []
    if noise != "none":
        data = noise_terms(spec.targets, noise, coarse_weight=coarse)
    else:
        data = data_terms(spec.targets, blueprint.normalisation.targets, coarse_weight=coarse)
    if not gaussian:
        return data
    return [*data, Term("divergence", Divergence(model, data, n_observations(labelled, spec.n_targets)))]


def validation(
    blueprint: Blueprint, samples: Sequence[MeshData], terms: Sequence[Term]
) -> tuple[Callable[[nn.Module], dict[str, float]], list[str]]:
    """What scores a model, and the names of its scores: errors on labelled meshes, else the losses of the physics."""
    spec, batch_size = blueprint.spec, blueprint.case.training.batch_size
    labelled = [sample for sample in samples if is_labelled(sample)]
    if samples and not labelled:
        physical = [term for term in terms if term.name not in (*blueprint.case.data.targets, "divergence")]
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
