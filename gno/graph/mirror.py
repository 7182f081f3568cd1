"""Mirror images of samples: where a problem is the same in a mirror, each of its meshes is an example of two."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gno.graph.features import axes_of_columns
from gno.graph.fields import FieldSpec
from gno.graph.sample import MeshData
from gno.graph.spec import SampleSpec


def with_images(samples: Sequence[MeshData], spec: SampleSpec, axes: Sequence[int]) -> list[MeshData]:
    """The samples, and behind them their images in every mirror and in mirrors one after the other.

    The image of a mesh has the nodes, the anchors and the cells of it; places, what points somewhere in the
    features, and the components of vectors and tensors change their sign. Indices and masses are shared.

    Args:
        samples: raw.
        spec: of the samples.
        axes: that a mirror through the middle of the mesh reverses, each.

    Raises:
        ValueError: an axis that the meshes do not have, a field whose components do not say what it is, or a box
            that is not rectangular.
    """
    if odd := [axis for axis in axes if axis >= spec.dim]:
        raise ValueError(f"data.mirror: expected axes of {spec.dim}-D meshes, got {'xyz'[odd[0]]}")
    if any(key.startswith("torus_") and sample[key].shape[1] > 3 for sample in samples[:1] for key in sample.keys()):  # noqa: SIM118 (no mapping)
        raise ValueError("data.mirror: expected a rectangular box where coordinates repeat, got another")
    for key, fields in (("x", spec.inputs), ("y", spec.targets)):
        _check_padding(samples, key, fields, spec.dim)
    images = list(samples)
    for mirrors in itertools.chain(*(itertools.combinations(axes, n + 1) for n in range(len(axes)))):
        signs = _signs(spec, mirrors)
        images += [_image(sample, signs) for sample in samples]
    return images


def _image(sample: MeshData, signs: Mapping[str, Float[Tensor, " n_columns"]]) -> MeshData:
    image = copy.copy(sample)
    for key in sample.keys():  # noqa: SIM118 (no mapping)
        sign = signs.get("pos" if key.startswith("pos_") and key[4:].isdigit() else key)
        if sign is not None and sample[key] is not None:
            image[key] = sample[key] * sign.to(sample[key].dtype)
    return image


def _signs(spec: SampleSpec, mirrors: Sequence[int]) -> dict[str, Float[Tensor, " n_columns"]]:
    """What the columns of a sample are multiplied by."""
    place = torch.ones(spec.dim)
    place[list(mirrors)] = -1
    geometry = axes_of_columns(spec.dim, len(spec.sets), coordinates=spec.coordinates, graded=spec.graded_dim > 0)
    signs = {"pos": place, "geometry": torch.tensor([1.0 if axis is None else place[axis] for axis in geometry])}
    for key, fields in (("x", spec.inputs), ("y", spec.targets)):
        signs[key] = torch.cat([torch.ones(0), *(_of_components(field, place) for field in fields)])
    return signs


def _of_components(field: FieldSpec, place: Float[Tensor, " dim"]) -> Float[Tensor, " n_components"]:
    """A scalar, a vector or a tensor; in the plane also one with a third direction, which stays."""
    padded = torch.cat([place, torch.ones(3 - len(place))])
    known = {1: torch.ones(1)}
    for vector in (padded, place):
        known |= {len(vector) ** 2: torch.outer(vector, vector).flatten(), len(vector): vector}
    if field.n_components not in known:
        counts = ", ".join(map(str, sorted(known)))
        raise ValueError(
            f"data.mirror: expected scalars, vectors or full tensors ({counts} components), got '{field.name}' "
            f"of {field.n_components}"
        )
    return known[field.n_components]


def _check_padding(samples: Sequence[MeshData], key: str, fields: Sequence[FieldSpec], dim: int) -> None:
    """In the plane three components are a vector only if the third is zero; else they may be a stress."""
    first = 0
    for field in fields:
        last = first + field.n_components - 1
        if dim == 2 and field.n_components == 3:
            for sample in samples:
                if sample[key] is not None and sample[key][:, last].any():
                    raise ValueError(
                        "data.mirror: expected vectors of two components, or a third that is zero, got "
                        f"'{field.name}'; a symmetric tensor is given as 2 × 2"
                    )
        first = last + 1
