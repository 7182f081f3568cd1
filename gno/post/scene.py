"""What a picture shows: panels of coloured surfaces, seen from one direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from gno.mesh import Mesh
from gno.mesh.geometry import domain_dim
from gno.mesh.shapes import cell_dim
from gno.post.color import MARKER, SHEET, VALUE_COLORS
from gno.post.grid import points_3d, to_pyvista
from gno.post.quantity import Quantity

if TYPE_CHECKING:
    import pyvista as pv

_EDGES_UP_TO = 6000  # faces; with more the picture is mostly edges
_CURVE_STEPS = 2  # halvings of each side of a quadratic cell
CLOSE = 2.0  # what is looked at closely takes one over this of the picture
SHARP = 35.0  # degrees between faces that make a visible edge
VALUE = "value"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture in a row of them.

    Args:
        body: what is seen, with the array ``"value"`` on its points or cells; without it, it is plain.
        title: who or what this is.
        note: one more line of detail.
        limits: the values at the ends of the colour scale.
        colors: name of a matplotlib colour map.
        plain: colour of a body without values.
        edges: sides of the cells, drawn thin.
        outline: rim and sharp edges, drawn a little thicker.
        ghost: the undeformed outline, drawn pale.
        stage: the domain in which points lie, drawn paler still.
        flat: true for a picture in the plane, which needs no light.
    """

    body: pv.PolyData
    title: str
    note: str = ""
    limits: tuple[float, float] = (0.0, 1.0)
    colors: str = VALUE_COLORS
    plain: str = SHEET
    edges: pv.PolyData | None = None
    outline: pv.PolyData | None = None
    ghost: pv.PolyData | None = None
    stage: pv.PolyData | None = None
    flat: bool = True

    @property
    def colored(self) -> bool:
        return VALUE in self.body.array_names


@dataclasses.dataclass(frozen=True)
class View:
    """A parallel projection that just holds everything.

    Args:
        right, up: unit vectors along the picture's sides.
        center: the point in the middle of the picture.
        width, height: size of the picture, in units of length.
        depth: how far things reach from the centre towards the eye or away from it.
    """

    right: Float[np.ndarray, " 3"]
    up: Float[np.ndarray, " 3"]
    center: Float[np.ndarray, " 3"]
    width: float
    height: float
    depth: float

    @property
    def toward_eye(self) -> Float[np.ndarray, " 3"]:
        return np.cross(self.right, self.up)

    def around(self, points: Float[np.ndarray, "n 3"]) -> View:
        """The same direction, but only these points with half their extent around them."""
        axes = np.stack([self.right, self.up, self.toward_eye])
        places = points @ axes.T
        low, high = places.min(0), places.max(0)
        room = CLOSE * (max((high - low)[:2]) or max(self.width, self.height) / 20)
        width, height = np.maximum(CLOSE * (high - low)[:2], room / 2)
        depth = self.depth + 2 * abs(float(axes[2] @ self.center) - (low[2] + high[2]) / 2)
        return View(self.right, self.up, axes.T @ ((low + high) / 2), float(width), float(height), depth)

    def half_height(self, aspect: float) -> float:
        """Half the height, in units of length, of a picture of this aspect ratio with a narrow margin."""
        return 1.03 * max(self.height, self.width / aspect) / 2


def surface_panel(
    mesh: Mesh,
    values: Quantity | None,
    title: str,
    *,
    displacement: Float[np.ndarray, "n_nodes 3"] | None = None,
    edges: bool | None = None,
    **rest,
) -> Panel:
    """The surface of a mesh, or the points of a cloud, coloured by `values` and moved by `displacement`."""
    flat = mesh.dim < 3
    if domain_dim(mesh) == 0:
        balls = _balls(mesh, values, displacement)
        return Panel(balls, title, flat=flat, plain=MARKER, **rest)
    grid = to_pyvista(mesh.replace(point_fields={}, cell_fields={}, point_sets={}, cell_sets={}))
    if values is not None:
        data = grid.point_data if values.location == "node" else grid.cell_data
        data[VALUE] = values.values
    grid = _drop_rims(grid, mesh)
    ghost = None
    if displacement is not None:
        ghost = _outline(_surface(grid), flat)
        grid.points = grid.points + displacement[grid.point_data["node"]]
    body = _surface(grid)
    return Panel(
        body, title, edges=_cell_sides(grid, edges), outline=_outline(body, flat), ghost=ghost, flat=flat, **rest
    )


