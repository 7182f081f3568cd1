"""ParaView's collections of files in time (.pvd)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from gno.mesh.files import atomic
from gno.mesh.mesh import MeshError


def entries(path: Path) -> list[tuple[Path, float]]:
    """Files of a collection with their times.

    Raises:
        MeshError: not a collection, an empty one, or one whose files are missing or are parts of one time.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
        found = [
            (path.parent / element.get("file", ""), float(element.get("timestep", number)))
            for number, element in enumerate(root.findall("Collection/DataSet"))
        ]
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise MeshError(f"{path}: expected a .pvd collection, got: {error}") from error
    if not found:
        raise MeshError(f"{path}: expected a collection of files, got none")
    if len({time for _, time in found}) < len(found):
        raise MeshError(f"{path}: expected one file for each time, got several parts of one time")
    missing = [file for file, _ in found if not file.is_file()]
    if missing:
        raise MeshError(f"{path}: expected the file {missing[0]}, got none")
    return found


def write_collection(path: Path, files: Sequence[Path], times: Sequence[float]) -> None:
    """Write a collection of files that lie in folders below its own."""
    root = ElementTree.Element("VTKFile", type="Collection", version="1.0", byte_order="LittleEndian")
    collection = ElementTree.SubElement(root, "Collection")
    for file, time in zip(files, times, strict=True):
        name = file.relative_to(path.parent).as_posix()
        ElementTree.SubElement(collection, "DataSet", timestep=repr(float(time)), part="0", file=name)
    ElementTree.indent(root)
    with atomic(path) as temporary:
        temporary.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
