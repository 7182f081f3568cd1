"""Writing of XDMF: light data in XML, arrays in the HDF5 file of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from gno.mesh.files import Sink, atomic
from gno.mesh.mesh import CellBlock, Mesh, MeshError
from gno.mesh.plain import NOTE, to_plain
from gno.mesh.xdmf import CODES, NAMES

_CODE_OF = {name: code for code, (name, _) in CODES.items()} | {"poly_vertex": 1, "poly_line": 2}
# The first name of each number; XDMF 2 and 3 both know it.
_NAME_OF = {code: name.title() for name, code in reversed(NAMES.items())}


def write_xdmf(meshes: Sequence[Mesh], path: Path) -> None:
    """Write one mesh, or several as steps in time, with all fields and sets.

    Raises:
        MeshError: a cell type that XDMF has not, or a field that is not numbers.
    """
    import h5py

    heavy_path = path.with_suffix(".h5")
    root = Element("Xdmf", Version="3.0")
    parent = SubElement(root, "Domain")
    if len(meshes) > 1:
        parent = SubElement(parent, "Grid", Name="series", GridType="Collection", CollectionType="Temporal")
    with atomic(path) as light, atomic(heavy_path) as heavy:
        with Sink(heavy) as sink, h5py.File(sink, "w") as file:
            for number, mesh in enumerate(meshes):
                _grid(parent, mesh, file.create_group(f"step{number}"), heavy_path.name)
        ElementTree.indent(root)
        light.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _grid(parent: Element, mesh: Mesh, group: Any, file_name: str) -> None:
    columns = max(2, mesh.points.shape[1])
    plain = to_plain(mesh, columns)
    texts = [name for name, values in plain.global_arrays.items() if values.dtype.kind == "U"]
    if texts:
        raise MeshError(f"global_fields['{texts[0]}']: .xdmf cannot hold text; write .vtu ({mesh.source})")
    grid = SubElement(parent, "Grid", Name="mesh", GridType="Uniform")
    if mesh.time is not None:
        SubElement(grid, "Time", Value=repr(float(mesh.time)))
    if plain.note:
        SubElement(grid, "Information", Name=NOTE, Value=plain.note)
    points = np.pad(mesh.points, ((0, 0), (0, columns - mesh.points.shape[1])))
    geometry = SubElement(grid, "Geometry", GeometryType="XYZ"[:columns])
    _item(geometry, "points", points, group, file_name)
    _topology(grid, mesh, group, file_name)
    for centre, arrays in (
        ("Node", plain.point_arrays),
        ("Cell", plain.cell_arrays),
        ("Grid", plain.global_arrays),
    ):
        for number, (name, values) in enumerate(arrays.items()):
            attribute = SubElement(grid, "Attribute", Name=name, AttributeType=_kind(values), Center=centre)
            _item(attribute, f"{centre.lower()}{number}", values, group, file_name)


def _kind(values: np.ndarray) -> str:
    return {1: "Scalar", 2: "Vector", 3: "Vector", 6: "Tensor6", 9: "Tensor"}.get(
        values[0].size if len(values) else 1, "Matrix"
    )


def _topology(grid: Element, mesh: Mesh, group: Any, file_name: str) -> None:
    full = [block for block in mesh.cells if len(block)]
    for block in mesh.cells:
        if block.type not in _CODE_OF:
            raise MeshError(f"cells '{block.type}': .xdmf has no such cell type ({mesh.source})")
    size = str(mesh.n_cells)
    kinds = {(block.type, block.nodes.shape[1]) for block in full}
    if len(kinds) == 1:
        code = _CODE_OF[full[0].type]
        element = SubElement(grid, "Topology", TopologyType=_NAME_OF[code], NumberOfElements=size)
        if code <= 3:
            element.set("NodesPerElement", str(full[0].nodes.shape[1]))
        values = np.concatenate([block.nodes for block in full])
    elif full:
        element = SubElement(grid, "Topology", TopologyType="Mixed", NumberOfElements=size)
        values = np.concatenate([_stream(block) for block in full])
    else:
        element = SubElement(grid, "Topology", TopologyType="Mixed", NumberOfElements="0")
        values = np.zeros(0, dtype=np.int64)
    _item(element, "cells", values, group, file_name)


def _stream(block: CellBlock) -> np.ndarray:
    """A block as XDMF's mixed topology: type number, number of nodes where it may vary, nodes."""
    code = _CODE_OF[block.type]
    head = [code, block.nodes.shape[1]] if code <= 3 else [code]
    return np.hstack([np.tile(head, (len(block), 1)), block.nodes]).ravel()


def _item(parent: Element, name: str, values: np.ndarray, group: Any, file_name: str) -> None:
    kind = {"f": "Float", "i": "Int", "u": "UInt"}[values.dtype.kind]
    dimensions = " ".join(map(str, values.shape))
    packed = {"compression": "gzip", "compression_opts": 1} if values.size > 1 else {}
    group.create_dataset(name, data=values, **packed)
    item = SubElement(
        parent,
        "DataItem",
        NumberType=kind,
        Precision=str(values.dtype.itemsize),
        Dimensions=dimensions,
        Format="HDF",
    )
    item.text = f"{file_name}:{group.name}/{name}"
