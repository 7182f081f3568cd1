"""Mirror images of samples: where a problem is the same in a mirror, each of its meshes is an example of two."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gno.graph.features import axes_of_columns
from gno.graph.fields import FieldSpec
from gno.graph.sample import MeshData
from gno.graph.spec import SampleSpec
from gno.mesh import Mesh
from gno.mesh.lattice import ROWS

# The last rows of a lattice are lengths, and what is seen; the others are vectors.
LENGTHS = 3
# What the columns of a sample's tensors are multiplied by in a mirror, by name; those of levels under a common one.
Signs = Mapping[str, Float[Tensor, "*rows n_columns"]]


class WithImages(Sequence[MeshData]):
    """The samples, and behind them their images in every mirror and in mirrors one after the other.

    The image of a mesh has its nodes, its anchors and its cells; places, what points somewhere in the features, and the
    components of vectors and tensors change their sign. Images are made when they are asked for and kept by nobody;
    indices and masses they share with their mesh.

    Args:
        samples: raw, or normalised without means of what a mirror turns (:func:`turned`); windows in time, too.
        mirrors: of :func:`signs_of`.
    """

    def __init__(self, samples: Sequence[MeshData], mirrors: Sequence[Signs]) -> None:
        self.samples, self.mirrors = samples, tuple(mirrors)

    def __len__(self) -> int:
        return len(self.samples) * (1 + len(self.mirrors))

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        mirror, k = divmod(range(len(self))[index], len(self.samples))
        return image(self.samples[k], self.mirrors[mirror - 1]) if mirror else self.samples[k]


def image(sample: MeshData, signs: Signs) -> MeshData:
    """The sample in a mirror."""
    found = copy.copy(sample)
    for key, value in sample.to_dict().items():
        name, _, level = key.rpartition("_")
        sign = signs.get(name if level.isdigit() else key)
        if sign is not None and value is not None and (name != "torus" or value.shape[1] == ROWS):
            found[key] = value * sign.to(value)
    return found


def image_of_mesh(mesh: Mesh, axis: int) -> Mesh:
    """The mesh in the mirror through its middle, its cells numbered as they were, with all fields whose components say
    what they are; scalars stay."""
    place = torch.where(torch.arange(mesh.dim) == axis, -1.0, 1.0)
    points = mesh.points.astype(np.float64)
    points[:, axis] = points[:, axis].min() + points[:, axis].max() - points[:, axis]

    def turned_at(shape: tuple[int, ...], values: np.ndarray) -> np.ndarray:
        sign = _known(place).get(math.prod(shape))
        return values if sign is None or not (sign < 0).any() else values * sign.numpy().reshape(shape)

    fields = {
        store: {name: turned_at(values.shape[first:], values) for name, values in getattr(mesh, store).items()}
        for store, first in (("point_fields", 1), ("cell_fields", 1), ("global_fields", 0))
    }
    return mesh.replace(points=points, **fields)


def signs_of(spec: SampleSpec, axes: Sequence[int], forcing: Sequence[str] = ()) -> list[Signs]:
    """The mirrors that reverse some of the axes, each and together.

    Args:
        spec: of the samples.
        axes: that a mirror through the middle of the mesh reverses, each.
        forcing: names of the inputs that windows in time have apart from the others.

    Raises:
        ValueError: an axis that the meshes do not have, or a field whose components do not say what it is.
    """
    if odd := [axis for axis in axes if axis >= spec.dim]:
        raise ValueError(f"data.mirror: expected axes of {spec.dim}-D meshes, got {'xyz'[odd[0]]}")
    mirrors = itertools.chain(*(itertools.combinations(axes, n + 1) for n in range(len(axes))))
    return [_signs(spec, mirror, forcing) for mirror in mirrors]


def _signs(spec: SampleSpec, mirror: Sequence[int], forcing: Sequence[str]) -> Signs:
    place = torch.ones(spec.dim)
    place[list(mirror)] = -1
    along = axes_of_columns(spec.dim, len(spec.sets), coordinates=spec.coordinates, graded=spec.graded_dim > 0)
    lattice = torch.cat([place.expand(ROWS - LENGTHS, -1), torch.ones(LENGTHS, spec.dim)])
    states = _of_fields(spec.targets, place)
    forced = _of_fields([field for field in spec.inputs if field.name in forcing], place)
    return {
        "pos": place,
        "torus": lattice,  # the lengths of a rectangular box stay
        "geometry": torch.tensor([1.0 if axis is None else place[axis] for axis in along]),
        "x": _of_fields(spec.inputs, place),
        **dict.fromkeys(("y", "past", "future", "given", "turn"), states),
        **dict.fromkeys(("forcing", "turn_forcing"), forced),
    }


def turned(fields: Sequence[FieldSpec], dim: int, axes: Sequence[int]) -> Bool[Tensor, " n_columns"]:
    """Which columns of some fields change their sign in one of the mirrors: over all images they have no mean.

    >>> turned([FieldSpec("T", "point", 1), FieldSpec("u", "point", 2)], 2, [1]).tolist()
    [False, False, True]
    """
    found = torch.zeros(sum(field.n_components for field in fields), dtype=torch.bool)
    for mirror in 1 - 2 * torch.eye(dim)[list(axes)]:
        found |= _of_fields(fields, mirror) < 0
    return found


def _of_fields(fields: Sequence[FieldSpec], place: Float[Tensor, " dim"]) -> Float[Tensor, " n_columns"]:
    return torch.cat([torch.ones(0), *(_of_components(field, place) for field in fields)])


def _of_components(field: FieldSpec, place: Float[Tensor, " dim"]) -> Float[Tensor, " n_components"]:
    """A scalar, a vector or a tensor; in the plane also one with a third direction, which stays."""
    known = _known(place)
    if field.n_components not in known:
        counts = ", ".join(map(str, sorted(known)))
        raise ValueError(
            f"data.mirror: expected scalars, vectors or full tensors ({counts} components), got '{field.name}' "
            f"of {field.n_components}"
        )
    return known[field.n_components]


def _known(place: Float[Tensor, " dim"]) -> dict[int, Float[Tensor, " n_components"]]:
    """Signs by the number of components."""
    padded = torch.cat([place, torch.ones(3 - len(place))])
    known = {1: torch.ones(1)}
    for vector in (padded, place):
        known |= {len(vector) ** 2: torch.outer(vector, vector).flatten(), len(vector): vector}
    return known


def check_vectors(fields: Sequence[FieldSpec], dim: int, values: Iterable[Float[Tensor, "n n_columns"]]) -> None:
    """In the plane three components are a vector only if the third is zero; else they may be a stress.

    Args:
        fields: whose components are the columns of the values.
        dim: of space.
        values: of all training meshes, and times.

    Raises:
        ValueError: a third component that is not.
    """
    ends = list(itertools.accumulate(field.n_components for field in fields))
    thirds = {end - 1: f.name for end, f in zip(ends, fields, strict=True) if dim == 2 and f.n_components == 3}
    for found in values if thirds else ():
        if odd := [name for column, name in thirds.items() if found[:, column].any()]:
            raise ValueError(
                f"data.mirror: expected vectors of two components, or a third that is zero, got '{odd[0]}'; a "
                "symmetric tensor is given as 2 × 2"
            )
