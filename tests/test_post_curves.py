"""Training curves."""

import numpy as np
import pytest
from PIL import Image

from gno.post.curves import _figure, draw_curves, read_log

HEAD = "step,epoch,seconds,lr,loss u,loss s,validation u,validation s,validation u@1,validation score\n"


@pytest.fixture
def log(tmp_path):
    rows = [f"{k},{k},{k}.5,1e-3,{1 / k},{2 / k},,,,\n" for k in range(1, 60)]
    rows += [f"{10 * k},{k},{30 * k},,,,{v},{2 * v},{v / 2},{1.5 * v}\n" for k, v in enumerate((0.5, 0.1, 0.2), 1)]
    (tmp_path / "log.csv").write_text(HEAD + "".join(rows) + "60,1,")
    return tmp_path / "log.csv"


def test_log_with_gaps_and_a_torn_last_line(log):
    columns = read_log(log)
    assert len(columns["step"]) == 63
    assert np.nanmin(columns["validation score"]) == pytest.approx(0.15)
    assert np.isnan(columns["loss u"][-1])


def test_best_step_is_marked_with_its_errors(log):
    figure = _figure(read_log(log))
    losses, _, scores = figure.axes
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["u", "s"]
    assert [text.get_text() for text in scores.get_legend().get_texts()] == ["u  10.00%", "s  20.00%"]
    assert [text.get_text() for text in scores.texts] == ["best: step 20, 60 s"]
    assert losses.get_yscale() == scores.get_yscale() == "log"


def test_picture_stands_beside_the_log(log):
    path = draw_curves(log)
    assert path == log.with_name("curves.png")
    assert sorted(p.name for p in log.parent.iterdir()) == ["curves.png", "log.csv"]
    assert np.ptp(np.asarray(Image.open(path))) > 200


def test_a_name_is_no_formula(log):
    log.write_text(log.read_text().replace("loss u", "loss a$b^$"))
    assert draw_curves(log).is_file()


@pytest.mark.parametrize("extra", ["1,1,1,0,0,0,,,,\n", "1,1,1,nan,inf,nan,,,,\n5,1,1,,,,,,,\n"])
def test_zeros_and_no_numbers_do_not_break_the_log_axis(tmp_path, extra):
    (tmp_path / "log.csv").write_text(HEAD + extra)
    assert draw_curves(tmp_path / "log.csv", tmp_path / "c.png").is_file()


@pytest.mark.parametrize("text", [None, "", HEAD, "a,b\n1,2\n"])
def test_no_log_no_picture(tmp_path, text):
    if text is not None:
        (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=r"log '.*log.csv': expected"):
        draw_curves(tmp_path / "log.csv")
