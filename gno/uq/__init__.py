"""How sure a prediction is: samples, calibrated intervals, metrics."""

from gno.uq.conformal import Conformal, load_calibration, save_calibration
from gno.uq.diagram import draw_reliability
from gno.uq.metrics import Reliability, Scores, reliability
from gno.uq.uncertain import Uncertain

__all__ = [
    "Conformal",
    "Reliability",
    "Scores",
    "Uncertain",
    "draw_reliability",
    "load_calibration",
    "reliability",
    "save_calibration",
]
