"""How sure a prediction is: samples by several methods, calibrated intervals, metrics."""

from gno.uq.conformal import Conformal, load_calibration, save_calibration
from gno.uq.diagram import draw_reliability
from gno.uq.ensemble import Ensemble, train_ensemble
from gno.uq.laplace import LastLayerLaplace
from gno.uq.metrics import Reliability, Scores, reliability
from gno.uq.sampler import NoisyOutput, Sampler, UncertainPrediction
from gno.uq.uncertain import Uncertain

__all__ = [
    "Conformal",
    "Ensemble",
    "LastLayerLaplace",
    "NoisyOutput",
    "Reliability",
    "Sampler",
    "Scores",
    "Uncertain",
    "UncertainPrediction",
    "draw_reliability",
    "load_calibration",
    "reliability",
    "save_calibration",
    "train_ensemble",
]
