"""Sample: a mesh with its hierarchy as tensors; ragged batches of them by torch_geometric."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix, diags, vstack
from torch import Tensor
from torch_geometric.data import Batch, Data

from gno.graph.features import geometry_features, in_units
from gno.graph.hierarchy import Hierarchy, Level, build_hierarchy
from gno.graph.neighbours import nearest_edges
from gno.graph.segment import Edges
from gno.mesh import Mesh, cells_to_nodes, interpolation, laplacian, mesh_edges, node_mass

# Spacing of level 1 in median edge lengths, and of each further level in spacings of the one before.
FIRST_STEP = 2.5
NEXT_STEP = 2.0

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

        Raises:
            ValueError: the mesh lacks the field or has it with another shape.
        """
        store = _store(mesh, self.location)
        if self.name not in store:
            raise ValueError(f"{self.location} field '{self.name}': expected, got only {sorted(store)} ({mesh.source})")
        value = np.asarray(store[self.name])
        if self.location.endswith("set"):
            return _indicator(mesh, self.location, value)
        value = value.reshape(1 if self.location == "global" else len(value), -1).astype(np.float64)
        if value.shape[1] != self.n_components:
            raise ValueError(
                f"{self.location} field '{self.name}': expected {self.n_components} components, "
                f"got {value.shape[1]} ({mesh.source})"
            )
        if self.log:
            if not (value > 0).all():
                raise ValueError(
                    f"field '{self.name}': expected values > 0 for log, got {value.min():g} ({mesh.source})"
                )
            value = np.log(value)
        if self.location == "cell":
            return cells_to_nodes(mesh, value)
        return np.broadcast_to(value, (mesh.n_nodes, self.n_components))


def _store(mesh: Mesh, location: Location):
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


def find_field(mesh: Mesh, name: str) -> FieldSpec:
    """Where ``name`` lives in the mesh: point, cell and global fields first, then sets.

    Raises:
        ValueError: no such field; the message lists those there are.
    """
    locations: tuple[Location, ...] = ("point", "cell", "global", "point_set", "cell_set")
    for location in locations:
        store = _store(mesh, location)
        if name in store:
            if location.endswith("set"):
                return FieldSpec(name, location, 1)
            value = np.asarray(store[name])
            if value.dtype.kind not in "fiub":
                raise ValueError(f"{location} field '{name}': expected numbers, got {value.dtype} ({mesh.source})")
            n = value.size if location == "global" else int(np.prod(value.shape[1:]))
            return FieldSpec(name, location, n)
    have = {loc: sorted(_store(mesh, loc)) for loc in locations if _store(mesh, loc)}
    listed = "; ".join(f"{loc}: {', '.join(names)}" for loc, names in have.items()) or "no field at all"
    raise ValueError(f"field '{name}': expected in the file, got {listed} ({mesh.source})")


