"""Normalisation: fields in units of their own mean and spread over the training meshes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch_geometric.data import Data

from gno.graph import FieldSpec
from gno.graph.batch import measure


@dataclasses.dataclass(frozen=True)
class Scale:
    """Affine map of some columns: normalised = (physical − mean) / std.

    Args:
        mean: per column, physical units.
        std: per column, equal for all components of one field, so that vectors keep their direction.
        rms: per column, root mean square magnitude of the whole field, physical units.
    """

    mean: Float[Tensor, " n_columns"]
    std: Float[Tensor, " n_columns"]
    rms: Float[Tensor, " n_columns"]

    def encode(self, values: Float[Tensor, "n_nodes n_columns"]) -> Float[Tensor, "n_nodes n_columns"]:
        """Physical to normalised; computed in float64, so that a large mean costs no digits."""
        return ((values.double() - self.mean) / self.std).to(values.dtype)

    def decode(self, values: Float[Tensor, "n_nodes n_columns"]) -> Float[Tensor, "n_nodes n_columns"]:
        """Normalised to physical, float64, on the device of ``values``."""
        return values.detach().double() * self.std.to(values.device) + self.mean.to(values.device)


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """The scales of inputs and targets, fitted once and stored with the weights.

    Of what evolves in time, targets are rates of change, ``states`` the scale of the fields themselves, and ``step``
    that of the logarithm of the time step.

    Every training mesh counts the same, every node by its mass, or where meshes are graded its measure:

        mean_c = ⟨Σ_i m_i x_ic / Σ_i m_i⟩        std² = ⟨Σ_i m_i |x_i − mean|² / Σ_i m_i⟩ / n_components

    >>> from gno.graph import FieldSpec
    >>> sample = Data(x=torch.tensor([[1.0], [3.0]]), mass_0=torch.ones(2))
    >>> scale = fit_scale([sample], "x", (FieldSpec("a", "point", 1),))
    >>> scale.encode(sample.x).flatten().tolist()
    [-1.0, 1.0]
    """

    inputs: Scale
    targets: Scale
    states: Scale | None = None
    step: Scale | None = None

    def apply(self, sample: Data) -> Data:
        """A copy of a sample with x, and y and given values if it has them, normalised; in time these are states."""
        sample = copy.copy(sample)
        sample.x = self.inputs.encode(sample.x)
        if sample.y is not None:
            sample.y = self.targets.encode(sample.y)
        if "given" in sample:
            sample.given = (self.states or self.targets).encode(sample.given)
        return sample

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, to be stored."""
        sides = {side.name: getattr(self, side.name) for side in dataclasses.fields(self)}
        return {
            f"{side}.{name}": getattr(scale, name)
            for side, scale in sides.items()
            if scale is not None
            for name in ("mean", "std", "rms")
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Normalisation:
        """The inverse of :meth:`tensors`."""
        sides = {name.partition(".")[0] for name in tensors}
        return cls(
            **{side: Scale(**{name: tensors[f"{side}.{name}"] for name in ("mean", "std", "rms")}) for side in sides}
        )


def fit_scale(
    samples: Sequence[Data], key: str, fields: Sequence[FieldSpec], turned: Bool[Tensor, " n_columns"] | None = None
) -> Scale:
    """The scale of the columns of ``sample[key]``; a constant field is divided by its size, or by 1 if it is zero.

    Args:
        samples: training meshes.
        key: of their values.
        fields: that these are of.
        turned: columns whose sign is another in the mirror images of the meshes, which count, too: they have no mean.
    """
    n_columns = sum(field.n_components for field in fields)
    mean, square = torch.zeros(n_columns, dtype=torch.float64), torch.zeros(n_columns, dtype=torch.float64)
    for sample in samples:
        mean += _average(sample, sample[key].double())
    mean /= len(samples)
    mean = mean if turned is None else mean.masked_fill(turned, 0)
    for sample in samples:
        square += _average(sample, (sample[key].double() - mean) ** 2)
    square /= len(samples)
    std, rms = torch.ones_like(mean), torch.ones_like(mean)
    for columns, _ in columns_of(fields):
        spread = square[columns].mean().sqrt()
        size = (square[columns] + mean[columns] ** 2).sum().sqrt()
        rms[columns] = size if size > 0 else 1.0
        # float32 inputs carry a relative error of 6e-8: a spread below that is noise, not information
        constant = spread <= 1e-6 * size
        std[columns] = rms[columns][0] if constant else spread
    return Scale(mean, std, rms)


def columns_of(fields: Sequence[FieldSpec]) -> list[tuple[slice, FieldSpec]]:
    """Which columns of x or y belong to which field.

    >>> columns_of((FieldSpec("T", "point", 1), FieldSpec("u", "point", 2)))[1][0]
    slice(1, 3, None)
    """
    out, start = [], 0
    for field in fields:
        out.append((slice(start, start + field.n_components), field))
        start += field.n_components
    return out


def _average(sample: Data, values: Tensor) -> Tensor:
    weight = measure(sample, 0, sample.mass_0.double())
    weight = weight / weight.sum()
    return (weight[:, None] * values).sum(0)
