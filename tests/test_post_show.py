"""Pictures: what they show, on which colour scale, where, and that nothing else is said."""

import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from gno.mesh import CellBlock, Mesh
from gno.mesh.locate import containing_cells
from gno.post import animate, animation, painter, picture, space_time, window
from gno.post.animation import _line
from gno.post.color import NO_VALUE_COLOR, SIGNED_COLORS, UNSIGNED_COLORS, color_limits, error_limits
from gno.post.grid import to_pyvista
from gno.post.panels import Look, field_panels, level_panels
from gno.post.quantity import difference, quantity
from gno.post.scene import displaced, radii, round_factor, view_of
from gno.post.show import show, show_levels
from gno.post.window import has_opengl, interactive_plotter, pixels, quiet

opengl = pytest.mark.skipif(not has_opengl(), reason="VTK cannot draw on this machine")
VIOLET, YELLOW = (68, 1, 84), (253, 231, 37)  # ends of viridis


def square(n: int = 6, **fields) -> Mesh:
    """The unit square in n × n quadrilaterals."""
    x = np.linspace(0, 1, n + 1)
    points = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    first = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    nodes = np.stack([first, first + 1, first + n + 2, first + n + 1], axis=1)
    return Mesh(points, (CellBlock("quad", nodes),), source="square.vtu").with_point_fields(**fields)


def with_field(mesh: Mesh, **functions) -> Mesh:
    return mesh.with_point_fields(**{name: f(*mesh.points.T) for name, f in functions.items()})


def box() -> Mesh:
    corners = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0], [0, 0, 1], [2, 0, 1], [2, 1, 1], [0, 1, 1.0]])
    return Mesh(corners, (CellBlock("hexahedron", np.arange(8)[None]),), source="box.vtu")


def cloud(n: int = 60, dim: int = 3) -> Mesh:
    points = np.random.default_rng(0).random((n, dim))
    return Mesh(points, point_fields={"mass": np.full(n, 1 / n), "q": points[:, 0]}, source="cloud.vtu")


def quadratic() -> Mesh:
    """Two curved triangles with mid-side nodes."""
    points = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, -0.2], [1.2, 0.5], [0.5, 0.5], [0.5, 1.2], [-0.2, 0.5]])
    nodes = np.array([[0, 1, 2, 4, 5, 6], [0, 2, 3, 6, 7, 8]])
    return Mesh(points, (CellBlock("triangle6", nodes),), {"q": points[:, 0]}, source="curved.vtu")


def colors_of(path, part=(0.0, 1.0)) -> np.ndarray:
    """Distinct colours with a hue in a vertical strip of a picture."""
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    width = image.shape[1]
    strip = image[:, int(part[0] * width) : int(part[1] * width)].reshape(-1, 3)
    return np.unique(strip[np.ptp(strip, axis=1) > 60], axis=0)


# ---- the grid


def test_grid_keeps_nodes_cells_and_fields_and_pads_points():
    mesh = square(2, T=np.arange(9.0), S=np.arange(36.0).reshape(9, 2, 2)).replace(cell_fields={"c": np.arange(4)})
    grid = to_pyvista(mesh)
    assert grid.points.shape == (9, 3)
    assert (grid.points[:, :2] == mesh.points).all()
    assert grid.cells.reshape(4, 5)[:, 1:].tolist() == mesh.cells[0].nodes.tolist()
    assert grid["S"].shape == (9, 4)
    assert grid["c"].tolist() == [0, 1, 2, 3]


def test_grid_of_mixed_cells_faces_outward():
    wedge = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]]
    mesh = Mesh(
        np.array([*wedge, [2, 0, 0], [3, 0, 0], [2, 1, 0], [2, 0, 1]], float),
        (CellBlock("wedge", np.arange(6)[None]), CellBlock("tetra", np.array([[6, 7, 8, 9]]))),
    )
    grid = to_pyvista(mesh)
    for cell, volume in ((0, 1 / 2), (1, 1 / 6)):
        # The divergence theorem over the faces as VTK orders them.
        surface = 0.0
        for face in grid.get_cell(cell).faces:
            corners = np.asarray(face.points)
            for k in range(1, len(corners) - 1):
                surface += np.linalg.det(corners[[0, k, k + 1]]) / 6
        assert surface == pytest.approx(volume)