@dataclasses.dataclass(frozen=True)
class SampleSpec:
    """How a mesh becomes a sample; fitted on the training meshes and stored with the weights.

    Args:
        dim: dimension of space.
        unit: the case's unit of length (half the median extent), in the user's unit.
        inputs: fields that the operator reads.
        targets: fields that it predicts.
        sets: point sets whose distance and direction every node knows.
        spacings: spacing of levels 1, 2, …, in ``unit``. Fixed by the case, so a finer mesh keeps its anchors.
        n_candidates: anchors of the next level that a node can lean on.
        coordinates: whether a node knows where it is; without, the operator is the same wherever a mesh lies.
        n_stencils: layers of the operator that read the Laplacian on the mesh, which samples then have.
    """

    dim: int
    unit: float
    inputs: tuple[FieldSpec, ...]
    targets: tuple[FieldSpec, ...]
    sets: tuple[str, ...]
    spacings: tuple[float, ...]
    n_candidates: int = 5
    coordinates: bool = True
    n_stencils: int = 0

    @staticmethod
    def fit(
        meshes: Sequence[Mesh],
        *,
        inputs: Sequence[str],
        targets: Sequence[str],
        log: Sequence[str] = (),
        sets: Sequence[str] | None = None,
        n_levels: int | None = None,
        first_step: float = FIRST_STEP,
        next_step: float = NEXT_STEP,
        n_candidates: int = 5,
        coordinates: bool = True,
        n_stencils: int = 0,
    ) -> SampleSpec:
        """Resolve fields, unit and spacings from the training meshes.

        Args:
            meshes: training meshes.
            inputs: names of fields or sets to read.
            targets: names of fields to predict.
            log: those inputs whose logarithm is read: coefficients that vary by factors.
            sets: point sets whose distance is a feature; by default those that every mesh has.
            n_levels: number of levels, the mesh included; by default as many as leave about four anchors across, at
                least 3.
            first_step: spacing of level 1 in median edge lengths.
            next_step: spacing of each further level in spacings of the one before.
            n_candidates: anchors that a node can lean on.
            coordinates: whether a node knows where it is. False suits what is the same everywhere, as reaction and
                diffusion are, and shapes that lie elsewhere than those of the training.
            n_stencils: layers at the entrance and at the exit that read the Laplacian on the mesh, for reaction and
                diffusion.

        Raises:
            ValueError: a field is missing, or is both input and target.
        """
        if not meshes:
            raise ValueError("training meshes: expected at least one, got none")
        both = sorted(set(inputs) & set(targets))
        if both:
            raise ValueError(f"field '{both[0]}': expected to be input or target, got both")
        dim = meshes[0].dim
        other = next((m for m in meshes if m.dim != dim), None)
        if other is not None:
            raise ValueError(
                f"meshes: expected all {dim}-D like {meshes[0].source}, got {other.dim}-D ({other.source})"
            )
        extent = [np.ptp(m.points[:, :dim], axis=0).max() for m in meshes]
        unit = float(np.median(extent)) / 2 or 1.0
        return SampleSpec(
            dim,
            unit,
            tuple(dataclasses.replace(find_field(meshes[0], name), log=name in log) for name in inputs),
            tuple(find_field(meshes[0], name) for name in targets),
            tuple(common_sets(meshes) if sets is None else sets),
            _spacings(meshes, unit, n_levels, first_step, next_step),
            n_candidates,
            coordinates,
            n_stencils,
        )

    @property
    def n_inputs(self) -> int:
        return sum(f.n_components for f in self.inputs)

    @property
    def n_targets(self) -> int:
        return sum(f.n_components for f in self.targets)

    @property
    def n_levels(self) -> int:
        return 1 + len(self.spacings)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> SampleSpec:
        fields = {name: tuple(FieldSpec(**f) for f in values[name]) for name in ("inputs", "targets")}
        rest = {"sets": tuple(values["sets"]), "spacings": tuple(values["spacings"])}
        return SampleSpec(**{**values, **fields, **rest})


def common_sets(meshes: Sequence[Mesh]) -> list[str]:
    """Point sets that every mesh has and that are not empty, by name."""
    names = [{k for k, v in m.point_sets.items() if len(v)} for m in meshes]
    return sorted(set.intersection(*names))


def _spacings(meshes, unit, n_levels, first_step, next_step) -> tuple[float, ...]:
    lengths = []
    for mesh in meshes[:20]:
        edges, points = edges_of(mesh), in_units(mesh, unit)
        lengths.append(np.median(np.linalg.norm(points[edges[0]] - points[edges[1]], axis=1)) if edges.size else 1.0)
    first = first_step * float(np.median(lengths))
    if n_levels is None:
        across = 2.0 / first  # anchors of level 1 along the longest side
        n_levels = max(3, 2 + int(np.floor(np.log(max(across / 4, 1)) / np.log(next_step) + 1e-9)))
    return tuple(first * next_step**s for s in range(n_levels - 1))


def edges_of(mesh: Mesh) -> np.ndarray:
    """Undirected edges: the mesh's own, or nearest neighbours in a point cloud."""
    return mesh_edges(mesh) if mesh.cells else nearest_edges(mesh.points[:, : mesh.dim])


