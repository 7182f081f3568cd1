"""MED as its own library writes it: families without groups, several meshes, times, profiles, Gauss points."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from gno.graph.fields import find_field
from gno.mesh import MeshError, MeshWarning, read, read_series, write
from gno.train.splits import series_of

POINTS = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
QUADS, LINES = np.array([[0, 1, 4, 3], [1, 2, 5, 4]]), np.array([[0, 3], [2, 5]])
ALL = "MED_NO_PROFILE_INTERNAL"
STEP = "-0000000000000000001-0000000000000000001"


def add_mesh(file, name: str, *, groups: bool = True) -> None:
    mesh = file.create_group(f"ENS_MAA/{name}")
    mesh.attrs.update({"ESP": 2, "DIM": 2})
    mesh[f"{STEP}/NOE/COO"] = POINTS.T.ravel()
    for kind, nodes, tags in (("QU4", QUADS, [-1, -3]), ("SE2", LINES, [-2, 0])):
        mesh[f"{STEP}/MAI/{kind}/NOD"] = nodes.T.ravel() + 1
        mesh[f"{STEP}/MAI/{kind}/NOD"].attrs["NBR"] = len(nodes)
        mesh[f"{STEP}/MAI/{kind}/FAM"] = np.array(tags)
    for number, group in ((-1, None), (-2, "left"), (-3, "right half")):
        family = file.create_group(f"FAS/{name}/ELEME/Family_{number}")
        family.attrs["NUM"] = number
        if group and groups:
            family["GRO/NOM"] = np.frombuffer(group.ljust(80, "\0").encode(), np.int8)[None]


def add_field(file, name: str, support: str, values: np.ndarray, *, step: int = -1, time: float = 0.0, **more) -> None:
    """``values`` are (n, components), or (n, points, components)."""
    profile, mesh = more.get("profile", ALL), more.get("mesh", "plate")
    field = file.require_group(f"CHA/{name}")
    field.attrs.update({"MAI": np.bytes_(mesh), "NCO": values.shape[-1]})
    at = field.require_group(f"{step:020d}-0000000000000000001")
    at.attrs.update({"NDT": step, "NOR": -1, "PDT": time})
    data = at.create_group(f"{support}/{profile}")
    data.attrs.update({"NBR": len(values), "NGA": values.shape[1] if values.ndim == 3 else 1})
    data["CO"] = np.moveaxis(values, -1, 0).ravel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "a.med"
    with h5py.File(found, "w") as file:
        add_mesh(file, "plate")
        add_field(file, "conductivity", "MAI.QU4", np.array([[2.0], [3.0]]))
        for step in (0, 1):
            add_field(file, "u", "NOE", POINTS * (1 + step), step=step, time=0.5 * step)
    return found


def test_groups_cells_and_fields_of_a_part_of_the_cells(path):
    mesh = read(path)
    assert [(block.type, len(block)) for block in mesh.cells] == [("quad", 2), ("line", 2)]
    assert np.array_equal(mesh.points, POINTS) and np.array_equal(mesh.cells[0].nodes, QUADS)
    assert {name: found.tolist() for name, found in mesh.cell_sets.items()} == {"left": [2], "right half": [1]}
    assert mesh.point_sets["left"].tolist() == [0, 3]
    assert np.array_equal(mesh.cell_fields["conductivity"], [2, 3, np.nan, np.nan], equal_nan=True)
    values = find_field(mesh, "conductivity").values(mesh)  # that lines have none is no matter
    assert values[:, 0].tolist() == [2, 2.5, 3, 2, 2.5, 3]


def test_a_file_with_times_is_a_series_and_one_without_them_is_one_of_numbered_ones(path):
    many = path.rename(path.with_name("run_1.med"))
    assert series_of(many) == many
    with h5py.File(many, "r+") as file:
        del file["CHA/u"]
    assert series_of(many).name == "run_*.med"


def test_times_are_steps_and_a_field_without_them_is_part_of_each(path):
    series = read_series(path)
    assert [frame.time for frame in series] == [0.0, 0.5]
    assert [frame.point_fields["u"][2, 0] for frame in series] == [2.0, 4.0]
    assert all("conductivity" in frame.cell_fields for frame in series)


def test_values_at_the_points_of_cells_are_averaged_and_told(path):
    with h5py.File(path, "a") as file:
        stress = np.arange(16.0).reshape(2, 4, 2)
        add_field(file, "stress", "NOE.QU4", stress)
    with pytest.warns(MeshWarning, match=r"field 'stress': values at 4 points of each cell: their mean is taken"):
        mesh = read(path)
    assert np.array_equal(mesh.cell_fields["stress"][:2], stress.mean(1))


def test_a_profile_says_where_the_values_are(path):
    with h5py.File(path, "a") as file:
        file["PROFILS/some/PFL"] = np.array([2, 6])
        add_field(file, "T", "NOE", np.array([[7.0], [8.0]]), profile="some")
    nan = np.nan
    assert np.array_equal(read(path).point_fields["T"], [nan, 7, nan, nan, nan, 8], equal_nan=True)


def test_a_slash_in_a_name_which_would_be_a_folder(path, tmp_path):
    mesh = read(path)
    x, y = POINTS.T
    mesh = mesh.replace(point_fields={"T/K": x, "T_K": y, "T_K 2": x + y}, cell_fields={}, time=None)
    with pytest.warns(MeshWarning, match=r"does not hold point_fields\['T/K'\]"):
        write(mesh, tmp_path / "b.med")
    back = read(tmp_path / "b.med").point_fields
    assert {name: values.tolist() for name, values in back.items()} == {
        "T_K": y.tolist(),
        "T_K 2": (x + y).tolist(),
        "T_K 3": x.tolist(),
    }


def test_of_several_meshes_that_with_most_fields_is_read(path):
    with h5py.File(path, "a") as file:
        add_mesh(file, "another", groups=False)
        add_field(file, "elsewhere", "NOE", POINTS, mesh="another")
    with pytest.warns(MeshWarning, match="of several meshes 'plate' is read, not another"):
        assert "elsewhere" not in read(path).point_fields


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: file.pop("ENS_MAA"), r"expected a mesh \(ENS_MAA\), got none"),
        (
            lambda file: file.pop(f"ENS_MAA/plate/{STEP}/NOE"),
            "expected nodes with coordinates, got none or a structured",
        ),
        (lambda file: file.pop(f"ENS_MAA/plate/{STEP}/MAI"), "expected cells, got nodes only"),
        (lambda file: file.move(*(f"ENS_MAA/plate/{STEP}/MAI/{k}" for k in ("QU4", "POE"))), "cells 'POE': expected"),
    ],
)
def test_what_is_not_read_is_one_clear_error(path, change, says):
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(MeshError, match=says):
        read(path)


def test_a_field_that_was_never_written_is_left_out(path):
    with h5py.File(path, "r+") as file:
        file.create_group("CHA/later").attrs.update({"MAI": np.bytes_("plate"), "NCO": 1})
        del file["CHA/u"]
    assert list(read(path).cell_fields) == ["conductivity"]
