"""From a mesh to a hierarchy of graphs, as tensors in ragged batches."""

from gno.graph.batch import collate
from gno.graph.fields import FieldSpec
from gno.graph.hierarchy import Hierarchy, Level, build_hierarchy
from gno.graph.sample import MeshData, build_sample, hierarchy_of
from gno.graph.spec import SampleSpec

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
