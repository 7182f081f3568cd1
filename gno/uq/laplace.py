"""Last-layer Laplace: the exact Gaussian posterior of the weights in which the output is linear.

The output of an operator is linear in the last weights W of its heads, through all scales: ``u_0 = Ψ W`` with effective
features Ψ, the last features of every head composed as fields are. With Gaussian noise σ² and prior precision δ the
posterior around the trained weights is

    W ~ N(W*, A⁻¹),    A = Ψᵀ diag(w) Ψ / σ² + δ I,    w_i = n_eff m_i,  Σ_i m_i = 1 in each mesh

(Daxberger et al. 2021, Laplace Redux; the generalised Gauss–Newton matrix is exact here). Errors at the nodes of one
mesh are not independent, and a finer mesh holds no more information: a mesh counts as n_eff observations, as many as it
has anchors on level 1. σ² and δ maximise the marginal likelihood, per output. laplace-torch does this for models
that map rows to rows; here rows are tied by the transfers between scales, which it cannot see.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph import MeshData, build_sample, collate
from gno.mesh import Mesh
from gno.nn import NoisyOutput, Output
from gno.nn.stochastic import shared_copy
from gno.train.checkpoint import load_tensors, save_tensors
from gno.train.folder import LAPLACE
from gno.train.likelihood import n_anchors
from gno.train.predict import in_precision
from gno.train.run import Run
from gno.train.sources import mesh_of
from gno.uq.features import compose, last_layers, with_bias, with_features
from gno.uq.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Gaussian posterior of linear weights, one per output: W_c ~ N(W*_c, V diag(1/(λ/σ_c² + δ_c)) Vᵀ).

    Args:
        vectors: V, (n, n). values: λ, eigenvalues of Ψᵀ diag(w) Ψ, (n,).
        noise: σ_c², (n_outputs,). precision: δ_c, (n_outputs,).
    """

    vectors: Float[Tensor, "n n"]
    values: Float[Tensor, " n"]
    noise: Float[Tensor, " n_outputs"]
    precision: Float[Tensor, " n_outputs"]

    @staticmethod
    def fit(
        gram: Float[Tensor, "n n"],
        residual: Float[Tensor, " n_outputs"],
        weights: Float[Tensor, "n n_outputs"],
        n_observations: float,
    ) -> Posterior:
        """Noise and prior precision by marginal likelihood.

        Args:
            gram: Ψᵀ diag(w) Ψ. residual: Σ_i w_i (y_i − u_i)², per output. weights: W*. n_observations: Σ_i w_i.
        """
        values, vectors = torch.linalg.eigh(gram.double())
        values = values.clamp_min(0.0)
        found = [
            _maximise_evidence(values.numpy(), float(r), float(w.square().sum()), n_observations)
            for r, w in zip(residual.double(), weights.double().T, strict=True)
        ]
        noise, precision = (torch.tensor(column, dtype=torch.float64) for column in zip(*found, strict=True))
        return Posterior(vectors, values, noise, precision)

    @property
    def variance(self) -> Float[Tensor, "n n_outputs"]:
        """Of the weights along the eigenvectors."""
        return 1.0 / (self.values[:, None] / self.noise + self.precision)

    def draw(self, n_pairs: int, seed: int) -> Float[Tensor, "n_samples n n_outputs"]:
        """Deviations from W*, in pairs ±: their mean is zero, their variance on average that of the posterior."""
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn((n_pairs, *self.variance.shape), generator=generator, dtype=torch.float64)
        half = torch.einsum("ij,kjc->kic", self.vectors, normal * self.variance.sqrt())
        # n samples with a known mean, divided by n − 1: without this the variance would be n/(n − 1) too large
        return torch.cat([half, -half]) * math.sqrt((2 * n_pairs - 1) / (2 * n_pairs))