class MeshData(Data):
    """torch_geometric Data of one mesh with its hierarchy.

    Attributes:
        x: inputs, (n_0, n_inputs). y: targets, (n_0, n_targets), if known.
        geometry: (n_0, n_geometry). mass_0: node masses, (n_0,), summing to one.
        pos_s: positions, (n_s, dim). edge_index_s: [sender, receiver], sorted by receiver, edge_perm_s its transpose.
        link_s: candidates in level s + 1, (n_s, k), log_b_s their weights, link_perm_s their transpose.
        stencil: entries of the Laplacian off its diagonal, if wanted, on the edges stencil_index.
    """

    def __inc__(self, key: str, value: Any, *args, **kwargs):
        if key.startswith(("edge_perm_", "link_perm_", "stencil_perm")):
            return value.numel()
        if key.startswith("link_"):
            return self[f"pos_{int(key[5:]) + 1}"].shape[0]
        if key.startswith("edge_index_"):
            return self[f"pos_{key[11:]}"].shape[0]
        return super().__inc__(key, value, *args, **kwargs)

    @property
    def n_levels(self) -> int:
        return sum(key.startswith("pos_") for key in self.keys() if key[4:].isdigit())

    @property
    def num_nodes(self) -> int:
        return self["pos_0"].shape[0]


def hierarchy_of(mesh: Mesh, spec: SampleSpec) -> Hierarchy:
    """The levels that the operator will see, in units of the case; masses sum to one."""
    return _hierarchy(mesh, spec, in_units(mesh, spec.unit), node_mass(mesh), edges_of(mesh))


def _hierarchy(mesh: Mesh, spec: SampleSpec, points: np.ndarray, mass: np.ndarray, edges: np.ndarray) -> Hierarchy:
    return build_hierarchy(points, mass / mass.sum(), edges, spec.spacings, n_candidates=spec.n_candidates)


def build_sample(
    mesh: Mesh,
    spec: SampleSpec,
    dtype: torch.dtype = torch.float32,
    *,
    probes: Float[np.ndarray, "n_probes dim"] | None = None,
) -> MeshData:
    """Everything about a mesh that training needs, computed once.

    Args:
        mesh: the mesh, with the inputs of the case, and the targets if it has them.
        spec: how the case sees a mesh.
        dtype: of all real tensors.
        probes: further places, in the mesh's unit, at which fields are wanted: nodes 0 to n_nodes − 1 are the mesh's,
            the probes follow. They are nodes without mass: every sum of the operator is weighted by mass, so they hear
            their surroundings and nobody hears them; the prediction on the mesh stays what it was.

    Raises:
        ValueError: the mesh has another dimension than the case, or lacks an input.
    """
    if mesh.dim != spec.dim:
        raise ValueError(f"mesh: expected {spec.dim}-D, got {mesh.dim}-D ({mesh.source})")
    points, mass, edges = in_units(mesh, spec.unit), node_mass(mesh), edges_of(mesh)
    inputs, targets = [f.values(mesh) for f in spec.inputs], None
    if probes is None and all(f.name in _store(mesh, f.location) for f in spec.targets):
        targets = [f.values(mesh) for f in spec.targets]
    if probes is not None:
        at = interpolation(mesh, np.asarray(probes))
        inputs = [np.concatenate([values, at @ values]) for values in inputs]
        points = np.concatenate([points, in_units(mesh, spec.unit, probes)])
        mass = np.concatenate([mass, np.zeros(len(probes))])
        row, column = at.nonzero()
        edges = np.concatenate([edges, np.stack([column, mesh.n_nodes + row]).astype(np.int64)], axis=1)
    data = MeshData(x=_stack(inputs, len(points), mesh, dtype))
    if targets is not None:
        data.y = _stack(targets, len(points), mesh, dtype)
    # Length over which what is near is told apart, fixed by the case as the anchors are.
    reach = spec.spacings[0] if spec.spacings else 0.1
    geometry = geometry_features(mesh, points, spec.unit, reach, spec.sets, coordinates=spec.coordinates)
    data.geometry = torch.as_tensor(geometry, dtype=dtype)
    levels = _hierarchy(mesh, spec, points, mass, edges).levels
    data.mass_0 = torch.as_tensor(levels[0].mass, dtype=dtype)
    for s, level in enumerate(levels):
        add_level(data, s, level, dtype)
    if spec.n_stencils:
        _add_stencil(data, mesh, reach * spec.unit / 2, None if probes is None else at, dtype)
    return data


