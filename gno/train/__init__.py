"""From a case to a trained operator, and from that to predictions."""

from gno.train.case import Case, load_case
from gno.train.evaluate import Evaluation
from gno.train.interrupt import Interrupted
from gno.train.predict import Prediction
from gno.train.rollout import Rollout
from gno.train.run import Run
from gno.train.sections import Data, Model, Physics, Time, Training, Uncertainty
from gno.train.time_metrics import RolloutEvaluation
from gno.train.training import train

__all__ = [
    "Case",
    "Data",
    "Evaluation",
    "Interrupted",
    "Model",
    "Physics",
    "Prediction",
    "Rollout",
    "RolloutEvaluation",
    "Run",
    "Time",
    "Training",
    "Uncertainty",
    "load_case",
    "train",
]
