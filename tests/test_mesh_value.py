"""A Mesh is checked where it is made, and its quality is told."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from gno.mesh import CellBlock, Mesh, MeshError, quality

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
QUAD = (CellBlock("quad", np.array([[0, 1, 2, 3]])),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((0, 2))}, r"points: expected \(n_nodes ≥ 1, 1 to 3\), got \(0, 2\)"),
        ({"points": np.zeros((4, 4))}, r"got \(4, 4\)"),
        ({"points": np.where(SQUARE == 1, np.nan, SQUARE)}, r"expected finite coordinates.*at node 1, 3 such nodes"),
        ({"points": SQUARE.astype(complex)}, "expected floating point numbers, got complex128"),
        ({"cells": (CellBlock("quad", np.array([[0, 1, 2, 4]])),)}, "'quad': expected nodes 0 to 3, got 4"),
        ({"cells": (CellBlock("quad", np.array([[0, 1, 2, -1]])),)}, "got -1"),
        ({"cells": (CellBlock("quad", np.array([0, 1, 2, 3])),)}, r"expected integers \(n_cells, nodes per cell\)"),
        ({"cells": (CellBlock("quad", SQUARE.reshape(2, 4)),)}, "got float64"),
        ({"point_fields": {"T": np.zeros(3)}}, r"point_fields\['T'\]: expected 4 nodes, got 3"),
        ({"point_fields": {"T": 1.0}}, "got a single value"),
        ({"cell_fields": {"k": np.zeros(2)}}, r"cell_fields\['k'\]: expected 1 cells, got 2"),
        ({"point_sets": {"left": [0, 4]}}, r"point_sets\['left'\]: expected 0 to 3, got 0 to 4"),
        ({"cell_sets": {"all": [-1]}}, r"cell_sets\['all'\]: expected 0 to 0"),
        ({"point_sets": {"left": [0.5]}}, "expected a list of indices, got float64"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    parts = {"points": SQUARE, "cells": QUAD, "source": "square.vtu"} | change
    with pytest.raises(MeshError, match=message) as caught:
        Mesh(**parts)
    assert "\n" not in str(caught.value)


def test_nan_fields_and_whole_coordinates_are_fine() -> None:
    mesh = Mesh(SQUARE.astype(int), QUAD, {"T": np.full(4, np.nan)}, point_sets={"left": [3, 0, 3]})
    assert mesh.points.dtype == np.float64
    assert mesh.point_sets["left"].tolist() == [0, 3]


def test_a_copy_leaves_the_mesh_alone() -> None:
    mesh = Mesh(SQUARE, QUAD)
    warmer = mesh.with_point_fields(T=np.ones(4))
    assert "T" not in mesh.point_fields
    assert "T" in warmer.point_fields
    with pytest.raises(AttributeError):
        mesh.points = SQUARE  # type: ignore[misc]
    with pytest.raises(TypeError):
        mesh.point_fields["T"] = np.ones(4)  # type: ignore[index]


def test_quality_of_a_sound_mesh() -> None:
    found = quality(Mesh(SQUARE, QUAD))
    assert found.problems() == ()
    assert found.n_parts == 1
    assert found.volume == pytest.approx(1)
    assert found.edge_length == (1, 1, 1)
    assert quality(Mesh(SQUARE)).problems() == ()


def test_quality_finds_what_is_wrong() -> None:
    points = np.vstack([SQUARE, SQUARE + np.array([3.0, 0.0]), [[0.5, 0.5], [0.0, 0.0]]])
    cells = (
        CellBlock("triangle", np.array([[0, 1, 2], [0, 3, 2], [0, 2, 2], [0, 2, 8]])),
        CellBlock("quad", np.array([[4, 5, 6, 7]])),
        CellBlock("line", np.array([[0, 9]])),
    )
    found = quality(Mesh(points, cells))
    assert found.inverted.tolist() == [1]
    assert found.zero_size.tolist() == [2, 3]
    assert found.duplicate_nodes.tolist() == [9]
    assert found.massless_nodes.tolist() == [8, 9]
    assert found.n_parts == 2
    assert len(found.problems()) == 5
    alone = quality(Mesh(np.vstack([SQUARE, [[5.0, 5.0]]]), QUAD))
    assert alone.unreferenced_nodes.tolist() == [4]


def test_quality_of_a_plane_seen_from_behind() -> None:
    behind = Mesh(SQUARE, (CellBlock("triangle", np.array([[0, 2, 1], [0, 3, 2]])),))
    assert len(quality(behind).inverted) == 0
    tetra = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    inverted = Mesh(tetra, (CellBlock("tetra", np.array([[0, 2, 1, 3]])),))
    assert quality(inverted).inverted.tolist() == [0]


def test_folded_cell_is_inverted() -> None:
    arrow = Mesh(np.array([[0.0, 0.0], [2.0, 1.0], [0.0, 2.0], [1.5, 1.0]]), QUAD)
    assert quality(arrow).inverted.tolist() == [0]


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda mesh: pickle.loads(pickle.dumps(mesh))])
def test_a_mesh_can_be_copied_and_sent_to_another_process(again) -> None:
    mesh = Mesh(SQUARE, QUAD, {"T": np.arange(4.0)}, {"k": np.ones(1)}, {"q": np.array(2)}, {"left": [0, 3]}, time=1.5)
    found = again(mesh)
    assert (found.time, found.source, found.cells[0].type) == (1.5, "mesh", "quad")
    np.testing.assert_array_equal(found.point_fields["T"], mesh.point_fields["T"])
    np.testing.assert_array_equal(found.point_sets["left"], [0, 3])
    with pytest.raises(TypeError):
        found.point_fields["T"] = np.zeros(4)  # as frozen as the first


def test_cells_may_be_lists_and_what_is_masked_is_no_value() -> None:
    hidden = np.ma.masked_array([9.97e36, 1.0, 2.0, 3.0], [True, False, False, False])
    mesh = Mesh(SQUARE, (CellBlock("quad", [[0, 1, 2, 3]]),), {"T": hidden, "n": np.ma.masked_equal([0, 1, 2, 3], 0)})
    assert mesh.n_cells == 1 and repr(mesh) == "Mesh(4 nodes, 1 quad, 2-D)"
    np.testing.assert_array_equal(mesh.point_fields["T"], [np.nan, 1, 2, 3])
    np.testing.assert_array_equal(mesh.point_fields["n"], [np.nan, 1, 2, 3])
    whole = np.ma.masked_array([1, 2, 3, 4], False)
    assert mesh.with_point_fields(n=whole).point_fields["n"].dtype == whole.dtype