def test_grid_of_points_alone_and_of_cells_that_vtk_lacks():
    assert type(to_pyvista(cloud())).__name__ == "PolyData"
    pyramid14 = Mesh(np.random.default_rng(0).random((14, 3)), (CellBlock("pyramid14", np.arange(14)[None]),))
    assert to_pyvista(pyramid14).cells.tolist() == [5, 0, 1, 2, 3, 4]


# ---- numbers


@pytest.mark.parametrize(
    "tensor",
    [
        np.array([[[3.0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 2.0, 0], [2.0, 0, 0], [0, 0, 0]]]),
        np.array([[3.0, 0, 0, 0, 0, 0], [0, 0, 0, 2.0, 0, 0]]),
        np.array([[[3.0, 0], [0, 0]], [[0, 2.0], [2.0, 0]]]),
        np.array([[3.0, 0, 0], [0, 0, 2.0]]),
    ],
)
def test_von_mises_of_uniaxial_stress_and_of_shear(tensor):
    mesh = Mesh(np.eye(2), point_fields={"stress": tensor})
    found = quantity(mesh, "stress", "von_mises")
    assert found.values == pytest.approx([3, 2 * np.sqrt(3)])
    assert "von Mises" in found.label


def test_hydrostatic_stress_has_no_von_mises_and_other_tensors_give_their_norm():
    mesh = Mesh(np.eye(2), point_fields={name: np.tile(5 * np.eye(3), (2, 1, 1)) for name in ("stress", "k")})
    assert quantity(mesh, "stress").values == pytest.approx([0, 0], abs=1e-12)
    assert quantity(mesh, "k").values == pytest.approx([5 * np.sqrt(3)] * 2)
    assert quantity(mesh, "k", "yy").values.tolist() == quantity(mesh, "k", 4).values.tolist() == [5, 5]


def test_difference_of_vectors_does_not_hide_a_turn():
    truth = Mesh(np.eye(2), point_fields={"u": np.array([[1.0, 0], [0, 1]])})
    turned = truth.with_point_fields(u=np.array([[0, 1.0], [0, 1]]))
    assert difference(truth, "u", turned, "u").values == pytest.approx([np.sqrt(2), 0])
    assert difference(truth, "u", turned, "u", "x").values == pytest.approx([-1, 0])


def test_colours_mean_the_same_in_all_frames_of_a_film(tmp_path, monkeypatch):
    x = square().points[:, 0]
    frames = [square(u=k * x, predicted_u=k * (x - 0.1), std_u=k * x / 10) for k in (0, 2)]  # at first without error
    drawn, page = [], animation.page
    monkeypatch.setattr(animation, "page", lambda panels, view: (drawn.append(panels), page(panels[:1], view))[1])
    animate(frames, "u", tmp_path / "a.gif", compare="predicted_u")
    scales = [[(panel.title, panel.limits, panel.colors) for panel in panels] for panels in drawn]
    assert scales[0] == scales[1]
    ends = {title: limits for title, limits, _ in scales[0]}
    assert ends["truth"] == ends["prediction"] == pytest.approx((-0.2, 2))
    assert ends["error"] == pytest.approx((-0.2, 0.2)) and ends["standard deviation"] == pytest.approx((0, 0.2))
    assert scales[0][2][2] == SIGNED_COLORS


def test_a_film_has_the_colours_of_its_scale_also_where_a_frame_shows_few_of_them():
    frame = np.full((300, 400, 3), 255, np.uint8)
    frame[50:250] = np.linspace([68, 1, 84], [72, 30, 110], 200)[:, None]  # the dark end of the scale
    frame[280:284, 100:300] = 255 * colormaps["viridis"](np.linspace(0, 1, 200))[:, :3]
    film = np.asarray(animation._in_256_colors(frame).convert("RGB"))
    assert np.abs(film.astype(int) - frame).max() < 30


def test_color_limits_are_shared_and_survive_nothing_and_constants():
    assert color_limits(np.array([1.0, np.nan]), np.array([-2.0, np.inf])) == (-2, 1)
    for values in (np.zeros(0), np.full(3, np.nan), np.zeros(4), np.full(4, -7.0), np.float32([1, 1 + 1e-7])):
        low, high = color_limits(values)
        assert low < high
        assert (low, high) == (0, 1) or low < values[0] - 0.05 < values[0] + 0.05 < high
    assert error_limits(np.array([-1.0, 3.0, np.nan])) == (-3, 3)
    assert error_limits(np.zeros(3)) == (0, 1)


