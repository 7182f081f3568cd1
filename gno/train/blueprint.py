"""Blueprint: all that is known of a trained operator besides its weights, stored in the same file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gno.graph import MeshData, SampleSpec
from gno.graph.mirror import turned
from gno.nn import NeuroScale, OperatorConfig
from gno.train.case import Case
from gno.train.checkpoint import load_tensors, pack, save_tensors, unpack
from gno.train.dynamics import fit_normalisation, operator_sizes
from gno.train.normalise import Normalisation, fit_scale
from gno.train.physics import Lifted, target_scale, units_of
from gno.train.trajectory import Trajectory

# Anchors that every anchor and every node of the mesh may attend to at once; finer levels are heard through the kernel
# and the links. More cost steps that are worth more: docs/design.md has the trainings.
DENSE = 512

# Raised when files of an older version can no longer be read.
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """How to make a sample of a mesh, a model for samples, and fields of its output.

    Args:
        case: what was asked for.
        spec: mesh → sample.
        config: sizes of the operator.
        normalisation: units of its inputs and outputs.
    """

    case: Case
    spec: SampleSpec
    config: OperatorConfig
    normalisation: Normalisation

    @classmethod
    def fit(cls, case: Case, spec: SampleSpec, samples: Sequence[MeshData] | Sequence[Trajectory]) -> Blueprint:
        """From the training samples, or, in time, from the training trajectories."""
        trajectories = [sample for sample in samples if isinstance(sample, Trajectory)]
        samples = [s for t in trajectories for s in t.samples] or [s for s in samples if isinstance(s, MeshData)]
        sizes = {
            "dim": spec.dim,
            "n_inputs": spec.n_inputs,
            "n_geometry": samples[0].geometry.shape[1],
            "n_outputs": spec.n_targets,
            "n_levels": spec.n_levels,
            "n_near": spec.n_near,
            "n_shells": spec.n_shells,
            "key_level": finest_dense_level(samples, DENSE),
            "mesh_key_level": finest_dense_level(samples, DENSE, first=2),
            **(operator_sizes(spec, case.time) if case.time else {}),
        }
        doubt, axes = case.uncertainty.operator if case.uncertainty else {}, case.data.mirror_axes
        config = OperatorConfig.preset(case.model.size, **{**sizes, **doubt, **case.model.operator})
        if case.time:
            return cls(case, spec, config, fit_normalisation(trajectories, spec, case.time.forcing, axes))
        inputs = fit_scale(samples, "x", spec.inputs, turned(spec.inputs, spec.dim, axes))
        return cls(case, spec, config, Normalisation(inputs, target_scale(samples, spec, case)))

    def model(self, seed: int = 0) -> nn.Module:
        """The operator with fresh weights; the caller's random numbers are left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            physics = self.case.physics
            if physics is None:
                return NeuroScale(self.config).float()  # as the samples are, whatever torch's default is
            units = units_of(self.case, self.spec, self.normalisation.targets)
            return Lifted(self.config, units, physics.consistent or physics.conservative).float()

    def trained(self, weights: Mapping[str, Tensor], source: Path) -> nn.Module:
        """The operator with given weights, in their precision.

        Raises:
            ValueError: weights of another operator.
        """
        model = self.model().to(next(iter(weights.values())).dtype)
        try:
            model.load_state_dict(dict(weights))
        except RuntimeError:
            own, stored = model.state_dict(), weights
            odd = min(
                k
                for k in own.keys() | stored.keys()
                if k not in own or k not in stored or own[k].shape != stored[k].shape
            )
            raise ValueError(
                f"{source}: expected the weights of this version's operator, got others (first: '{odd}'); train again"
            ) from None
        return model

    def save(self, path: Path, parts: Mapping[str, Mapping[str, Tensor]], progress: Mapping[str, Any]) -> None:
        """Write tensors by part (``average``, ``model``, ``optimiser``) together with this blueprint."""
        document = {
            "format": FORMAT,
            "case": self.case.model_dump(mode="json"),
            "spec": self.spec.to_dict(),
            "operator": self.config.to_dict(),
            "progress": dict(progress),
        }
        save_tensors(path, pack(**parts, normalisation=self.normalisation.tensors()), document)

    @classmethod
    def load(cls, path: Path) -> tuple[Blueprint, dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Read what :meth:`save` wrote: blueprint, tensors by part, progress.

        Raises:
            ValueError: no such file, or not one of ours.
        """
        tensors, document = load_tensors(path)
        if document.get("format") != FORMAT:
            raise ValueError(f"{path}: expected a run of format {FORMAT}, got {document.get('format')}")
        blueprint = cls(
            Case.model_validate(document["case"]),
            SampleSpec.from_dict(document["spec"]),
            OperatorConfig.from_dict(document["operator"]),
            Normalisation.from_tensors(unpack(tensors, "normalisation")),
        )
        parts = {part: unpack(tensors, part) for part in ("model", "average", "optimiser", "weights")}
        return blueprint, parts, document["progress"]


def finest_dense_level(samples: Sequence[MeshData], limit: int, first: int = 1) -> int:
    """Finest level from ``first`` up whose anchors, with all coarser ones, are at most ``limit`` in every sample."""
    n_levels = samples[0].n_levels
    most = [max(sample[f"pos_{s}"].shape[0] for sample in samples) for s in range(n_levels)]
    dense = [s for s in range(first, n_levels) if sum(most[s:]) <= limit]
    return dense[0] if dense else n_levels - 1