def _drop_rims(grid: pv.UnstructuredGrid, mesh: Mesh) -> pv.UnstructuredGrid:
    """Without the cells that only mark the boundary of other cells, and with the array ``"node"``."""
    grid.point_data["node"] = np.arange(grid.n_points)
    keep = seen_cells(mesh)
    return grid if keep.all() else grid.extract_cells(keep)


def seen_cells(mesh: Mesh) -> Bool[np.ndarray, " n_cells"]:
    """False for cells that lie wholly on nodes of cells of a higher dimension, as Gmsh's boundary lines do."""
    dims = [cell_dim(block.type) for block in mesh.cells]
    top = np.zeros(mesh.n_nodes, int)
    for block, dim in zip(mesh.cells, dims, strict=True):
        np.maximum.at(top, block.nodes.ravel(), dim)
    seen = [(top[block.nodes] <= dim).any(1) for block, dim in zip(mesh.cells, dims, strict=True)]
    return np.concatenate([*seen, np.zeros(0, bool)])


def _surface(grid: pv.UnstructuredGrid, steps: int = _CURVE_STEPS) -> pv.PolyData:
    # VTK's filter itself: the defaults of pyvista's method change between its versions, with a warning.
    import pyvista as pv
    from vtkmodules.vtkFiltersGeometry import vtkDataSetSurfaceFilter

    surface = vtkDataSetSurfaceFilter()
    surface.SetInputData(grid)
    surface.SetNonlinearSubdivisionLevel(steps)
    surface.Update()
    return pv.wrap(surface.GetOutput())


def _cell_sides(grid: pv.UnstructuredGrid, wanted: bool | None) -> pv.PolyData | None:
    """Sides of all visible faces, curved for quadratic cells; None where not wanted or too many."""
    import pyvista as pv
    from vtkmodules.vtkFiltersGeometry import vtkUnstructuredGridGeometryFilter

    # The surface of a million cells has some 50 000 faces: no need to extract them to know that they are too many.
    if wanted is False or (wanted is None and grid.n_cells > 100 * _EDGES_UP_TO):
        return None
    faces = vtkUnstructuredGridGeometryFilter()
    faces.SetInputData(grid)
    faces.Update()
    faces = pv.wrap(faces.GetOutput())
    if wanted is None and faces.n_cells > _EDGES_UP_TO:
        return None
    sides = _surface(faces.separate_cells()).extract_feature_edges(
        boundary_edges=True, feature_edges=False, non_manifold_edges=False, manifold_edges=False
    )
    return sides if sides.n_cells else None


def _outline(surface: pv.PolyData, flat: bool) -> pv.PolyData | None:
    """Rim and sharp edges; in the plane only the rim, whatever way round the cells are written."""
    if not flat and surface.GetNumberOfPolys():
        surface = surface.compute_normals(cell_normals=False, consistent_normals=True, split_vertices=False)
    rim = surface.extract_feature_edges(
        feature_angle=SHARP,
        boundary_edges=True,
        feature_edges=not flat,
        non_manifold_edges=False,
        manifold_edges=False,
    )
    return rim if rim.n_cells else None


def radii(mesh: Mesh) -> Float[np.ndarray, " n_nodes"]:
    """Radius of the disc (2-D) or ball (3-D) of each node of a cloud.

    Half the node's mass where there is a point field ``mass``, so that neighbours just do not touch;
    else the same for all, from the typical distance of neighbours.
    """
    mass = mesh.point_fields.get("mass")
    if (
        mass is not None
        and mass.shape == (mesh.n_nodes,)
        and np.isfinite(mass).all()
        and (mass >= 0).all()
        and mass.any()
    ):
        if mesh.dim < 3:
            return np.sqrt(mass / (2 * np.pi))
        return np.cbrt(mass * 3 / (8 * np.pi))
    return np.full(mesh.n_nodes, 0.4 * _typical_distance(mesh.points))


