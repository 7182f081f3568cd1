"""Active choice of the next solver runs: those that are expected to remove most of what is still in doubt.

What a sampler does not know is taken as linear and Gaussian: fields ``u = ū + Aᵀz``, z ~ N(0, 1), with the samples'
deviations from their mean as the rows of A (for last-layer Laplace the exact factor of its posterior). If a run is made
on a candidate c, the solver shows its field with what the operator leaves over, σ², in n_eff independent places, and

    Cov(z) = P  →  (P⁻¹ + B_c)⁻¹,    B_c = n_eff/σ² Σ_i m_i a_i a_iᵀ

so that the expected variance over the meshes that matter falls by ``tr G (P − (P⁻¹ + B_c)⁻¹)``, G = ⟨Σ_i m_i a_i a_iᵀ⟩
over them. It depends on the candidate's inputs only. Runs are chosen one after another, each given those before: so two
that would show the same are not chosen both, as they are when the largest spread decides. (Cohn, Ghahramani & Jordan
1996, Active learning with statistical models; Ash et al. 2021, Gone fishing: neural active learning with Fisher
embeddings.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch_geometric.data import Batch

from gno.mesh import Mesh
from gno.nn import NoisyOutput
from gno.train.sources import mesh_of
from gno.uq.features import with_features
from gno.uq.laplace import LastLayerLaplace, effective_features
from gno.uq.sampler import Sampler
from gno.uq.spread import as_trained


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which runs to make next, the most useful first.

    Args:
        indices: of the candidates.
        remaining: share of the variance that is expected to be left after each of them; where it no longer falls,
            further runs would add little.
    """

    indices: tuple[int, ...]
    remaining: tuple[float, ...]


def choose_runs(
    sampler: Sampler,
    candidates: Iterable[Mesh | str | Path],
    n: int,
    *,
    wanted: Iterable[Mesh | str | Path] | None = None,
) -> Choice:
    """The next solver runs, of meshes that have inputs and no answer yet.

    Args:
        sampler: trained on the runs that there are.
        candidates: meshes that could be solved.
        n: how many to choose.
        wanted: meshes that predictions will be asked for, as far as they are known; the candidates by default. Each
            counts by its variance relative to the square of its field, as relative errors do.

    Raises:
        ValueError: fewer candidates than runs, or a mesh that lacks an input.
    """
    sampler = as_trained(sampler)  # a common factor changes no choice
    seen = [_look(sampler, source) for source in candidates]
    if not 1 <= n <= len(seen):
        raise ValueError(f"n: expected 1 to {len(seen)} runs, as many as there are candidates, got {n}")
    goals = seen if wanted is None else [_look(sampler, source) for source in wanted]
    goal = torch.stack([look.gram / look.size for look in goals]).mean(0)
    # without a noise of its own: an observation is as uncertain as predictions are now
    usual = torch.stack([_trace(look.gram) for look in seen]).mean()[None]
    noise = [usual if look.noise is None else look.noise for look in seen]
    gain = [look.n_eff / sigma2[:, None, None] * look.gram for look, sigma2 in zip(seen, noise, strict=True)]
    return greedy(torch.stack(gain), goal, n)


def greedy(gain: Float[Tensor, "n_candidates n_blocks k k"], goal: Float[Tensor, "n_blocks k k"], n: int) -> Choice:
    """One run after another, each with the largest expected reduction of ``tr G P`` given those before.

    Args:
        gain: B of each candidate. goal: G. Blocks are independent of each other. n: how many.
    """
    values, vectors = torch.linalg.eigh(gain)
    roots = vectors * values.clamp_min(0).sqrt()[..., None, :]  # B = LLᵀ
    covariance = torch.eye(goal.shape[-1], dtype=goal.dtype).expand_as(goal).clone()
    total = float(_trace(goal))
    indices: list[int] = []
    remaining: list[float] = []
    for _ in range(n):
        seen = covariance @ roots  # P L
        system = torch.eye(goal.shape[-1], dtype=goal.dtype) + roots.mT @ seen
        change = torch.linalg.solve(system, seen.mT)  # (I + LᵀPL)⁻¹ LᵀP
        reduction = _trace(goal @ seen @ change)
        reduction[indices] = -torch.inf
        best = int(reduction.argmax())
        covariance = covariance - seen[best] @ change[best]
        indices.append(best)
        remaining.append(float(_trace(goal @ covariance)) / total if total > 0 else 0.0)
    return Choice(tuple(indices), tuple(remaining))


def _trace(blocks: Float[Tensor, "*batch n_blocks k k"]) -> Float[Tensor, "*batch"]:
    return blocks.diagonal(dim1=-2, dim2=-1).sum((-1, -2))


@dataclasses.dataclass(frozen=True)
class _Look:
    """One mesh, in normalised units: Σ_i m_i a_i a_iᵀ in independent blocks, the mean square of its field, σ²."""

    gram: Float[Tensor, "n_blocks k k"]
    size: float
    noise: Float[Tensor, " n_blocks"] | None
    n_eff: int


@torch.no_grad()
def _look(sampler: Sampler, source: Mesh | str | Path) -> _Look:
    sample, scale = (
        sampler.sample(mesh_of(source, sampler.operator.blueprint.spec)),
        sampler.operator.blueprint.normalisation.targets,
    )
    batch = sampler.batch(sample)
    free = ~batch.fixed if "fixed" in batch else torch.ones(batch.num_nodes, len(scale.std), dtype=torch.bool)
    if isinstance(sampler, LastLayerLaplace):
        rows, mean, noise = _posterior(sampler, batch, free)
    else:
        rows, mean, noise = _sampled(sampler, batch, free)
    mass = batch.mass_0.double() / batch.mass_0.double().sum()
    weighted = (rows.double() * mass.sqrt()[:, None]).flatten(2)
    values = scale.decode(mean).cpu() / scale.std  # relative to zero in the user's unit, not to the mean
    size = float(mass.cpu() @ values.square().sum(1))
    return _Look((weighted @ weighted.mT).cpu(), size, noise, len(sample[f"pos_{min(1, sample.n_levels - 1)}"]))


def _sampled(
    sampler: Sampler, batch: Batch, free: Bool[Tensor, "n c"]
) -> tuple[Tensor, Float[Tensor, "n c"], Tensor | None]:
    """Deviations of the samples, (1, k, n, c), their mean, and σ², (1,)."""
    outputs = list(sampler.outputs(batch))
    fields = torch.stack([output.fields[0] for output in outputs])
    noisy = [output.variance[0] for output in outputs if isinstance(output, NoisyOutput)]
    noise = torch.stack(noisy).double().mean().cpu()[None] if noisy else None
    mean = fields.mean(0)
    return (free.to(mean) * (fields - mean) / max(1, len(fields) - 1) ** 0.5)[None], mean, noise


def _posterior(
    sampler: LastLayerLaplace, batch: Batch, free: Bool[Tensor, "n c"]
) -> tuple[Tensor, Float[Tensor, "n c"], Tensor | None]:
    """The exact factor Ψ V diag(√variance), (n_outputs, k, n, 1): outputs are independent; mean; σ², (n_outputs,)."""
    output, features = with_features(sampler.run.model.eval(), batch)
    posterior = sampler.posterior
    rotated = effective_features(features, output).double() @ posterior.vectors.to(features[0].device)
    each = rotated.T * posterior.variance.sqrt().T.to(rotated)[:, :, None] * free.T[:, None, :]
    return each[..., None], output.fields[0], posterior.noise
