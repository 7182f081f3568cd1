"""From a mesh to a hierarchy of graphs, as tensors in ragged batches."""

from typing import TYPE_CHECKING

from gno.graph.fields import FieldSpec
from gno.graph.hierarchy import Hierarchy, Level, build_hierarchy
from gno.graph.nodes import hierarchy_of
from gno.graph.spec import SampleSpec
from gno.lazy import on_demand

if TYPE_CHECKING:
    from gno.graph.batch import collate
    from gno.graph.sample import MeshData, build_sample
else:  # torch and torch_geometric take seconds to load; to look at a mesh needs neither
    __getattr__ = on_demand(__name__, collate="batch", MeshData="sample", build_sample="sample")

__all__ = [
    "FieldSpec",
    "Hierarchy",
    "Level",
    "MeshData",
    "SampleSpec",
    "build_hierarchy",
    "build_sample",
    "collate",
    "hierarchy_of",
]
