"""Calibrated: a sampler, with what meshes that it was not trained on say about it, kept beside the run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh import Mesh
from gno.mesh.files import atomic
from gno.train.folder import ENSEMBLE, LAPLACE
from gno.train.normalise import columns_of
from gno.train.predict import LOWER_PREFIX, PREFIX, UPPER_PREFIX, Prediction
from gno.train.report import counter
from gno.train.rollout import Rollout
from gno.train.run import Run
from gno.uncertain import Uncertain
from gno.uq.conformal import Conformal, load_calibration, meshes_needed, save_calibration
from gno.uq.ensemble import Ensemble
from gno.uq.evaluate import widen_and_calibrate
from gno.uq.in_time import calibrate_in_time
from gno.uq.methods import load_uncertain
from gno.uq.novelty import Detector, with_novelty
from gno.uq.sampler import Sampler
from gno.uq.spread import Spread, Widened, as_trained

# Kept in the folder of the run; the first is written last, and says what the others belong to.
RECORD, CALIBRATION, DETECTOR = "calibration.json", "calibration.safetensors", "detector.safetensors"
# Probability of the intervals that are written beside predictions, and largest rate of false alarms, by default.
COVERAGE, FALSE_ALARMS = 0.9, 0.05
# What is usual is read off at most this many training meshes, at even distances in the list.
MOST_TRAINING = 200
# In time each of them is rolled out by all samples.
MOST_SERIES = 32


class StaleCalibrationWarning(UserWarning):
    """A calibration of other weights was found, and left out."""


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """A sampler with an honest spread, whose intervals cover as often as they say, and that says what is out of range.

    Args:
        sampler: what predicts, its samples widened where held-out meshes ask for it (:class:`gno.uq.Widened`).
        conformal: by field and scale, as ``u`` and ``u@1``, in time by field and step, as ``u#12``; empty where too few
            meshes were held out.
        detector: none where too few meshes were held out.
        coverage: probability of the intervals beside predictions.
        n_held_out: meshes that all this rests on.
    """

    sampler: Sampler
    conformal: Mapping[str, Conformal] = dataclasses.field(default_factory=dict)
    detector: Detector | None = None
    coverage: float = COVERAGE
    n_held_out: int = 0

    @classmethod
    def fit(
        cls,
        sampler: Sampler,
        training: Sequence[Mesh | Path],
        held_out: Sequence[Mesh | Path],
        *,
        coverage: float = COVERAGE,
        false_alarms: float = FALSE_ALARMS,
        progress: bool = False,
    ) -> Calibrated:
        """From meshes that the sampler was trained on, and others like them.

        n meshes allow intervals up to a coverage of n/(n + 1), and rates of false alarms from 1/(n + 1) on: with too
        few there are no intervals, and the rate is the least that they allow, if that is at most 1 − coverage.

        Args:
            sampler: what predicts.
            training: what is usual, for the detector; of very many some are used. In time these and the held-out ones
                are series, and whole series are what intervals of each step and false alarms over all steps count.
            held_out: with all targets; neither trained on nor, if it can be helped, used to choose the weights.
            coverage: of the intervals. false_alarms: of the detector.
            progress: whether to draw a progress bar.

        Raises:
            ValueError: a mesh without a target.
        """
        n = len(held_out)
        rate = max(false_alarms, 1 / (n + 1))
        if n < meshes_needed(coverage):
            return cls(sampler, coverage=coverage, n_held_out=n)
        in_time = sampler.operator.blueprint.case.time is not None
        some = training[:: -(-len(training) // (MOST_SERIES if in_time else MOST_TRAINING))]
        if in_time:
            with counter("calibrating", len(some) + n, draw=progress) as advance:
                found = calibrate_in_time(sampler, some, held_out, false_alarms=rate, advance=advance)
            return cls(*found, coverage, n)
        with counter("calibrating", len(some) + 2 * n, draw=progress) as advance:

            def counted(sources: Iterable[Mesh | Path]) -> Iterator[Mesh | Path]:
                for source in sources:
                    yield source
                    advance(1)

            sampler, conformal = widen_and_calibrate(sampler, counted(held_out))
            detector = Detector.fit(sampler, counted(some), counted(held_out), false_alarms=rate) if some else None
        return cls(sampler, conformal, detector, coverage, n)

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Calibrated:
        """The run in a folder, whatever its method, a plain operator too, with what :meth:`save` left beside it.

        Raises:
            ValueError: no run there.
        """
        folder = Path(directory)
        bare = cls(load_sampler(folder, device=device))
        if not (folder / RECORD).is_file():
            return bare
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["weights"] != fingerprint(bare.sampler):
            text = f"{folder}: its calibration belongs to other weights and is left out; `gno calibrate` makes it anew"
            warnings.warn(text, StaleCalibrationWarning, stacklevel=2)
            return bare
        # calibrations from before have no spread, and intervals for samples as they are
        spreads = {name: Spread(**factors) for name, factors in record.get("spread", {}).items()}
        sampler = Widened(bare.sampler, spreads) if spreads else bare.sampler
        detector = Detector.load(folder / DETECTOR, sampler) if record["detector"] else None
        conformal = load_calibration(folder / CALIBRATION)
        return cls(sampler, conformal, detector, record["coverage"], record["meshes"])

    def save(self, directory: str | Path) -> None:
        """Keep all but the sampler in the folder of the run; one that knows nothing takes away what was there."""
        folder = Path(directory)
        (folder / RECORD).unlink(missing_ok=True)
        if not self.conformal:
            return
        save_calibration(folder / CALIBRATION, self.conformal)
        if self.detector:
            self.detector.save(folder / DETECTOR)
        record = {
            "weights": fingerprint(self.sampler),
            "coverage": self.coverage,
            "meshes": self.n_held_out,
            "detector": self.detector is not None,
            "spread": {name: dataclasses.asdict(spread) for name, spread in self.spreads.items()},
        }
        with atomic(folder / RECORD) as temporary:
            temporary.write_text(json.dumps(record, indent=2), encoding="utf-8")

    @property
    def spreads(self) -> Mapping[str, Spread]:
        """By how much the samples are widened, by field, in time by field and step; nothing where they are not."""
        return self.sampler.spreads if isinstance(self.sampler, Widened) else {}

    @property
    def has_doubt(self) -> bool:
        """Whether predictions come with more than a plain operator's."""
        return bool(self.conformal) or not is_plain(self.sampler)

    def predict(self, mesh: Mesh | str | Path) -> Prediction:
        """As :meth:`Sampler.predict`, with ``lower_<target>`` and ``upper_<target>`` at the nodes of every scale, the
        map ``novelty`` at the nodes, and the score of the mesh under the same name as a whole: above 1 is out of range;
        ``novelty_<sign>`` is what each sign alone would say.
        """
        return next(self.predict_many([mesh]))

    def predict_many(self, meshes: Iterable[Mesh | str | Path]) -> Iterator[Prediction]:
        """Predictions in the order of the meshes, computed as they are asked for; of a plain operator in batches."""
        if not self.has_doubt:
            yield from self.sampler.operator.predict_many(meshes)
            return
        for source in meshes:
            answered = self.sampler.answer(source, attention=True, truth=False)
            prediction = self.sampler.prediction(answered)
            mesh, *levels = (self._with_bounds(prediction, s) for s in range(1 + len(prediction.levels)))
            if self.detector is not None:
                mesh = with_novelty(mesh, self.detector.assess(answered))
            yield dataclasses.replace(prediction, mesh=mesh, levels=tuple(levels))

    def roll_out(self, series: Sequence[Mesh] | Mesh | str | Path, path: str | Path, **options: Any) -> Rollout:
        """As :meth:`Sampler.roll_out`, with how far each step is out of range, and with ``lower_<target>`` and
        ``upper_<target>`` where steps were calibrated; of a plain operator as :meth:`gno.train.Run.roll_out`.
        """
        if not self.has_doubt:
            return self.sampler.operator.roll_out(series, path, **options)
        return self.sampler.roll_out(series, path, detector=self.detector, finish=self._with_bounds_of_step, **options)

    def _with_bounds_of_step(self, step: int, mesh: Mesh, known: Uncertain) -> Mesh:
        bounds: dict[str, np.ndarray] = {}
        for columns, field in columns_of(self.sampler.operator.blueprint.spec.targets):
            conformal = self.conformal.get(f"{field.name}#{step}")
            if conformal is not None:
                shape = mesh.point_fields[PREFIX + field.name].shape
                ends = (end.reshape(shape) for end in conformal.interval(known[:, columns], self.coverage))
                bounds |= dict(zip((LOWER_PREFIX + field.name, UPPER_PREFIX + field.name), ends, strict=True))
        return mesh.with_point_fields(**bounds)

    def _with_bounds(self, prediction: Prediction, level: int) -> Mesh:
        mesh = (prediction.mesh, *prediction.levels)[level]
        bounds: dict[str, np.ndarray] = {}
        for field in prediction.targets:
            conformal = self.conformal.get(f"{field.name}@{level}" if level else field.name)
            if conformal is not None:
                ends = conformal.interval(prediction.field(field.name, level=level), self.coverage)
                bounds |= dict(zip((LOWER_PREFIX + field.name, UPPER_PREFIX + field.name), ends, strict=True))
        return mesh.with_point_fields(**bounds)


def load_sampler(directory: str | Path, *, device: str = "cpu") -> Sampler:
    """The run in a folder; one without [uncertainty] is an ensemble of one, which says nothing of its doubt.

    Raises:
        ValueError: no run there.
    """
    folder = Path(directory)
    if not any((folder / name).is_file() for name in (ENSEMBLE, LAPLACE)):
        run = Run.load(folder, device=device)
        if run.blueprint.case.uncertainty is None:
            return Ensemble((run,))
    return load_uncertain(folder, device=device)


def fingerprint(sampler: Sampler) -> str:
    """What tells the weights of one sampler from those of another; a calibration holds for one only."""
    digest = hashlib.sha256()
    for model in sampler.models:
        for name, value in model.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def is_plain(sampler: Sampler) -> bool:
    """Whether it is one operator that nothing more was asked of."""
    sampler = as_trained(sampler)
    alone = isinstance(sampler, Ensemble) and len(sampler.runs) == 1
    return alone and sampler.operator.blueprint.case.uncertainty is None