def _typical_distance(points: Float[np.ndarray, "n dim"]) -> float:
    from scipy.spatial import KDTree

    if len(points) > 1:
        sample = points[:: max(1, len(points) // 5000)]
        distance, _ = KDTree(points).query(sample, k=min(4, len(points)))
        if (typical := float(np.median(distance[:, -1]))) > 0:
            return typical
    return float(np.ptp(points, axis=0).max()) / 10 or 1.0


def _balls(mesh: Mesh, values: Quantity | None, displacement: Float[np.ndarray, "n_nodes 3"] | None) -> pv.PolyData:
    """A disc or a ball around every point; coarser ones where there are many."""
    import pyvista as pv

    cloud = pv.PolyData(points_3d(mesh) if displacement is None else points_3d(mesh) + displacement)
    cloud.point_data["radius"] = radii(mesh)
    if values is not None:
        cloud.point_data[VALUE] = _on_nodes(mesh, values)
    # From 50 000 on a ball is a few pixels wide: a hexagon or an octahedron will do.
    steps = int(np.clip(70 / mesh.n_nodes**0.2, 6, 48)) if mesh.n_nodes < 50_000 else 4
    if mesh.dim < 3:
        shape = pv.Disc(inner=0, outer=1, c_res=steps + 2)
    else:
        shape = pv.Sphere(radius=1.0, theta_resolution=steps, phi_resolution=max(3, steps // 2))
    return cloud.glyph(orient=False, scale="radius", geom=shape)


def _on_nodes(mesh: Mesh, values: Quantity) -> Float[np.ndarray, " n_nodes"]:
    """Values of a cloud's nodes; those of vertex cells go to the nodes that they stand on."""
    if values.location == "node":
        return values.values
    on_nodes = np.full(mesh.n_nodes, np.nan)
    first = 0
    for block in mesh.cells:
        own = values.values[first : first + len(block)]
        on_nodes[block.nodes] = own[:, None]
        first += len(block)
    return on_nodes


def displaced(mesh: Mesh, field: str, factor: float) -> Float[np.ndarray, "n_nodes 3"]:
    """The field times the factor, as a displacement of the nodes; nodes without a value stay.

    Raises:
        ValueError: the field is missing or is no vector on nodes.
    """
    moves = np.zeros((mesh.n_nodes, 3))
    values = mesh.point_fields.get(field)
    if values is None or values.ndim != 2 or values.shape[1] not in (2, 3):
        vectors = [name for name, v in mesh.point_fields.items() if v.ndim == 2 and v.shape[1] in (2, 3)]
        got = "none of them" if values is None else f"shape {values.shape}"
        raise ValueError(
            f"warp '{field}': expected a vector field on nodes ({', '.join(vectors) or 'there is none'}), "
            f"got {got} ({mesh.source})"
        )
    moves[:, : values.shape[1]] = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    return factor * moves


def round_factor(mesh: Mesh, field: str) -> float:
    """A round factor (1, 2 or 5 times a power of ten) that makes the largest displacement a tenth of the mesh.

    Large displacements (over 1/20 of the mesh) are shown as they are, and none at all as well.
    """
    largest = np.sqrt((displaced(mesh, field, 1.0) ** 2).sum(1)).max()
    size = np.linalg.norm(np.ptp(points_3d(mesh), axis=0))
    if largest > size / 20 or largest == 0:
        return 1.0
    wanted = size / 10 / largest
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(power * max(step for step in (1, 2, 5) if step * power <= wanted * (1 + 1e-9)))


def view_of(panels: Sequence[Panel]) -> View:
    """From above if all is flat, else isometric with z upwards; the frame holds every panel's body."""
    if all(panel.flat for panel in panels):
        right, up = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    else:
        right, up = np.array([1.0, 1, 0]) / np.sqrt(2), np.array([-1.0, 1, 2]) / np.sqrt(6)
    axes = np.stack([right, up, np.cross(right, up)])
    shapes = [shape for panel in panels for shape in (panel.body, panel.ghost, panel.stage) if shape is not None]
    points = np.concatenate([np.asarray(shape.points, float) @ axes.T for shape in shapes])
    low, high = points.min(0), points.max(0)
    room = max(high - low) or 1.0
    width, height, depth = np.maximum(high - low, 0.02 * room)
    return View(right, up, axes.T @ ((low + high) / 2), float(width), float(height), float(depth))
