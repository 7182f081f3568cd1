"""The demo on coarser plates: what it promises, in a size that tests can bear."""

from __future__ import annotations

import pytest

from gno.demo.run import run_demo
from gno.mesh import read


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    lines: list[str] = []
    folder = tmp_path_factory.mktemp("demo")
    result = run_demo(folder, epochs=30, n_train=300, n_validation=4, n_test=12, spacing=0.08, say=lines.append)
    return result, "\n".join(lines)


def test_unseen_plates_are_predicted_within_five_percent(demo):
    result, _ = demo
    assert result.evaluation.mean["displacement"] <= 0.05
    assert result.evaluation.mean["von_mises"] <= 0.12


def test_it_prints_errors_levels_times_and_paths(demo):
    result, said = demo
    assert "mean relative L2 on unseen meshes: displacement" in said
    assert "level     nodes" in said and "complexity" in said
    assert "time for one plate: solver" in said
    assert all(str(picture) in said and picture.stat().st_size > 10_000 for picture in result.pictures)


def test_the_files_hold_truth_and_prediction(demo):
    result, _ = demo
    mesh = read(result.files[0])
    assert {"displacement", "predicted_displacement", "predicted_von_mises"} <= set(mesh.point_fields)
    level = read(next(file for file in result.files if "level1" in file.name))
    assert (level.point_fields["mass"] > 0).all() and len(level.cells) <= 1
