"""Operators of other libraries, as modules that map a collated batch to normalised targets at the nodes of the mesh.

All of them read what gno reads: the inputs (logarithms taken, normalised) and the geometry features of every node.
Widths are chosen so that the number of weights is near that of gno's size `small` (about 0.35 million), unless the
authors publish a setting of less than twice to three times that, which is then taken. `name:width` asks for another.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from gno.graph import MeshData, SampleSpec
from gno.nn import Output
from gno.train import Case
from gno.train.sources import fit_spec


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a model must know of the data.

    Args:
        n_inputs, n_geometry, n_outputs: columns. dim: of space.
        edge: mean length of the training meshes' edges, in units of the case.
        reach: largest coordinate of a training node; the middle of every mesh is the origin.
    """

    n_inputs: int
    n_geometry: int
    n_outputs: int
    dim: int
    edge: float
    reach: float

    @classmethod
    def of(cls, samples: Sequence[MeshData]) -> Sizes:
        """Read off the training samples."""
        first = samples[0]
        lengths = [_offsets(s.pos_0, mesh_edges(s)).norm(dim=1).mean() for s in samples]
        reach = max(float(s.pos_0.abs().max()) for s in samples)
        columns = (first.x.shape[1], first.geometry.shape[1], first.y.shape[1], first.pos_0.shape[1])
        return cls(*columns, float(torch.stack(lengths).mean()), reach)

    @property
    def n_features(self) -> int:
        return self.n_inputs + self.n_geometry


@dataclasses.dataclass(frozen=True)
class Peer:
    """A model to compare with.

    Args:
        build: makes it for a width.
        width: channels by default.
        settings: of `gno.train.Training`, where its authors' differ from gno's.
        prepare: adds to a sample, once, what the model needs besides.
    """

    build: Callable[[Sizes, int], nn.Module]
    width: int
    settings: dict[str, Any]
    prepare: Callable[[MeshData], MeshData] = lambda sample: sample


class AsOutput(nn.Module):
    """A peer's prediction as gno's `Output` with one level, so that the same loop, loss and error apply."""

    def __init__(self, peer: nn.Module) -> None:
        super().__init__()
        self.peer = peer

    def forward(self, batch: Batch) -> Output:
        return Output((self.peer(batch),), (batch.mass_0,), (batch.pos_0,), (batch.pos_0_batch,), ())


def parse(name: str) -> tuple[Peer, int]:
    """`name` or `name:width`.

    Raises:
        ValueError: unknown name, or a width that is no number.
    """
    kind, _, width = name.partition(":")
    if kind not in PEERS or (width and not width.isdigit()):
        raise ValueError(f"model: expected one of gno, {', '.join(PEERS)}, or name:width, got '{name}'")
    return PEERS[kind], int(width) if width else PEERS[kind].width


def n_weights(model: nn.Module) -> int:
    """Number of real weights; a complex one counts twice."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in model.parameters())


def _features(batch: Batch) -> Float[Tensor, "n_nodes n_features"]:
    return torch.cat([batch.x, batch.geometry], dim=1)


def spec_of(case: Case) -> SampleSpec:
    """How a case sees meshes, with their edges, which gno does not read."""
    return dataclasses.replace(fit_spec(case, case.data.paths()["train"]), edges=True)


def mesh_edges(data: MeshData | Batch) -> Int[Tensor, "2 n_edges"]:
    """Edges of the mesh, or of a batch of meshes."""
    return data.edge_index_0.long()


def _offsets(position: Tensor, edges: Tensor) -> Float[Tensor, "n_edges dim"]:
    return position[edges[0]] - position[edges[1]]


class EdgeFeatures(nn.Module):
    """Offset and distance along the mesh edges, in mean edge lengths of the training meshes."""

    def __init__(self, edge: float) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, batch: Batch) -> Float[Tensor, "n_edges dim+1"]:
        offset = _offsets(batch.pos_0, mesh_edges(batch)) / self.edge
        return torch.cat([offset, offset.norm(dim=1, keepdim=True)], dim=1)


class DeepGCN(nn.Module):
    """Ten residual layers of torch_geometric's GENConv, as in its example of deep graph networks."""

    def __init__(self, sizes: Sizes, width: int, n_layers: int = 10) -> None:
        from torch_geometric.nn import DeepGCNLayer, GENConv

        super().__init__()
        self.edges = EdgeFeatures(sizes.edge)
        self.encode, self.encode_edges = nn.Linear(sizes.n_features, width), nn.Linear(sizes.dim + 1, width)
        self.layers = nn.ModuleList(
            DeepGCNLayer(
                GENConv(width, width, aggr="softmax", learn_t=True, num_layers=2, norm="layer"),
                nn.LayerNorm(width),
                nn.ReLU(),
                block="res+",
            )
            for _ in range(n_layers)
        )
        self.decode = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, sizes.n_outputs))

    def forward(self, batch: Batch) -> Float[Tensor, "n_nodes n_outputs"]:
        v, e = self.encode(_features(batch)), self.encode_edges(self.edges(batch))
        for layer in self.layers:
            v = layer(v, mesh_edges(batch), e)
        return self.decode(v)


