"""One number per node or cell out of a field of any shape: what a colour can show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float

from gno.mesh import Mesh
from gno.mesh.mesh import nearly

Location = Literal["node", "cell"]
_AXES: dict[int, tuple[str, ...]] = {
    2: ("x", "y"),
    3: ("x", "y", "z"),
    4: ("xx", "xy", "yx", "yy"),
    6: ("xx", "yy", "zz", "xy", "yz", "xz"),
    9: ("xx", "xy", "xz", "yx", "yy", "yz", "zx", "zy", "zz"),
}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A scalar on the mesh.

    Args:
        values: one per node or cell.
        location: where the values live.
        label: name for people, with what was done to the components.
    """

    values: Float[np.ndarray, " n"]
    location: Location
    label: str


def quantity(mesh: Mesh, field: str, component: int | str | None = None, location: Location | None = None) -> Quantity:
    """The field itself if it is a scalar, else one component of it or a norm.

    Args:
        mesh: the mesh that has the field.
        field: name of a point field or, where there is none, of a cell field.
        location: which of the two is meant, where both have the name.
        component: an index; a name (``"x"``, ``"xy"``, …); ``"magnitude"``; ``"von_mises"`` for a tensor given
            by 9, 6 (xx, yy, zz and shears), 4 or, in plane stress, 3 (xx, yy, xy) components. By default vectors
            and tensors give their magnitude (Frobenius norm), and a field named ``stress`` gives von Mises.

    Raises:
        ValueError: no such field or component.

    >>> cloud = Mesh(np.zeros((2, 2)), point_fields={"u": np.array([[3., 4.], [0., 1.]])})
    >>> quantity(cloud, "u").values, quantity(cloud, "u", "x").values
    (array([5., 1.]), array([3., 0.]))
    """
    rows, location = rows_of(mesh, field, location)
    what, reduce = _reduction(rows.shape[1], field, component, mesh.source)
    return Quantity(reduce(rows), location, f"{field}{what}")


def difference(truth: Mesh, field: str, prediction: Mesh, other: str, component: int | str | None = None) -> Quantity:
    """Prediction minus truth; for a magnitude the magnitude of the difference, which no cancellation can hide.

    Args:
        truth, field: the reference and its field.
        prediction, other: the answer and its field, with nodes and cells in the same order.
        component: see `quantity`.

    Raises:
        ValueError: fields that cannot be subtracted.
    """
    where = shared_location(truth, field, prediction, other)
    rows, location = rows_of(truth, field, where)
    guess, elsewhere = rows_of(prediction, other, where)
    if (rows.shape, location) != (guess.shape, elsewhere):
        raise ValueError(
            f"field '{other}': expected {_shape(rows, location)} as '{field}' has ({truth.source}), "
            f"got {_shape(guess, elsewhere)} ({prediction.source})"
        )
    _, reduce = _reduction(rows.shape[1], field, component, truth.source)
    if reduce is _magnitude:
        return Quantity(_magnitude(guess - rows), location, "|prediction − truth|")
    return Quantity(reduce(guess) - reduce(rows), location, "prediction − truth")


def shared_location(truth: Mesh, field: str, prediction: Mesh, other: str) -> Location | None:
    """Where both fields are, nodes first; None where they have no place in common.

    Predictions of cell fields are at nodes as well, under the same name.
    """
    if field in truth.point_fields and other in prediction.point_fields:
        return "node"
    return "cell" if field in truth.cell_fields and other in prediction.cell_fields else None


def rows_of(mesh: Mesh, field: str, location: Location | None = None) -> tuple[Float[np.ndarray, "n k"], Location]:
    """The field as one row of components per node or cell, ±inf as NaN, and where it lives; nodes before cells."""
    location = location or ("node" if field in mesh.point_fields else "cell")
    values = (mesh.point_fields if location == "node" else mesh.cell_fields).get(field)
    if values is None:
        hint = nearly(field, (*mesh.point_fields, *mesh.cell_fields))
        raise ValueError(f"field '{field}': expected one of {_names(mesh)}, got none of them ({mesh.source}){hint}")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"field '{field}': expected real numbers, got {values.dtype} ({mesh.source})")
    rows = values.reshape(len(values), -1).astype(np.float64)
    return np.where(np.isfinite(rows), rows, np.nan), location


def _names(mesh: Mesh) -> str:
    lists = ((mesh.point_fields, "on nodes"), (mesh.cell_fields, "on cells"))
    return ", ".join(f"{', '.join(fields)} ({where})" for fields, where in lists if fields) or "(no fields)"


def _shape(rows: np.ndarray, location: str) -> str:
    return f"{len(rows)} {location}s with {rows.shape[1]} component{'s'[: rows.shape[1] > 1]}"


def component_names(field: str, k: int) -> tuple[str, ...]:
    """x, y, z for vectors, xx, xy, … for tensors, scales for maps of scale attention, numbers otherwise."""
    if is_per_scale(field):
        return tuple(f"scale {s}" for s in range(k))
    return _AXES.get(k, tuple(map(str, range(k))))


def is_per_scale(field: str) -> bool:
    """Whether the components of a field are the scales of a hierarchy, as in ``scale_attention``."""
    return field.endswith("attention")


def _reduction(
    k: int, field: str, component: int | str | None, source: str
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """What to say about it, and the function from rows to numbers."""
    names = component_names(field, k)
    if component is None:
        if k == 1:
            return "", lambda rows: rows[:, 0]
        component = "von_mises" if k in (4, 6, 9) and "stress" in field.lower() else "magnitude"
    if component == "magnitude":
        return ", magnitude", _magnitude
    if component == "von_mises" and k in (3, 4, 6, 9):
        return ", von Mises", _von_mises
    index = names.index(component) if component in names else component
    if isinstance(index, str) and index.isdecimal():  # a component from a command line
        index = int(index)
    if isinstance(index, str) or not 0 <= index < k:
        extra = "magnitude, von_mises" if k in (3, 4, 6, 9) else "magnitude"
        expected = f"one of {', '.join(names)}, {extra}, or 0 to {k - 1}"
        raise ValueError(f"component of '{field}': expected {expected}, got {component!r} ({source})")
    return (f", {names[index]}" if k > 1 else ""), lambda rows: rows[:, index]


def _magnitude(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    return np.sqrt((rows * rows).sum(1))


def _von_mises(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """√(½[(xx−yy)² + (yy−zz)² + (zz−xx)²] + 3(xy² + yz² + xz²))."""
    zero = np.zeros(len(rows))
    if rows.shape[1] == 9:
        xx, xy, xz, yx, yy, yz, zx, zy, zz = rows.T
        xy, yz, xz = (xy + yx) / 2, (yz + zy) / 2, (xz + zx) / 2
    elif rows.shape[1] == 6:
        xx, yy, zz, xy, yz, xz = rows.T
    elif rows.shape[1] == 4:
        (xx, xy, yx, yy), zz, yz, xz = rows.T, zero, zero, zero
        xy = (xy + yx) / 2
    else:
        (xx, yy, xy), zz, yz, xz = rows.T, zero, zero, zero
    normal = (xx - yy) ** 2 + (yy - zz) ** 2 + (zz - xx) ** 2
    return np.sqrt(normal / 2 + 3 * (xy**2 + yz**2 + xz**2))