@dataclasses.dataclass(frozen=True)
class LastLayerLaplace(Sampler):
    """One trained operator with the posterior of its last layer; samples are joint over nodes, fields and scales.

    Args:
        run: the operator.
        posterior: of the last weights of all heads together.
        level_noise: variance of what is left over at each scale, normalised units.
        n_pairs: samples are drawn in so many pairs ±, so that their mean is the operator's own prediction.
        seed: of the samples.
    """

    run: Run
    posterior: Posterior
    level_noise: Float[Tensor, "n_levels n_outputs"]
    n_pairs: int = 16
    seed: int = 0

    @property
    def operator(self) -> Run:
        return self.run

    @classmethod
    def fit(
        cls,
        run: Run,
        meshes: Iterable[Mesh | str | Path],
        *,
        n_eff: float | None = None,
        n_pairs: int = 16,
        seed: int = 0,
    ) -> LastLayerLaplace:
        """From the training meshes of a run.

        Args:
            run: the operator.
            meshes: what it was trained on.
            n_eff: observations that a mesh is worth: the mean number of anchors of level 1 by default; the number of
                nodes where the noise is independent from node to node.
            n_pairs, seed: of the samples.

        Raises:
            ValueError: no mesh, or one without targets.
        """
        samples = [build_sample(mesh_of(source), run.blueprint.spec) for source in meshes]
        if not samples or any(sample.y is None for sample in samples):
            missing = sum(sample.y is None for sample in samples)
            raise ValueError(f"meshes: expected training meshes with targets, got {len(samples)}, {missing} without")
        if n_eff is None:
            n_eff = float(np.mean([n_anchors(sample) for sample in samples]))
        moments = _Moments.of(run, samples, n_eff)
        posterior = Posterior.fit(moments.gram, moments.left[0], last_weights(run.model), moments.n_observations)
        # coarse scales: their own residuals, corrected as that of the mesh is for the weights spent on it
        level_noise = moments.left / moments.left[0].clamp_min(1e-300) * posterior.noise
        return cls(run, posterior, level_noise, n_pairs, seed)

    @functools.cached_property
    def models(self) -> tuple[nn.Module, ...]:
        return tuple(with_change(self.run.model, change) for change in self.posterior.draw(self.n_pairs, self.seed))

    @torch.no_grad()
    def outputs(self, batch: Batch, *, attention: bool = False) -> Iterator[Output]:
        output, features = with_features(self.run.model.eval(), batch, attention=attention)
        widths = [f.shape[1] + 1 for f in features]
        noise = [v.expand_as(u) for v, u in zip(self.level_noise.to(output.fields[0]), output.fields, strict=True)]
        for change in self.posterior.draw(self.n_pairs, self.seed).to(features[0]):
            free = [with_bias(f) @ w for f, w in zip(features, change.split(widths), strict=True)]
            moved = compose(free, output.transfers)
            fields = tuple(u + d for u, d in zip(output.fields, moved, strict=True))
            same = {field.name: getattr(output, field.name) for field in dataclasses.fields(Output)}
            yield NoisyOutput(**{**same, "fields": fields}, variance=tuple(noise))

    def save(self) -> Path:
        """Keep the posterior in the folder of the run."""
        path, p = self.run.directory / LAPLACE, self.posterior
        tensors = {field.name: getattr(p, field.name) for field in dataclasses.fields(p)}
        document = {"n_pairs": self.n_pairs, "seed": self.seed}
        save_tensors(path, {**tensors, "level_noise": self.level_noise}, document)
        return path

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> LastLayerLaplace:
        """Read a run and what :meth:`save` wrote.

        Raises:
            ValueError: no run, or no posterior there.
        """
        run = Run.load(directory, device=device)
        tensors, document = load_tensors(Path(directory) / LAPLACE)
        level_noise = tensors.pop("level_noise")
        return cls(run, Posterior(**tensors), level_noise, document["n_pairs"], document["seed"])