class MeshGraphNet(nn.Module):
    """physicsnemo's MeshGraphNet with its authors' 15 rounds of messages (their width is 128)."""

    def __init__(self, sizes: Sizes, width: int) -> None:
        _skip_torchvision_operators()
        from physicsnemo.models.meshgraphnet import MeshGraphNet as Original

        super().__init__()
        self.edges = EdgeFeatures(sizes.edge)
        self.operator = Original(sizes.n_features, sizes.dim + 1, sizes.n_outputs, **_widths(width), processor_size=15)

    def forward(self, batch: Batch) -> Float[Tensor, "n_nodes n_outputs"]:
        graph = Data(edge_index=mesh_edges(batch), num_nodes=len(batch.x))
        return self.operator(_features(batch), self.edges(batch), graph)


def _widths(width: int) -> dict[str, int]:
    parts = ("processor", "node_encoder", "edge_encoder", "node_decoder")
    return {f"hidden_dim_{part}": width for part in parts}


# Coarsenings by bi-stride. Its authors have five for 1,900 nodes; of the 1,100 here the fifth may leave one.
STRIDES = 4


class BiStride(nn.Module):
    """physicsnemo's BiStride MeshGraphNet.

    Its authors have no rounds on the fine mesh besides the hierarchy; the library wants some, and gets two.
    """

    def __init__(self, sizes: Sizes, width: int) -> None:
        _skip_torchvision_operators()
        from physicsnemo.models.meshgraphnet.bsms_mgn import BiStrideMeshGraphNet

        super().__init__()
        self.edges = EdgeFeatures(sizes.edge)
        self.operator = BiStrideMeshGraphNet(
            sizes.n_features,
            sizes.dim + 1,
            sizes.n_outputs,
            **_widths(width),
            processor_size=2,
            num_mesh_levels=STRIDES,
            bistride_pos_dim=sizes.dim,
        )

    def forward(self, batch: Batch) -> Float[Tensor, "n_nodes n_outputs"]:
        position = batch.pos_0 / self.edges.edge
        graph = Data(edge_index=mesh_edges(batch), num_nodes=len(batch.x), pos=position)
        edges = [mesh_edges(batch)] + [batch[f"stride_index_{s}"] for s in range(1, STRIDES + 1)]
        kept = [batch[f"stride_kept_{s}"] for s in range(STRIDES)]
        return self.operator(_features(batch), self.edges(batch), graph, edges, kept)


class StrideData(MeshData):
    """A sample with the bi-stride levels: nodes of level s that level s + 1 keeps, and edges of level s."""

    def __inc__(self, key: str, value: Any, *args, **kwargs):
        if key.startswith("stride_"):
            s = int(key.rsplit("_", 1)[1])
            return self.num_nodes if s == 0 else len(self[f"stride_kept_{s - 1}"])
        return super().__inc__(key, value, *args, **kwargs)


def with_strides(sample: MeshData) -> MeshData:
    """The levels that every second front of a breadth-first search makes, by physicsnemo."""
    from physicsnemo.datapipes.gnn.bsms import BistrideMultiLayerGraph

    graph = Data(edge_index=mesh_edges(sample), pos=sample.pos_0, num_nodes=sample.num_nodes)
    _, edges, kept = BistrideMultiLayerGraph(graph, STRIDES).get_multi_layer_graphs()
    sample = StrideData(**sample.to_dict())
    for s in range(STRIDES):
        sample[f"stride_kept_{s}"] = torch.as_tensor(np.asarray(kept[s], dtype=np.int64))
        sample[f"stride_index_{s + 1}"] = torch.as_tensor(np.asarray(edges[s + 1], dtype=np.int64))
    return sample


