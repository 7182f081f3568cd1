"""From a case to a trained operator, and from that to predictions."""

from typing import TYPE_CHECKING

from gno.lazy import on_demand
from gno.train.case import Case, load_case
from gno.train.interrupt import Interrupted
from gno.train.sections import Data, Model, Physics, Time, Training, Uncertainty

if TYPE_CHECKING:
    from gno.train.evaluate import Evaluation
    from gno.train.predict import Prediction
    from gno.train.rollout import Rollout
    from gno.train.run import Run
    from gno.train.time_metrics import RolloutEvaluation
    from gno.train.training import train
else:  # torch takes seconds to load; to draft and to check a case needs none
    __getattr__ = on_demand(
        __name__,
        Evaluation="evaluate",
        Prediction="predict",
        Rollout="rollout",
        RolloutEvaluation="time_metrics",
        Run="run",
        train="training",
    )

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