# ---- panels


def test_comparison_shares_the_scale_and_measures_the_error():
    mesh = with_field(square(), q=lambda x, y: 1 + x, p=lambda x, y: 1.1 * (1 + x))
    truth, prediction, error = field_panels(mesh, "q", compare="p")
    assert [panel.title for panel in (truth, prediction, error)] == ["truth", "prediction", "error"]
    assert truth.limits == prediction.limits == pytest.approx((1, 2.2))
    assert error.limits == pytest.approx((0, 0.2))
    assert "relative L² 10.00%" in error.note
    assert error.colors == UNSIGNED_COLORS
    signed = field_panels(with_field(mesh, p=lambda x, y: 1.5 + 0 * x), "q", compare="p")[2]
    assert signed.limits == pytest.approx((-0.5, 0.5))
    assert signed.colors == SIGNED_COLORS


def test_a_predicted_field_is_preferred_to_the_truth_beside_it():
    truth = with_field(square(), u=lambda x, y: np.stack([x, 0 * y], 1))
    answer = truth.with_point_fields(predicted_u=2 * truth.point_fields["u"])
    panels = field_panels(truth, "u", compare=answer, look=Look("u", 1.0))
    assert "relative L² 100.00%" in panels[2].note
    assert panels[0].body.bounds[1] == pytest.approx(2)
    assert panels[1].body.bounds[1] == pytest.approx(3)  # moved by its own


def test_cell_fields_compare_with_cell_sizes():
    points = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [4, 0], [4, 1.0]])
    mesh = Mesh(points, (CellBlock("quad", np.array([[0, 1, 2, 3], [1, 4, 5, 2]])),))
    mesh = mesh.replace(cell_fields={"q": np.array([1.0, 1.0]), "p": np.array([2.0, 1.0])})
    assert "relative L² 50.00%" in field_panels(mesh, "q", compare="p")[2].note


def test_cell_fields_compare_with_predictions_that_are_at_nodes_as_well():
    mesh = square().replace(cell_fields={"q": np.ones(36), "predicted_q": np.full(36, 1.5), "std_q": np.ones(36)})
    mesh = mesh.with_point_fields(predicted_q=np.zeros(49), std_q=np.zeros(49))
    panels = field_panels(mesh, "q", compare="predicted_q")
    assert "relative L² 50.00%" in panels[2].note
    assert [panel.limits for panel in panels[:2]] == [(1, 1.5), (1, 1.5)]
    assert panels[3].body.cell_data["value"].tolist() == [1] * 36
    assert quantity(mesh, "predicted_q").location == "node"


def test_a_picture_in_space_and_time_goes_through_the_mesh_even_where_its_middle_is_hollow(tmp_path):
    grid = square(8, q=np.ones(81))
    middle = grid.points[grid.cells[0].nodes].mean(1)
    ring = grid.replace(cells=(CellBlock("quad", grid.cells[0].nodes[np.abs(middle - 0.5).max(1) > 0.25]),))
    frames = [ring.replace(time=t) for t in (0.0, 1.0)]
    ends = _line(ring)
    assert (containing_cells(ring, ends[0] + np.linspace(0, 1, 41)[:, None] * (ends[1] - ends[0])) >= 0).sum() > 20
    assert np.array_equal(_line(grid), [[0, 0.5], [1, 0.5]])
    with pytest.raises(ValueError, match=r"line: expected one that meets the mesh, got \(0.4, 0.5\) to \(0.6, 0.5\)"):
        space_time(frames, "q", tmp_path / "a.png", line=((0.4, 0.5), (0.6, 0.5)))
    assert not (tmp_path / "a.png").exists()


def test_warp_moves_the_mesh_by_a_round_factor_that_is_said():
    mesh = with_field(square(), u=lambda x, y: np.stack([1e-3 * x, 0 * y], 1), q=lambda x, y: x)
    assert round_factor(mesh, "u") == 100
    assert round_factor(with_field(mesh, u=lambda x, y: np.stack([x, y], 1)), "u") == 1
    assert round_factor(with_field(mesh, u=lambda x, y: 0 * np.stack([x, y], 1)), "u") == 1
    panel = field_panels(mesh, "q", look=Look("u", 100.0))[0]
    assert panel.body.bounds[1] == pytest.approx(1.1)
    assert panel.ghost.bounds[1] == pytest.approx(1)
    assert "100 × u" in panel.note
    # A plane mesh written with three coordinates can move out of its plane.
    lifted = displaced(mesh.replace(point_fields={"w": np.ones((mesh.n_nodes, 3))}), "w", 2.0)
    assert lifted.tolist() == [[2, 2, 2]] * mesh.n_nodes