class Transformer(nn.Module):
    """An operator on (mesh, node, channel) of one mesh, or of meshes of equal size.

    On a CPU the meshes of a batch go one after the other, which costs nothing there. On a GPU they go together,
    and smaller meshes repeat some of their nodes: these operators know no mask.

    Args:
        operator: the transformer.
        call: applies it to inputs and geometry.
    """

    def __init__(self, operator: nn.Module, call: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.operator, self.call = operator, call

    def forward(self, batch: Batch) -> Float[Tensor, "n_nodes n_outputs"]:
        if batch.num_graphs == 1:
            return self.call(self.operator, batch.x[None], batch.geometry[None])[0]
        if batch.x.is_cuda:
            rows, column = repeated(batch.pos_0_ptr, batch.pos_0_batch, batch.longest[0])
            return self.call(self.operator, batch.x[rows], batch.geometry[rows])[batch.pos_0_batch, column]
        sizes = batch.pos_0_ptr.diff().tolist()
        parts = zip(batch.x.split(sizes), batch.geometry.split(sizes), strict=True)
        return torch.cat([self.call(self.operator, x[None], g[None])[0] for x, g in parts])


def repeated(start: Tensor, graph: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Nodes of each mesh in rows of equal length, filled up with nodes spread over the mesh; column of each node.

    >>> rows, column = repeated(torch.tensor([0, 2, 6]), torch.tensor([0, 0, 1, 1, 1, 1]), 4)
    >>> rows.tolist(), column.tolist()
    ([[0, 1, 0, 1], [2, 3, 4, 5]], [0, 1, 0, 1, 2, 3])
    """
    first, size = start[:-1, None], start.diff()[:, None]
    column = torch.arange(longest, device=start.device)[None]
    spread = (column - size) * size // (longest - size).clamp_min(1)
    rows = first + torch.where(column < size, column, spread)
    return rows, torch.arange(len(graph), device=start.device) - start[graph]


def _transolver(sizes: Sizes, width: int) -> nn.Module:
    _skip_torchvision_operators()
    from physicsnemo.models.transolver import Transolver

    operator = Transolver(sizes.n_inputs, sizes.n_outputs, embedding_dim=sizes.n_geometry, **_blocks(width))
    return Transformer(operator, lambda model, x, geometry: model(x, embedding=geometry))


def _flare(sizes: Sizes, width: int) -> nn.Module:
    _skip_torchvision_operators()
    from physicsnemo.models.flare import FLARE

    operator = FLARE(sizes.n_inputs, sizes.n_outputs, embedding_dim=sizes.n_geometry, **_blocks(width))
    return Transformer(operator, lambda model, x, geometry: model(x, embedding=geometry))


def _geotransolver(sizes: Sizes, width: int) -> nn.Module:
    _skip_torchvision_operators()
    from physicsnemo.models.geotransolver import GeoTransolver

    operator = GeoTransolver(sizes.n_features, sizes.n_outputs, geometry_dim=sizes.n_geometry, **_blocks(width))
    return Transformer(operator, lambda model, x, g: model(torch.cat([x, g], dim=2), geometry=g))


def _blocks(width: int) -> dict[str, Any]:
    # what the authors of Transolver publish for meshes of this size, and the others inherit
    return {"n_hidden": width, "n_layers": 8, "n_head": 8, "slice_num": 64, "mlp_ratio": 1, "use_te": False}


def _skip_torchvision_operators() -> None:
    """physicsnemo imports timm, and that torchvision, for pictures.

    The wheels of torchvision hold operators for CUDA alone: with torch for CPUs they are missing, and describing
    them fails. The module that describes them is replaced by an empty one; nothing here calls them.
    """
    name = "torchvision._meta_registrations"
    if torch.version.cuda is None and name not in sys.modules:
        sys.modules[name] = types.ModuleType(name)


class GINO(nn.Module):
    """neuraloperator's GINO: mesh → regular grid → Fourier layers → mesh; mesh after mesh, as its authors have it.

    The grid also knows the geometry features of the nearest node and the distance to it, in place of the signed
    distance that its authors give it. What depends on the mesh alone is computed once per mesh. In 3-D the grid is
    about as fine as the training meshes, too: with 32 points along each side a step would take a thread seconds.
    """

    GRID, MODES = {2: 32, 3: 16}, {2: 12, 3: 8}  # along each side, by dimension

    def __init__(self, sizes: Sizes, width: int) -> None:
        from neuralop import models

        super().__init__()
        self.reach = 1.05 * sizes.reach
        n_points = self.GRID[sizes.dim]
        self.radius = 1.6 / (n_points - 1)  # of both kernels; the grid spans the unit square or cube
        self.operator = models.GINO(
            in_channels=sizes.n_features,
            out_channels=sizes.n_outputs,
            latent_feature_channels=sizes.n_geometry + 1,
            fno_in_channels=sizes.n_features,
            gno_coord_dim=sizes.dim,
            in_gno_radius=self.radius,
            out_gno_radius=self.radius,
            fno_n_modes=(self.MODES[sizes.dim],) * sizes.dim,
            fno_hidden_channels=width,
            fno_norm="group_norm",
            out_gno_channel_mlp_hidden_layers=[80, 80, 80],
            gno_use_open3d=False,
        )
        axis = torch.linspace(0, 1, n_points)
        self.register_buffer("grid", torch.stack(torch.meshgrid(*[axis] * sizes.dim, indexing="ij"), dim=-1))
        self.known: dict[int, tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]] = {}
        self.operator.gno_in.neighbor_search = self.search_in = Remembered()
        self.operator.gno_out.neighbor_search = self.search_out = Remembered()

    def forward(self, batch: Batch) -> Float[Tensor, "n_nodes n_outputs"]:
        features, sizes = _features(batch), batch.pos_0_ptr.diff().tolist()
        places = ((batch.pos_0 / self.reach + 1) / 2).split(sizes)
        parts = zip(batch.number.tolist(), places, features.split(sizes), batch.geometry.split(sizes), strict=True)
        return torch.cat([self.one(*part) for part in parts])

    def one(self, number: int, place: Tensor, features: Tensor, geometry: Tensor) -> Tensor:
        if number not in self.known:
            self.known[number] = self.around(place, geometry)
        latent, self.search_in.answer, self.search_out.answer = self.known[number]
        return self.operator(place[None], self.grid[None], place[None], x=features[None], latent_features=latent)[0]

    def around(self, place: Tensor, geometry: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Features of the grid, neighbours of its points among the nodes, and of the nodes among its points."""
        grid, nodes = self.grid.flatten(0, -2).cpu().numpy(), place.cpu().numpy()
        distance, nearest = cKDTree(nodes).query(grid)
        away = torch.as_tensor(distance, dtype=place.dtype, device=place.device)
        latent = torch.cat([geometry[torch.as_tensor(nearest, device=place.device)], away[:, None]], dim=1)
        near = (neighbours(nodes, grid, self.radius), neighbours(grid, nodes, self.radius))
        near_in, near_out = ({k: v.to(place.device) for k, v in n.items()} for n in near)
        return latent.reshape(1, *self.grid.shape[:-1], -1), near_in, near_out


class Remembered(nn.Module):
    """Stands in for neuraloperator's search for neighbours, whose answer for this mesh is known."""

    answer: dict[str, Tensor]

    def forward(self, data: Tensor, queries: Tensor, radius: float) -> dict[str, Tensor]:
        return self.answer


def neighbours(data: np.ndarray, queries: np.ndarray, radius: float) -> dict[str, Tensor]:
    """Indices into ``data`` within a radius of each query, one query after the other, as neuraloperator wants them.

    >>> neighbours(np.array([[0.0], [1.0]]), np.array([[0.9], [5.0]]), 0.5)["neighbors_row_splits"]
    tensor([0, 1, 1])
    """
    found = cKDTree(data).query_ball_point(queries, radius, return_sorted=True)
    splits = np.cumsum([0, *map(len, found)])
    index = np.concatenate([np.asarray(part, dtype=np.int64) for part in found])
    return {"neighbors_index": torch.as_tensor(index), "neighbors_row_splits": torch.as_tensor(splits)}


PEERS = {
    "pyg": Peer(DeepGCN, 96, {"batch_size": 2}),
    "meshgraphnet": Peer(MeshGraphNet, 56, {"batch_size": 2}),
    "bistride": Peer(BiStride, 56, {"batch_size": 2}, with_strides),
    "transolver": Peer(_transolver, 128, {"batch_size": 1, "clip": 0.1, "weight_decay": 1e-5}),
    # physicsnemo trains these two with Muon
    "geotransolver": Peer(_geotransolver, 128, {"batch_size": 1, "optimiser": "muon", "weight_decay": 1e-4}),
    "flare": Peer(_flare, 128, {"batch_size": 1, "optimiser": "muon", "weight_decay": 1e-4}),
    "gino": Peer(GINO, 24, {"batch_size": 1, "weight_decay": 1e-4}),
}