def last_weights(model: nn.Module) -> Float[Tensor, "n n_outputs"]:
    """W: weights and bias of the last layer of every head, one below the other."""
    return torch.cat([torch.cat([x.weight, x.bias[:, None]], 1).T.detach().cpu() for x in last_layers(model)])


@torch.no_grad()
def with_change(model: nn.Module, change: Float[Tensor, "n n_outputs"]) -> nn.Module:
    """The operator with other last weights, in the order of :func:`last_weights`; all else is shared."""
    moved = shared_copy(model)
    layers = last_layers(moved)
    for layer, part in zip(layers, change.split([x.in_features + 1 for x in layers]), strict=True):
        own = part.to(layer.weight)
        layer.weight = nn.Parameter(layer.weight + own[:-1].T, requires_grad=False)
        layer.bias = nn.Parameter(layer.bias + own[-1], requires_grad=False)
    return moved.eval()


def effective_features(features: Sequence[Tensor], output: Output) -> Float[Tensor, "n_0 n"]:
    """Ψ: columns of all heads' last features and biases, composed to the mesh, so that ``u_0 = Ψ W``."""
    columns = [with_bias(f) for f in features]
    widths = [c.shape[1] for c in columns]
    placed = [
        nn.functional.pad(c, (sum(widths[:s]), sum(widths[s + 1 :]))) for s, c in enumerate(columns)
    ]  # each head in columns of its own
    return compose(placed, output.transfers)[0]


@dataclasses.dataclass
class _Moments:
    """Sums over training meshes: Ψᵀ diag(w) Ψ, weighted squares of what is left at each scale, Σ w."""

    gram: Float[Tensor, "n n"]
    left: Float[Tensor, "n_levels n_outputs"]
    n_observations: float

    @staticmethod
    @torch.no_grad()
    def of(run: Run, samples: Sequence[MeshData], n_eff: float) -> _Moments:
        parameter, model = next(run.model.parameters()), run.model.eval()
        n, n_outputs = last_weights(model).shape
        n_levels = run.blueprint.spec.n_levels
        sums = _Moments(torch.zeros(n, n).double(), torch.zeros(n_levels, n_outputs).double(), 0.0)
        for sample in samples:
            ready = in_precision(run.blueprint.normalisation.apply(sample), parameter.dtype)
            batch = collate([ready]).to(parameter.device)
            output, features = with_features(model, batch)
            psi = effective_features(features, output).double() * (n_eff * batch.mass_0.double()).sqrt()[:, None]
            sums.gram += (psi.T @ psi).cpu()
            for s, truth in enumerate(output.restrict(batch.y)):
                weight = n_eff * output.mass[s].double()
                sums.left[s] += (weight @ (output.fields[s] - truth).double().square()).cpu()
            sums.n_observations += n_eff
        return sums


def log_evidence(
    noise: float, precision: float, values: Float[np.ndarray, " n"], residual: float, size: float, n: float
) -> float:
    """``−n/2 log 2πσ² − r/2σ² + D/2 log δ − δ|W*|²/2 − ½ log det A``: log p(y) by Laplace's method, W* the mode.

    Args:
        noise: σ². precision: δ. values: λ, of Ψᵀ diag(w) Ψ. residual: r = Σ w (y − ΨW*)². size: |W*|². n: Σ w.
    """
    fit = n * math.log(2 * math.pi * noise) + residual / noise
    prior = precision * size - len(values) * math.log(precision)
    return -0.5 * (fit + prior + float(np.log(values / noise + precision).sum()))


def _maximise_evidence(values: np.ndarray, residual: float, size: float, n: float) -> tuple[float, float]:
    """σ² and δ with the largest evidence, on log scales."""
    residual, size = max(residual, 1e-30), max(size, 1e-30)  # an output that is zero, and learned to be

    def negative(x: np.ndarray) -> float:
        return -log_evidence(math.exp(x[0]), math.exp(x[1]), values, residual, size, n)

    start = np.log([residual / n, len(values) / size])
    found = minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000})
    return math.exp(found.x[0]), math.exp(found.x[1])
