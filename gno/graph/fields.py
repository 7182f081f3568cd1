"""Fields by name: where they live in a mesh, and their values at the nodes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float

from gno.mesh import Mesh, cells_to_nodes, repeats
from gno.mesh.geometry import of_domain
from gno.mesh.mesh import nearly

Location = Literal["point", "cell", "global", "point_set", "cell_set"]


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """A field by name: where it lives, how many components it has, and whether its logarithm is meant.

    The logarithm is taken before cell values move to nodes: averages of a coefficient that jumps by factors are then
    the same on every mesh of the domain, where the logarithm of an average would depend on the size of the cells.
    """

    name: str
    location: Location
    n_components: int
    log: bool = False

    def values(self, mesh: Mesh) -> Float[np.ndarray, "n_nodes n_components"]:
        """Values at the nodes: cell values moved conservatively, global values repeated, sets as 0 and 1.

        Nodes that repeat another, where coordinates do, have its values.

        Raises:
            ValueError: the mesh lacks the field, has it with another shape, or has values that are not finite.
        """
        store = fields_at(mesh, self.location)
        if self.name not in store and self._is_kind(mesh):
            return np.zeros((mesh.n_nodes, 1))
        if self.name not in store:
            known = ", ".join(sorted(store)) or "none"
            raise ValueError(f"{self.location} field '{self.name}': expected in the file, got {known} ({mesh.source})")
        value = np.asarray(store[self.name])
        if self.location.endswith("set"):
            return _indicator(mesh, self.location, value)
        value = value.reshape(1 if self.location == "global" else len(value), -1).astype(np.float64)
        if value.shape[1] != self.n_components:
            raise ValueError(
                f"{self.location} field '{self.name}': expected {self.n_components} components, "
                f"got {value.shape[1]} ({mesh.source})"
            )
        if self.location == "cell":  # lines around a plate have no say, and often no values
            value = np.where(of_domain(mesh)[:, None], value, 1.0)
        bad = np.flatnonzero(~np.isfinite(value).all(1))
        if len(bad):
            where = "" if self.location == "global" else f" at {'cell' if self.location == 'cell' else 'node'} {bad[0]}"
            raise ValueError(
                f"{self.location} field '{self.name}': expected finite values, got {value[bad[0]]}{where} "
                f"({len(bad)} of {len(value)} rows, {mesh.source})"
            )
        if self.log:
            if not (value > 0).all():
                raise ValueError(
                    f"field '{self.name}': expected values > 0 for log, got {value.min():g} ({mesh.source})"
                )
            value = np.log(value)
        if self.location == "cell":
            return cells_to_nodes(mesh, value)
        if self.location == "point" and mesh.period:
            return value[repeats(mesh)]
        return np.broadcast_to(value, (mesh.n_nodes, self.n_components))

    def _is_kind(self, mesh: Mesh) -> bool:
        """Whether a set that the mesh lacks is a kind of particle of which it has none, among kinds that it has."""
        return self.location == "point_set" and mesh.is_cloud and bool(mesh.point_sets)


def find_field(mesh: Mesh, name: str) -> FieldSpec:
    """Where ``name`` lives in the mesh: point, cell and global fields first, then sets.

    Raises:
        ValueError: no such field; the message lists those there are.
    """
    locations: tuple[Location, ...] = ("point", "cell", "global", "point_set", "cell_set")
    for location in locations:
        store = fields_at(mesh, location)
        if name in store:
            if location.endswith("set"):
                return FieldSpec(name, location, 1)
            value = np.asarray(store[name])
            if value.dtype.kind not in "fiub":
                raise ValueError(f"{location} field '{name}': expected numbers, got {value.dtype} ({mesh.source})")
            n = value.size if location == "global" else int(np.prod(value.shape[1:]))
            return FieldSpec(name, location, n)
    have = {loc: sorted(fields_at(mesh, loc)) for loc in locations if fields_at(mesh, loc)}
    listed = "; ".join(f"{loc}: {', '.join(names)}" for loc, names in have.items()) or "no field at all"
    hint = nearly(name, itertools.chain(*have.values()))
    raise ValueError(f"field '{name}': expected in the file, got {listed} ({mesh.source}){hint}")


def fields_at(mesh: Mesh, location: Location) -> Mapping[str, np.ndarray]:
    """All that a mesh has at a location, by name."""
    return {
        "point": mesh.point_fields,
        "cell": mesh.cell_fields,
        "global": mesh.global_fields,
        "point_set": mesh.point_sets,
        "cell_set": mesh.cell_sets,
    }[location]


def _indicator(mesh: Mesh, location: Location, members: np.ndarray) -> np.ndarray:
    flag = np.zeros((mesh.n_nodes if location == "point_set" else mesh.n_cells, 1))
    flag[members] = 1.0
    return flag if location == "point_set" else cells_to_nodes(mesh, flag)
