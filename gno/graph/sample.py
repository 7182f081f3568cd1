"""Sample: a mesh with its hierarchy as tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch_geometric.data import Data

from gno.graph.features import geometry_features
from gno.graph.fields import fields_at
from gno.graph.grading import grading
from gno.graph.hierarchy import Level
from gno.graph.near import near_field
from gno.graph.nodes import Nodes
from gno.graph.segment import kept, order
from gno.graph.spec import SampleSpec
from gno.graph.stencil import stencil
from gno.mesh import Mesh, laplacian
from gno.mesh.geometry import domain_dim
from gno.mesh.laplacian import even, steepest


class MeshData(Data):
    """torch_geometric Data of one mesh with its hierarchy.

    Attributes:
        x: inputs, (n_0, n_inputs). y: targets, (n_0, n_targets), if known.
        geometry: (n_0, n_geometry). mass_0: node masses, (n_0,), summing to one.
        pos_s: positions, (n_s, dim). edge_index_s: [sender, receiver], sorted by receiver, edge_perm_s its transpose;
            of the mesh itself only where the spec wants them.
        link_s: candidates in level s + 1, (n_s, k), log_b_s their weights, link_perm_s their transpose.
        stencil: entries of the Laplacian off its diagonal, if wanted, on the edges stencil_index; stencil_size, (n_0,),
            the sum of their absolute values at each node. n_substeps: steps of a local law, if there is one.
        near_index: if wanted, which nodes lie in which shells around others, (2, n_entries): the sender, and shell k of
            node i as i · near_shells + k; near_perm its transpose. near_radius: of the last shell around each node,
            (n_0,), near_mass: part that a node is of a ball with that radius, (n_0,).
        torus_s: how offsets are measured where coordinates repeat, (1, 3, dim): the rows of :class:`gno.mesh.Torus`, or
            more of :class:`gno.mesh.Lattice`. Where meshes are graded too, (n_s, 3, dim): large anchors may be alone on
            a circle with room for small ones. Nodes that repeat another have its values and its neighbours, and no
            mass.
        size_s, density_s: where meshes are graded, the spacing at each node and what makes masses count nodes, (n_s,).
    """

    def __inc__(self, key: str, value: Any, *args, **kwargs):
        if key.startswith(("edge_perm_", "link_perm_", "stencil_perm", "near_perm")):
            return value.numel()
        if key.startswith("link_"):
            return self[f"pos_{int(key[5:]) + 1}"].shape[0]
        if key.startswith("edge_index_"):
            return self[f"pos_{key[11:]}"].shape[0]
        if key == "near_index":
            n = self["pos_0"].shape[0]
            return torch.tensor([[n], [n * self.near_shells]])
        return super().__inc__(key, value, *args, **kwargs)

    @property
    def n_levels(self) -> int:
        return sum(key.startswith("pos_") for key in self.keys() if key[4:].isdigit())

    @property
    def num_nodes(self) -> int:
        return self["pos_0"].shape[0]


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
        ValueError: the mesh has another dimension than the case, lacks an input, has values that are not finite, or
            does not fit the period of the case.
    """
    if mesh.dim != spec.dim:
        raise ValueError(f"mesh: expected {spec.dim}-D, got {mesh.dim}-D ({mesh.source})")
    mesh = spec.seen(mesh)
    nodes = Nodes.of(mesh, spec, probes)
    data = MeshData(x=torch.as_tensor(nodes.values(spec.inputs, mesh), dtype=dtype))
    if probes is None and all(f.name in fields_at(mesh, f.location) for f in spec.targets):
        data.y = torch.as_tensor(nodes.values(spec.targets, mesh), dtype=dtype)
    # Length over which what is near is told apart, fixed by the case as the anchors are.
    reach = spec.spacings[0] if spec.spacings else 0.1
    grade = None if nodes.size is None else grading(nodes.size, nodes.mass)
    geometry = geometry_features(
        mesh, nodes.points, spec.unit, reach, spec.sets, coordinates=spec.coordinates, grade=grade
    )
    data.geometry = torch.as_tensor(geometry, dtype=dtype)
    levels = nodes.hierarchy(spec).levels
    data.mass_0 = torch.as_tensor(levels[0].mass, dtype=dtype)
    add_levels(data, levels, spec, dtype)
    if spec.n_stencils or spec.n_substeps:
        operator = even(laplacian(mesh)) if spec.n_substeps else laplacian(mesh)
        for key, value in stencil(operator * (reach * spec.unit / 2) ** 2, nodes.at, dtype).items():
            data[key] = value
    if spec.n_substeps:  # explicit steps are stable up to a length that the steepest row decides
        finer = steepest(operator) / spec.steepest if spec.steepest else 1.0  # 0: a cloud without a Laplacian
        data.n_substeps = math.ceil(spec.n_substeps * max(1.0, finer) - 1e-6)
    if spec.n_near:
        data.near_shells = spec.n_shells
        cell_dim = domain_dim(mesh)
        mass = nodes.mass / spec.unit**cell_dim
        data.update(near_field(levels, mass, spec.n_shells, cell_dim=cell_dim, period=nodes.period, dtype=dtype))
    return data


def add_levels(data: MeshData, levels: Sequence[Level], spec: SampleSpec, dtype: torch.dtype) -> None:
    """Put the levels of a hierarchy into a sample."""
    for s, level in enumerate(levels):
        data[f"pos_{s}"] = torch.as_tensor(level.position, dtype=dtype)
        data[f"spacing_{s}"] = torch.tensor([level.spacing], dtype=dtype)
        if s or spec.edges or len(levels) == 1:
            data[f"edge_index_{s}"] = kept(level.edges)
            data[f"edge_perm_{s}"] = order(data[f"edge_index_{s}"][0])
        if level.torus is not None:
            data[f"torus_{s}"] = torch.as_tensor(level.torus.stacked(), dtype=dtype)
        if level.size is not None and level.density is not None:
            data[f"size_{s}"] = torch.as_tensor(level.size, dtype=dtype)
            data[f"density_{s}"] = torch.as_tensor(level.density, dtype=dtype)
        if level.link is not None:
            data[f"link_{s}"] = kept(level.link)
            data[f"log_b_{s}"] = torch.as_tensor(level.log_b, dtype=dtype)
            data[f"link_perm_{s}"] = order(data[f"link_{s}"].flatten())