def test_boundary_cells_and_stray_nodes_neither_show_nor_count():
    mesh = square(2)
    points = np.concatenate([mesh.points, [[9.0, 9.0]]])
    lines = CellBlock("line", np.array([[0, 1], [1, 2]]))
    marked = Mesh(points, (lines, *mesh.cells), {"q": np.arange(10.0)}, {"tag": np.array([90, 91, 1, 2, 3, 4.0])})
    assert field_panels(marked, "tag")[0].limits == (1, 4)
    assert field_panels(marked, "q")[0].limits == (0, 8)
    assert field_panels(marked, "q")[0].body.bounds[1] == 1
    # A truss member that hangs on the plate by one node is part of the structure.
    truss = Mesh(points, (CellBlock("line", np.array([[8, 9]])), *mesh.cells), {"q": np.arange(10.0)})
    assert field_panels(truss, "q")[0].body.bounds[1] == 9


def test_no_value_is_said():
    values = np.where(np.arange(49) < 3, np.nan, 1.0)
    assert "grey: 3 nodes without a value" in field_panels(square(q=values), "q")[0].note


def test_attention_gets_a_panel_per_scale_on_one_scale():
    alpha = np.random.default_rng(0).dirichlet([1, 2, 3], 49)
    panels = field_panels(square(scale_attention=alpha), "scale_attention")
    assert [panel.title for panel in panels] == [f"scale_attention, scale {s}" for s in range(3)]
    assert {panel.limits for panel in panels} == {(alpha.min(), alpha.max())}


def test_levels_are_sized_by_mass():
    level = cloud(20, 2)
    masses = np.pi * radii(level) ** 2
    assert masses.sum() == pytest.approx(0.5)  # half of the domain, so that neighbours stay apart
    assert 4 / 3 * np.pi * (radii(cloud(20, 3)) ** 3).sum() == pytest.approx(0.5)
    panels = level_panels(with_field(square(), q=lambda x, y: x), [level, cloud(5, 2)], "q", None)
    assert [panel.title for panel in panels] == ["level 0", "level 1", "level 2"]
    assert len({panel.limits for panel in panels}) == 1
    assert "20 anchors" in panels[1].note
    assert panels[1].stage is not None


def test_edges_are_drawn_where_they_can_be_told_apart():
    assert field_panels(with_field(square(6), q=lambda x, y: x), "q")[0].edges.n_cells == 36 * 4
    many = with_field(square(90), q=lambda x, y: x)
    assert field_panels(many, "q")[0].edges is None
    assert field_panels(many, "q", look=Look(edges=True))[0].edges is not None


# ---- pixels


