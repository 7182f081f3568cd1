"""`gno post` and `gno correct`: help that teaches, figures, files, and one line for bad input."""

import importlib
import json

import numpy as np
import pytest
from cli_cases import gno
from post_cases import grid

from gno.mesh import read, write


@pytest.fixture
def bar(tmp_path, monkeypatch):
    """A bar under unit tension, E = 100, with its displacement, in the current folder."""
    mesh = grid(6, 2, lambda s: s * [3, 1], "quad")
    x, y = mesh.points.T
    u = np.stack([x, -0.3 * (y - 0.5)], axis=1) / 100
    wrong = u + 1e-4 * np.sin(x)[:, None]
    write(
        mesh.replace(
            point_fields={"displacement": u, "predicted_displacement": wrong, "T": 2 * x},
            global_fields={"pull": np.array([1.0, 0.0])},
        ),
        tmp_path / "bar.vtu",
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path / "bar.vtu"


@pytest.mark.parametrize("command", ["post", "correct"])
def test_help_teaches_by_example(command, capsys, monkeypatch):
    status, out, _ = gno(capsys, monkeypatch, command, "--help")
    assert status == 0 and "Examples:" in out and f"gno {command}" in out


ELASTIC = ("--young", "100", "--poisson", "0.3", "--plane", "stress")


def test_stress_reactions_error_flux_and_a_line(bar, capsys, monkeypatch):
    arguments = ("--stress", "displacement", *ELASTIC, "--reactions", "left", "--error", "--flux", "T")
    status, out, err = gno(capsys, monkeypatch, "post", bar, *arguments, "--line", "0,0.5:3,0.5", "-o", "out.vtu")
    assert status == 0, err
    assert (
        "reaction       left: force (-1, " in out and "strain energy  0.015" in out and "inflow         left: -2" in out
    )
    mesh, line = read("out.vtu"), read("out_line1.vtu")
    assert np.allclose(mesh.point_fields["stress"], [1, 0, 0, 0, 0, 0], atol=1e-12)
    assert np.allclose(mesh.cell_fields["von_mises"], 1) and mesh.cell_fields["error_estimate"].max() < 1e-12
    assert np.allclose(line.point_fields["von_mises"], 1) and "left" in mesh.point_sets


def test_sides_that_repeat_are_told_from_supports(bar, capsys, monkeypatch):
    write(read(bar).replace(period=(3.0, 0.0)), bar)
    status, out, err = gno(capsys, monkeypatch, "post", bar, "--flux", "T", "--reactions", "left")
    assert status == 0, err
    assert "x repeats after 3: forces and flows at nodes of these sides" in out and "not a support's" in out


def test_figures_for_machines(bar, capsys, monkeypatch):
    status, out, _ = gno(capsys, monkeypatch, "post", bar, "--stress", "displacement", *ELASTIC, "--json")
    facts = json.loads(out)
    assert status == 0 and facts["strain_energy"] == pytest.approx(0.015)
    assert facts["largest von_mises"]["value"] == pytest.approx(1)


def test_a_prediction_is_corrected(bar, capsys, monkeypatch):
    conditions = ("--fix", "left.x", "--fix", "bottom.y=0", "--load", "right=pull")
    arguments = ("-f", "predicted_displacement", *ELASTIC, *conditions, "--against", "displacement", "-o", "new.vtu")
    status, out, err = gno(capsys, monkeypatch, "correct", bar, *arguments)
    assert status == 0, err
    assert "full multigrid" in out and "1e-08 as asked" in out
    corrected = read("new.vtu").point_fields["corrected_displacement"]
    assert np.allclose(corrected[:, 0], read(bar).points[:, 0] / 100, atol=1e-8)


def test_physics_of_ones_own(bar, capsys, monkeypatch):
    (bar.parent / "own.py").write_text(
        "from gno.physics import Dirichlet, Neumann, build_problem, diffusion\n"
        "def problem(mesh):\n"
        "    return build_problem(mesh, diffusion, {'conductivity': 1.0}, [Dirichlet('left'), Neumann('right', 2.0)])\n"
        "number = 3\n"
    )
    status, _, err = gno(capsys, monkeypatch, "correct", bar, "-f", "T", "--problem", "own.py:problem", "-o", "T.vtu")
    assert status == 0, err
    assert np.allclose(read("T.vtu").point_fields["corrected_T"], 2 * read(bar).points[:, 0])
    status, _, err = gno(capsys, monkeypatch, "correct", bar, "-f", "T", "--problem", "own.py:number", "-o", "T.vtu")
    assert status == 2 and "expected a function Mesh -> gno.physics.Problem, got no function 'number'" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["post", "bar.vtu"], "expected --stress, --flux"),
        (["post", "bar.vtu", "--stress", "displacement"], "--young: expected a number or a field"),
        (
            ["post", "bar.vtu", "--stress", "displacement", "--young", "1", "--poisson", "0.3"],
            "--plane: expected stress",
        ),
        (["post", "bar.vtu", "--stress", "w", *ELASTIC], "field 'w': expected a field on nodes, one of displacement"),
        (
            ["post", "bar.vtu", "--stress", "displacement", *ELASTIC, "--reactions", "nose"],
            "set 'nose': expected one of",
        ),
        (["post", "bar.vtu", "--flux", "T", "--line", "0,0", "-o", "x.vtu"], "--line: expected two places"),
        (["post", "bar.vtu", "--flux", "T", "--line", "0,0:1,1"], "--output: expected a file"),
        (["post", "bar.vtu", "--flux", "T", "--recovery", "best"], "--recovery: expected patch or l2, got 'best'"),
        (["post", "bar.vtu", "--drag", "left"], "--viscosity: expected a number"),
        (["correct", "bar.vtu", "-f", "T", "-o", "x.vtu"], "expected one of --young, --conductivity and --problem"),
        (["correct", "bar.vtu", "-f", "T", "-o", "x.vtu", "--conductivity", "1"], "--fix: expected at least one set"),
        (["correct", "bar.vtu", "-f", "T", "-o", "x.vtu", "--conductivity", "1", "--fix", "nose"], "'nose'"),
        (["correct", "bar.vtu", "-f", "T", "-o", "x.vtu", "--problem", "none"], "--problem: expected FILE.py:FUNC"),
        (["correct", "bar.vtu", "-f", "T", "-o", "x.vtu", "--problem", "no.py:f"], "expected a file no.py, got none"),
    ],
)
def test_bad_input_is_one_line(bar, arguments, says, capsys, monkeypatch):
    status, _, err = gno(capsys, monkeypatch, *arguments)
    assert status == 2 and len(err.splitlines()) == 1 and says in err


def test_a_solution_that_is_not_found_is_said_as_plainly(bar, capsys, monkeypatch):
    asked = ("-f", "predicted_displacement", *ELASTIC, "--fix", "left", "--load", "right=pull", "--tolerance", 1e-40)
    status, _, err = gno(capsys, monkeypatch, "correct", "bar.vtu", *asked, "-o", "x.vtu")
    assert (status, err) == (2, "gno: correct: expected a solution to 1e-40, got none from any guess (bar.vtu)\n")


def test_the_prediction_is_the_prediction_whichever_is_named_first(tmp_path, capsys, monkeypatch):
    seen, mesh = [], grid(2, 2, lambda x: x, "quad")
    write(mesh.with_point_fields(u=mesh.points[:, 0], predicted_u=mesh.points[:, 1]), tmp_path / "a.vtu")
    draw = importlib.import_module("gno.post.show")
    monkeypatch.setattr(draw, "show", lambda mesh, field, compare, **look: seen.append((field, compare)))
    for one, other in (("u", "predicted_u"), ("predicted_u", "u")):
        assert gno(capsys, monkeypatch, "show", tmp_path / "a.vtu", "-f", one, "--compare", other)[0] == 0
    assert seen == [("u", "predicted_u")] * 2
