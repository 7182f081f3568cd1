"""Samples of one operator: draws of its weights, by dropout or from Gaussians."""

from __future__ import annotations

import abc
import dataclasses
import functools
from pathlib import Path
from typing import Self

from torch import nn

from gno.nn import OperatorConfig
from gno.nn.stochastic import draw
from gno.train.loop import mix
from gno.train.run import Run
from gno.uq.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Draws(Sampler):
    """Draws of the weights of one operator; each is a sample, for all nodes, scales, meshes and steps alike.

    Args:
        run: an operator whose weights were drawn while it was trained.
        n_samples: how many draws.
        seed: of the draws.

    Raises:
        ValueError: an operator without such weights.
    """

    run: Run
    n_samples: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        self._check(self.run.blueprint.config)

    @abc.abstractmethod
    def _check(self, config: OperatorConfig) -> None:
        """Whether the operator has weights to draw."""

    @property
    def operator(self) -> Run:
        return self.run

    @functools.cached_property
    def models(self) -> tuple[nn.Module, ...]:
        return tuple(draw(self.run.model, mix(self.seed, k)) for k in range(self.n_samples))

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Self:
        """A run from its folder, with as many samples as its case says.

        Raises:
            ValueError: no run there, or not one of this kind.
        """
        run = Run.load(directory, device=device)
        doubt = run.blueprint.case.uncertainty
        return cls(run, doubt.samples) if doubt else cls(run)


class MonteCarloDropout(Draws):
    """Channels left out at random, as in training (Gal & Ghahramani 2016, Dropout as a Bayesian approximation)."""

    def _check(self, config: OperatorConfig) -> None:
        if not config.dropout:
            raise ValueError(f"{self.run.directory}: expected an operator with dropout, got one without")


class Variational(Draws):
    """Gaussian weights (Blundell et al. 2015, Weight uncertainty in neural networks)."""

    def _check(self, config: OperatorConfig) -> None:
        if config.variational == "none":
            raise ValueError(f"{self.run.directory}: expected an operator with Gaussian weights, got one without")