def _add_stencil(data: MeshData, mesh: Mesh, length: float, at: csr_matrix | None, dtype: torch.dtype) -> None:
    """The Laplacian, in units of 1 / length², without its diagonal, which is minus the sum of the rest."""
    entries = laplacian(mesh) * length**2
    off_diagonal = entries - diags(entries.diagonal())
    rows = [off_diagonal] if at is None else [off_diagonal, at @ entries]  # probes hear L at their place
    found = vstack(rows).tocsr()
    found.sort_indices()
    receiver, sender = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr)), found.indices.astype(np.int64)
    data.stencil_index = torch.as_tensor(np.stack([sender, receiver]))
    data.stencil_perm = torch.argsort(data.stencil_index[0], stable=True)
    data.stencil = torch.as_tensor(found.data, dtype=dtype)


def add_level(data: MeshData, s: int, level: Level, dtype: torch.dtype) -> None:
    """Put level s of a hierarchy into a sample."""
    data[f"pos_{s}"] = torch.as_tensor(level.position, dtype=dtype)
    data[f"spacing_{s}"] = torch.tensor([level.spacing], dtype=dtype)
    data[f"edge_index_{s}"] = torch.as_tensor(level.edges)
    data[f"edge_perm_{s}"] = torch.argsort(data[f"edge_index_{s}"][0], stable=True)
    if level.link is not None:
        data[f"link_{s}"] = torch.as_tensor(level.link)
        data[f"log_b_{s}"] = torch.as_tensor(level.log_b, dtype=dtype)
        data[f"link_perm_{s}"] = torch.argsort(data[f"link_{s}"].flatten(), stable=True)


def _stack(columns: list[np.ndarray], n: int, mesh: Mesh, dtype: torch.dtype) -> Tensor:
    if not columns:
        return torch.empty(n, 0, dtype=dtype)
    values = np.concatenate(columns, axis=1)
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise ValueError(f"fields: expected finite values, got {values[bad[0]]} at node {bad[0]} ({mesh.source})")
    return torch.as_tensor(values, dtype=dtype)


def collate(samples: Sequence[MeshData]) -> Batch:
    """A ragged batch; ``pos_s_batch`` says which mesh a node of level s belongs to.

    What a sample carries besides tensors becomes one if it says how, ``type(value).join(values)``.
    """
    n_levels = samples[0].n_levels
    batch = Batch.from_data_list(list(samples), follow_batch=[f"pos_{s}" for s in range(n_levels)])
    for key, value in samples[0].to_dict().items():
        if not isinstance(value, str) and hasattr(value, "join"):
            batch[key] = type(value).join(batch[key])
    # Sizes known on the host, so that padding needs no look at the device: the largest mesh, and the largest set of
    # anchors from level s up.
    sizes = np.array([[d[f"pos_{s}"].shape[0] for s in range(n_levels)] for d in samples])
    batch.longest_mesh = int(sizes[:, 0].max())
    batch.longest_from = [int(sizes[:, s:].sum(1).max()) for s in range(n_levels)]
    return batch


def level_edges(batch: Batch, s: int) -> Edges:
    """Edges of level s of a batch."""
    sender, receiver = batch[f"edge_index_{s}"]
    n = batch[f"pos_{s}"].shape[0]
    return Edges.from_perm(sender, receiver, batch[f"edge_perm_{s}"], n, n)


def stencil_edges(batch: Batch) -> Edges:
    """Edges on which the Laplacian of a batch has entries.

    Raises:
        ValueError: samples without it.
    """
    if "stencil" not in batch:
        raise ValueError("batch.stencil: expected samples of a spec with n_stencils > 0, got some without a Laplacian")
    (sender, receiver), n = batch.stencil_index, batch.pos_0.shape[0]
    return Edges.from_perm(sender, receiver, batch.stencil_perm, n, n)


def link_edges(batch: Batch, s: int) -> Edges:
    """Links as edges from the anchors of level s + 1 to the nodes of level s."""
    link = batch[f"link_{s}"]
    n, k = link.shape
    receiver = torch.arange(n, device=link.device).repeat_interleave(k)
    return Edges.from_perm(link.flatten(), receiver, batch[f"link_perm_{s}"], batch[f"pos_{s + 1}"].shape[0], n)
