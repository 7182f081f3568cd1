"""How sure a prediction is: samples by several methods, calibrated intervals, metrics."""

from gno.nn import NoisyOutput
from gno.uncertain import Uncertain
from gno.uq.active import Choice, choose_runs
from gno.uq.calibrated import Calibrated
from gno.uq.conformal import Conformal, load_calibration, save_calibration
from gno.uq.deferral import Deferral, Deferred
from gno.uq.diagram import draw_reliability, draw_rollout_doubt, draw_scales
from gno.uq.draws import MonteCarloDropout, Variational
from gno.uq.ensemble import Ensemble, train_ensemble
from gno.uq.evaluate import UncertaintyEvaluation, calibrate, calibrate_derived, evaluate, widen
from gno.uq.laplace import LastLayerLaplace
from gno.uq.methods import load_uncertain, train_uncertain
from gno.uq.metrics import Reliability, Scores, reliability
from gno.uq.novelty import Detector, Novelty
from gno.uq.rollout_scores import RolloutUncertainty, evaluate_in_time
from gno.uq.sampler import Sampler
from gno.uq.scales import ScaleVariance, scale_variances
from gno.uq.spread import Spread, Widened

__all__ = [
    "Calibrated",
    "Choice",
    "Conformal",
    "Deferral",
    "Deferred",
    "Detector",
    "Ensemble",
    "LastLayerLaplace",
    "MonteCarloDropout",
    "NoisyOutput",
    "Novelty",
    "Reliability",
    "RolloutUncertainty",
    "Sampler",
    "ScaleVariance",
    "Scores",
    "Spread",
    "Uncertain",
    "UncertaintyEvaluation",
    "Variational",
    "Widened",
    "calibrate",
    "calibrate_derived",
    "choose_runs",
    "draw_reliability",
    "draw_rollout_doubt",
    "draw_scales",
    "evaluate",
    "evaluate_in_time",
    "load_calibration",
    "load_uncertain",
    "reliability",
    "save_calibration",
    "scale_variances",
    "train_ensemble",
    "train_uncertain",
    "widen",
]
