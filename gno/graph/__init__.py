"""From a mesh to a hierarchy of graphs, as tensors in ragged batches."""

from gno.graph.hierarchy import Hierarchy, Level, build_hierarchy
from gno.graph.sample import FieldSpec, MeshData, SampleSpec, build_sample, collate, hierarchy_of

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
