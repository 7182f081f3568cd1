"""To the solver only where the doubt asks for it: predictions that will do at a stated rate, solves for the rest.

The doubt of a mesh is the relative error that its samples expect, ``√(Σ m σ² / Σ m |μ|²)``. A prediction is delivered
where it is below a threshold, so chosen on calibration meshes that of all meshes like them at most the stated share is
delivered with an error above the tolerance. This is conformal risk control (Angelopoulos et al. 2024), with the risk
1[delivered and worse than the tolerance], which grows with the threshold: no assumption on the sampler, and the better
its doubt knows the error the fewer solves are asked for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from gno.mesh import Mesh, node_mass
from gno.post.correct import CORRECTED, Correction, correct
from gno.train.predict import PREFIX, Prediction
from gno.train.sources import mesh_of
from gno.uncertain import Uncertain
from gno.uq.evaluate import known_fields
from gno.uq.novelty import Detector
from gno.uq.sampler import Sampler

if TYPE_CHECKING:
    from gno.physics import Problem


@dataclasses.dataclass(frozen=True)
class Deferred:
    """What becomes of one mesh.

    Args:
        prediction: with its doubt.
        doubt: relative error that the samples expect.
        solve: whether the solver is asked for.
        correction: its answer, from the prediction as first guess, if it was called.
    """

    prediction: Prediction
    doubt: float
    solve: bool
    correction: Correction | None

    @property
    def mesh(self) -> Mesh:
        """With ``predicted_<field>`` and, where it was solved, ``corrected_<field>``."""
        return self.prediction.mesh if self.correction is None else self.correction.mesh

    def field(self, name: str) -> Float[np.ndarray, "n_nodes ..."]:
        """The solver's values if there are any, else the predicted ones."""
        return self.mesh.point_fields[(PREFIX if self.correction is None else CORRECTED) + name]


@dataclasses.dataclass(frozen=True)
class Deferral:
    """Decides for each mesh whether its prediction will do.

    Args:
        sampler: what predicts. name: of the target that matters.
        tolerance: largest relative error (L2 by node masses) that will do.
        risk: largest share of all meshes that are delivered unsolved with a larger one.
        threshold: doubts below it will do.
        detector: whatever it flags is solved, too: the rate holds for meshes like those of the calibration only.
    """

    sampler: Sampler
    name: str
    tolerance: float
    risk: float
    threshold: float
    detector: Detector | None = None

    @classmethod
    def fit(
        cls,
        sampler: Sampler,
        calibration: Iterable[Mesh | str | Path],
        name: str,
        *,
        tolerance: float,
        risk: float = 0.05,
        detector: Detector | None = None,
    ) -> Deferral:
        """The threshold, from meshes with targets that were not trained on: at least ``1/risk − 1`` of them.

        Raises:
            ValueError: no such target, too few meshes, or a mesh without its target.
        """
        known = known_fields(sampler, calibration)
        if name not in known:
            raise ValueError(f"name: expected one of {', '.join(n for n in known if '@' not in n)}, got '{name}'")
        parts = list(zip(known[name].quantities, known[name].truths, known[name].masses, strict=True))
        doubts = np.array([doubt_of(quantity, mass) for quantity, _, mass in parts])
        errors = np.array([relative_error(quantity.mean, truth, mass) for quantity, truth, mass in parts])
        return cls(sampler, name, tolerance, risk, threshold_of(doubts, errors > tolerance, risk), detector)

    def __call__(self, mesh: Mesh | str | Path, problem: Callable[[Mesh], Problem] | None = None) -> Deferred:
        """Predict one mesh, and solve it if that is asked for.

        Args:
            mesh: with its inputs.
            problem: the equation on a mesh, as from :func:`gno.physics.build_problem`; without it nothing is solved,
                and the answer only says whether it should be.

        Raises:
            ConvergenceError: the solver finds no solution.
        """
        mesh = mesh_of(mesh)
        prediction = self.sampler.predict(mesh)
        doubt = doubt_of(prediction.field(self.name), node_mass(mesh))
        solve = bool(doubt >= self.threshold or (self.detector is not None and self.detector(mesh).flag))
        correction = None
        if solve and problem is not None:
            seconds = prediction.seconds + prediction.prepare_seconds
            correction = correct(prediction.mesh, PREFIX + self.name, problem(mesh), seconds=seconds)
        return Deferred(prediction, doubt, solve, correction)


def doubt_of(quantity: Uncertain, mass: Float[np.ndarray, " n"]) -> float:
    """Relative error that is expected: ``√(Σ m σ² / Σ m |μ|²)``."""
    return float(np.sqrt((mass @ quantity.variance).sum() / max((mass @ quantity.mean**2).sum(), np.finfo(float).tiny)))


def relative_error(values: np.ndarray, truth: np.ndarray, mass: Float[np.ndarray, " n"]) -> float:
    """``√(Σ m |u − y|² / Σ m |y|²)``."""
    return float(np.sqrt((mass @ (values - truth) ** 2).sum() / max((mass @ truth**2).sum(), np.finfo(float).tiny)))


def threshold_of(doubts: Float[np.ndarray, " n"], bad: np.ndarray, risk: float) -> float:
    """The largest t with (1 + number of bad meshes whose doubt is below t)/(n + 1) ≤ risk.

    Args:
        doubts: of the calibration meshes. bad: which of them are worse than the tolerance.

    Raises:
        ValueError: a rate outside (0, 1), or too few meshes for it.

    >>> threshold_of(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True]), risk=0.4)
    0.4
    """
    if not 0 < risk < 1:
        raise ValueError(f"risk: expected a rate between 0 and 1, got {risk}")
    n, allowed = len(doubts), math.floor(risk * (len(doubts) + 1) + 1e-9) - 1
    if allowed < 0:
        needed = math.ceil(1 / risk - 1 - 1e-9)
        raise ValueError(f"risk {risk:g}: expected at least {needed} calibration meshes, got {n}")
    worse = np.sort(doubts[bad])
    return float(worse[allowed]) if allowed < len(worse) else math.inf