def sides(image: np.ndarray, flat: bool = True) -> tuple[tuple[int, ...], ...]:
    height, width = image.shape[:2]
    return tuple(
        tuple(int(c) for c in image[y, x]) for y, x in ((height // 2 + 9, width // 8), (height // 2 + 9, -width // 8))
    )


@pytest.mark.parametrize("draw", [pytest.param(pixels, marks=opengl), painter.painted], ids=["opengl", "painter"])
def test_pixels_show_each_value_where_it_is(draw):
    mesh = square(2).replace(cell_fields={"c": np.array([0.0, 1.0, 0.0, np.nan])})
    panels = field_panels(mesh, "c", look=Look(edges=False))
    image = draw(panels, view_of(panels), (200, 200))[0].astype(int)
    grey = tuple(int(NO_VALUE_COLOR[k : k + 2], 16) for k in (1, 3, 5))
    for (row, column), color in {(150, 50): VIOLET, (150, 150): YELLOW, (50, 50): VIOLET, (50, 150): grey}.items():
        assert np.abs(image[row, column] - color).max() < 12
    frame = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (frame == 255).all()
    assert (image[100, 6:194] < 250).any(1).all()


@pytest.mark.parametrize("draw", [pytest.param(pixels, marks=opengl), painter.painted], ids=["opengl", "painter"])
def test_a_set_can_be_looked_at_closely(draw):
    mesh = with_field(square(40), q=lambda x, y: 1.0 * (x > 0.8))
    mesh = mesh.replace(point_sets={"here": np.flatnonzero(np.abs(mesh.points - [0.8, 0.9]).max(1) < 0.026)})
    view = view_of(panels := field_panels(mesh, "q", look=Look(edges=False)))
    close = view.around(np.pad(mesh.points[mesh.point_sets["here"]], ((0, 0), (0, 1))))
    assert close.width == pytest.approx(0.1) and close.center[:2] == pytest.approx([0.8, 0.9])
    image = draw(panels, close, (200, 200))[0].astype(int)
    assert np.median(np.abs(image[:, 20] - VIOLET)) < 12 and np.median(np.abs(image[:, 180] - YELLOW)) < 12
    one = view.around(np.array([[0.5, 0.5, 0.0]]))
    assert 0 < one.width < 0.2 * view.width
    with pytest.raises(ValueError, match=r"around: expected a point set of square.vtu \(here\), got 'there'"):
        show(mesh, "q", around="there")


@opengl
@pytest.mark.parametrize("mesh", [box(), cloud(20), quadratic()], ids=["box", "cloud", "curved"])
def test_painter_and_opengl_agree(mesh):
    panels = field_panels(with_field(mesh, q=lambda x, *_: x), "q")
    view = view_of(panels)
    by_opengl, by_painter = (draw(panels, view, (240, 200))[0].astype(int) for draw in (pixels, painter.painted))
    assert np.ptp(by_opengl) > 100
    away = np.abs(by_opengl - by_painter).max(2)
    assert (away > 60).mean() < 0.06
    assert ((by_opengl.min(2) < 250) != (by_painter.min(2) < 250)).mean() < 0.03  # the same silhouette


MESHES = {
    "plane": square(),
    "tall": square().replace(points=square().points * [1, 30]),
    "wide": square().replace(points=square().points * [30, 1]),
    "solid": box(),
    "surface": Mesh(box().points, (CellBlock("quad", np.array([[0, 1, 2, 3], [0, 1, 5, 4]])),)),
    "cloud": cloud(),
    "cloud in the plane": cloud(30, 2),
    "one point": Mesh(np.zeros((1, 3))),
    "vertices": Mesh(cloud(9, 2).points, (CellBlock("vertex", np.arange(9)[:, None]),)),
    "quadratic": quadratic(),
    "line": Mesh(np.linspace(0, 1, 5)[:, None], (CellBlock("line", np.stack([np.arange(4), np.arange(1, 5)], 1)),)),
    "truss": Mesh(box().points, (CellBlock("line", np.array([[0, 6], [1, 7], [2, 4]])),)),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there VTK asks X11")
def test_where_x11_is_missing_vtk_is_not_asked(monkeypatch):
    monkeypatch.setattr(window, "_loads", lambda library: "X11" not in library)
    assert not has_opengl()


@pytest.mark.parametrize(
    ("name", "draws"),
    [pytest.param(name, "opengl", marks=opengl) for name in MESHES]
    + [(name, "painter") for name in ("plane", "solid", "cloud", "truss")],
)
def test_every_kind_of_mesh_makes_a_picture(name, draws, tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "has_opengl", lambda: draws == "opengl")
    monkeypatch.setattr(picture, "_WIDTHS", {1: 400})
    mesh = with_field(MESHES[name], q=lambda x, *_: x)
    path = show(mesh, "q", output=tmp_path / "deep" / "q.png")
    assert path == tmp_path / "deep" / "q.png"
    assert [p.name for p in path.parent.iterdir()] == ["q.png"]
    body = np.asarray(Image.open(path).convert("RGB"))[110:-130].astype(int)
    hues = np.unique(body[np.ptp(body, axis=2) > 40], axis=0)
    assert len(hues) >= (1 if name == "one point" else 3)
    if name in ("quadratic", "vertices", "truss"):
        per_cell = mesh.replace(cell_fields={"c": np.arange(mesh.n_cells, dtype=float)})
        assert len(colors_of(show(per_cell, "c", output=tmp_path / "c.png"))) >= 3


@opengl
def test_three_panels_side_by_side_on_one_page(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "_WIDTHS", {3: 400})
    mesh = with_field(
        square(), u=lambda x, y: 0.01 * np.stack([x, y * x], 1), p=lambda x, y: 0.012 * np.stack([x, y], 1)
    )
    path = show(mesh, "u", compare="p", warp="u", output=tmp_path / "u.png")
    width, height = Image.open(path).size
    assert width > 2.5 * (height - 290)
    first, second, third = (colors_of(path, (k / 3, (k + 1) / 3)) for k in range(3))
    assert min(map(len, (first, second, third))) > 50
    assert (np.abs(first - YELLOW).max(1) < 12).any() or (np.abs(second - YELLOW).max(1) < 12).any()
    assert not (np.abs(third - YELLOW).max(1) < 12).any()


@opengl
def test_levels_make_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "_WIDTHS", {3: 400})
    path = show_levels(square(), [cloud(30, 2), cloud(6, 2)], output=tmp_path / "levels.png")
    assert len(colors_of(path, (0.4, 1.0)))
    assert not len(colors_of(path, (0.0, 0.3)))  # the mesh itself has no values


def test_long_bodies_are_stacked():
    assert picture.layout(3, 8.0)[0] == 1
    assert picture.layout(3, 1.2)[0] == 3
    assert picture.layout(1, 1e-3)[1] >= 600


@opengl
def test_window_has_linked_cameras():
    mesh = with_field(square(), q=lambda x, y: x, p=lambda x, y: y)
    panels = field_panels(mesh, "q", compare="p")
    plotter = interactive_plotter(panels, view_of(panels), off_screen=True)
    try:
        assert len({id(renderer.camera) for renderer in plotter.renderers}) == 1
        ranges = [bar.GetLookupTable().GetTableRange() for bar in plotter.scalar_bars.values()]
        assert ranges == [panel.limits for panel in panels]
        assert np.ptp(plotter.screenshot(return_img=True)) > 100
    finally:
        plotter.close()


def test_without_display_the_picture_has_a_name_and_nothing_is_said(tmp_path):
    code = (
        "import numpy as np; from gno.mesh import Mesh; from gno.post import show\n"
        "print(show(Mesh(np.eye(3), point_fields={'a/b': np.arange(3.)}, source='in/x y.vtu'), 'a/b'))"
    )
    silent = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=silent,
        capture_output=True,
        text=True,
        check=True,
    )
    if sys.platform.startswith("linux"):
        assert (done.stdout.strip(), done.stderr) == ("x_y-a_b.png", "")
        assert (tmp_path / "x_y-a_b.png").stat().st_size > 1000


def test_quiet_silences_c_and_gives_stderr_back(capfd):
    with pytest.raises(KeyError), quiet():
        os.write(2, b"bad X server connection")
        raise KeyError
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"field": "T"},
            r"field 'T': expected one of q, u \(on nodes\), c \(on cells\), got none of them \(square.vtu\)",
        ),
        ({"field": "u", "component": "z"}, "component of 'u': expected one of x, y, magnitude, or 0 to 1, got 'z'"),
        ({"field": "u", "component": 2}, "or 0 to 1, got 2"),
        ({"field": "q", "component": "von_mises"}, "got 'von_mises'"),
        ({"field": "q", "warp": "q"}, r"warp 'q': expected a vector field on nodes \(u\), got shape"),
        ({"field": "q", "warp": "c"}, "warp 'c': expected a vector field on nodes"),
        ({"field": "q", "warp_factor": 2.0}, "warp_factor: expected a field"),
        ({"field": "q", "limits": (1.0, 1.0)}, "limits: expected low < high"),
        ({"field": "q", "compare": "u"}, "field 'u': expected 49 nodes with 1 component as 'q'"),
        ({"field": "q", "compare": "c"}, "got 36 cells with 1 component"),
        ({"field": "q", "compare": square(3, q=np.zeros(16))}, "expected 49 nodes .* got 16 nodes"),
        ({"field": "u", "compare": "u", "component": "each"}, "expected nothing to compare with"),
        (
            {"field": "q", "output": "q.docx"},
            r"output 'q.docx': expected a name that ends in one of .*png.*, got '.docx'",
        ),
    ],
)
def test_bad_wishes_are_refused_in_one_line(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mesh = square(q=np.zeros(49), u=np.zeros((49, 2))).replace(cell_fields={"c": np.zeros(36)})
    with pytest.raises(ValueError, match=says) as caught:
        show(mesh, **{"output": "q.png", **arguments})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
